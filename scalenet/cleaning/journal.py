"""What was moved aside, as lines of JSON that are on disk before the first file of theirs moves."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scalenet.cleaning.limits import Limits, Rule
from scalenet.cleaning.moving import flush
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, to_plain

VERSION = 1
FOLDER = "quarantine"  # below the sidecar: one folder per rule, and beside them these two
FILE, LOCK = "moves.jsonl", "lock"


@dataclass(frozen=True)
class Begun:
    """A cleaning. `root` is the folder of pictures: relative to the sidecar where the two can move together."""

    version: int
    root: str
    started: str  # local time, ISO 8601
    removing: tuple[Rule, ...]
    limits: Limits


@dataclass(frozen=True)
class Move:
    """One path that is moved, announced before it is; where it lies is for the disk to say."""

    path: str  # relative to the root
    to: str  # relative to the sidecar
    rule: Rule
    reason: str
    size: int  # bytes
    sha256: str | None  # of the bytes, of a link its text; None where it may not be read
    mtime_ns: int
    mode: int


@dataclass(frozen=True)
class Undone:
    """All moves before are over, but for those whose `to` is kept."""

    kept: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """One line of the file: one of the three."""

    begun: Begun | None = None
    move: Move | None = None
    undone: Undone | None = None


@dataclass(frozen=True)
class Journal:
    """The file and what it says."""

    path: Path
    root: str | None  # as the last Begun recorded it; None before the first
    moves: tuple[Move, ...]  # that may not be undone yet, in the order of announcement
    unreadable: int  # lines

    def append(self, lines: Sequence[Line]) -> None:
        """Adds lines; on return they are on disk, all of them.

        Raises:
            ScalenetError: they cannot be written; none was added.
        """
        text = "".join(json.dumps({k: v for k, v in to_plain(line).items() if v is not None}) + "\n" for line in lines)
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                end = _whole(handle)
                try:
                    os.ftruncate(handle, end)
                    os.lseek(handle, end, os.SEEK_SET)
                    left = memoryview(text.encode("ascii"))
                    while left:
                        left = left[os.write(handle, left) :]
                    os.fsync(handle)
                except OSError:
                    with suppress(OSError):
                        os.ftruncate(handle, end)
                    raise
            finally:
                os.close(handle)
        except OSError as error:
            raise ScalenetError(f"{self.path} cannot be written ({error.strerror}); nothing was moved.") from error
        flush(str(self.path.parent))


@contextmanager
def opened(aside: Path, *, make: bool) -> Iterator[Journal]:
    """The journal of a sidecar, for this process alone.

    Raises:
        ScalenetError: another process is at it, it cannot be made, or there is none and `make` is False.
    """
    folder = aside / FOLDER
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        elif not (folder / FILE).is_file():
            raise ScalenetError(f"Nothing to undo: there is no {folder / FILE}.")
    except OSError as error:
        raise ScalenetError(f"{folder} cannot be written ({error.strerror}).") from error
    with alone(folder):
        yield _read(folder / FILE)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process is in this block with the same folder; the kernel sees to it, however one ends.

    Raises:
        ScalenetError: another process is, or the folder cannot be written to.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ScalenetError(f"{folder} cannot be written ({error.strerror}).") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ScalenetError(f"{folder} is in use by another process; wait for it.") from None
        except OSError as error:
            raise ScalenetError(f"{folder}: this file system cannot lock files ({error.strerror}).") from error
        yield
    finally:
        os.close(handle)


def _read(path: Path) -> Journal:
    root, unreadable = None, 0
    moves: dict[str, Move] = {}
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ScalenetError(f"{path} cannot be read ({error.strerror}).") from error
    for text in data.split(b"\n")[:-1]:  # what follows the last newline was never announced whole
        try:
            plain = json.loads(text)
        except (ValueError, RecursionError):
            unreadable += 1
            continue
        match plain:  # before anything else: a later version's lines may hold what is not known here
            case {"begun": {"version": int(version)}} if version > VERSION:
                raise ScalenetError(f"{path} is of version {version}; this scalenet knows up to {VERSION}.")
        try:
            line = from_plain(Line, plain, str(path))
        except ScalenetError:
            unreadable += 1
            continue
        if line.begun is not None:
            root = line.begun.root
        if line.move is not None:
            moves.pop(line.move.to, None)
            moves[line.move.to] = line.move
        if line.undone is not None:
            moves = {to: moves[to] for to in line.undone.kept if to in moves}
    return Journal(path, root, tuple(moves.values()), unreadable)


def _whole(handle: int) -> int:
    """Where the last whole line ends: a process killed while it wrote leaves half of one."""
    end = os.lseek(handle, 0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 4096)
        newline = os.pread(handle, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
