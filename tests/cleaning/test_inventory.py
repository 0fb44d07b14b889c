from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet.cleaning.inventory import inventory
from scalenet.errors import ScalenetError
from tests.cleaning.samples import nobody


def folder(root: Path, *names: str) -> Path:
    """Files of those names, each holding its name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def kinds(root):
    return {entry.path: entry.kind for entry in inventory(root)}


def places(root):
    return {entry.path: (entry.label, entry.part) for entry in inventory(root)}


def test_every_kind_of_path(tmp_path):
    root = folder(
        tmp_path / "x",
        "cat/a.JPG",
        "cat/deeper/b.webp",
        "cat/notes.txt",
        "cat/photo.heic",
        "cat/jpg",
        "dog/.c.jpg",
        "dog/Thumbs.db",
        "dog/DESKTOP.INI",
        ".git/objects/d.jpg",
        "__MACOSX/cat/._a.jpg",
        "dog/.h/e/f.png",
        "README",
    )
    (root / "empty" / "emptier").mkdir(parents=True)
    assert kinds(root) == {
        ".git/objects/d.jpg": "hidden",
        "README": "other",
        "__MACOSX/cat/._a.jpg": "hidden",
        "cat/a.JPG": "picture",
        "cat/deeper/b.webp": "picture",
        "cat/jpg": "other",
        "cat/notes.txt": "other",
        "cat/photo.heic": "other",
        "dog/.c.jpg": "hidden",
        "dog/.h/e/f.png": "hidden",
        "dog/DESKTOP.INI": "hidden",
        "dog/Thumbs.db": "hidden",
    }
    assert [entry.path for entry in inventory(root)] == sorted(kinds(root))
    assert places(root)[".git/objects/d.jpg"] == places(root)["dog/.h/e/f.png"] == (None, None)


def test_links(tmp_path):
    root = folder(tmp_path / "x", "cat/a.jpg", "dog/b.jpg")
    outside = folder(tmp_path / "y", "c.jpg")
    (root / "cat" / "good.jpg").symlink_to("a.jpg")
    (root / "cat" / "far.jpg").symlink_to(outside / "c.jpg")
    (root / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "cat" / "gone").symlink_to("nowhere")
    (root / "cat" / "self.png").symlink_to("self.png")
    (root / "cat" / "up").symlink_to("..")
    (root / "again").symlink_to(".")
    (root / "dog" / ".hidden").symlink_to("nowhere")
    assert kinds(root) == {
        "again": "other",
        "cat/a.jpg": "picture",
        "cat/far.jpg": "picture",
        "cat/gone": "broken link",
        "cat/gone.jpg": "broken link",
        "cat/good.jpg": "picture",
        "cat/self.png": "broken link",
        "cat/up": "other",
        "dog/.hidden": "hidden",
        "dog/b.jpg": "picture",
    }


def test_pipes_sockets_and_folders_named_like_pictures(tmp_path):
    root = folder(tmp_path / "x", "cat.jpg/a.jpg", "dog/b.jpg")
    os.mkfifo(root / "dog" / "pipe.jpg")
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{short}/s")
        os.rename(f"{short}/s", root / "dog" / "socket.jpg")
    assert kinds(root) == {
        "cat.jpg/a.jpg": "picture",
        "dog/b.jpg": "picture",
        "dog/pipe.jpg": "other",
        "dog/socket.jpg": "other",
    }
    assert places(root)["cat.jpg/a.jpg"] == ("cat.jpg", None)


def test_what_may_not_be_read_is_denied(tmp_path, monkeypatch):
    root = folder(
        tmp_path / "x", "cat/a.jpg", "cat/b.jpg", "cat/n.txt", "dog/c.jpg", "emu/d.jpg", "emu/e/f.jpg", ".h/g"
    )
    (root / "cat" / "b.jpg").chmod(0)
    (root / "cat" / "n.txt").chmod(0)
    for name, mode in (("dog", 0o000), ("emu", stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH), (".h", 0)):
        (root / name).chmod(mode)
    monkeypatch.chdir(root)
    for above in (root, tmp_path):
        above.chmod(0o755)
    try:
        with nobody():
            found = kinds(Path("."))
            with pytest.raises(ScalenetError, match="dog cannot be read as a folder"):
                inventory(Path("dog"))
    finally:
        for name in ("dog", "emu", ".h"):
            (root / name).chmod(0o755)
    assert found == {
        ".h": "denied",
        "cat/a.jpg": "picture",
        "cat/b.jpg": "denied",
        "cat/n.txt": "other",  # nobody wants to read it
        "dog": "denied",
        "emu/d.jpg": "denied",  # listed, but not entered
        "emu/e": "denied",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="file names of arbitrary bytes")
def test_odd_names_stay_what_they_are(tmp_path):
    root = tmp_path / "x"
    names = [
        b"bad\xff\xfe.jpg",
        b"new\nline.jpg",
        b"quote'\".jpg",
        b"-rf.jpg",
        b"a" * 251 + b".jpg",
        b"A.jpg",
        b"a.JPG",
        b"~.jpg",
        " \u3000.jpg".encode(),
        b"*?[x].jpg",
        b"%s {0}.jpg",
        b"a\tb.jpg",
        b"a,b;c.jpg",
        unicodedata.normalize("NFC", "é.jpg").encode(),
        unicodedata.normalize("NFD", "é.jpg").encode(),
    ]
    for label in (b"cat", b"d\xf6g"):
        place = os.fsencode(root) + b"/" + label
        os.makedirs(place)
        for name in names:
            with open(place + b"/" + name, "wb") as file:
                file.write(name)
    found = inventory(root)
    assert {os.fsencode(entry.path) for entry in found} == {d + b"/" + n for d in (b"cat", b"d\xf6g") for n in names}
    assert {os.fsencode(entry.label or "") for entry in found} == {b"cat", b"d\xf6g"}
    for entry in found:
        assert entry.kind == "picture"
        with open(os.path.join(root, entry.path), "rb") as file:
            assert file.read() == os.fsencode(os.path.basename(entry.path))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ["cat/a.jpg", "dog/x/b.jpg", "c.jpg"],
            {"cat/a.jpg": ("cat", None), "dog/x/b.jpg": ("dog", None), "c.jpg": (None, None)},
        ),
        (["a.jpg", "b.jpg"], {"a.jpg": (None, None), "b.jpg": (None, None)}),
        (["only/a.jpg"], {"only/a.jpg": ("only", None)}),
        (["wrap/cat/a.jpg", "wrap/dog/b.jpg"], {"wrap/cat/a.jpg": ("cat", None), "wrap/dog/b.jpg": ("dog", None)}),
        (
            ["wrap/cat/a.jpg", "wrap/dog/b.jpg", "__MACOSX/wrap/cat/._a.jpg", ".DS_Store"],
            {
                "wrap/cat/a.jpg": ("cat", None),
                "wrap/dog/b.jpg": ("dog", None),
                "__MACOSX/wrap/cat/._a.jpg": (None, None),
                ".DS_Store": (None, None),
            },
        ),
        (
            [
                "Train/cat/a.jpg",
                "Train/loose.jpg",
                "valid/cat/b.jpg",
                "testing/cat/c.jpg",
                "extra/cat/d.jpg",
                "trainer/e.jpg",
            ],
            {
                "Train/cat/a.jpg": ("cat", "fit"),
                "Train/loose.jpg": (None, "fit"),
                "valid/cat/b.jpg": ("cat", "select"),
                "testing/cat/c.jpg": ("cat", "held"),
                "extra/cat/d.jpg": (None, None),
                "trainer/e.jpg": (None, None),
            },
        ),
        (["train/cat/a.jpg", "val/cat/b.jpg"], {"train/cat/a.jpg": ("cat", "fit"), "val/cat/b.jpg": ("cat", "held")}),
        (
            ["w/train/cat/a.jpg", "w/test/cat/b.jpg"],
            {"w/train/cat/a.jpg": ("cat", "fit"), "w/test/cat/b.jpg": ("cat", "held")},
        ),
    ],
)
def test_labels_and_parts(tmp_path, names, expected):
    assert places(folder(tmp_path / "x", *names)) == expected


def test_marks_change_with_the_file(tmp_path):
    root = folder(tmp_path / "x", "cat/a.jpg", "cat/b.jpg")
    before = {entry.path: entry.mark for entry in inventory(root)}
    assert before == {entry.path: entry.mark for entry in inventory(root)}
    file = root / "cat" / "a.jpg"
    times = file.stat()
    file.write_text("CAT/a.jpg")  # as long as before
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # and as old, as far as it says
    after = {entry.path: entry.mark for entry in inventory(root)}
    assert before["cat/b.jpg"] == after["cat/b.jpg"]
    assert before["cat/a.jpg"] != after["cat/a.jpg"]
    assert inventory(root)[0].size == len("cat/a.jpg")


def test_the_mark_of_a_link_is_that_of_what_it_leads_to(tmp_path):
    root = folder(tmp_path / "x", "cat/a.jpg")
    (root / "cat" / "b.jpg").symlink_to("a.jpg")
    one, other = inventory(root)
    assert one.mark == other.mark
    assert one.size == other.size == 9


def test_folders_deeper_than_python_calls(tmp_path):
    root = tmp_path / "x"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    try:
        for depth in range(2100):  # by steps: the whole path becomes longer than the system takes
            if depth == 1200:
                os.close(os.open("a.jpg", os.O_CREAT, dir_fd=here))
            os.mkdir("d", dir_fd=here)
            deeper = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        found = inventory(root)
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", root], check=True)
    assert [(entry.path.count("/"), entry.kind) for entry in found[:1]] == [(1200, "picture")]
    assert [entry.kind for entry in found[1:]] == ["denied"]


@pytest.mark.parametrize("what", ["file", "nowhere", "nul\0"])
def test_what_is_no_folder_is_an_error(tmp_path, what):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ScalenetError, match="cannot be read as a folder"):
        inventory(tmp_path / what)


def test_an_empty_folder_has_no_entries(tmp_path):
    (tmp_path / "x").mkdir()
    assert inventory(tmp_path / "x") == ()


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(PATHS, max_size=12))
def test_every_file_is_one_entry(paths):
    with tempfile.TemporaryDirectory() as place:
        for parts in paths:
            whole = os.path.join(place, *parts)
            try:
                os.makedirs(os.path.dirname(whole), exist_ok=True)
                with open(whole, "x"):
                    pass
            except OSError:  # a folder where a file is, or the other way round
                continue
        files = [os.path.join(above, name) for above, _, names in os.walk(place) for name in names]
        found = inventory(Path(place))
        assert [entry.path for entry in found] == sorted(os.path.relpath(file, place) for file in files)
