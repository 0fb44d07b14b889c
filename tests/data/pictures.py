"""Small picture folders for the tests of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def pixels(number: int, height: int = 24, width: int = 24) -> np.ndarray:
    return np.random.RandomState(number).randint(0, 256, (height, width, 3), dtype=np.uint8)


def picture(path: Path, number: int, height: int = 24, width: int = 24) -> Path:
    """A PNG of noise; different numbers never make the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(number, height, width)).save(path)
    return path


def folder(root: Path, layout: dict[str, int], first: int = 0, side: int = 24) -> Path:
    """`layout` maps a class folder's path below root to its number of pictures, all different."""
    number = first
    for name, count in layout.items():
        for i in range(count):
            picture(root / name / f"{i:03d}.png", number, side, side)
            number += 1
    return root
