from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from scalenet.data.pixels import square, to_rgb
from tests.data.pictures import pixels


def test_a_square_picture_of_the_right_side_is_untouched():
    assert np.array_equal(square(pixels(1), 24), pixels(1))


def test_the_middle_is_cut_from_a_wide_and_a_tall_picture():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    assert (square(wide, 20) == 200).all()
    assert (square(wide.transpose(1, 0, 2).copy(), 20) == 200).all()


def test_reduction_is_antialiased():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    grey = square(checks.astype(np.uint8), 16)
    assert grey.shape == (16, 16, 3)
    assert abs(grey.astype(int) - 127).max() <= 2  # every other pixel taken as it is would be 0 or 255


def test_grey_becomes_rgb():
    grey = pixels(2)[..., 0].copy()
    assert np.array_equal(square(grey, 24), np.repeat(grey[..., None], 3, axis=2))


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    clear.putpixel((0, 0), (10, 20, 30, 255))
    rgb = np.asarray(to_rgb(clear))
    assert rgb[0, 0].tolist() == [10, 20, 30]
    assert rgb[1, 1].tolist() == [255, 255, 255]


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 50, 60, 70])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", transparency=0)
    found = square(str(tmp_path / "p.png"), 4)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 1].tolist() == [50, 60, 70]


@pytest.mark.parametrize(("suffix", "dtype"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix, dtype):
    values = np.array([[0, 257 * 100], [257 * 200, 65535]]).astype(dtype)
    mode = "I;16" if dtype == "<u2" else "I;16B"
    path = tmp_path / f"deep.{suffix}"
    Image.frombytes(mode, (2, 2), values.tobytes()).save(path)
    assert square(str(path), 2)[..., 0].tolist() == [[0, 100], [200, 255]]


def test_floats_and_cmyk_and_bilevel(tmp_path):
    Image.fromarray(np.array([[0.0, 0.5], [1.0, np.nan]], dtype=np.float32)).save(tmp_path / "f.tif")
    assert square(str(tmp_path / "f.tif"), 2)[..., 0].tolist() == [[0, 128], [255, 0]]
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    assert square(str(tmp_path / "c.tif"), 4)[0, 0].tolist() == [255, 0, 0]
    Image.new("1", (4, 4), 1).save(tmp_path / "b.png")
    assert (square(str(tmp_path / "b.png"), 4) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    # A quarter lit at the upper left, stored as a camera of that orientation would store it.
    upright = np.zeros((16, 16), np.uint8)
    upright[:8, :8] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "x.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    assert np.array_equal(square(str(path), 16)[..., 0], upright)


def test_large_jpegs_are_drafted_and_look_the_same(tmp_path):
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    image = np.stack([np.tile(ramp, (512, 1))] * 3, axis=2)
    Image.fromarray(image).save(tmp_path / "x.jpg", quality=95)
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
    assert abs(square(str(tmp_path / "x.jpg"), 32).astype(int) - expected).max() <= 4
