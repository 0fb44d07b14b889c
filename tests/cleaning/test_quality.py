import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.ndimage import convolve

from scalenet.cleaning.quality import reduction, scores, stacked


def _noise(seed: int = 0, width: int = 150, height: int = 110) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))


def test_blur_is_the_variance_of_the_laplacian() -> None:
    picture = _noise()
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    inner = convolve(np.asarray(picture).astype(float), kernel)[1:-1, 1:-1]
    assert scores(picture).blur == pytest.approx(inner.var(), rel=1e-4)


def test_brightness_and_contrast_are_mean_and_deviation() -> None:
    picture = _noise(1)
    found = scores(picture)
    assert found.brightness == pytest.approx(np.asarray(picture).mean())
    assert found.contrast == pytest.approx(np.asarray(picture).std())


def test_low_and_high_leave_half_a_percent_outside() -> None:
    grey = np.full(1000, 100, np.uint8)
    grey[:4], grey[4:8], grey[-6:] = 3, 50, 250
    found = scores(Image.fromarray(grey.reshape(20, 50)))
    assert (found.low, found.high) == (50, 250)


def test_a_picture_of_one_grey() -> None:
    found = scores(Image.new("L", (60, 40), 255))
    assert found == (0, 255, 0, 0, 255, 255)


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (3, 3), (5, 40)])
def test_any_size_has_scores(size: tuple[int, int]) -> None:
    assert np.isfinite(scores(_noise(0, *size))).all()


def test_many_at_once_are_as_one_by_one() -> None:
    pictures = [_noise(seed, 40, 48) for seed in range(5)]
    together = stacked(np.stack([np.asarray(picture) for picture in pictures]))
    for place, picture in enumerate(pictures):
        assert [float(values[place]) for values in together] == pytest.approx(list(scores(picture)), rel=1e-5)


def test_a_sharp_subject_before_a_soft_ground_is_sharp() -> None:
    sharp = _noise()
    soft = sharp.filter(ImageFilter.GaussianBlur(4))
    subject = soft.copy()
    subject.paste(sharp.crop((40, 30, 90, 80)), (40, 30))
    assert scores(subject).sharp > 20 * scores(soft).sharp


@pytest.mark.parametrize("along", [(0, 1), (1, 0), (1, 1), (1, -1)])
def test_a_shaken_picture_is_soft_along_its_motion_whichever_way(along: tuple[int, int]) -> None:
    picture = np.asarray(_noise(0, 200, 200)).astype(float)
    shaken = np.mean([np.roll(picture, (along[0] * k, along[1] * k), axis=(0, 1)) for k in range(12)], axis=0)
    plain, moved = scores(_noise(0, 200, 200)), scores(Image.fromarray(shaken.astype(np.uint8)))
    # The motion takes 12 times from the variance, and its own direction loses several times more.
    assert moved.sharp / plain.sharp < 0.5 * moved.blur / plain.blur


@pytest.mark.parametrize(
    ("size", "by"),
    [
        ((32, 32), 1),
        ((63, 500), 1),
        ((64, 64), 2),
        ((300, 500), 2),
        ((600, 600), 2),
        ((640, 700), 4),
        ((4000, 3000), 16),
    ],
)
def test_what_is_left_is_near_the_sizes_of_the_thresholds(size: tuple[int, int], by: int) -> None:
    assert reduction(*size) == by
