from __future__ import annotations

import errno
import os

import pytest

from scalenet.cleaning import moving
from scalenet.cleaning.moving import ChangedError, Folder, part_of, rename_new, seen_from, stamp, transfer


@pytest.fixture(params=["system", "fallback", "unsupported"])
def rename(request, monkeypatch):
    """With the system's own refusal to replace, without one, and on a file system that has none."""
    if request.param == "fallback":
        monkeypatch.setattr(moving, "_renameat2", lambda: None)
    if request.param == "unsupported":
        monkeypatch.setattr(moving, "_renameat2", lambda: lambda *_: -1)
        monkeypatch.setattr(moving.ctypes, "get_errno", lambda: errno.EINVAL)
    return rename_new


def test_a_rename_never_replaces(rename, tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "nowhere").symlink_to("gone")
    for taken in ("b", "nowhere"):
        with pytest.raises(FileExistsError):
            rename(str(tmp_path / "a"), str(tmp_path / taken))
    assert (tmp_path / "b").read_text() == "b"
    rename(str(tmp_path / "a"), str(tmp_path / os.fsdecode(b"\xff")))
    rename(str(tmp_path / "nowhere"), str(tmp_path / "link"))
    assert os.readlink(tmp_path / "link") == "gone"
    with pytest.raises(FileNotFoundError):
        rename(str(tmp_path / "a"), str(tmp_path / "c"))


def test_what_a_folder_holds(tmp_path):
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    (tmp_path / "pets" / "out").symlink_to(tmp_path)
    (tmp_path / "pets" / "in").symlink_to("cat")
    (tmp_path / "pets" / "cat" / "escape").symlink_to(tmp_path / "x")
    pets = Folder(str(tmp_path / "pets"))
    for path in ("a", "cat/a", "new/folder/a", "in/a", "...", "cat/..a", "cat/escape"):
        assert pets.holds(path), path
    for path in ("", ".", "..", "/a", "../pets/a", "cat/../a", "cat//a", "cat/./a", "cat/", "out/a", "a\0b", "in/../a"):
        assert not pets.holds(path), path
    assert not pets.holds_file("cat/escape")
    assert pets.holds_file("cat/a")
    assert not Folder(str(tmp_path / "pet")).holds_file("../pets/cat/a")


def test_a_growing_copy_has_a_short_name_of_its_own():
    names = ["n" * 255, "n" * 254 + "m", os.fsdecode(b"\xff")]
    parts = {part_of(os.path.join("folder", name)) for name in names}
    assert len(parts) == 3
    assert all(len(os.path.basename(part)) < 60 and part.startswith("folder" + os.sep + ".") for part in parts)


def test_seen_from(tmp_path):
    assert seen_from(str(tmp_path / "a"), str(tmp_path / "b" / "c")) == "../b/c"
    assert seen_from("/somewhere/else", "/there") == "/there"


def test_stamps(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("abc")
    os.mkfifo(tmp_path / "pipe")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert stamp(str(tmp_path / "a")).sha256 == stamp(str(tmp_path / "link")).sha256 == abc
    assert stamp(str(tmp_path / "pipe")).sha256 is None


def test_results_are_in_order_however_files_are_moved(tmp_path, monkeypatch):
    """Some are renamed, some copied, some fail: before, between and after."""
    real = moving.rename_new

    def rename_new(old: str, new: str) -> None:
        if "far" in new and not old.endswith(".part"):
            raise OSError(errno.EXDEV, "another file system")
        real(old, new)

    monkeypatch.setattr(moving, "rename_new", rename_new)
    monkeypatch.setattr(moving, "BATCH", 2)
    names = ["far0", "near1", "far2", "gone3", "far4", "far5", "far6", "near7", "fargone8", "changed9"]
    moves = []
    for name in names:
        if "gone" not in name:
            (tmp_path / name).write_text(name)
        seen = moving.Stamp(1, 1, 1, None) if "changed" in name else None
        moves.append((str(tmp_path / name), str(tmp_path / "new" / name), seen))
    found = list(transfer(moves))
    assert [type(error) for error in found] == [
        type(None), type(None), type(None), FileNotFoundError, type(None), type(None), type(None), type(None),
        FileNotFoundError, ChangedError,
    ]  # fmt: skip
    moved = [name for name, error in zip(names, found, strict=True) if error is None]
    assert sorted(os.listdir(tmp_path / "new")) == sorted(moved)
    assert all((tmp_path / "new" / name).read_text() == name for name in moved)
    assert sorted(os.listdir(tmp_path)) == ["changed9", "new"]
