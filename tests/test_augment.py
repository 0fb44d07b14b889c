from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from scalenet.augment import augmented, mix, randaugment, soft_targets
from scalenet.recipe import Recipe


@given(st.integers(2, 12), st.floats(0, 0.9), st.integers(0, 2**31))
def test_soft_targets_are_torchs_label_smoothing(classes: int, smoothing: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, classes, generator=generator)
    labels = torch.randint(classes, (6,), generator=generator)
    ours = F.cross_entropy(logits, soft_targets(labels, classes, smoothing))
    assert torch.allclose(ours, F.cross_entropy(logits, labels, label_smoothing=smoothing), atol=1e-6)


def test_mixed_targets_sum_to_one_and_follow_the_pictures() -> None:
    images = torch.rand(5, 3, 4, 4)
    labels = torch.tensor([0, 1, 2, 0, 1])
    onehot = F.one_hot(labels, 3).float()
    recipe = Recipe(mixup=0.4, label_smoothing=0.1)
    mixed, targets = augmented(images, labels, recipe, classes=3, batch=(3,))
    assert torch.allclose(targets.sum(1), torch.ones(5))
    # The share can be read off the first picture; smoothing is linear and drops out.
    share = ((mixed[0] - images[4]) / (images[0] - images[4])).median()
    assert 0 < share < 1
    expected = share * onehot + (1 - share) * onehot.flip(0)
    assert torch.allclose(targets, 0.9 * expected + 0.1 / 3, atol=1e-5)


def test_mix_of_share_one_changes_nothing() -> None:
    images, targets = torch.rand(3, 3, 2, 2), torch.eye(3)
    mixed, blended = mix(images, targets, 1.0)
    assert torch.equal(mixed, images)
    assert torch.equal(blended, targets)


def test_without_smoothing_and_mixing_targets_stay_indices() -> None:
    images, labels = torch.rand(2, 3, 4, 4), torch.tensor([1, 0])
    assert augmented(images, labels, Recipe(label_smoothing=0), classes=2, batch=(0,)) == (images, labels)


def test_mix_shares_are_the_same_for_every_side() -> None:
    labels = torch.tensor([0, 1, 2])
    recipe = Recipe(mixup=0.3)
    one, other = (augmented(torch.rand(3, 3, s, s), labels, recipe, classes=3, batch=(5,))[1] for s in (8, 12))
    assert torch.equal(one, other)
    assert not torch.equal(one, augmented(torch.rand(3, 3, 8, 8), labels, recipe, classes=3, batch=(6,))[1])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_randaugment_depends_on_its_seed_alone(memory_format: torch.memory_format) -> None:
    images = torch.rand(6, 3, 10, 10).contiguous(memory_format=memory_format)
    torch.manual_seed(1)
    first = randaugment(images, 9, seed=7)
    after = torch.rand(())
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(())), "it must not draw from the model's generator"
    assert torch.equal(first, randaugment(images, 9, seed=7))
    assert not torch.equal(first, randaugment(images, 9, seed=8))
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert first.is_contiguous(memory_format=memory_format)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
