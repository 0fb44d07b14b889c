from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from scalenet.views import DRAWS, distort, two_views


def test_views_follow_from_the_generator_differ_and_stay_within_range() -> None:
    images = torch.rand(16, 3, 24, 20).contiguous(memory_format=torch.channels_last)
    a, b = two_views(images, torch.Generator().manual_seed(3), strength=1.0, crop=0.08)
    c, d = two_views(images, torch.Generator().manual_seed(3), strength=1.0, crop=0.08)
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert (a - b).abs().flatten(1).mean(1).min() > 0.01
    assert a.min() >= 0
    assert a.max() <= 1
    assert a.is_contiguous(memory_format=torch.channels_last)


NOTHING = {  # what each number of a draw is for, and a value with which nothing happens
    "area": 1.0, "aspect": 0.5, "across": 0.5, "down": 0.5, "mirrored": 0.9, "jitters": 0.9,
    "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5, "grey": 0.9, "blurs": 0.9, "sigma": 1.0,
}  # fmt: skip


def view(images: Tensor, strength: float = 1.0, **draws: float) -> Tensor:
    row = torch.tensor(list({**NOTHING, **draws}.values()))
    assert len(row) == DRAWS
    return distort(images, row.repeat(len(images), 1), strength=strength, crop=0.08)


def test_draws_of_nothing_leave_a_picture_alone() -> None:
    images = torch.rand(3, 3, 24, 17)
    torch.testing.assert_close(view(images), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(view(images, jitters=0.1), images, atol=1e-5, rtol=0)


def test_crop_and_mirror() -> None:
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(view(images, mirrored=0.1), images.flip(3), atol=1e-5, rtol=0)
    # a quarter of the area from the lower left: a square of half the side, magnified twice
    corner = view(images, area=(0.25 - 0.08) / 0.92, across=0.0, down=1.0)
    expected = F.interpolate(images[..., 16:, :16], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(corner[..., 2:, :-2], expected[..., 2:, :-2], atol=1e-4, rtol=0)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    spans = [view(ramp, area=0.3, aspect=a)[0, 0, 0, [0, -1]].diff().item() for a in (0.0, 1.0)]
    assert spans[1] / spans[0] == pytest.approx(4 / 3, rel=0.02)  # widths of aspects 4/3 and 3/4


def test_colours_are_torchvisions() -> None:
    images = torch.rand(4, 3, 8, 8)
    functional = torchvision.transforms.functional
    for strength, draw in ((1.0, 0.2), (0.5, 0.85)):
        shift = 2 * draw - 1
        factor = 1 + 0.8 * strength * shift
        pairs = {
            "brightness": functional.adjust_brightness(images, factor),
            "contrast": functional.adjust_contrast(images, factor),
            "saturation": functional.adjust_saturation(images, factor),
            "hue": functional.adjust_hue(images, 0.2 * strength * shift),
        }
        for name, expected in pairs.items():
            ours = view(images, strength, jitters=0.1, **{name: draw})
            torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)  # luma of 0.2989, 0.587 and 0.114 there
            torch.testing.assert_close(view(images, strength, jitters=0.81, **{name: draw}), images, atol=1e-5, rtol=0)
    grey = view(images, grey=0.1)
    torch.testing.assert_close(grey, functional.rgb_to_grayscale(images, 3), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("side", "kernel"), [(32, 3), (64, 7), (224, 23)])
def test_blur_is_torchvisions_with_a_kernel_of_a_tenth_of_the_side(side: int, kernel: int) -> None:
    images = torch.rand(2, 3, side, side)
    expected = torchvision.transforms.functional.gaussian_blur(images, kernel, 0.1 + 1.9 * 0.6)
    torch.testing.assert_close(view(images, blurs=0.4, sigma=0.6), expected, atol=1e-5, rtol=0)


def test_pictures_are_changed_as_often_as_the_paper_says() -> None:
    draws = torch.rand(2000, DRAWS, generator=torch.Generator().manual_seed(0))
    draws[:, :5] = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.9])
    images = torch.rand(1, 3, 4, 4).expand(2000, 3, 4, 4).contiguous()
    blurred, jittered = draws.clone(), draws.clone()
    blurred[:, 5], blurred[:, 10] = 0.9, 0.9  # no jitter, no greyscale
    jittered[:, 10], jittered[:, 11] = 0.9, 0.9
    grey = draws.clone()
    grey[:, 5], grey[:, 11] = 0.9, 0.9
    for changed, share in ((blurred, 0.5), (jittered, 0.8), (grey, 0.2)):
        seen = (distort(images, changed, strength=1.0, crop=0.08) - images).abs().amax((1, 2, 3)) > 1e-4
        assert seen.float().mean().item() == pytest.approx(share, abs=0.04)


def test_white_and_black_pictures_stay_within_range() -> None:
    images = torch.cat((torch.ones(200, 3, 20, 20), torch.zeros(200, 3, 20, 20)))
    images[:, :, ::3, ::2] = 1 - images[:, :, ::3, ::2]
    for seed in range(5):
        for x in two_views(images, torch.Generator().manual_seed(seed), strength=1.0, crop=0.08):
            assert x.min() >= 0
            assert x.max() <= 1


def smooth(n: int, side: int) -> Tensor:
    """Coloured waves of the relative place: the same picture at any side."""
    at = (torch.arange(side) + 0.5) / side
    phase = torch.arange(n)[:, None, None, None] + torch.tensor([0.0, 1.0, 2.5])[:, None, None]
    return 0.5 + 0.4 * torch.sin(2.0 * at[:, None] + 3.0 * at + phase)


def test_candidates_of_different_sides_see_the_same_crops_and_colours() -> None:
    small, large = (
        torch.cat(two_views(smooth(16, side), torch.Generator().manual_seed(5), strength=1.0, crop=0.08))
        for side in (32, 96)
    )
    shrunk = F.interpolate(large, (32, 32), mode="area")
    assert (small - shrunk).abs().mean() < 5e-3
    others = torch.cat(two_views(smooth(16, 32), torch.Generator().manual_seed(6), strength=1.0, crop=0.08))
    assert (small - others).abs().mean() > 0.1


def test_every_picture_has_draws_of_its_own_and_no_other_reaches_it() -> None:
    images = smooth(1, 24).repeat(12, 1, 1, 1)
    draws = torch.rand(12, DRAWS, generator=torch.Generator().manual_seed(1))
    seen = distort(images, draws, strength=1.0, crop=0.08)
    gaps = (seen[:, None] - seen[None]).abs().flatten(2).amax(2) + torch.eye(12)
    assert gaps.min() > 1e-3
    alone = torch.cat([distort(images[:1], row[None], strength=1.0, crop=0.08) for row in draws])
    torch.testing.assert_close(seen, alone, atol=1e-6, rtol=0)


def test_draws_come_from_the_generator_alone_and_the_pictures_are_left_as_they_are() -> None:
    images = torch.rand(4, 3, 16, 16)
    before, state = images.clone(), torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    first = torch.cat(two_views(images, generator, strength=1.0, crop=0.08))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    assert not torch.equal(first, torch.cat(two_views(images, generator, strength=1.0, crop=0.08)))
