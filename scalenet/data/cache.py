"""The decoded cache: every picture once, as uint8 squares in memory-mapped arrays that all trials share."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scalenet.data.decoder import Decode, decoding_processes
from scalenet.data.pixels import decoded_by, square
from scalenet.data.plan import Plan, count_classes, plan, recall, unreadable_warning
from scalenet.data.source import Item, locate
from scalenet.data.store import Progress, cache_root, hashed, in_threads, read_json, write_json
from scalenet.data.values import PARTS, DataRequest, Part, Prepared, Survey
from scalenet.environment import cpus
from scalenet.errors import ScalenetError

VERSION = 1  # of the decoding and the layout
SPARE = 64 << 20  # bytes that stay free on the disk
CHUNK = 64  # pictures a thread decodes at a time
MANY = 4096  # files for which it pays to start processes
STALE = 24 * 3600.0  # seconds after which an abandoned temporary folder is swept


def grown(side: int) -> int:
    """The side pictures are resized to before a window of `side` is cut: 1.15 times, rounded to the nearest pixel."""
    return (side * 115 + 50) // 100


def prepare(
    request: DataRequest,
    side: int,
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    known: Survey | None = None,
) -> Prepared:
    """The cache for pictures of up to `side` pixels: found, or decoded now.

    Pictures are stored at grown(side), but never above their native size (the median shorter side): upsampling is
    left to the batches. What will be written is announced first. The cache appears whole or not at all, and two
    processes may prepare the same one at once. With `known`, a survey just made of that request, the source is looked
    at again only where its pictures must be decoded.

    Raises ScalenetError for a source that cannot be used or is no more what `known` says, a class left without
    readable pictures, or a disk that is too small.
    """
    if side < 1:
        raise ScalenetError(f"side is {side}; it must be a number of pixels, 1 or more.")
    planned, found = None, known
    if found is None:
        located = locate(request)
        found = recall(located, request)
        if found is None:
            planned = plan(located, request, progress)
            found = planned.survey
    stored = min(grown(side), found.native_size)
    key = hashed(VERSION, decoded_by(), found.fingerprint, stored)[:12]
    place = cache_root() / "pictures" / f"{_safe(found.name)}-{stored}px-{key}"
    if (kept := _reuse(place, found, stored)) is not None:
        return kept
    _make_room(found, stored, place.parent, announce)
    if planned is None:
        planned = plan(locate(request), request, progress)
        if planned.survey.fingerprint != found.fingerprint:
            raise ScalenetError(f"The pictures of {found.name} changed while they were being read; start again.")
    return _decode(planned, stored, place, progress)


def open_part(prepared: Prepared, part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One part: pictures (n, side, side, 3) uint8, mapped read-only from disk, and labels (n,) int64.

    Raises ScalenetError when the cache is gone.
    """
    folder = Path(prepared.directory)
    try:
        pictures = np.load(folder / f"{part}.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / f"{part}.labels.npy", allow_pickle=False)
    except Exception as error:  # NumPy raises nearly anything for a damaged header
        raise ScalenetError(f"The picture cache {folder} is gone or damaged; start again to rebuild it.") from error
    return pictures, labels


def _make_room(found: Survey, stored: int, folder: Path, announce: Callable[[str], None] | None) -> None:
    """Says what will be written, and refuses it where the disk is short."""
    needed = found.pictures * (stored * stored * 3 + 8)
    _sweep(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScalenetError(f"The picture cache {folder} cannot be written ({error.strerror}).") from error
    if announce:
        announce(f"Decoding {found.pictures:,} pictures of {found.name} at {stored} px: {_size(needed)} in {folder}.")
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise ScalenetError(
            f"The picture cache needs {_size(needed)} ({needed} bytes) and {_size(SPARE)} to spare, but {folder} "
            f"has {_size(free)} ({free} bytes) free; set SCALENET_CACHE to a larger disk, or lower the side or subset."
        )


def _decode(planned: Plan, stored: int, place: Path, progress: Progress | None) -> Prepared:
    found = planned.survey
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".part"))
    try:
        done = 0
        lost: list[str] = []
        labels: dict[Part, list[int]] = {}
        for part in PARTS:
            items = planned.parts[part]
            missing = _write(temporary / f"{part}.npy", items, stored, _shifted(progress, done, found.pictures))
            labels[part] = [item.label for i, item in enumerate(items) if i not in missing]
            np.save(temporary / f"{part}.labels.npy", np.asarray(labels[part], dtype=np.int64))
            lost += [items[i].name for i in sorted(missing)]
            done += len(items)
        meta = {"version": VERSION, **_outcome(found, labels, lost)}
        write_json(temporary / "meta.json", meta)
        _publish(temporary, place, found, stored)
    except OSError as error:
        raise ScalenetError(f"The picture cache {place} cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    kept = _reuse(place, found, stored)
    if kept is None:
        raise ScalenetError(f"The picture cache {place} vanished while it was being made; start again.")
    return kept


def _write(path: Path, items: Sequence[Item], side: int, progress: Progress | None) -> set[int]:
    """Decodes into the array at `path`; the positions that could not be read are left out of it and returned."""
    shape = (len(items), side, side, 3)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a full disk must be an error here, not a bus error at some later write
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def decode(places: Sequence[int]) -> list[int]:
        bad = []
        for i in places:
            try:
                rows[i] = square(items[i].picture, side)
            except Exception:  # a damaged file can raise nearly anything, and must cost no more than itself
                bad.append(i)
        return bad

    missing: set[int] = set()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files
        files = [item.picture for item in items if isinstance(item.picture, str)]
        work: Decode = decode
        if MANY <= len(files) == len(items) and cpus() > 1:
            work = stack.enter_context(decoding_processes(path, files, side, cpus()))
        for number, bad in enumerate(in_threads(work, range(len(items)), CHUNK)):
            missing.update(bad)
            if progress:
                progress(min((number + 1) * CHUNK, len(items)), len(items), "decoding pictures")
    rows.flush()
    if missing:
        _compact(path, rows, missing)
    return missing


def _compact(path: Path, rows: NDArray[np.uint8], missing: set[int]) -> None:
    whole = path.with_suffix(".whole")
    path.rename(whole)
    keep = [i for i in range(len(rows)) if i not in missing]
    fewer = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(keep), *rows.shape[1:]))
    for start in range(0, len(keep), 1024):
        fewer[start : start + 1024] = rows[keep[start : start + 1024]]
    fewer.flush()
    whole.unlink()


def _outcome(found: Survey, labels: dict[Part, list[int]], lost: Sequence[str]) -> dict[str, Any]:
    """What decoding changed: pictures whose header was sound and whose pixels were not."""
    counts = {part: len(values) for part, values in labels.items()}
    for part, count in counts.items():
        if not count:
            raise ScalenetError(f"None of the pictures of {found.name} in the part {part!r} can be read.")
    return {
        "counts": counts,
        "pictures": sum(counts.values()),
        "class_counts": count_classes(found.classes, labels),
        "lost": list(lost),
    }


def _publish(temporary: Path, place: Path, found: Survey, stored: int) -> None:
    """Puts the finished folder in place, unless another process was first; a damaged one is replaced."""
    for _ in range(2):
        try:
            temporary.rename(place)
            return
        except OSError:
            if not place.is_dir():
                raise
            if _reuse(place, found, stored) is not None:
                return
            shutil.rmtree(place, ignore_errors=True)


def _reuse(place: Path, found: Survey, stored: int) -> Prepared | None:
    """The cache in that place, if it is whole."""
    meta = read_json(place / "meta.json")
    try:
        if meta["version"] != VERSION:
            return None
        for part in PARTS:
            pictures = np.load(place / f"{part}.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(place / f"{part}.labels.npy", mmap_mode="r", allow_pickle=False)
            count = meta["counts"][part]
            if (pictures.shape, pictures.dtype) != ((count, stored, stored, 3), np.uint8):
                return None
            if (labels.shape, labels.dtype) != ((count,), np.int64):
                return None
        lost = tuple(meta["lost"])
        rest = {**asdict(found), "counts": meta["counts"], "class_counts": meta["class_counts"]}
        rest["pictures"] = meta["pictures"]
    except Exception:  # as in open_part; what is not whole is made anew
        return None
    if lost:
        rest["unreadable"] = (*found.unreadable, *lost)
        before = unreadable_warning(found.unreadable)
        rest["warnings"] = (*(w for w in found.warnings if w != before), unreadable_warning(rest["unreadable"]))
    return Prepared(directory=str(place), side=stored, **rest)


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    report = progress
    return lambda done, _, what: report(before + done, total, what)


def _sweep(folder: Path) -> None:
    """Removes what killed processes left behind."""
    with suppress(OSError):
        for left in folder.glob(".*.part"):
            if time.time() - left.stat().st_mtime > STALE:
                shutil.rmtree(left, ignore_errors=True)


def _safe(name: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)[:40] or "data"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
