"""How sharp, bright and rich in contrast a picture is, in a few numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

TILES = 8  # the picture is cut in 8x8 tiles to see where it is sharp
SHARPEST = 4  # of the 64, from the top: the 95th percentile
DIAGONAL = 2.8  # by which the square of a second difference is larger along it: 4 were pixels points
SMALL, DETAIL = 64, 160  # pixels of the shorter side


class Scores(NamedTuple):
    """Named as the fields of LOOK."""

    blur: float  # variance of the Laplacian: low is blurry
    brightness: float  # mean grey, 0 to 255
    contrast: float  # standard deviation of grey
    sharp: float  # the same for its sharpest tiles along the least sharp direction: what a shaken picture lacks
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
    blur, brightness, contrast, sharp, low, high = (values[0] for values in stacked(np.asarray(grey)[None]))
    return Scores(float(blur), float(brightness), float(contrast), float(sharp), int(low), int(high))


def stacked(greys: NDArray[np.uint8]) -> tuple[NDArray[Any], ...]:
    """(n, height, width) -> the fields of Scores, each (n,): of small pictures far cheaper than one by one."""
    n, pixels = len(greys), greys[0].size
    levels = np.arange(256)
    if n == 1:
        counts = np.array([Image.fromarray(greys[0]).histogram()])
    else:
        places = greys.reshape(n, pixels) + (levels.size * np.arange(n))[:, None]
        counts = np.bincount(places.ravel(), minlength=n * levels.size).reshape(n, levels.size)
    mean = counts @ levels / pixels
    spread = np.sqrt(np.maximum(0.0, counts @ (levels * levels) / pixels - mean * mean))
    below = np.cumsum(counts, axis=1)
    low, high = ((below <= pixels * part).sum(axis=1) for part in (0.005, 0.995))
    blur = _laplacian(greys)
    return blur, mean, spread, _sharpest(greys, blur), low, np.minimum(high, 255)


def _laplacian(greys: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Variance of the four-neighbour Laplacian."""
    if min(greys.shape[1:]) < 3:
        return np.zeros(len(greys), np.float32)
    wide = greys.astype(np.int16)
    edges = wide[:, 1:-1, 1:-1] * np.int16(4)
    edges -= wide[:, :-2, 1:-1]
    edges -= wide[:, 2:, 1:-1]
    edges -= wide[:, 1:-1, :-2]
    edges -= wide[:, 1:-1, 2:]
    strength = edges.reshape(len(greys), -1).astype(np.float32)
    mean = strength.mean(axis=1)
    return np.asarray(np.maximum(0.0, np.einsum("ij,ij->i", strength, strength) / strength.shape[1] - mean * mean))


def _sharpest(greys: NDArray[np.uint8], blur: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of four directions the least: mean square of the second difference, at the 95th percentile of the tiles.

    Scaled to what the Laplacian would have were all directions the same (8/3 of one, for a smooth random field). Every
    second pixel of every second row is enough. `blur` where tiles would have single pixels.
    """
    n, height, width = len(greys), greys.shape[1] - 2, greys.shape[2] - 2
    high, broad = (height + 1) // 2 // TILES, (width + 1) // 2 // TILES
    if high < 2 or broad < 2:
        return blur
    # Pixels of even and odd rows and columns; those of odd ones have neighbours on all sides.
    corner, above, beside, middle = (
        greys[:, row::2, column::2].astype(np.int16) for row, column in ((0, 0), (0, 1), (1, 0), (1, 1))
    )
    rows, columns = high * TILES, broad * TILES
    middle = middle[:, :rows, :columns] * np.int16(2)
    least = np.full(n, np.inf, np.float32)
    for neighbours, down, across, further in ((above, 1, 0, 1), (beside, 0, 1, 1), (corner, 1, 1, DIAGONAL)):
        for turned in (False, True) if down and across else (False,):
            first, second = (down, 0) if turned else (0, down)
            bend = middle - neighbours[:, first : first + rows, :columns]
            bend -= neighbours[:, second : second + rows, across : across + columns]
            square = np.square(bend.astype(np.float32)).reshape(n, TILES, high, columns).sum(axis=2)
            tiles = square.reshape(n, TILES * TILES, broad).sum(axis=2)
            least = np.minimum(least, np.partition(tiles, -SHARPEST, axis=1)[:, -SHARPEST] / np.float32(further))
    return np.asarray(least * np.float32(8 / 3 / (high * broad)))
