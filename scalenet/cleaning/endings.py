"""Whether a picture's file goes on to the end that its format prescribes.

Decoders stop when they have seen enough: a JPEG that lacks its last bytes, or a PNG with a wrong checksum, passes them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from scalenet.cleaning.values import Fault

BLOCK = 1 << 20  # bytes read at a time
EOI = b"\xff\xd9"
PNG = b"\x89PNG\r\n\x1a\n"


def ending(file: BinaryIO) -> Fault | None:
    """NONE, TRUNCATED or CORRUPT by the file's structure; None where its first bytes are of no format known here.

    What follows the end of a picture (padding, a film, a second picture) is nobody's business.
    """
    file.seek(0)
    head = file.read(12)
    for signature, check in _CHECKS:
        if head.startswith(signature):
            return check(file)
        if signature.startswith(head):  # too short to tell, but as far as it goes
            return Fault.TRUNCATED
    if head.startswith(b"RIFF") and head[8:] == b"WEBP"[: len(head) - 8]:
        return _webp(file)
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return _bmp(file)
    if head[4:8] == b"ftyp" or head[4:8] == b"jP  ":
        return _boxes(file)
    return None


def _jpeg(file: BinaryIO) -> Fault:
    """ISO/IEC 10918-1, annex B: segments up to the first scan, then its data, in which no end of image can occur."""
    file.seek(2)
    while len(marker := file.read(4)) == 4:
        if marker[0] != 0xFF or marker[1] in (0xFF, 0x00, 0x01) or 0xD0 <= marker[1] <= 0xD8:
            file.seek(-3, 1)  # fill bytes, or junk between segments
            continue
        length = marker[2] << 8 | marker[3]
        if length < 2:
            return Fault.CORRUPT
        file.seek(length - 2, 1)
        if marker[1] == 0xDA:
            return Fault.NONE if _contains(file, EOI) else Fault.TRUNCATED
    return Fault.TRUNCATED


def _contains(file: BinaryIO, mark: bytes) -> bool:
    """Whether the mark comes anywhere from here on."""
    kept = b""
    while block := file.read(BLOCK):
        if mark in kept + block:
            return True
        kept = block[1 - len(mark) :]
    return False


def _png(file: BinaryIO) -> Fault:
    """PNG, section 5.3: length, type, data and checksum. Only those of critical chunks count."""
    file.seek(len(PNG))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if not kind.isalpha():
            return Fault.CORRUPT
        checksum = zlib.crc32(kind)
        while length:
            block = file.read(min(length, BLOCK))
            if not block:
                return Fault.TRUNCATED
            checksum = zlib.crc32(block, checksum)
            length -= len(block)
        stated = file.read(4)
        if len(stated) < 4:
            return Fault.TRUNCATED
        if kind[:1].isupper() and int.from_bytes(stated, "big") != checksum:
            return Fault.CORRUPT
        if kind == b"IEND":
            return Fault.NONE
    return Fault.TRUNCATED


def _gif(file: BinaryIO) -> Fault:
    """GIF89a, appendix B: blocks of sub-blocks. A missing trailer is let pass when a picture came before."""
    file.seek(10)
    flags = file.read(3)
    if len(flags) < 3:
        return Fault.TRUNCATED
    file.seek(_palette(flags[0]), 1)
    pictures = 0
    while kind := file.read(1):
        if kind == b"\x2c":
            descriptor = file.read(9)
            if len(descriptor) < 9:
                return Fault.TRUNCATED
            file.seek(_palette(descriptor[8]) + 1, 1)
            pictures += 1
        elif kind == b"\x21":
            file.seek(1, 1)
        elif kind == b"\x3b":
            break
        else:
            continue  # padding; what it cannot be is for the decoder to say
        while length := file.read(1):
            if length == b"\x00":
                break
            file.seek(length[0], 1)
        else:
            return Fault.TRUNCATED
    return Fault.NONE if pictures else Fault.TRUNCATED


def _palette(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp(file: BinaryIO) -> Fault:
    """RIFF: the size of all that follows, in front."""
    file.seek(4)
    stated = file.read(4)
    size = file.seek(0, 2)
    return Fault.NONE if len(stated) == 4 and int.from_bytes(stated, "little") + 8 <= size else Fault.TRUNCATED


def _tiff(file: BinaryIO) -> Fault:
    """TIFF 6.0, section 2: where the first directory lies. It often is the last thing in the file."""
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    file.seek(4)
    place = file.read(4)
    size = file.seek(0, 2)
    return Fault.NONE if len(place) == 4 and struct.unpack(order + "I", place)[0] + 2 <= size else Fault.TRUNCATED


def _bmp(file: BinaryIO) -> Fault:
    """Where the pixels begin. How large the file is, is in front too, but often wrong."""
    file.seek(10)
    place = file.read(4)
    return Fault.NONE if len(place) == 4 and int.from_bytes(place, "little") < file.seek(0, 2) else Fault.TRUNCATED


def _boxes(file: BinaryIO) -> Fault:
    """ISO/IEC 14496-12, section 4.2 (AVIF, JPEG 2000): boxes with their size in front; 0 goes to the end."""
    size = file.seek(0, 2)
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return Fault.TRUNCATED
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length == 0:
            break
        if length < 8:
            return Fault.CORRUPT
        if place == 0 and length == size:  # the first only says what the others are
            return Fault.TRUNCATED
        place += length
    return Fault.NONE if place <= size else Fault.TRUNCATED


_CHECKS: tuple[tuple[bytes, Callable[[BinaryIO], Fault]], ...] = (
    (b"\xff\xd8\xff", _jpeg),
    (PNG, _png),
    (b"GIF87a", _gif),
    (b"GIF89a", _gif),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
)
