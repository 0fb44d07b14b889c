"""A published archive brought to its place: downloaded or found there, checked, unpacked, whole or not at all."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scalenet.data.fetch import PAUSES, Remote, counter, download, matches
from scalenet.data.store import Progress
from scalenet.data.unpack import Unpack
from scalenet.errors import ScalenetError

SPARE = 64 << 20  # bytes that stay free on the disk


@dataclass(frozen=True)
class Archive:
    """What is fetched, what it becomes, and how: `makes` is a path below the data set's folder."""

    remote: Remote
    makes: str
    unpack: Unpack


def bring(archive: Archive, root: Path, progress: Progress | None = None, pauses: Sequence[float] = PAUSES) -> None:
    """Sees to it that what the archive makes is there.

    The archive is looked for beside its place, where torchvision leaves it too and a person may put it: such a file is
    used if it is the published one, and is never deleted. What is downloaded, NAME.part, is deleted once it is
    unpacked. Unpacking goes to a hidden folder that is renamed at the end, so what is found under the final name is
    whole. A second process waits for the first.

    Raises:
        ScalenetError: the archive cannot be had, is not sound, or does not fit on the disk.
        OSError: the folder cannot be written.
    """
    target = root / archive.makes
    if target.exists():
        return
    folder, name = target.parent, archive.remote.name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f".{name}.lock", name, progress):
        if target.exists():  # by now
            return
        placed, part = folder / name, folder / f"{name}.part"
        if placed.is_file() and matches(placed, archive.remote, progress):
            _unpack(archive, placed, target, progress)
            return
        _check_room(archive, part)
        try:
            download(archive.remote, part, progress, pauses)
        except ScalenetError as error:
            if not placed.is_file():
                raise
            raise ScalenetError(f"{error}; and {placed} is not the published file") from error
        _unpack(archive, part, target, progress)
        part.unlink()


def _unpack(archive: Archive, file: Path, target: Path, progress: Progress | None) -> None:
    fresh = target.parent / f".{archive.remote.name}.unpacking"
    _remove(fresh)  # of a process that was killed: the lock is ours
    try:
        archive.unpack(file, fresh, counter(progress, f"unpacking {file.name}", file.stat().st_size))
        os.rename(fresh, target)
    finally:
        _remove(fresh)


def _check_room(archive: Archive, part: Path) -> None:
    """Pictures are compressed as they are: unpacked they take about as much again as the archive."""
    held = part.stat().st_size if part.exists() else 0
    needed = 2 * archive.remote.size - held + SPARE
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise ScalenetError(
            f"{archive.remote.name} needs about {needed / 1e6:,.0f} MB in {part.parent}, where {free / 1e6:,.0f} MB "
            "are free"
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _alone(file: Path, name: str, progress: Progress | None) -> Iterator[None]:
    """Waits until no other process holds the lock. The kernel drops it when its holder dies; the file stays behind.

    Where a file system cannot lock there is no waiting: two downloads into one file then fail their check, and no more.
    """
    import fcntl  # Linux and macOS; needed only to fetch

    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if progress:
                    progress(0, 0, f"waiting for another process that fetches {name}")
                time.sleep(0.1)
            except OSError:
                break
            else:
                break
        yield
    finally:
        os.close(descriptor)
