"""What a recipe does to a batch beyond crop and flip: smoothed targets, mixup and RandAugment.

All draws follow from the batch's own numbers, so every candidate meets the same ones.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from scalenet.device import seed_of
from scalenet.recipe import Recipe


def augmented(
    images: Tensor, labels: Tensor, recipe: Recipe, *, classes: int, batch: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """A batch as the recipe wants it: pictures (n, 3, h, w) in [0, 1], and targets.

    Targets are class indices (n,) as given, or distributions (n, classes) where the recipe smooths or mixes. What is
    drawn depends on the numbers in `batch` alone: the training's seed, the epoch and the step.
    """
    if recipe.randaugment:
        images = randaugment(images, recipe.randaugment, seed_of("augment", *batch))
    if not (recipe.label_smoothing or recipe.mixup):
        return images, labels
    targets = soft_targets(labels, classes, recipe.label_smoothing)
    if not recipe.mixup:
        return images, targets
    random = np.random.default_rng(seed_of("augment", *batch))
    return mix(images, targets, float(random.beta(recipe.mixup, recipe.mixup)))


def soft_targets(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Indices (n,) as distributions (n, classes): 1 - smoothing on the label, the rest evenly over all classes."""
    others = np.float32(smoothing / classes)
    targets = torch.full((len(labels), classes), float(others), dtype=torch.float32, device=labels.device)
    return targets.scatter_(1, labels[:, None], float(np.float32(1.0 - smoothing) + others))


def mix(images: Tensor, targets: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Every picture and target blended with its mirror image in the batch: `share` of the one, the rest of the other.

    mixup (arXiv:1710.09412) pairs at random; the batch is already in random order, so the first meets the last.
    """
    return torch.lerp(images.flip(0), images, share), torch.lerp(targets.flip(0), targets, share)


def randaugment(images: Tensor, magnitude: int, seed: int) -> Tensor:
    """Each picture of (n, 3, h, w) in [0, 1] through two random operations (arXiv:1909.13719), as torchvision has them.

    Works on 8-bit values, as the paper does. Draws from `seed` and leaves torch's generator as it was: otherwise what
    a model itself draws (dropout) would shift the operations from one candidate to the next.
    """
    from torchvision.transforms import v2  # about a second: only recipes that ask for it pay

    operation = v2.RandAugment(num_ops=2, magnitude=magnitude)
    pictures = (images * 255.0).round().to(torch.uint8)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed, which seeds the accelerators as well
        pictures = torch.stack([operation(picture) for picture in pictures])
    memory_format = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else None
    return (pictures.float() / 255.0).contiguous(memory_format=memory_format or torch.contiguous_format)
