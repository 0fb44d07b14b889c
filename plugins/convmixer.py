"""ConvMixer (Trockman and Kolter, 2022, arXiv:2201.09792): depthwise and pointwise convolutions on patches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, PatchEmbedding, drop_path_rates
from scalenet.rounding import ceil_depths, nearest_multiple

Activation = Literal["gelu", "relu"]


@dataclass(frozen=True)
class ConvMixerSpec:
    """The numbers of a ConvMixer-h/d: `dim` is the paper's h, `blocks` its d. Kernels are odd."""

    resolution: int
    patch_size: int
    blocks: int
    dim: int
    kernel: int
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ScalenetError(f"convmixer: kernel must be odd, to be padded alike on all sides, got {self.kernel}.")
        if self.activation not in ("gelu", "relu"):
            raise ScalenetError(f"convmixer: activation must be gelu or relu, got {self.activation!r}.")


# fmt: off
SIZES = {  # Table 1: px, patch, d, h, kernel
    "768_32":  ConvMixerSpec(224,  7, 32,  768, 7, "relu"),
    "1024_20": ConvMixerSpec(224, 14, 20, 1024, 9, "gelu"),
    "1536_20": ConvMixerSpec(224,  7, 20, 1536, 9, "gelu"),
}
COSTS = {  # params, multiply-adds with 1000 classes (timm 1.0)
    "768_32":  (21_110_248, 20_676_851_712),
    "1024_20": (24_383_464,  5_948_547_072),
    "1536_20": (51_625_960, 51_099_168_768),
}
# fmt: on
MICRO = ConvMixerSpec(resolution=32, patch_size=4, blocks=6, dim=40, kernel=5)


class ConvMixer(Architecture[ConvMixerSpec]):
    """Equal blocks on one map of patches. Depth counts the blocks, width is h; kernel and patch size stay.

    PAPER: depth rounded up, h to a multiple of 8; FINE: single blocks and channels. Sides go by whole patches either
    way, for a padded border costs as much as a full one. The figures that the paper and libraries give for
    multiply-adds are 5 to 7 % lower: their counter overlooks the depthwise convolutions.
    """

    name = "convmixer"
    paper = "https://arxiv.org/abs/2201.09792"
    baseline = "768_32"
    variants: Mapping[str, Variant[ConvMixerSpec]] = {
        **{name: Variant(spec, 1000, "arXiv:2201.09792, Table 1", *COSTS[name]) for name, spec in SIZES.items()},
        "micro": Variant(MICRO, 10, "ours: 6 of the same blocks at 32 px on 8 x 8 patches, 5 x 5 kernels"),
    }

    def scale(self, spec: ConvMixerSpec, by: Scale, rounding: Rounding = FINE) -> ConvMixerSpec:
        blocks, dim, side = nearest_multiple(spec.blocks * by.depth), spec.dim, spec.resolution
        if rounding is PAPER:
            (blocks,) = ceil_depths((spec.blocks,), by.depth)
        if by.width != 1.0:
            dim = nearest_multiple(dim * by.width, 8 if rounding is PAPER else 1)
        if by.resolution != 1.0:
            padded = math.ceil(side / spec.patch_size) * spec.patch_size
            side = nearest_multiple(padded * by.resolution, spec.patch_size, minimum=16)
        return replace(spec, resolution=side, blocks=blocks, dim=dim)

    def size(self, spec: ConvMixerSpec) -> Size:
        return Size(spec.blocks, float(spec.dim), spec.resolution)

    def build(
        self, spec: ConvMixerSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0
    ) -> ConvMixerModel:
        return ConvMixerModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)


class ConvMixerModel(nn.Module):
    """The network of a spec: (n, in_channels, h, w) -> logits (n, num_classes), at any side (padded to whole patches).

    Initialised as in the released code, which leaves PyTorch's defaults.
    """

    def __init__(self, spec: ConvMixerSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            PatchEmbedding(in_channels, spec.dim, spec.patch_size), activation(spec), nn.BatchNorm2d(spec.dim)
        )
        rates = drop_path_rates(drop_path, spec.blocks)
        self.blocks = nn.Sequential(*(ConvMixerBlock(spec, drop_path=rate) for rate in rates))
        self.classifier = nn.Linear(spec.dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        x = self.blocks(self.stem(x))
        x = self.classifier(x.mean((2, 3)))
        return x


class ConvMixerBlock(nn.Module):
    """Section 2: a depthwise convolution with a skip around it, then a 1x1 convolution without one.

    Both have biases, for each is followed by the activation and only then by BatchNorm.
    """

    def __init__(self, spec: ConvMixerSpec, *, drop_path: float) -> None:
        super().__init__()
        dim = spec.dim
        self.depthwise = nn.Sequential(
            nn.Conv2d(dim, dim, spec.kernel, padding=spec.kernel // 2, groups=dim),
            activation(spec),
            nn.BatchNorm2d(dim),
        )
        self.pointwise = nn.Sequential(nn.Conv2d(dim, dim, 1), activation(spec), nn.BatchNorm2d(dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(n, dim, h, w) -> the same shape."""
        y: Tensor = self.pointwise(x + self.drop_path(self.depthwise(x)))
        return y


def activation(spec: ConvMixerSpec) -> nn.Module:
    """GELU (section 2), or ReLU, with which the released 768/32 was trained."""
    return nn.GELU() if spec.activation == "gelu" else nn.ReLU(inplace=True)


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """ConvMixer-768/32, 1024/20, 1536/20 and micro."""
    return [ConvMixer()]
