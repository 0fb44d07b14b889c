from __future__ import annotations

import io
import os
import struct
from contextlib import suppress

import pytest
from PIL import Image

from scalenet.cleaning import endings, look
from scalenet.cleaning.look import looks
from scalenet.cleaning.values import Fault
from tests.cleaning.samples import PIXELS, chunk, encoded, fault, look_at, scene

JPEGS = [
    {},
    {"progressive": True},
    {"quality": 95, "subsampling": 0},
    {"restart_marker_rows": 1},
    {"optimize": True, "quality": 30},
]


@pytest.fixture
def seen(tmp_path):
    return lambda data, name="a.jpg", **options: look_at(tmp_path / name, data, **options)


@pytest.mark.parametrize("options", JPEGS)
@pytest.mark.parametrize("size", [(24, 24), (130, 150)])
def test_a_jpeg_cut_anywhere_is_truncated(tmp_path, options, size):
    whole = encoded(scene(*size), "JPEG", **options)
    cuts = sorted({*range(1, 24), *range(24, len(whole), 37), *range(len(whole) - 40, len(whole))})
    for cut in cuts:
        (tmp_path / f"{cut}.jpg").write_bytes(whole[:cut])
    found = looks([str(tmp_path / f"{cut}.jpg") for cut in cuts], PIXELS)
    assert {cut: Fault(f).name for cut, f in zip(cuts, found["fault"].tolist(), strict=True) if f != 3} == {}


@pytest.mark.parametrize(
    ("format", "name", "spared"),
    [("PNG", "a.png", 0), ("WEBP", "a.webp", 0), ("GIF", "a.gif", 1), ("AVIF", "a.avif", 0)],
)
def test_other_formats_cut_anywhere_are_truncated(tmp_path, format, name, spared):
    whole = encoded(scene(60, 50), format)
    cuts = sorted({*range(4, 60), *range(60, len(whole) - spared, 41), *range(len(whole) - 40, len(whole) - spared)})
    for cut in cuts:
        (tmp_path / f"{cut}{name}").write_bytes(whole[:cut])
    found = looks([str(tmp_path / f"{cut}{name}") for cut in cuts], PIXELS)
    assert {c: Fault(f).name for c, f in zip(cuts, found["fault"].tolist(), strict=True) if f != 3 and c >= 12} == {}


@pytest.mark.parametrize(
    ("format", "options"), [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("PPM", {})]
)
def test_formats_without_an_end_of_their_own_are_truncated_when_their_data_is(seen, format, options):
    whole = encoded(scene(60, 50), format, **options)
    for cut in (len(whole) // 3, len(whole) // 2, len(whole) - 300):
        assert fault(seen(whole[:cut])) == "TRUNCATED", cut


def test_what_follows_the_end_is_no_fault(seen):
    whole = encoded(scene(), "JPEG")
    for more in (b"\0" * 512, b"\r\n", b"SEFT trailer", whole, b"\xff" * 9, os.urandom(3000)):
        assert fault(seen(whole + more)) == "NONE", more[:10]
    png = encoded(scene(), "PNG")
    assert fault(seen(png + b"padding" * 99)) == "NONE"
    gif = encoded(scene(), "GIF")
    assert fault(seen(gif + b"\0" * 9)) == "NONE"
    assert fault(seen(gif[:-1])) == "NONE"  # lacks the trailer only


def let_pass():
    """JPEGs without their end that Pillow decodes without a word: about one in fifteen."""
    for seed in range(60):
        cut = encoded(scene(seed=seed, mode="L"), "JPEG", quality=95)[:-2]
        with suppress(OSError), Image.open(io.BytesIO(cut)) as image:
            image.draft("L", (48, 40))
            image.load()
            yield cut


def test_a_missing_end_is_found_where_the_decoder_misses_it(seen):
    cuts = list(let_pass())
    assert cuts
    small = encoded(scene(40, 40), "JPEG")
    segment = b"\xff\xe5" + struct.pack(">H", len(small) + 2) + small
    for cut in cuts:
        assert fault(seen(cut)) == "TRUNCATED"
        assert fault(seen(cut + b"\0" * 500)) == "TRUNCATED"
        embedded = cut[:2] + segment + cut[2:]  # the end of a thumbnail is not the end of the picture
        assert fault(seen(embedded)) == "TRUNCATED"
        assert fault(seen(embedded + b"\xff\xd9")) == "NONE"
        assert fault(seen(embedded[: 2 + len(segment)])) == "TRUNCATED"


def test_an_end_across_two_blocks_is_found(monkeypatch):
    whole = encoded(scene(), "JPEG") + b"padding"
    for size in range(60, 160):
        monkeypatch.setattr(endings, "BLOCK", size)
        assert endings.ending(io.BytesIO(whole)) == Fault.NONE


def test_any_flipped_bit_of_a_png_is_found(tmp_path):
    whole = encoded(scene(40, 30), "PNG")
    places = range(8, len(whole), 3)
    for place in places:
        data = bytearray(whole)
        data[place] ^= 0x10
        (tmp_path / f"{place}.png").write_bytes(data)
    found = looks([str(tmp_path / f"{place}.png") for place in places], PIXELS)["fault"].tolist()
    assert {Fault.NONE, Fault.FOREIGN}.isdisjoint(found)
    start, end = whole.index(b"IDAT") + 4, whole.index(b"IEND") - 4  # a flipped length may seem to run over the end
    inside = {fault for place, fault in zip(places, found, strict=True) if start <= place < end}
    assert inside == {Fault.CORRUPT}


def test_a_damaged_checksum_of_remarks_after_the_picture_is_no_fault(seen):
    png = encoded(scene(), "PNG")
    remark = bytearray(chunk(b"tEXt", b"a\0b"))
    remark[-1] ^= 1
    assert fault(seen(png[:-12] + bytes(remark) + png[-12:])) == "NONE"


def test_a_file_too_large_to_hold_is_the_same_picture(seen, monkeypatch):
    for data in (encoded(scene(), "JPEG"), encoded(scene(), "PNG"), encoded(scene(), "GIF")):
        whole, cut = seen(data), seen(data[:-9])
        monkeypatch.setattr(look, "HELD", 0)
        monkeypatch.setattr(look, "BLOCK", 100)
        monkeypatch.setattr(endings, "BLOCK", 100)
        assert seen(data).tobytes() == whole.tobytes()
        assert fault(cut) == fault(seen(data[:-9])) == "TRUNCATED"
        monkeypatch.undo()
