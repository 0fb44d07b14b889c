"""The second look at two pictures that may be copies: one thumbnail is laid over the other, then compared.

A cropped copy shows a part of the picture, so that its thumbnail is shifted and stretched against the whole's. The
shift and stretch of each axis are found by least squares (Lucas and Kanade 1981, with Baker and Matthews' 2004 inverse
composition, and with gain and offset of grey as two more unknowns). What is left is told apart
by three measures, none of which suffices alone: correlation of all (fine shapes drown in a bright sky), correlation of
the detail (two flat pictures have none), and whether what differs lies in one place (a fixed camera, a moment later).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from scalenet.cleaning.values import THUMB

Floats = NDArray[np.float32]
Thumbs = NDArray[np.uint8]  # (pairs, 32, 32)

BATCH = 256  # pairs at once: a few megabytes
COARSE, COARSE_STEPS, COARSE_ALIKE = 16, 6, 0.93  # pixels, steps, and the correlation reached there, or they differ
STEPS = 2  # at full size
FARTHEST = 1.4  # stretch of an axis: more than a light crop

ALIKE = 0.985  # correlation of the grey, once aligned
DETAIL = 0.97  # and of what is left of it without its local mean
SPOT = 2.2  # the largest local difference, in those that three quarters of the picture stay below
RICH = 1.0  # grey levels: the standard deviation of detail below which it is mostly noise
PLAIN = 1.5  # grey levels by which two pictures without detail may differ anywhere
FLAT = 2.0  # grey levels: the standard deviation of a thumbnail below which there is nothing to compare


@dataclass(frozen=True)
class Likeness:
    """How alike the pairs of a batch are once aligned; an array of one number a pair each."""

    alike: Floats  # correlation
    detail: Floats  # correlation of detail
    spot: Floats  # largest local difference over the usual one
    rich: Floats  # standard deviation of detail, of the poorer one
    apart: Floats  # the largest difference of grey anywhere, without allowance for gain or offset

    @property
    def same(self) -> NDArray[np.bool_]:
        """Copies of one picture."""
        plain = (self.rich < RICH) & (self.alike >= ALIKE) & (self.apart <= PLAIN)
        shown = (self.rich >= RICH) & (self.alike >= ALIKE) & (self.detail >= DETAIL) & (self.spot <= SPOT)
        return np.asarray(plain | shown)


def same(first: Thumbs, second: Thumbs, start: Floats) -> NDArray[np.bool_]:
    """Which pairs are copies. `start` (pairs, 4) says where the second is first looked for in the first, as `Laid`."""
    found = np.zeros(len(first), dtype=bool)
    for at in range(0, len(first), BATCH):
        part = slice(at, at + BATCH)
        laid = lay(first[part].astype(np.float32), second[part].astype(np.float32), start[part])
        found[at + laid.pairs] = likeness(laid).same
    return found


@dataclass(frozen=True)
class Laid:
    """The pairs that come close, one laid over the other.

    A place is (stretch, shift) across, then down: the point t of the inner picture, 0 to 1, is stretch x t + shift in
    the outer.
    """

    pairs: NDArray[np.intp]  # which these are of those given
    outer: Floats  # (pairs, 32, 32): of each pair the one that shows more
    inner: Floats
    place: Floats  # (pairs, 4)


def lay(a: Floats, b: Floats, start: Floats) -> Laid:
    """At half size first; pairs that are far from alike there are left out."""
    small, other = _smaller(a, COARSE), _smaller(b, COARSE)
    place = _fit(small, other, start.astype(np.float32), COARSE_STEPS)
    near = (np.abs(np.log(place[:, [0, 2]])) < np.log(FARTHEST)).all(axis=1)
    over, seen = _warp(small, place)
    left = np.flatnonzero(near & (_correlate(over, other, seen)[0] >= COARSE_ALIKE))
    place = place[left]
    stretch, shift = place[:, [0, 2]], place[:, [1, 3]]
    turned = stretch.prod(axis=1) > 1  # it is the second that shows more
    back = np.stack([1 / stretch, -shift / stretch], axis=2).reshape(-1, 4)
    place = np.where(turned[:, None], back, place).astype(np.float32)
    swap = turned[:, None, None]
    outer, inner = np.where(swap, b[left], a[left]), np.where(swap, a[left], b[left])
    return Laid(left, outer, inner, _fit(_smooth(outer), _smooth(inner), place, STEPS))


def likeness(laid: Laid) -> Likeness:
    """Of pairs laid over each other."""
    over, seen = _warp(laid.outer, laid.place)
    over, under = _smooth(over), _smooth(laid.inner)
    seen = _inner(seen, 1)
    alike, gain = _correlate(over, under, seen)
    difference = (_centred(under, seen) - gain[:, None, None] * _centred(over, seen)) * seen
    local = np.abs(_box(difference, 1)).reshape(len(over), THUMB * THUMB)
    usual = np.partition(local, local.shape[1] * 3 // 4, axis=1)[:, local.shape[1] * 3 // 4]
    inner = _inner(seen, 3)  # where the local mean is of whole neighbourhoods
    fine, below = over - _box(over, 3), under - _box(under, 3)
    detail, _ = _correlate(fine, below, inner)
    rich = np.minimum(_deviation(fine, inner), _deviation(below, inner))
    apart = (np.abs(_box(under - over, 1)) * seen).max(axis=(1, 2))
    return Likeness(alike, detail, local.max(axis=1) / (2.0 + usual), rich, apart)


def whole(pairs: int) -> Floats:
    """The places of pairs that show the same."""
    return np.tile(np.array([1.0, 0.0, 1.0, 0.0], dtype=np.float32), (pairs, 1))


def _fit(a: Floats, b: Floats, place: Floats, steps: int) -> Floats:
    """Better places: the second picture and its slopes explain the first, seen at the place, in the least squares."""
    pairs, side = len(a), a.shape[1]
    u = (2 * np.arange(side, dtype=np.float32) + 1) / side - 1
    across, down = np.zeros_like(b), np.zeros_like(b)
    across[:, :, 1:-1] = (b[:, :, 2:] - b[:, :, :-2]) * (side / 2)
    down[:, 1:-1] = (b[:, 2:] - b[:, :-2]) * (side / 2)
    edge = np.zeros((side, side), dtype=np.float32)
    edge[1:-1, 1:-1] = 1
    parts = (across, across * u, down, down * u[:, None], b, np.ones_like(b))
    model = np.stack(parts, axis=1).reshape(pairs, len(parts), side * side)
    weighted = model * edge.ravel()
    normal = (weighted @ model.transpose(0, 2, 1)).astype(np.float64)
    normal += np.eye(6) * (np.einsum("kii->ki", normal) * 1e-4 + 1e-3)[:, None, :]
    solve = np.linalg.inv(normal).astype(np.float32) @ weighted
    known = np.tile(np.array([1.0, 0.0], dtype=np.float32), (pairs, 1))
    for _ in range(steps):
        over, seen = _warp(a, place)
        guess = np.einsum("kp,kpx->kx", known, model[:, 4:]).reshape(over.shape)
        found = (solve @ np.where(seen > 0, over, guess).reshape(pairs, side * side, 1))[:, :, 0]
        known = found[:, 4:]
        move = np.clip(found[:, :4] / np.maximum(found[:, 4:5], 0.2), -0.08, 0.08)
        place = place.copy()
        for axis in (0, 2):
            stretch = place[:, axis] / (1 + 2 * move[:, axis + 1])
            place[:, axis + 1] -= stretch * (move[:, axis] - move[:, axis + 1])
            place[:, axis] = stretch
    return place


def _warp(a: Floats, place: Floats) -> tuple[Floats, Floats]:
    """The first pictures seen at the places, and 1 where that lies in them (0 outside)."""
    rows, high = _sampling(place[:, 2], place[:, 3], a.shape[1])
    columns, wide = _sampling(place[:, 0], place[:, 1], a.shape[2])
    return rows @ a @ columns.transpose(0, 2, 1), high[:, :, None] * wide[:, None, :]


def _sampling(stretch: Floats, shift: Floats, side: int) -> tuple[Floats, Floats]:
    """(pairs, side, side) weights that read one axis elsewhere (cubic convolution, Keys 1981), (pairs, side) inside."""
    t = (np.arange(side, dtype=np.float32) + 0.5) / side
    at = stretch[:, None] * t + shift[:, None]
    inside = ((at >= 0) & (at <= 1)).astype(np.float32)
    d = np.abs(np.clip(at * side - 0.5, 0, side - 1)[:, :, None] - np.arange(side, dtype=np.float32))
    near = np.minimum(d, 1.0)
    far = np.clip(d, 1.0, 2.0)
    weights = ((1.5 * near - 2.5) * near * near + 1) + ((2.5 - 0.5 * far) * far - 4) * far + 2
    return (weights / weights.sum(axis=2, keepdims=True)).astype(np.float32), inside


def _correlate(a: Floats, b: Floats, seen: Floats) -> tuple[Floats, Floats]:
    """(correlation, gain from a to b) where both are seen."""
    a, b = _centred(a, seen) * seen, _centred(b, seen) * seen
    both, of_a, of_b = (np.einsum("kij,kij->k", x, y) for x, y in ((a, b), (a, a), (b, b)))
    return both / np.sqrt(np.maximum(of_a * of_b, 1e-6)), both / np.maximum(of_a, 1e-3)


def _centred(x: Floats, seen: Floats) -> Floats:
    mean = np.einsum("kij,kij->k", x, seen) / np.maximum(seen.sum(axis=(1, 2)), 1)
    return np.asarray(x - mean[:, None, None])


def _deviation(x: Floats, seen: Floats) -> Floats:
    centred = _centred(x, seen) * seen
    return np.asarray(np.sqrt(np.einsum("kij,kij->k", centred, centred) / np.maximum(seen.sum(axis=(1, 2)), 1)))


def _inner(seen: Floats, edge: int) -> Floats:
    inner = np.zeros_like(seen)
    inner[:, edge:-edge, edge:-edge] = seen[:, edge:-edge, edge:-edge]
    return inner


def _smaller(x: Floats, side: int) -> Floats:
    by = x.shape[1] // side
    return np.asarray(x.reshape(-1, side, by, side, by).mean(axis=(2, 4)))


def _smooth(x: Floats) -> Floats:
    return np.asarray(_filter((1, 2, 1)) @ x @ _filter((1, 2, 1)).T)


def _box(x: Floats, reach: int) -> Floats:
    """The mean of the pixels no farther than `reach` along either axis."""
    weights = _filter((1,) * (2 * reach + 1))
    return np.asarray(weights @ x @ weights.T)


@cache
def _filter(taps: tuple[int, ...]) -> Floats:
    """(32, 32): the taps around each pixel, those beyond the edge left out."""
    reach = len(taps) // 2
    bands = sum(np.eye(THUMB, k=k - reach) * tap for k, tap in enumerate(taps))
    return np.asarray(bands / np.sum(bands, axis=1, keepdims=True), dtype=np.float32)
