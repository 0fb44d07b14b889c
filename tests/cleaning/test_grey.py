from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from scalenet.cleaning import endings, grey
from tests.cleaning.samples import chunk, differing, encoded, fault, look_at, scene


@pytest.fixture
def seen(tmp_path):
    return lambda data, name="a.jpg", **options: look_at(tmp_path / name, data, **options)


def test_a_large_jpeg_is_reduced_by_the_decoder_to_about_what_averaging_gives(seen):
    picture = scene(700, 900)
    jpeg, png = seen(encoded(picture, "JPEG", quality=95)), seen(encoded(picture, "PNG"))
    assert np.abs(jpeg["thumb"].astype(int) - png["thumb"]).max() <= 4
    assert jpeg["blur"] == pytest.approx(png["blur"], rel=0.25)
    assert differing(jpeg["phash"], png["phash"]) <= 2


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGB", "RGBA", "I;16", "keyed"])
def test_a_png_read_in_bands_is_the_same_picture(seen, monkeypatch, mode):
    picture = scene(150, 190)
    if mode == "I;16":
        values = np.asarray(picture.convert("L")).astype(np.uint16) * 256 + 3 * np.arange(150, dtype=np.uint16)
        data = encoded(Image.fromarray(values), "PNG")
    elif mode == "keyed":
        indexed = picture.convert("P")
        data = encoded(indexed, "PNG", transparency=int(np.bincount(np.asarray(indexed).ravel()).argmax()))
    else:
        data = encoded(picture.convert(mode), "PNG")
    whole = seen(data)
    monkeypatch.setattr(grey, "STREAMED", 0)
    monkeypatch.setattr(grey, "BAND", 150 * 30)
    pulled = []
    plainly = grey._streamed
    monkeypatch.setattr(grey, "_streamed", lambda *a: pulled.append(1) or plainly(*a))
    assert seen(data).tobytes() == whole.tobytes()
    assert pulled


def test_a_png_read_in_bands_may_lack_rows(seen, monkeypatch):
    monkeypatch.setattr(grey, "STREAMED", 0)
    monkeypatch.setattr(grey, "BAND", 100 * 10)
    header = struct.pack(">IIBBBBB", 100, 100, 8, 2, 0, 0, 0)
    raw = zlib.compress((b"\0" + b"abc" * 100) * 60)
    png = endings.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", raw) + chunk(b"IEND", b"")
    assert fault(seen(png)) == "TRUNCATED"
    broken = endings.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", raw[:9] + b"\xff" * 99) + chunk(b"IEND", b"")
    assert fault(seen(broken)) == "CORRUPT"


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (2, 2), (3, 65), (63, 64), (64, 64), (65, 999)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_every_shape_can_be_looked_at(seen, size, format):
    found = seen(encoded(scene(*size), format))
    assert (fault(found), found["width"], found["height"]) == ("NONE", *size)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_cut_off(seen, format):
    values = np.linspace(0, 65535, 100 * 90).reshape(90, 100).astype(np.uint16)
    found = seen(encoded(Image.fromarray(values), format))
    assert found["mode"].startswith(b"I;16")
    assert found["brightness"] == pytest.approx(127.5, abs=1)
    assert found["high"] > 250
    dim = seen(encoded(Image.fromarray(values // 16), format))
    assert dim["brightness"] == pytest.approx(127.5 / 16, abs=1)


@pytest.mark.parametrize("size", [(40, 40), (100, 100)])
def test_what_is_transparent_is_white(seen, size):
    clear = Image.new("RGBA", size, (0, 0, 0, 0))
    assert seen(encoded(clear, "PNG"))["brightness"] == 255
    assert seen(encoded(clear, "WEBP", lossless=True))["brightness"] == 255
    keyed = encoded(Image.new("L", size, 7), "PNG", transparency=7)
    assert seen(keyed)["brightness"] == 255


def test_a_cmyk_jpeg_by_adobe_is_not_its_negative(seen):
    bright = Image.new("CMYK", (64, 64), (0, 0, 0, 20))
    assert seen(encoded(bright, "JPEG"))["brightness"] == pytest.approx(235, abs=3)
