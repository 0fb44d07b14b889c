from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from scalenet.data.unpack import Unpack, copy, gunzip, untar, unzip
from scalenet.errors import ScalenetError

FILES = {"jpg/a.jpg": b"a" * 3000, "jpg/deep/b.jpg": b"b", "LICENSE.txt": b"ask"}
LINK, DEVICE = tarfile.SYMTYPE, tarfile.CHRTYPE


def nothing(done: int) -> None:
    pass


def tar(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        for other in others:
            archive.addfile(other)
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


KINDS = [(tar, untar), (partial(tar, mode="w"), untar), (zipped, unzip)]
kinds = pytest.mark.parametrize(("pack", "unpack"), KINDS, ids=["tgz", "tar", "zip"])
Pack = Callable[[Path, dict[str, bytes]], Path]


@kinds
def test_unpacked_whole_or_from_one_folder(pack: Pack, unpack: Unpack, tmp_path: Path) -> None:
    file = pack(tmp_path / "archive", FILES)
    unpack(file, tmp_path / "all", nothing)
    assert tree(tmp_path / "all") == FILES
    partial(unpack, inside="jpg")(file, tmp_path / "part", nothing)
    assert tree(tmp_path / "part") == {"a.jpg": FILES["jpg/a.jpg"], "deep/b.jpg": b"b"}


@kinds
def test_progress_ends_near_the_archive_and_never_goes_back(pack: Pack, unpack: Unpack, tmp_path: Path) -> None:
    file = pack(tmp_path / "archive", {f"{i}.jpg": os.urandom(20_000) for i in range(20)})
    told: list[int] = []
    unpack(file, tmp_path / "all", told.append)
    assert told == sorted(told)
    assert 0.9 * file.stat().st_size < told[-1] <= file.stat().st_size


@kinds
def test_folders_without_files_are_made_too(pack: Pack, unpack: Unpack, tmp_path: Path) -> None:
    if unpack is unzip:
        file = zipped(tmp_path / "archive", {"jpg/empty/": b"", "jpg/a.jpg": b"a"})
    else:
        file = tar(tmp_path / "archive", {"jpg/a.jpg": b"a"}, special("jpg/empty", tarfile.DIRTYPE))
    partial(unpack, inside="jpg")(file, tmp_path / "part", nothing)
    assert (tmp_path / "part" / "empty").is_dir()


@kinds
@pytest.mark.parametrize("name", ["../out.jpg", "jpg/../../out.jpg", "/out.jpg", "..\\out.jpg", "C:out.jpg"])
def test_names_that_lead_outside_are_refused(name: str, pack: Pack, unpack: Unpack, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    file = pack(tmp_path / "archive", {"jpg/a.jpg": b"a", name: b"out"})
    for inside in ("", "jpg"):
        with pytest.raises(ScalenetError, match="leads outside"):
            partial(unpack, inside=inside)(file, tmp_path / "here" / f"of {inside}", nothing)
    assert not list(tmp_path.rglob("*out.jpg"))


@kinds
def test_an_archive_without_the_folder_is_refused(pack: Pack, unpack: Unpack, tmp_path: Path) -> None:
    file = pack(tmp_path / "archive", {"png/a.png": b"a"})
    with pytest.raises(ScalenetError, match="archive holds no 'jpg'"):
        partial(unpack, inside="jpg")(file, tmp_path / "part", nothing)


@pytest.mark.parametrize(
    "entry", [special("x", LINK, "/etc/passwd"), special("x", LINK, "a.jpg"), special("x", DEVICE)]
)
def test_links_and_devices_in_a_tar_are_refused(entry: tarfile.TarInfo, tmp_path: Path) -> None:
    file = tar(tmp_path / "archive", {"a.jpg": b"a"}, entry)
    with pytest.raises(ScalenetError, match="'x', which is neither a file nor a folder"):
        untar(file, tmp_path / "all", nothing)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("x")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ScalenetError, match="'x', which is neither a file nor a folder"):
        unzip(tmp_path / "archive", tmp_path / "all", nothing)


def test_a_file_that_tar_holds_once_more_becomes_a_copy(tmp_path: Path) -> None:
    file = tar(tmp_path / "archive", {"jpg/a.jpg": b"a"}, special("jpg/b.jpg", tarfile.LNKTYPE, "jpg/a.jpg"))
    untar(file, tmp_path / "part", nothing, inside="jpg")
    assert tree(tmp_path / "part") == {"a.jpg": b"a", "b.jpg": b"a"}
    assert (tmp_path / "part" / "b.jpg").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "jpg/none.jpg", "secret"])
def test_a_hard_link_to_what_the_archive_does_not_hold_is_refused(target: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    file = tar(tmp_path / "archive", {"jpg/a.jpg": b"a"}, special("jpg/b.jpg", tarfile.LNKTYPE, target))
    with pytest.raises(ScalenetError, match=r"leads outside|does not hold"):
        untar(file, tmp_path / "part", nothing, inside="jpg")
    assert not (tmp_path / "part" / "b.jpg").exists()


def test_modes_are_not_taken_over(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.jpg")
    entry.mode = 0o4777
    untar(tar(tmp_path / "archive", {}, entry), tmp_path / "all", nothing)
    assert (tmp_path / "all" / "a.jpg").stat().st_mode & 0o6111 == 0


def test_single_files(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"digits" * 1000))
    told: list[int] = []
    gunzip(tmp_path / "a.gz", tmp_path / "a", told.append)
    assert (tmp_path / "a").read_bytes() == b"digits" * 1000
    assert told == [(tmp_path / "a.gz").stat().st_size]
    copy(tmp_path / "a", tmp_path / "b", nothing)
    assert (tmp_path / "b").read_bytes() == b"digits" * 1000
