"""Small copies of pictures, as text that a page carries along."""

from __future__ import annotations

import base64
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from scalenet.cleaning.grey import STREAMED, reduced_grey
from scalenet.data.pixels import ORIENTATION, UPRIGHT, to_rgb
from scalenet.data.store import Progress, in_threads

SIDE = 96  # pixels, the longer side
QUALITY = 55  # of JPEG: about 1.5 KB a picture


def thumbnails(root: Path, paths: Sequence[str], progress: Progress | None = None) -> dict[str, str]:
    """path -> a data URI of a small copy, upright; what cannot be decoded is left out.

    Of PNGs beyond 16 megapixels it is grey and as stored, as they are decoded band by band; larger ones of other
    formats than JPEG are left out.
    """
    found: dict[str, str] = {}
    done = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files
        for chunk in in_threads(lambda part: [(path, _thumbnail(root, path)) for path in part], paths, 32):
            found |= {path: uri for path, uri in chunk if uri is not None}
            done += len(chunk)
            if progress:
                progress(done, len(paths), "drawing thumbnails")
    return found


def _thumbnail(root: Path, path: str) -> str | None:
    try:
        with open(os.path.join(root, path), "rb") as file, Image.open(file) as image:
            if image.format != "JPEG" and image.width * image.height > STREAMED:
                if image.format != "PNG":
                    return None  # would take gigabytes
                turn, small = None, reduced_grey(image, file, 1 << (max(image.size) // SIDE).bit_length() - 1)
            else:
                image.draft("RGB", (2 * SIDE, 2 * SIDE))
                turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
                image.load()  # `thumbnail` leaves a picture that is small enough unread
                small = to_rgb(image)
            small.thumbnail((SIDE, SIDE))
            if turn is not None:
                small = small.transpose(turn)
        written = io.BytesIO()
        small.save(written, "JPEG", quality=QUALITY)
    except Exception:  # a damaged file can raise nearly anything, and costs only its own thumbnail
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"
