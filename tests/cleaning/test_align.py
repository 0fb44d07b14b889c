import numpy as np
import pytest

from scalenet.cleaning.align import lay, same, whole
from scalenet.cleaning.hashing import thumb
from tests.cleaning.scanned import drawn


def _pairs(left: float, right: float) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails of 40 pictures, and of the same without margins on both sides of either axis."""
    pictures = [drawn(seed) for seed in range(40)]
    box = (round(240 * left), round(180 * left), round(240 * (1 - right)), round(180 * (1 - right)))
    return np.stack([thumb(p) for p in pictures]), np.stack([thumb(p.crop(box)) for p in pictures])


@pytest.mark.parametrize("turned", [False, True])
def test_a_crop_is_the_same_whichever_of_the_two_is_the_crop(turned: bool) -> None:
    wholes, crops = _pairs(0.05, 0.05)
    first, second = (crops, wholes) if turned else (wholes, crops)
    assert same(first, second, whole(40)).mean() >= 0.95


def test_the_place_of_a_crop_is_found() -> None:
    wholes, crops = _pairs(0.05, 0.0)
    laid = lay(wholes.astype(np.float32), crops.astype(np.float32), whole(40))
    assert len(laid.pairs) >= 38
    assert np.median(np.abs(laid.place - [0.95, 0.05, 0.95, 0.05])) < 0.003


def test_strangers_are_not_the_same() -> None:
    wholes, _ = _pairs(0.05, 0.05)
    assert not same(wholes, np.roll(wholes, 1, axis=0), whole(40)).any()


def test_no_pairs_are_no_pairs() -> None:
    none = np.zeros((0, 32, 32), np.uint8)
    assert same(none, none, whole(0)).shape == (0,)
