"""Tiny: a plain residual network, to be replaced by yours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, conv_bn, drop_path_rates
from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple


@dataclass(frozen=True)
class TinySpec:
    """The numbers of a Tiny: what its paper has in a table. Frozen and plain, with `resolution` in pixels."""

    resolution: int
    blocks: tuple[int, ...]  # per stage; every stage halves the side
    channels: tuple[int, ...]  # per stage


class Tiny(Architecture[TinySpec]):
    """Stages of residual blocks, each beginning with a convolution of stride 2.

    PAPER: stages rounded up, channels to multiples of 8. FINE, which the search uses: single blocks and channels.
    """

    name = "tiny"
    paper = "https://example.org/tiny"
    baseline = "base"  # the published variant that phi = 0 means
    variants: Mapping[str, Variant[TinySpec]] = {
        # Where a paper or another implementation says what a variant costs, give params and flops: they are checked.
        "base": Variant(TinySpec(64, (3, 4, 3), (32, 64, 128)), 10, "this file"),
        # A search runs on this one with nothing else given: about 1 M multiply-adds, with every part of the family.
        "micro": Variant(TinySpec(32, (2, 3, 3), (8, 12, 24)), 10, "this file"),
    }

    def scale(self, spec: TinySpec, by: Scale, rounding: Rounding = FINE) -> TinySpec:
        """Every stage's blocks and channels, and the side. Pure arithmetic; a multiplier of 1 changes nothing."""

        def channels(count: int) -> int:
            if by.width == 1.0:
                return count
            return make_divisible(count * by.width) if rounding is PAPER else nearest_multiple(count * by.width)

        blocks = spec.blocks
        if by.depth != 1.0:
            blocks = (ceil_depths if rounding is PAPER else allot_depths)(spec.blocks, by.depth)
        return replace(
            spec,
            resolution=nearest_multiple(spec.resolution * by.resolution, minimum=16),
            blocks=blocks,
            channels=tuple(channels(count) for count in spec.channels),
        )

    def size(self, spec: TinySpec) -> Size:
        """All blocks, their mean number of channels, and the side."""
        depth = sum(spec.blocks)
        width = sum(n * c for n, c in zip(spec.blocks, spec.channels, strict=True)) / depth
        return Size(depth, width, spec.resolution)

    def build(
        self,
        spec: TinySpec,
        *,
        num_classes: int,
        in_channels: int = 3,
        drop_path: float = 0.0,
    ) -> nn.Module:
        """The network; at any side from 16 pixels, and without asking for the value of a tensor."""
        return TinyModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)


class TinyModel(nn.Module):
    """Images (n, in_channels, h, w) -> logits (n, num_classes)."""

    def __init__(self, spec: TinySpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        rates = iter(drop_path_rates(drop_path, sum(spec.blocks)))
        stages: list[nn.Module] = []
        before = in_channels
        for blocks, channels in zip(spec.blocks, spec.channels, strict=True):
            stages.append(conv_bn(before, channels, 3, stride=2, act=nn.ReLU()))
            stages += [Residual(channels, next(rates)) for _ in range(blocks)]
            before = channels
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(before, num_classes)  # under this name, so that it can be replaced

    def forward(self, x: Tensor) -> Tensor:
        """The mean over the last map goes to the classifier."""
        logits: Tensor = self.classifier(self.stages(x).mean((2, 3)))
        return logits


class Residual(nn.Module):
    """3x3 convolution, BatchNorm, ReLU, beside a skip."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.branch = conv_bn(channels, channels, 3, act=nn.ReLU())
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        y: Tensor = x + self.drop_path(self.branch(x))
        return y


@hookimpl
def register_architectures() -> list[Tiny]:
    """What `scalenet plugins` will list."""
    return [Tiny()]
