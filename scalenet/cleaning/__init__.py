"""From a raw folder of pictures to a clean one: look at every file once, find what is wrong, move it aside, undo.

`scan.scan` looks at a folder, `rules.judge` says what is wrong with it, `quarantine` moves files and moves them back,
`manifest` writes what is left as a list. Nothing here imports torch; nothing ever deletes or rewrites a picture.
"""
