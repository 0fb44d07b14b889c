"""How sharp, bright and rich in contrast a picture is, in a few numbers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILES = 8  # the picture is cut in 8x8 tiles to see where it is sharp
SMALL, DETAIL = 64, 160  # pixels of the shorter side


class Scores(NamedTuple):
    """Named as the fields of LOOK."""

    blur: float  # variance of the Laplacian: low is blurry
    brightness: float  # mean grey, 0 to 255
    contrast: float  # standard deviation of grey
    sharp: float  # variance of the Laplacian in the sharpest tiles: high where a part is sharp (a subject before bokeh)
    low: int  # the grey that one pixel in 200 stays below: the shadows
    high: int  # and the one that one pixel in 200 goes beyond: the lights


def reduction(width: int, height: int) -> int:
    """By which power of two a picture of that size is made smaller before it is scored.

    By two where the shorter side has 64 to 639 pixels, by more beyond, so that what is left stays near the 160 to 320
    pixels for which the usual thresholds were found (a sensor's own softness is no blur), and not at all below: half
    of a 32-pixel picture has no detail that could be missing.
    """
    short, by = min(width, height), 1
    if short < SMALL:
        return 1
    while short // (2 * by) >= DETAIL or by == 1:
        by *= 2
    return by


def scores(grey: Image.Image) -> Scores:
    """Of a picture in mode L, made smaller by `reduction`; an edge below 3 pixels has no Laplacian (blur 0)."""
    counts = np.array(grey.histogram(), dtype=np.int64)
    levels = np.arange(256)
    pixels = int(counts.sum())
    mean = float(counts @ levels) / pixels
    spread = max(0.0, float(counts @ (levels * levels)) / pixels - mean * mean) ** 0.5
    low, high = np.searchsorted(np.cumsum(counts), [pixels * 0.005, pixels * 0.995], side="right")
    blur, sharp = _laplacian(np.asarray(grey))
    return Scores(blur, mean, spread, sharp, int(low), int(min(high, 255)))


def _laplacian(grey: NDArray[np.uint8]) -> tuple[float, float]:
    """Variance of the four-neighbour Laplacian: of all, and at the 95th percentile of the tiles."""
    rows, columns = grey.shape[0] - 2, grey.shape[1] - 2
    if rows < 1 or columns < 1:
        return 0.0, 0.0
    wide = grey.astype(np.int16)
    edges = wide[1:-1, 1:-1] * np.int16(4)
    edges -= wide[:-2, 1:-1]
    edges -= wide[2:, 1:-1]
    edges -= wide[1:-1, :-2]
    edges -= wide[1:-1, 2:]
    strength = edges.astype(np.float32)
    mean = float(strength.mean())
    np.square(strength, out=strength)
    blur = max(0.0, float(strength.mean()) - mean * mean)
    high, broad = rows // TILES, columns // TILES
    if high < 2 or broad < 2:
        return blur, blur
    tiles = strength[: high * TILES, : broad * TILES].reshape(TILES, high, TILES, broad).mean(axis=(1, 3))
    return blur, float(np.partition(tiles, -4, axis=None)[-4])
