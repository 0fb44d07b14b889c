"""Which of many pictures may be copies of each other, found without looking at every pair in detail.

Every two 64-bit hashes are compared, in blocks (some 0.7 ns a pair: seconds for 60,000 pictures); what is near by its
hash must also be near as an 8x8 picture. A crop moves the hash far: each picture is therefore also looked for as it
would be without its margins, whole or from each corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scalenet.cleaning.hashing import hashes
from scalenet.cleaning.values import THUMB

Floats = NDArray[np.float32]

BITS = 16  # of 64, in which the hashes of copies differ at most: 96 of 100 crops by 5 % on all sides stay below
ALIKE = 0.85  # correlation of the 8x8 pictures, at least
COARSE = 8
ROWS, BLOCK = 256, 16  # pictures whose candidates are held at once; those compared with all others in one go
MOST = 64  # candidates of one picture: beyond, the least alike are left out (thousands of frames of one scene)
CROPPED = 64  # pixels of the shorter side from which crops are looked for: below they are a pixel or two
# The views: stretch and shift across, then down. The whole, without 7 % of every side, and without 6.5 % of two.
VIEWS = np.array(
    [
        (1.0, 0.0, 1.0, 0.0),
        (0.86, 0.07, 0.86, 0.07),
        *[(0.935, x, 0.935, y) for x in (0.0, 0.065) for y in (0.0, 0.065)],
    ],
    dtype=np.float32,
)


class Pictures(Protocol):
    """(pictures, 32, 32) thumbnails, read as needed; an array is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: NDArray[np.intp] | slice, /) -> NDArray[np.uint8]: ...


View = tuple[NDArray[np.uint64], NDArray[np.float16], NDArray[np.intp]]  # hashes, coarse pictures, which pictures


@dataclass(frozen=True)
class Candidates:
    """Pairs that may be copies."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    start: Floats  # (pairs, 4): where the second may lie in the first, as in VIEWS


def candidates(thumbs: Pictures, known: NDArray[np.uint64], large: NDArray[np.bool_]) -> Iterator[Candidates]:
    """All pairs of (pictures, 32, 32) thumbnails worth a second look, a block of pictures at a time.

    `known` are their hashes; `large` says which are large enough to be cropped. A pair comes once as it is, and once
    more for each way round in which one is found as a crop of the other.
    """
    wholes = _coarse(thumbs, VIEWS[0])
    crops = np.flatnonzero(large)
    views = [(known, wholes, np.arange(len(thumbs)))]
    for view in VIEWS[1:] if len(crops) else ():
        views.append((_seen(thumbs, crops, view), _coarse(thumbs, view, crops), crops))
    for begin in range(0, len(thumbs), ROWS):
        yield _rows(begin, min(begin + ROWS, len(thumbs)), known, wholes, views)


def _rows(
    begin: int, end: int, known: NDArray[np.uint64], wholes: NDArray[np.float16], views: list[View]
) -> Candidates:
    """The candidates of pictures begin to end: later pictures that look the same, any of which they are a crop."""
    inner, outer, seen, near = [], [], [], []
    for number, (codes, coarse, which) in enumerate(views):
        for at in range(begin, end, BLOCK):
            stop = min(at + BLOCK, end)
            # A pair as it is is found once, from its earlier picture; a crop from whichever is the crop.
            since = at if number == 0 else 0
            apart = np.bitwise_count(known[at:stop, None] ^ codes[None, since:])
            hits = np.flatnonzero((apart <= BITS).ravel())
            row, column = np.divmod(hits, apart.shape[1])
            row, column = row + at, column + since
            other = which[column]
            keep = other > row if number == 0 else other != row
            row, column, other = row[keep], column[keep], other[keep]
            alike = np.einsum("ij,ij->i", wholes[row].astype(np.float32), coarse[column].astype(np.float32))
            keep = alike >= ALIKE
            inner.append(row[keep])
            outer.append(other[keep])
            seen.append(np.full(int(keep.sum()), number))
            near.append(alike[keep])
    return _best(np.concatenate(inner), np.concatenate(outer), np.concatenate(seen), np.concatenate(near))


def _best(inner: NDArray[np.intp], outer: NDArray[np.intp], seen: NDArray[np.intp], near: Floats) -> Candidates:
    """Each pair in its best view, at most MOST of them for an inner picture."""
    order = np.lexsort((-near, outer, inner))
    inner, outer, seen, near = inner[order], outer[order], seen[order], near[order]
    new = np.ones(len(inner), dtype=bool)
    new[1:] = (inner[1:] != inner[:-1]) | (outer[1:] != outer[:-1])
    inner, outer, seen, near = inner[new], outer[new], seen[new], near[new]
    order = np.lexsort((-near, inner))
    inner, outer, seen = inner[order], outer[order], seen[order]
    place = np.arange(len(inner)) - np.searchsorted(inner, inner)
    few = place < MOST
    return Candidates(outer[few], inner[few], VIEWS[seen[few]])


def _seen(thumbs: Pictures, which: NDArray[np.intp], view: Floats) -> NDArray[np.uint64]:
    """The hashes of the pictures without their margins."""
    rows, columns = _window(view[2], view[3], THUMB), _window(view[0], view[1], THUMB)
    codes = np.empty(len(which), dtype=np.uint64)
    for at in range(0, len(which), ROWS):
        cut = rows @ thumbs[which[at : at + ROWS]].astype(np.float32) @ columns.T
        codes[at : at + ROWS] = hashes(np.clip(np.rint(cut), 0, 255).astype(np.uint8))
    return codes


def _coarse(thumbs: Pictures, view: Floats, which: NDArray[np.intp] | None = None) -> NDArray[np.float16]:
    """(pictures, 64): the views as 8x8 pictures with mean 0 and length 1, so that a product is a correlation."""
    rows, columns = _window(view[2], view[3], COARSE), _window(view[0], view[1], COARSE)
    count = len(thumbs) if which is None else len(which)
    coarse = np.empty((count, COARSE * COARSE), dtype=np.float16)
    for at in range(0, count, ROWS):
        part = thumbs[at : at + ROWS] if which is None else thumbs[which[at : at + ROWS]]
        small = (rows @ part.astype(np.float32) @ columns.T).reshape(-1, COARSE * COARSE)
        small -= small.mean(axis=1, keepdims=True)
        coarse[at : at + ROWS] = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-6)
    return coarse


def _window(stretch: float, shift: float, side: int) -> Floats:
    """(side, 32) weights that read one axis from `shift` on over `stretch` of it, each the mean of what it covers."""
    return _covered(round(float(stretch), 4), round(float(shift), 4), side)


@cache
def _covered(stretch: float, shift: float, side: int) -> Floats:
    edges = (shift + stretch * np.arange(side + 1) / side) * THUMB
    low, high = np.maximum(edges[:-1, None], np.arange(THUMB)), np.minimum(edges[1:, None], np.arange(THUMB) + 1)
    weights = np.maximum(high - low, 0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
