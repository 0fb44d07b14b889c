"""Scans of pictures that are drawn in memory."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from scalenet.cleaning.hashing import hashes, thumb
from scalenet.cleaning.quality import Scores, reduction, scores
from scalenet.cleaning.values import LOOK, Entry, Fault, Kind, Scan
from scalenet.data.pixels import UPRIGHT
from scalenet.data.values import Part


@dataclass(frozen=True)
class File:
    """A picture, or what a path is instead."""

    image: Image.Image | None = None
    label: str | None = None
    part: Part | None = None
    orientation: int = 1
    fault: Fault = Fault.NONE
    kind: Kind = "picture"
    more: dict[str, Any] = field(default_factory=dict)  # fields of LOOK


def scanned(files: dict[str, File]) -> Scan:
    """What a scan of such a folder gives."""
    entries = tuple(Entry(path, file.kind, file.label, file.part) for path, file in sorted(files.items()))
    pictures = tuple(entry for entry in entries if entry.kind == "picture")
    looks = np.zeros(len(pictures), LOOK)
    for record, entry in zip(looks, pictures, strict=True):
        _fill(record, files[entry.path])
    return Scan(Path("pictures"), entries, pictures, looks)


def _fill(record: np.void, file: File) -> None:
    record["fault"] = file.fault
    if file.image is not None:
        grey = file.image.convert("L")
        by = reduction(*grey.size)
        small = grey.reduce(by) if by > 1 else grey
        stored = thumb(small)
        turn = UPRIGHT.get(file.orientation)
        upright = stored if turn is None else np.asarray(Image.fromarray(stored).transpose(turn))
        record["sha256"] = np.frombuffer(hashlib.sha256(file.image.tobytes()).digest(), np.uint8)
        record["format"], record["mode"], record["frames"] = b"JPEG", b"RGB", 1
        record["orientation"], record["thumb"] = file.orientation, upright
        record["width"], record["height"] = file.image.size
        record["phash"], record["upright"] = hashes(np.stack([stored, upright]))
        for name, score in zip(Scores._fields, scores(small), strict=True):
            record[name] = score
    for name, value in file.more.items():
        record[name] = value


def drawn(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """Shapes of many sizes and greys on a mottled ground: no two seeds are alike."""
    rng = np.random.default_rng(seed)
    ground = Image.fromarray(rng.integers(40, 216, (9, 12), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(ground)
    for _ in range(25):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        w, h = rng.uniform(0.05, 0.25, 2) * min(width, height)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=int(rng.integers(0, 256)))
    return ground


def encoded(image: Image.Image, quality: int) -> Image.Image:
    """As JPEG leaves it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")
