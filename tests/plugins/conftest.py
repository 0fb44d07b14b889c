"""What the tests of the architectures share: counting on the meta device and comparing logits with a reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from scalenet.architecture import Architecture

TOLERANCE = 1e-4  # relative; the same mathematics differs by 4e-6 at most, the mistakes of the field by 6e-3 or more


class Parity:
    """A model and a reference with the same random weights and calibrated BatchNorm statistics."""

    def __init__(
        self,
        model: nn.Module,
        reference: nn.Module,
        side: int,
        move: Callable[[nn.Module, nn.Module], None] | None = None,
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        randomise(reference, generator)
        calibrate(reference, torch.randn(8, 3, side, side, generator=generator))
        (move or transplant)(reference, model)
        self.model, self.reference = model.eval(), reference.eval()
        self.images = torch.randn(2, 3, side, side, generator=generator)
        with torch.no_grad():
            self.expected = self.reference(self.images)

    def error(self) -> float:
        """The largest difference of the logits, relative to the largest logit."""
        with torch.no_grad():
            difference = self.model(self.images) - self.expected
        return float(difference.abs().max() / self.expected.abs().max())

    def check(self) -> None:
        # An image that leaves the logits alone would let any mistake pass.
        assert (self.expected[0] - self.expected[1]).abs().max() > 0.05 * self.expected.abs().max()
        assert self.error() < TOLERANCE

    def swap(self, old: type[nn.Module], new: Callable[[], nn.Module], within: str = "") -> None:
        """Plants a mistake: every module of type `old` in the model (in modules named `within`) is replaced."""
        swapped = 0
        for name, module in list(self.model.named_modules()):
            for key, child in list(module.named_children()):
                if isinstance(child, old) and within in f"{name}.{key}":
                    setattr(module, key, new())
                    swapped += 1
        assert swapped, f"no {old.__name__} in {within or 'the model'}"

    def noticed(self) -> None:
        """A mistake was planted: the logits must show it, by far."""
        assert self.error() > 10 * TOLERANCE


def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Weights with no zeros or ones: library initialisations silence whole branches."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.3, generator=generator)
            elif isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(std=(1.5 / module.weight[0].numel()) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-0.3, 0.3, generator=generator)
            else:  # tables of positions, class tokens, layer scales
                for parameter in module.parameters(recurse=False):
                    if parameter.requires_grad:
                        parameter.uniform_(-0.5, 0.5, generator=generator)


def calibrate(model: nn.Module, images: Tensor) -> None:
    """BatchNorm statistics of `images`, taken in one pass; the model is left in training mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)


def transplant(source: nn.Module, target: nn.Module) -> None:
    """Weights and statistics in their order; shapes may differ by axes of length 1 (Linear and 1x1 convolution)."""
    theirs, ours = list(source.state_dict().values()), list(target.state_dict().values())
    assert [t.squeeze().shape for t in theirs] == [t.squeeze().shape for t in ours]
    with torch.no_grad():
        for old, new in zip(theirs, ours, strict=True):
            new.copy_(old.reshape(new.shape))


@pytest.fixture(scope="session")
def parity() -> Callable[[nn.Module, nn.Module, int], Parity]:
    """(model, reference, side, move=transplant) -> Parity."""
    return Parity


@pytest.fixture(scope="session")
def counts() -> Callable[..., tuple[int, int]]:
    """(architecture, spec, num_classes) -> (params, multiply-adds), by torch's own counter on the meta device."""

    def count(architecture: Architecture[Any], spec: Any, num_classes: int = 1000) -> tuple[int, int]:
        with torch.device("meta"):
            model = architecture.build(spec, num_classes=num_classes).eval()
            images = torch.empty(1, 3, spec.resolution, spec.resolution)
        with FlopCounterMode(display=False) as counter:
            logits = model(images)
        assert logits.shape == (1, num_classes)
        return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2

    return count
