"""The file of looks at a folder: one row for each picture, in their order, filled by several processes in any order.

A row counts when its checksum is right, so a scan that was killed leaves what it had, and a torn or damaged row is
looked at again.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from scalenet.cleaning.look import ROW
from scalenet.cleaning.values import Fault
from scalenet.data.store import cache_root, hashed
from scalenet.errors import ScalenetError

BLOCK = 4096  # rows copied at a time
PASSING = (Fault.DENIED, Fault.GONE)  # may be over without the file having changed


@contextmanager
def rows(root: Path, keys: NDArray[np.uint64], fresh: bool) -> Iterator[Path]:
    """A file of len(keys) ROWs, those known from earlier scans of `root` filled in unless `fresh`.

    It lies in the cache, and nobody else fills it while the block runs. When the cache cannot be written, or another
    scan of the folder is running, it is a temporary file, gone with the block but for whoever has mapped it.

    Raises ScalenetError when there is no room for it anywhere.
    """
    with ExitStack() as stack:
        earlier: Path | None = None
        try:
            directory = cache_root() / "scans" / hashed(os.fspath(root.resolve()))[:16]
            earlier = None if fresh else directory / "looks"
            directory.mkdir(parents=True, exist_ok=True)
            _lock(stack.enter_context(open(directory / "lock", "ab")))
            file = _prepared(directory, keys, earlier)
        except (OSError, ScalenetError):
            try:
                temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scalenet-")))
                file = _prepared(temporary, keys, earlier)
            except OSError as error:
                raise ScalenetError(
                    f"Neither the cache nor {tempfile.gettempdir()} has room for {len(keys) * ROW.itemsize >> 20} MB "
                    f"of looks ({error.strerror}); set SCALENET_CACHE to a folder that has."
                ) from error
        yield file


def mapped(file: Path) -> NDArray[np.void]:
    """Its whole rows."""
    with suppress(OSError):
        if count := file.stat().st_size // ROW.itemsize:
            return np.memmap(file, ROW, "r", shape=(count,))
    return np.zeros(0, ROW)


def unwritten(file: Path, keys: NDArray[np.uint64], places: Sequence[int]) -> list[int]:
    """Those of `places` whose rows do not hold a look at their picture."""
    found = mapped(file)
    return [place for place in places if not _sound(found, place, keys[place])]


def _lock(file: BinaryIO) -> None:
    """Until it is closed, by whatever end of this process. Raises OSError where another one holds it."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sound(found: NDArray[np.void], place: int, key: np.uint64) -> bool:
    row = found[place]
    if row["key"] != key:
        return False
    held = row.tobytes()
    return zlib.crc32(held[:-4]) == int.from_bytes(held[-4:], "little")


def _prepared(directory: Path, keys: NDArray[np.uint64], earlier: Path | None) -> Path:
    file, new = directory / "looks", directory / "looks.new"
    old = mapped(earlier) if earlier else np.zeros(0, ROW)
    _, here, there = np.intersect1d(keys, old["key"], return_indices=True)
    passing = np.isin(old["look"]["fault"][there], PASSING)
    good = ~passing & np.array([_sound(old, place, old["key"][place]) for place in there], dtype=bool)
    here, there = here[good], there[good]
    if earlier == file and len(old) == len(keys) == len(here) and np.array_equal(here, there):
        return file
    with open(new, "wb") as written:
        _reserve(written.fileno(), len(keys) * ROW.itemsize)
        order = np.argsort(here)
        for first in range(0, len(order), BLOCK):
            for place in order[first : first + BLOCK]:
                os.pwrite(written.fileno(), old[there[place]].tobytes(), int(here[place]) * ROW.itemsize)
    os.replace(new, file)
    return file


def _reserve(descriptor: int, size: int) -> None:
    """Makes the file that long, and fails here rather than later where the disk has not that much."""
    os.truncate(descriptor, size)
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
