"""One picture, whatever its format, as a square of RGB bytes."""

from __future__ import annotations

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

# EXIF tag 274, Orientation: what undoes each of its values (EXIF 2.32, 4.6.4).
ORIENTATION = 274
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decoded_by() -> str:
    """What turns files into pixels: by another version the same JPEG or WebP may come out a little different."""
    return f"Pillow {PIL.__version__}, JPEG {features.version('jpg')}, WebP {features.version('webp')}"


def square(picture: str | NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle square of the picture, upright, resized (bicubic, antialiased) to (side, side, 3) uint8 RGB.

    Raises whatever Pillow raises for a file it cannot read.
    """
    if isinstance(picture, str):
        with Image.open(picture) as image:
            # JPEG: decode at 1/2, 1/4 or 1/8 where twice the side is still left for a clean reduction.
            image.draft(None, (2 * side, 2 * side))
            image.load()
            return _square(image, side)
    return _square(Image.fromarray(picture), side)


def _square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    turn = UPRIGHT.get(orientation(image))
    rgb = to_rgb(image)
    width, height = rgb.size
    short = min(width, height)
    if (width, height) != (side, side):
        left, top = (width - short) / 2, (height - short) / 2
        rgb = rgb.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))
    if turn is not None:
        rgb = rgb.transpose(turn)
    return np.asarray(rgb)


def to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits of red, green and blue: transparency on white, 16 bits scaled down, the first frame of many."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of 16 bits or more: I holds 0 to 65535, F holds 0 to 1, or 0 to 255 where it goes beyond 1."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        values = np.nan_to_num(values)
        values *= 255.0 if values.max(initial=0.0) <= 1.0 else 1.0
    else:
        values *= 255.0 / 65535.0
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def orientation(image: Image.Image) -> int:
    """What EXIF says of how the picture was held, 1 to 8; 1 where it says nothing that can be read."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata on a sound picture
        return 1
