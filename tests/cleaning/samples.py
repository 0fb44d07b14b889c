"""Pictures as bytes, and what to ask of a look at them."""

from __future__ import annotations

import io
import os
import struct
import zlib
from contextlib import contextmanager

import numpy as np
from PIL import Image

from scalenet.cleaning.look import looks
from scalenet.cleaning.values import Fault

PIXELS = 10**7


def scene(width=96, height=80, seed=0, mode="RGB"):
    """Smooth shapes and some noise: compresses like a photograph."""
    draw = np.random.default_rng(seed)
    rough = Image.fromarray(draw.integers(0, 256, (6, 7, 3), dtype=np.uint8)).resize((width, height))
    noisy = np.asarray(rough).astype(int) + draw.integers(-12, 13, (height, width, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).convert(mode)


def encoded(image, format, **options):
    written = io.BytesIO()
    image.save(written, format, **options)
    return written.getvalue()


@contextmanager
def nobody():
    """Without root's rights, which no permission binds."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def fault(record):
    return Fault(int(record["fault"])).name


def differing(one, other):
    return bin(int(one) ^ int(other)).count("1")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def look_at(file, data, pixels=PIXELS, strict=None):
    """What one look at these bytes tells; `file` is where to write them."""
    file.write_bytes(data)
    return looks([str(file)], pixels, strict)[0]
