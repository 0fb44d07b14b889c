"""One picture in another format, and the process that makes many of them."""

from __future__ import annotations

import errno
import io
import os
import warnings
from contextlib import suppress
from typing import Any

from PIL import Image, ImageCms

from scalenet.children import conversation
from scalenet.cleaning.form import QUALITY, Form
from scalenet.data.pixels import UPRIGHT, orientation, to_rgb
from scalenet.errors import one_line

HALF = ".scalenet-{}.part"  # beside the target, while it grows
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the next picture would fare no better


def converted(image: Image.Image, form: Form) -> tuple[Image.Image, bool]:
    """The first frame, upright, in the form's colours and size; and whether it has a colour profile that is of no use.

    What is transparent lies on white, 16 bits are scaled to 8.
    """
    width, height = image.size
    shorter = min(width, height)
    size = image.size
    if form.side is not None and form.side < shorter:
        size = (round(width * form.side / shorter), round(height * form.side / shorter))
        image.draft(None, (2 * size[0], 2 * size[1]))  # JPEG: decoded smaller, with enough left for a clean reduction
    image.load()
    turn = UPRIGHT.get(orientation(image))
    flat, unprofiled = _srgb(image)
    if form.mode == "L":
        flat = flat.convert("L")
    if flat.size != size:
        flat = flat.resize(size, Image.Resampling.LANCZOS)
    return (flat if turn is None else flat.transpose(turn)), unprofiled


def write(picture: str, target: str, form: Form) -> bool:
    """Converts one file; whether its colour profile was of no use. `target` appears whole.

    Raises whatever Pillow or the system raises.
    """
    with Image.open(picture) as image:
        flat, unprofiled = converted(image, form)
    clean = Image.frombytes(flat.mode, flat.size, flat.tobytes())  # without what the file said besides pixels
    half = os.path.join(os.path.dirname(target), HALF.format(os.getpid()))  # whoever was killed may still be writing
    options: dict[str, Any] = {} if form.format == "png" else {"quality": form.quality or QUALITY}
    try:
        clean.save(half, form.format, **options)
        os.replace(half, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(half)
        raise
    return unprofiled


def main() -> None:
    """Is told the form, then pairs of a picture and its target; answers what became of each."""
    told, reply = conversation()
    form = Form(**next(told))
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    for pairs in told:
        reply([_told(picture, target, form) for picture, target in pairs])


def _told(picture: str, target: str, form: Form) -> dict[str, Any]:
    try:
        return {"why": None, "full": False, "unprofiled": write(picture, target, form)}
    except OSError as error:
        why = error.strerror or one_line(error)
        return {"why": why, "full": error.errno in FULL, "unprofiled": False}
    except Exception as error:  # a damaged file can raise nearly anything, and must cost no more than itself
        return {"why": one_line(error), "full": False, "unprofiled": False}


def _srgb(image: Image.Image) -> tuple[Image.Image, bool]:
    """Red, green and blue as sRGB has them; and whether there is a profile that could not be used."""
    profile = image.info.get("icc_profile")
    if not profile:
        return to_rgb(image), False
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return to_rgb(image), False
        plain = image if image.mode in ("RGB", "CMYK", "L") and "transparency" not in image.info else to_rgb(image)
        moved = ImageCms.profileToProfile(plain, own, ImageCms.createProfile("sRGB"), outputMode="RGB")
        if moved is not None:
            return moved, False
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # damaged, or of other colours than the picture
        pass
    return to_rgb(image), True
