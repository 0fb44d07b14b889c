"""One look at a picture's file: read once, decode once, all that is ever asked of it as one record."""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import re
import stat
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from scalenet.children import conversation
from scalenet.cleaning.endings import BLOCK, EOI, ending
from scalenet.cleaning.grey import STREAMED, reduced_grey
from scalenet.cleaning.hashing import hashes, thumb
from scalenet.cleaning.quality import Scores, reduction, stacked
from scalenet.cleaning.values import LOOK, THUMB, Fault
from scalenet.data.pixels import ORIENTATION, UPRIGHT, to_rgb

# What is read beside JPEG, whatever a file's name says; first what Pillow has at hand. Of the others that it knows,
# some are no pictures of anything, and one runs a program (EPS).
FORMATS = ("PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF", "AVIF", "JPEG2000")
HELD = 32 << 20  # bytes of a file that is held in memory; a larger one is read twice
SMALL = 1 << 12  # pixels of a picture that is scored together with others of its size
PALE, COLOUR = 40, 64  # standard deviation of grey below which colours are looked at; pixels of the longer side then
TURNED = frozenset(["exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp", "Raw profile type xmp"])
# Complaints about a JPEG's data, not about what its segments say; junk before these markers lies between segments.
ROT = re.compile(r"Corrupt JPEG data(?!.*before marker 0x(db|c[012]|dd|e.|fe))|Premature end|Unsupported marker type")

# Of the file that several processes fill: whose look it is (path and mark), the look, and the checksum of both.
ROW = np.dtype([("key", "u8"), ("look", LOOK), ("check", "u4")])

# A JPEG's bytes and a power of two -> the picture in grey, each side divided by it; None for what it cannot decode.
Strict = Callable[[bytes, int], Image.Image | None]


class Faulty(Exception):
    """What keeps a file from being a picture."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


def looks(files: Sequence[str], pixels: int, strict: Strict | None = None) -> NDArray[np.void]:
    """(files,) of LOOK. More than `pixels` are not decoded; `strict` decodes JPEGs where it can, and raises Faulty."""
    found = np.zeros(len(files), LOOK)
    found["orientation"] = found["frames"] = 1
    stored = np.zeros((len(files), THUMB, THUMB), np.uint8)
    small: dict[tuple[int, int], list[int]] = {}  # side -> those that wait to be scored together
    waiting: dict[int, NDArray[np.uint8]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files
        for place, file in enumerate(files):
            try:
                reduced = _look(file, found[place], pixels, strict)
            except Faulty as faulty:
                found["fault"][place] = faulty.fault
                continue
            grey = np.asarray(reduced)
            stored[place] = thumb(reduced)
            if grey.size > SMALL:
                _score(found, [place], grey[None])
            else:
                small.setdefault(grey.shape, []).append(place)
                waiting[place] = grey
    for places in small.values():
        _score(found, places, np.stack([waiting[place] for place in places]))
    sound = found["fault"] == Fault.NONE
    found["thumb"] = stored
    found["phash"][sound] = hashes(stored[sound])
    for place in np.flatnonzero(sound & (found["contrast"] < PALE)).tolist():
        found["colour"][place] = _colour(files[place], found[place])
    found["upright"] = found["phash"]
    for place in np.flatnonzero(sound & (found["orientation"] > 1)).tolist():
        turn = UPRIGHT[int(found["orientation"][place])]
        found["thumb"][place] = np.asarray(Image.fromarray(stored[place]).transpose(turn))
        found["upright"][place] = hashes(found["thumb"][place : place + 1])[0]
    return found


def _colour(path: str, look: np.void) -> float:
    """The largest standard deviation of a channel, 0 to 128: what is of one grey may be of many colours."""
    large = int(look["width"]) * int(look["height"]) > STREAMED and look["format"] != b"JPEG"
    if large or look["mode"].decode().partition(";")[0] in ("1", "L", "LA", "I", "F"):
        return 0.0
    with suppress(Exception), Image.open(path) as image:  # it was decoded a moment ago
        image.draft("RGB", (COLOUR, COLOUR))
        image.load()
        small = to_rgb(image)
        small.thumbnail((COLOUR, COLOUR), Image.Resampling.BOX)
        return float(np.asarray(small).std(axis=(0, 1)).max())
    return 0.0


def _score(found: NDArray[np.void], places: list[int], greys: NDArray[np.uint8]) -> None:
    for name, values in zip(Scores._fields, stacked(greys), strict=True):
        found[name][places] = values


def _look(path: str, record: np.void, pixels: int, strict: Strict | None) -> Image.Image:
    """Fills in what the file says of itself; the picture as stored, grey and reduced."""
    try:
        # What has become a pipe since it was listed must not be waited for.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return _read(file, path, record, pixels, strict)
    except PermissionError:
        raise Faulty(Fault.DENIED) from None
    except OSError:
        raise Faulty(Fault.GONE) from None


def _read(file: BinaryIO, path: str, record: np.void, pixels: int, strict: Strict | None) -> Image.Image:
    """As _look. Raises OSError only where the system does."""
    seen = os.fstat(file.fileno())
    if not stat.S_ISREG(seen.st_mode):
        raise Faulty(Fault.GONE)
    digest = hashlib.sha256()
    data: bytes | None = None
    if seen.st_size <= HELD:
        data = file.read()
        digest.update(data)
        if not data:
            raise Faulty(Fault.EMPTY)
    else:
        while block := file.read(BLOCK):
            digest.update(block)
    record["sha256"] = np.frombuffer(digest.digest(), np.uint8)
    if data is None:
        return _measured(file, path, record, pixels, None)
    return _measured(io.BytesIO(data), path, record, pixels, partial(strict, data) if strict else None)


def _measured(
    file: BinaryIO, path: str, record: np.void, pixels: int, strict: Callable[[int], Image.Image | None] | None
) -> Image.Image:
    try:
        with _image(file, path) as image:
            width, height = image.size
            record["format"], record["mode"] = image.format, _mode(image)
            record["width"], record["height"] = width, height
            if width * height > pixels:
                raise Faulty(Fault.BOMB)
            if not _ended(file, image.format):
                raise Faulty(ending(file) or Fault.CORRUPT)
            by = reduction(width, height)
            reduced = strict(by) if strict and image.format == "JPEG" else None
            if reduced is None:
                reduced = reduced_grey(image, file, by)
            record["orientation"] = _orientation(image)
            record["frames"] = _frames(image)
            return reduced
    except Faulty:
        raise
    except Exception as error:  # a damaged file can raise nearly anything, and must cost no more than itself
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the decoder
            raise
        raise Faulty(_blame(error, file, opened=bool(record["width"]))) from error


def _image(file: BinaryIO, path: str) -> Image.Image:
    file.seek(0)
    head = file.read(3)
    file.seek(0)
    if head == b"\xff\xd8\xff":  # straight to the decoder: others only follow pointers to further pictures
        return JpegImagePlugin.JpegImageFile(file)
    # Anything can pass for TGA, which has no signature: its name has to say it.
    return Image.open(file, formats=(*FORMATS, "TGA") if path.lower().endswith(".tga") else FORMATS)


def _ended(file: BinaryIO, format: str | None) -> bool:
    """Whether the file's structure goes on to its end, or nothing is known of that."""
    if format == "JPEG":
        file.seek(-2, os.SEEK_END)
        if file.read(2) == EOI:
            return True
    place = file.tell()
    fault = ending(file)
    file.seek(place)
    return not fault


def _blame(error: Exception, file: BinaryIO, opened: bool) -> Fault:
    if isinstance(error, Image.DecompressionBombError):
        return Fault.BOMB
    fault = ending(file)
    if fault is None and not opened:
        return Fault.FOREIGN
    if fault:
        return fault
    file.seek(0)
    # A JPEG that has its end lacks nothing, whatever the decoder misses in it.
    cut = "truncated" in str(error).lower() and file.read(2) != b"\xff\xd8"
    return Fault.TRUNCATED if cut else Fault.CORRUPT


def _mode(image: Image.Image) -> str:
    """Pillow's mode, with ;16 where it is going to drop the lower half of sixteen bits."""
    if image.format != "JPEG" and "16" not in image.mode and (tiles := getattr(image, "tile", None)):
        raw = tiles[0][3]
        raw = raw[0] if isinstance(raw, tuple) and raw else raw
        if isinstance(raw, str) and ";16" in raw:
            return f"{image.mode};16"
    return image.mode


def _orientation(image: Image.Image) -> int:
    if TURNED.isdisjoint(image.info):  # a TIFF's is heeded as it is decoded
        return 1
    if image.format == "PNG" and "exif" not in image.info and image.width * image.height > STREAMED:
        return 1  # asking would decode it whole
    try:
        said = int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata on a sound picture
        return 1
    return said if said in UPRIGHT else 1


def _frames(image: Image.Image) -> int:
    if image.format == "JPEG":
        return 1
    try:
        return max(1, int(getattr(image, "n_frames", 1)))
    except Exception:  # of a later frame; the first one is sound
        return 1


def strict_decoder() -> Strict | None:
    """What Pillow decodes, bit for bit, if libjpeg has nothing to complain about; None without simplejpeg."""
    try:
        simplejpeg = importlib.import_module("simplejpeg")
    except ImportError:
        return None

    def decoded(data: bytes, by: int) -> Image.Image | None:
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            eighth = min(by, 8)
            grey = simplejpeg.decode_jpeg(
                data, "GRAY", min_height=-(-height // eighth), min_width=-(-width // eighth), min_factor=eighth
            )
        except ValueError as error:
            if ROT.search(str(error)):
                raise Faulty(Fault.CORRUPT) from None
            return None  # another kind of JPEG than it knows, or a complaint about what the segments say
        if colours not in ("Gray", "YCbCr"):  # of four colours it makes another grey
            return None
        image = Image.fromarray(grey[..., 0])
        return image.reduce(by // eighth) if by > eighth else image

    return decoded


def sealed(key: int, look: np.void) -> bytes:
    """The bytes of a ROW."""
    row = np.zeros(1, ROW)
    row["key"], row["look"] = key, look
    held = row.tobytes()[:-4]
    return held + zlib.crc32(held).to_bytes(4, "little")


def main() -> None:
    """Is told a folder, a file of ROWs and its inode, and a limit; then (row, path, key) of some pictures at a time.

    Writes the rows, and answers by how many, or by why it cannot.
    """
    told, reply = conversation()
    folder, rows, inode, pixels = next(told)
    Image.MAX_IMAGE_PIXELS = None  # the limit told is the one that counts
    strict = strict_decoder()
    target = os.open(rows, os.O_WRONLY | os.O_CLOEXEC)
    if os.fstat(target).st_ino != inode:
        return  # whoever asked is dead, and the next one has begun
    reply(0)
    for pictures in told:
        found = looks([os.path.join(folder, path) for _, path, _ in pictures], pixels, strict)
        try:
            for (row, _, key), look in zip(pictures, found, strict=True):
                os.pwrite(target, sealed(key, look), row * ROW.itemsize)
        except OSError as error:
            reply(f"{rows} cannot be written ({error.strerror}).")
            return
        reply(len(pictures))
