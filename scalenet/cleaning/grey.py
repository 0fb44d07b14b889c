"""A picture in grey at a fraction of its size, without ever holding much more than that."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from scalenet.cleaning.endings import BLOCK, PNG
from scalenet.data.pixels import to_rgb

BAND = 1 << 20  # pixels converted at a time
STREAMED = 1 << 24  # pixels of a PNG beyond which it is decoded band by band


def reduced_grey(image: Image.Image, file: BinaryIO, by: int) -> Image.Image:
    """The opened picture in mode L, each side divided by `by`, a power of two (rounded up). `file` is where it lies.

    Every byte of the picture is decoded. Sixteen bits are scaled down, transparency lies on white, of several frames
    it is the first.

    Raises whatever Pillow raises for a picture that cannot be decoded to its end.
    """
    width, height = image.size
    if image.format == "JPEG" and by > 1:
        # Grey, and up to an eighth of the size, in the decoder itself: all coefficients are still read.
        image.draft("L", (width // by, height // by))
        by //= max(1, round(width / image.size[0]))
    elif image.format == "PNG" and width * height > STREAMED and (header := _plain(file)):
        return _assembled(_streamed(file, header, by), image.size, by)
    elif image.format == "JPEG":
        image.draft("L", None)
    image.load()
    return _assembled(_bands(image, by), image.size, by)


def _assembled(bands: Iterator[Image.Image], size: tuple[int, int], by: int) -> Image.Image:
    """Bands from top to bottom, each converted and reduced before the next."""
    whole: Image.Image | None = None
    row = 0
    for band in bands:
        part = band if band.mode == "L" and "transparency" not in band.info else to_rgb(band).convert("L")
        if by > 1:
            part = part.reduce(by)
        if band.size == size:
            return part
        if whole is None:
            whole = Image.new("L", (part.width, -(-size[1] // by)))
        whole.paste(part, (0, row))
        row += part.height
    assert whole is not None
    return whole


def _bands(image: Image.Image, by: int) -> Iterator[Image.Image]:
    width, height = image.size
    rows = _rows(width, by)
    if rows >= height or image.mode == "F":  # whose scale is known from all of it only
        yield image
        return
    for top in range(0, height, rows):
        yield image.crop((0, top, width, min(height, top + rows)))


def _rows(width: int, by: int) -> int:
    """Of a band: few enough, and a multiple of `by`."""
    return max(1, BAND // (width * by)) * by


def _plain(file: BinaryIO) -> bytes | None:
    """The header of a PNG of whole bytes, not interlaced; None for another."""
    file.seek(len(PNG) + 8)
    header = file.read(13)
    depth, kind, interlaced = header[8], header[9], header[12]
    return header if not interlaced and (depth == 8 or (depth, kind) == (16, 0)) else None


def _streamed(file: BinaryIO, header: bytes, by: int) -> Iterator[Image.Image]:
    """The PNG as many small ones of full width.

    A row is stored as its difference from the one above, so each small one begins with the last row of the one
    before, which is known by then, stored as it is.
    """
    width, height = struct.unpack(">II", header[:8])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header[9]]
    stride = 1 + width * channels * header[8] // 8
    palette: list[bytes] = []
    inflate = zlib.decompressobj()
    data = _data(file, palette)
    above, top, rows = b"", 0, _rows(width, by)
    while top < height:
        taken = min(rows, height - top)
        lines = above + _inflated(inflate, data, taken * stride)
        first = 1 if above else 0
        size = struct.pack(">II", width, taken + first)
        small = [PNG, _chunk(b"IHDR", size + header[8:]), *palette, _chunk(b"IDAT", zlib.compress(lines, 0))]
        with Image.open(io.BytesIO(b"".join(small) + _chunk(b"IEND", b"")), formats=["PNG"]) as band:
            band.load()
            last = band.crop((0, band.height - 1, width, band.height))
            above = b"\x00" + last.tobytes("raw", "I;16B" if band.mode == "I;16" else band.mode)
            yield band.crop((0, first, width, band.height)) if first else band
        top += taken


def _data(file: BinaryIO, palette: list[bytes]) -> Iterator[bytes]:
    """The compressed data; the chunks before it that say what its values mean go to `palette`."""
    file.seek(len(PNG))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"PLTE", b"tRNS"):
            palette.append(_chunk(kind, file.read(length)))
            file.seek(4, 1)
            continue
        if kind != b"IDAT":
            file.seek(length + 4, 1)
            continue
        while length and (block := file.read(min(length, BLOCK))):
            yield block
            length -= len(block)
        file.seek(4, 1)


def _inflated(inflate: zlib._Decompress, data: Iterator[bytes], size: int) -> bytes:
    """The next `size` bytes. Raises OSError where there are fewer."""
    found = bytearray()
    while len(found) < size:
        block = inflate.unconsumed_tail or next(data, b"")
        more = inflate.decompress(block, size - len(found))
        if not (block or more) or (inflate.eof and len(found) + len(more) < size):
            raise OSError("image file is truncated")
        found += more
    return bytes(found)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
