"""What each picture is, without decoding it: the SHA-256 of its bytes and the shorter side its header states."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image

from scalenet.data.source import Item
from scalenet.data.store import Progress, cache_root, hashed, in_threads, read_json, remember

VERSION = 1
BLOCK = 1 << 20
Mark = tuple[int, ...]


@dataclass(frozen=True)
class Facts:
    """`digest` in hex, `side` in pixels; side 0 when the header cannot be read. `lasting`: not a passing I/O error."""

    digest: str
    side: int
    lasting: bool = True


def facts(items: Sequence[Item], place: str, progress: Progress | None = None) -> list[Facts]:
    """The facts of every picture, in order.

    Files are read once ever: what was found is kept beside the cache, keyed by path, size and times of change.
    `place` names the file that keeps it.
    """
    path = cache_root() / "index" / f"{hashed(VERSION, place)[:16]}.json"
    index = _read_index(path)
    marks = [_mark(item) for item in items]
    known = [_recall(index, item, mark) for item, mark in zip(items, marks, strict=True)]
    todo = [i for i, fact in enumerate(known) if fact is None]
    found = list(known)
    done = len(items) - len(todo)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd headers; what it cannot read counts as unreadable
        chunks = in_threads(lambda part: [_examine(items[i]) for i in part], todo, 64)
        for number, chunk in enumerate(chunks):
            for i, fact in zip(todo[number * 64 :], chunk, strict=False):
                found[i] = fact
            done += len(chunk)
            if progress:
                progress(done, len(items), "reading pictures")
    complete = [fact for fact in found if fact is not None]
    if todo and any(marks[i] for i in todo):
        entries = {
            str(item.picture): [*mark, fact.digest, fact.side]
            for item, mark, fact in zip(items, marks, complete, strict=True)
            if mark and fact.lasting
        }
        remember(path, entries)
    return complete


def _read_index(path: Path) -> dict[str, list[int | str]]:
    index = read_json(path)
    return index if isinstance(index, dict) else {}


def _recall(index: dict[str, list[int | str]], item: Item, mark: Mark | None) -> Facts | None:
    if mark is None:
        return None
    match index.get(str(item.picture)):
        case [*before, str(digest), int(side)] if tuple(before) == mark:
            return Facts(digest, side)
        case _:
            return None


def _mark(item: Item) -> Mark | None:
    if not isinstance(item.picture, str):
        return None
    try:
        found = os.stat(item.picture)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _examine(item: Item) -> Facts:
    if not isinstance(item.picture, str):
        pixels = item.picture
        return Facts(hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest(), min(pixels.shape[:2]))
    digest = hashlib.sha256()
    try:
        if not stat.S_ISREG(os.stat(item.picture).st_mode):
            return Facts("", 0)  # a pipe would wait for ever
        with open(item.picture, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
            file.seek(0)
            return Facts(digest.hexdigest(), _side(file))
    except OSError:
        return Facts("", 0, lasting=False)


def _side(file: IO[bytes]) -> int:
    try:
        with Image.open(file) as image:
            return int(min(image.size))
    except Exception:  # a damaged header can raise nearly anything
        return 0
