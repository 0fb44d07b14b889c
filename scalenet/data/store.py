"""Where caches live, and small files that are either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from scalenet.environment import cpus
from scalenet.errors import ScalenetError

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int, str], None]  # done, total, what


def cache_root() -> Path:
    """$SCALENET_CACHE, else the platform's folder for caches. Made if it is not there.

    Raises ScalenetError when it cannot be made.
    """
    if chosen := os.environ.get("SCALENET_CACHE"):
        root = Path(chosen).expanduser()
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches" / "scalenet"
    elif sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "scalenet"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scalenet"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScalenetError(
            f"The cache folder {root} cannot be made ({error.strerror}); set SCALENET_CACHE to a folder that can."
        ) from error
    return root.resolve()


def hashed(*parts: object) -> str:
    """A SHA-256 in hex of plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """What the file holds, or None when it is absent or damaged: such files only save time."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def write_json(path: Path, value: object) -> None:
    """Writes the file whole, through a temporary one beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "x", encoding="ascii") as file:  # readable by whom the umask says, unlike mkstemp's
            json.dump(value, file)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def remember(path: Path, value: object) -> None:
    """As write_json, but a full or read-only disk costs only the time to find out again."""
    with suppress(OSError):
        write_json(path, value)


def in_threads(work: Callable[[Sequence[T]], list[R]], items: Sequence[T], chunk: int) -> Iterator[list[R]]:
    """`work` on consecutive chunks, results in order, a few chunks ahead; stops early when the caller does."""
    cores = cpus()
    chunks: Iterable[Sequence[T]] = (items[start : start + chunk] for start in range(0, len(items), chunk))
    waiting = iter(chunks)
    pool = ThreadPoolExecutor(cores)
    try:
        running = [pool.submit(work, part) for part in islice(waiting, 2 * cores)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(work, part) for part in islice(waiting, 1)]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
