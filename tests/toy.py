"""A tiny two-stage convnet that fulfils the contract: what the engine's own tests scale, count and train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from scalenet.architecture import FINE, Architecture, Rounding, Scale, Size, Variant
from scalenet.rounding import allot_depths, ceil_depths, nearest_multiple


@dataclass(frozen=True)
class ToySpec:
    depths: tuple[int, ...] = (2, 3)  # blocks per stage
    widths: tuple[int, ...] = (8, 16)  # channels per stage
    resolution: int = 24


class Block(nn.Module):
    """3x3 convolution, BatchNorm, ReLU; with a skip where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x)).relu()
        return x + y if self.skip else y


class ToyNet(nn.Module):
    """Every stage halves the side in its first block; then the mean over the map and a linear classifier."""

    def __init__(self, spec: ToySpec, num_classes: int, in_channels: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = in_channels
        for depth, width in zip(spec.depths, spec.widths, strict=True):
            for i in range(depth):
                blocks.append(Block(channels, width, 2 if i == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return logits


class Toy(Architecture[ToySpec]):
    """PAPER rounds widths to multiples of 8 and depth up per stage; FINE goes channel by channel, block by block."""

    name = "toy"
    paper = "https://example.org/toy"
    baseline = "small"
    variants: Mapping[str, Variant[ToySpec]] = {
        "small": Variant(ToySpec(), 4, "made for tests"),
        "micro": Variant(ToySpec((1, 2), (4, 8), 16), 4, "made for tests"),
    }

    def scale(self, spec: ToySpec, by: Scale, rounding: Rounding = FINE) -> ToySpec:
        if by == Scale():
            return spec
        step, depths = (1, allot_depths) if rounding is FINE else (8, ceil_depths)
        return replace(
            spec,
            depths=depths(spec.depths, by.depth),
            widths=tuple(nearest_multiple(width * by.width, step) for width in spec.widths),
            resolution=nearest_multiple(spec.resolution * by.resolution),
        )

    def size(self, spec: ToySpec) -> Size:
        blocks = sum(spec.depths)
        width = sum(d * w for d, w in zip(spec.depths, spec.widths, strict=True)) / blocks
        return Size(blocks, width, spec.resolution)

    def build(self, spec: ToySpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        return ToyNet(spec, num_classes, in_channels)


def toy() -> Toy:
    return Toy()
