"""A stranger's plugin, as small as the contract lets it be: a plain stack of equal convolutions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from scalenet.architecture import FINE, Architecture, Rounding, Scale, Size, Variant
from scalenet.hookspecs import hookimpl
from scalenet.rounding import nearest_multiple


@dataclass(frozen=True)
class TinySpec:
    """`blocks` 3x3 convolutions of `channels` after a strided stem."""

    resolution: int
    blocks: int
    channels: int


class Tiny(Architecture[TinySpec]):
    """A plain convolutional stack."""

    name = "tiny"
    paper = "https://example.org/tiny"
    baseline = "base"
    variants: ClassVar = {
        "base": Variant(TinySpec(32, 8, 32), 10, "this file"),
        "micro": Variant(TinySpec(16, 5, 12), 10, "this file"),
    }

    def scale(self, spec: TinySpec, by: Scale, rounding: Rounding = FINE) -> TinySpec:
        return replace(
            spec,
            resolution=nearest_multiple(spec.resolution * by.resolution),
            blocks=nearest_multiple(spec.blocks * by.depth),
            channels=nearest_multiple(spec.channels * by.width),
        )

    def size(self, spec: TinySpec) -> Size:
        return Size(depth=spec.blocks, width=spec.channels, resolution=spec.resolution)

    def build(self, spec: TinySpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(in_channels, spec.channels, 3, 2, 1)]
        for _ in range(spec.blocks):
            layers += [nn.ReLU(), nn.Conv2d(spec.channels, spec.channels, 3, 1, 1)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(spec.channels, num_classes))


@hookimpl
def register_architectures() -> list[Tiny]:
    """What `scalenet plugins` will list."""
    return [Tiny()]
