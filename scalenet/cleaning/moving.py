"""Moving files so that each is whole in one place, whenever the process ends; and which paths lie inside a folder."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

BLOCK = 1 << 20
BATCH = 128  # files copied to another file system before the originals go: folders are flushed once a batch
FLUSHES = 16  # files that are copied and flushed at a time
AT_FDCWD, RENAME_NOREPLACE = -100, 1  # linux/fcntl.h, linux/fs.h


@dataclass(frozen=True)
class Stamp:
    """What a path is, without following a link: what must come back when it is moved back."""

    size: int
    mtime_ns: int
    mode: int
    sha256: str | None  # of a file's bytes, or of a link's text; None for what may not be read or is neither


def stamp(path: str) -> Stamp:
    """The stamp of a path, read through.

    Raises:
        OSError: there is nothing.
    """
    found = os.lstat(path)
    digest: str | None = None
    with suppress(PermissionError):
        if stat.S_ISLNK(found.st_mode):
            digest = hashlib.sha256(os.fsencode(os.readlink(path))).hexdigest()
        elif stat.S_ISREG(found.st_mode):
            digest = _sha256(path)
    return Stamp(found.st_size, found.st_mtime_ns, found.st_mode, digest)


def unchanged(path: str, before: Stamp) -> bool:
    """Whether size, time and mode are what they were; nothing is read."""
    found = os.lstat(path)
    return (found.st_size, found.st_mtime_ns, found.st_mode) == (before.size, before.mtime_ns, before.mode)


@dataclass(frozen=True)
class Folder:
    """A folder that nothing may be reached outside of."""

    root: str

    @cached_property
    def _real(self) -> str:
        return os.path.realpath(self.root)

    @cached_property
    def _parents(self) -> dict[str, bool]:
        return {}

    def holds(self, path: str) -> bool:
        """Whether the name `path` (relative) lies below the folder, links on the way to it followed."""
        steps = path.split(os.sep)
        if not path or os.path.isabs(path) or os.path.splitdrive(path)[0] or not {"", ".", ".."}.isdisjoint(steps):
            return False
        if "\0" in path or not _is_name(path):
            return False
        return self.covers(os.path.join(self._real, *steps[:-1]))

    def covers(self, folder: str) -> bool:
        """Whether that folder (absolute) is this one or lies below it, links followed."""
        if folder not in self._parents:
            self._parents[folder] = self._below(folder)
        return self._parents[folder]

    def holds_file(self, path: str) -> bool:
        """As `holds`, and what a link of that name leads to lies below the folder too."""
        if not self.holds(path):
            return False
        whole = os.path.join(self._real, path)
        return not os.path.islink(whole) or self._below(whole)

    def _below(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(os.path.join(self._real, ""))


def _is_name(path: str) -> bool:
    """Whether a file can have that name at all; a text in JSON may hold half a character."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def seen_from(folder: str, path: str) -> str:
    """The path from the folder where the two lie in one that can be moved as a whole, else from the top."""
    here, there = os.path.realpath(folder), os.path.realpath(path)
    with suppress(ValueError):  # two drives
        above = os.path.commonpath([here, there])
        if os.path.dirname(above) != above:
            return os.path.relpath(there, here)
    return there


def rename_new(old: str, new: str) -> None:
    """Renames in one step, and never onto a name that is taken.

    Raises:
        FileExistsError: `new` is taken.
        OSError: with errno EXDEV where the two lie on different file systems; others as os.rename.
    """
    if (renameat2 := _renameat2()) is not None:
        if renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # this kernel or file system has no such call
            raise OSError(number, os.strerror(number), old, None, new)
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
    os.rename(old, new)


class ChangedError(OSError):
    """A file is not what it was when it was looked at."""


def transfer(moves: Iterable[tuple[str, str, Stamp | None]]) -> Iterator[OSError | None]:
    """Moves every (old, new, as it was seen) to a free name and yields what kept it from being moved, in order.

    Within a file system a move is one rename. Across two, a file is copied under another name, flushed, read back,
    renamed and only then removed at the old place: whoever is killed in between leaves it whole in both.
    """
    batch: list[tuple[str, str]] = []
    for old, new, seen in moves:
        try:
            if seen is not None and not unchanged(old, seen):
                raise ChangedError(errno.EBUSY, "it has changed", old)
            renamed, failed = _renamed(old, new), None
        except OSError as error:
            renamed, failed = False, error
        across = not renamed and failed is None
        if across:
            batch.append((old, new))
        if not across or len(batch) == BATCH:
            yield from _across(batch)
            batch.clear()
        if not across:
            yield failed
    yield from _across(batch)


def part_of(new: str) -> str:
    """The name under which a copy grows beside its place; short, as `new` may be as long as names can be."""
    folder, name = os.path.split(new)
    return os.path.join(folder, f".scalenet-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.part")


def flush(folder: str) -> None:
    """Makes the names in a folder last through a loss of power, where the system can."""
    with suppress(OSError):
        handle = os.open(folder or os.curdir, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _renameat2() -> Callable[[int, bytes, int, bytes, int], int] | None:
    if sys.platform != "linux":
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)


def _renamed(old: str, new: str) -> bool:
    """Whether a rename was enough; it is not where `new` is on another file system."""
    try:
        os.makedirs(os.path.dirname(new), exist_ok=True)
    except RecursionError as error:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), new) from error
    try:
        rename_new(old, new)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _across(batch: Sequence[tuple[str, str]]) -> Iterator[OSError | None]:
    """Copies a batch, by many threads as each flush waits for the disk, then removes the originals."""
    if not batch:
        return
    with ThreadPoolExecutor(FLUSHES) as pool:
        copies = list(pool.map(_copied, batch))
    for folder in {os.path.dirname(new) for _, new in batch}:
        flush(folder)
    for (old, new), copied in zip(batch, copies, strict=True):
        yield copied if isinstance(copied, OSError) else _given_up(old, new, copied)


def _given_up(old: str, new: str, copied: os.stat_result) -> OSError | None:
    """Removes an original that has a whole copy, or the copy where the original cannot go: it stays where it was."""
    try:
        if _identity(os.lstat(old)) != _identity(copied):
            raise ChangedError(errno.EBUSY, "it has changed", old)
        os.unlink(old)
    except FileNotFoundError:  # somebody else removed it: the copy is the last there is
        return None
    except OSError as error:
        with suppress(OSError):
            os.unlink(new)
        return error
    return None


def _identity(found: os.stat_result) -> tuple[int, ...]:
    """What is another when a file is written to, or another file is there under its name.

    Not the time of a change of its names: the file loses one when a hard link to it is moved.
    """
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _copied(move: tuple[str, str]) -> OSError | os.stat_result:
    """Copies to a free name; what the original was before it was read, or what went wrong."""
    old, new = move
    part = part_of(new)
    try:
        found = os.lstat(old)
        _copy(old, part, found)
        rename_new(part, new)
    except OSError as error:
        with suppress(OSError):
            os.unlink(part)
        return error
    return found


def _copy(old: str, part: str, found: os.stat_result) -> None:
    """A copy with the same bytes, times, mode and owner, flushed and read back.

    Raises:
        OSError: it could not be made, or what was read back is not what was written.
    """
    with suppress(FileNotFoundError):
        os.unlink(part)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(old), part)
        shutil.copystat(old, part, follow_symlinks=False)
        return
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        raise OSError(errno.EINVAL, "neither a file nor a link", old)
    digest = hashlib.sha256()
    with open(old, "rb") as source, open(part, "xb") as target:
        while block := source.read(BLOCK):
            digest.update(block)
            target.write(block)
        target.flush()
        shutil.copystat(old, part)
        _give(part, found)
        os.fsync(target.fileno())
    if _sha256(part) != digest.hexdigest():
        raise OSError(errno.EIO, "the copy does not read back as it was written", part)


def _give(part: str, found: os.stat_result) -> None:
    """The copy to the owner of the original; where only root could, it does not run as its new owner either."""
    try:
        os.chown(part, found.st_uid, found.st_gid)
        os.chmod(part, stat.S_IMODE(found.st_mode))  # chown takes setuid away
    except OSError:
        if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            os.chmod(part, stat.S_IMODE(found.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
