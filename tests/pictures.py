"""Small pictures made on the spot: a cache written without decoding anything, and a folder of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from scalenet.data import PARTS, Prepared


def tiny_pictures(folder: Path, *, classes: int = 3, side: int = 20, fit: int = 36, judged: int = 18) -> Prepared:
    """`classes` colours under noise: learnt in a few steps. The layout is that of scalenet.data.cache."""
    generator = np.random.default_rng(0)
    colours = generator.integers(40, 216, (classes, 3))
    counts = {"fit": fit, "select": judged, "held": judged}
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        labels = np.arange(counts[part], dtype=np.int64) % classes
        noise = generator.integers(-40, 40, (counts[part], side, side, 3))
        np.save(folder / f"{part}.npy", (colours[labels][:, None, None] + noise).astype(np.uint8))
        np.save(folder / f"{part}.labels.npy", labels)
    names = tuple(f"colour{i}" for i in range(classes))
    return Prepared(
        directory=str(folder),
        side=side,
        name="tiny",
        fingerprint="f" * 12,
        native_size=side,
        classes=names,
        pictures=sum(counts.values()),
        counts=counts,
        class_counts={name: {part: counts[part] // classes for part in PARTS} for name in names},
        unreadable=(),
        conflicts=0,
        duplicates=0,
        crossing=0,
        ignored=0,
        flip=True,
        demonstration=False,
        warnings=(),
    )


def png_folder(folder: Path, each: int = 20, side: int = 24) -> Path:
    """A folder of two classes that a network can tell apart at once: dark and bright noise."""
    draw = np.random.default_rng(0)
    for label, level in (("dark", 60), ("bright", 180)):
        (folder / label).mkdir(parents=True)
        for i in range(each):
            noise = draw.integers(level - 40, level + 40, (side, side, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / label / f"{i}.png")
    return folder
