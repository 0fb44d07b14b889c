import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from scalenet.cleaning.hashing import hashes, phash, thumb


def _scene(seed: int, width: int = 90, height: int = 60) -> Image.Image:
    """A few soft shapes, as a photograph has."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    fine = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
    return Image.blend(coarse.resize((width, height), Image.Resampling.BICUBIC), fine, 0.2)


def test_the_bits_are_those_of_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash", reason="the ImageHash package is not installed")
    sizes = [(90, 60), (32, 32), (17, 40), (300, 200), (32, 100)]
    for seed in range(60):
        picture = _scene(seed, *sizes[seed % len(sizes)])
        assert f"{phash(picture):016x}" == str(imagehash.phash(picture))


def test_pictures_of_one_grey_have_the_bits_of_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash", reason="the ImageHash package is not installed")
    for grey in (0, 1, 77, 255):
        picture = Image.new("L", (50, 40), grey)
        assert f"{phash(picture):016x}" == str(imagehash.phash(picture))


def test_a_known_hash() -> None:
    # A wave of one period across: cos(2 pi x) is the second frequency of the row alone, which lies in bit 63 - 2.
    x = (np.arange(32) + 0.5) / 32
    wave = np.rint(128 + 100 * np.cos(2 * np.pi * x))
    picture = np.broadcast_to(wave, (32, 32)).astype(np.uint8)
    assert phash(Image.fromarray(np.ascontiguousarray(picture))) & (1 << 63 | 1 << 61) == (1 << 63 | 1 << 61)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.integers(0, 1000))
def test_many_at_once_are_as_one_by_one(count: int, seed: int) -> None:
    thumbs = np.random.default_rng(seed).integers(0, 256, (count, 32, 32), dtype=np.uint8)
    assert hashes(thumbs).tolist() == [phash(Image.fromarray(each)) for each in thumbs]


def test_none_has_no_hash() -> None:
    assert hashes(np.zeros((0, 32, 32), np.uint8)).shape == (0,)


def test_a_small_picture_is_its_own_thumbnail() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    assert np.array_equal(thumb(Image.fromarray(picture)), picture)
    assert thumb(_scene(0)).shape == (32, 32)
