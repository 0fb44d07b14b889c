"""The built-in architectures, one file each; `scalenet.plugins` finds them by scanning this package."""
