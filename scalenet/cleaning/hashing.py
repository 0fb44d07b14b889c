"""What makes two pictures comparable: a 32x32 thumbnail, and 64 bits of its shape."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scalenet.cleaning.values import THUMB

BITS = 8  # rows and columns of the lowest frequencies that make the hash
BLOCK = 64  # pictures hashed at once: half a megabyte, which stays in the processor's cache


def thumb(grey: Image.Image) -> NDArray[np.uint8]:
    """(32, 32) of a picture in mode L, stretched to a square (Lanczos, antialiased); what `hashes` takes."""
    if grey.size == (THUMB, THUMB):
        return np.asarray(grey)
    return np.asarray(grey.resize((THUMB, THUMB), Image.Resampling.LANCZOS))


def phash(grey: Image.Image) -> int:
    """The perceptual hash of a picture in mode L: the very bits of the ImageHash package's `phash`."""
    return int(hashes(thumb(grey)[None])[0])


def hashes(thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(pictures, 32, 32) -> (pictures,): which of the 64 lowest frequencies lie above their median.

    The bits run through the rows, the first being the highest. Many at once cost far less each than one by one.
    """
    found = np.empty(len(thumbs), dtype=np.uint64)
    for first in range(0, len(thumbs), BLOCK):
        found[first : first + BLOCK] = _block(thumbs[first : first + BLOCK])
    return found


def _block(thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    basis = _basis()
    across = thumbs.reshape(-1, THUMB).astype(np.float64) @ basis.T  # two large products, not one small one for each
    down = across.reshape(-1, THUMB, BITS).transpose(0, 2, 1).reshape(-1, THUMB) @ basis.T
    low = down.reshape(-1, BITS, BITS).transpose(0, 2, 1).reshape(-1, BITS * BITS)
    # Frequencies that a symmetric or flat picture lacks are zero but for rounding, which differs between processors.
    low = np.round(low, 6)
    ordered = np.sort(low, axis=1)
    middle = BITS * BITS // 2
    median = (ordered[:, middle - 1] + ordered[:, middle]) / 2
    return np.packbits(low > median[:, None], axis=1).view(">u8")[:, 0].astype(np.uint64)


@cache
def _basis() -> NDArray[np.float64]:
    """(8, 32): the lowest rows of the type-II cosine transform, unnormalised (2 cos(pi k (2 n + 1) / 64))."""
    k, n = np.arange(BITS)[:, None], np.arange(THUMB)[None, :]
    return np.asarray(2.0 * np.cos(np.pi * k * (2 * n + 1) / (2 * THUMB)))
