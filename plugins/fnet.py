"""FNet (Lee-Thorp et al., 2021, arXiv:2105.03824) for vision: Fourier transforms where a transformer has attention."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, PatchEmbedding, check_side, drop_path_rates, mlp, resample_grid
from scalenet.rounding import ceil_depths, nearest_multiple


@dataclass(frozen=True)
class FNetSpec:
    """The numbers of an FNet on patches."""

    resolution: int
    patch_size: int
    blocks: int
    dim: int
    mlp_ratio: int = 4

    @property
    def grid(self) -> int:
        """Patches along a side; a border that does not fill one is padded."""
        return math.ceil(self.resolution / self.patch_size)


# fmt: off
SIZES = {  # ViT's: px, patch, layers, hidden
    "ti16": FNetSpec(224, 16, 12, 192),
    "s16":  FNetSpec(224, 16, 12, 384),
    "b16":  FNetSpec(224, 16, 12, 768),  # the paper's Base, section 4.1
    "b32":  FNetSpec(224, 32, 12, 768),
}
COSTS = {  # params, multiply-adds without the transforms with 1000 classes (transformers' layers)
    "ti16": ( 3_975_400,    729_951_744),
    "s16":  (15_101_416,  2_861_620_224),
    "b16":  (58_808_296, 11_330_107_392),
}
# fmt: on
MICRO = FNetSpec(resolution=32, patch_size=4, blocks=8, dim=16)


class FNet(Architecture[FNetSpec]):
    """Equal blocks on one grid of patches. Depth counts the blocks; width is the hidden size.

    The authors publish language models only. The vision model here is a convention, not a published result: patches
    with learned positions (as ViT's), then the released embedding's LayerNorm and projection, the paper's encoder
    layers, the mean over the tokens and a linear head; ViT's three widths, twelve layers as in the paper's Base.

    The published `flops` are without the Fourier transforms, which public counters leave out; ours adds 2.5 n log2 n
    multiply-adds for a transform of length n, 1 to 3 % of the whole. PAPER: depth rounded up, width to a multiple of 8;
    FINE: single blocks and channels. Sides go by whole patches either way.
    """

    name = "fnet"
    paper = "https://arxiv.org/abs/2105.03824"
    baseline = "s16"
    variants: Mapping[str, Variant[FNetSpec]] = {
        **{
            name: Variant(spec, 1000, "arXiv:2105.03824's layers on patches, ViT's widths", *COSTS.get(name, ()))
            for name, spec in SIZES.items()
        },
        "micro": Variant(MICRO, 10, "ours: 8 of the same blocks at 32 px on 8 x 8 patches"),
    }

    def scale(self, spec: FNetSpec, by: Scale, rounding: Rounding = FINE) -> FNetSpec:
        blocks, dim, side = nearest_multiple(spec.blocks * by.depth), spec.dim, spec.resolution
        if rounding is PAPER:
            (blocks,) = ceil_depths((spec.blocks,), by.depth)
        if by.width != 1.0:
            dim = nearest_multiple(dim * by.width, 8 if rounding is PAPER else 1)
        if by.resolution != 1.0:
            side = nearest_multiple(spec.grid * spec.patch_size * by.resolution, spec.patch_size, minimum=16)
        return replace(spec, resolution=side, blocks=blocks, dim=dim)

    def size(self, spec: FNetSpec) -> Size:
        return Size(spec.blocks, float(spec.dim), spec.resolution)

    def build(self, spec: FNetSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> FNetModel:
        return FNetModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: FNetSpec, new: FNetSpec) -> Mapping[str, Tensor]:
        """The positions interpolated to the new grid; the transforms have no weights."""
        if old.grid == new.grid:
            return weights
        return {**weights, "positions": resample_grid(weights["positions"], old.grid, new.grid)}


class FNetModel(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes), at the spec's side only.

    A side that patches do not tile is padded to whole ones. Initialised as the released code: normal with a standard
    deviation of 0.02, biases zero.
    """

    def __init__(self, spec: FNetSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.positions = nn.Parameter(torch.empty(spec.grid**2, spec.dim))
        self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch_size)
        self.norm = nn.LayerNorm(spec.dim, eps=1e-12)
        self.projection = nn.Linear(spec.dim, spec.dim)
        rates = drop_path_rates(drop_path, spec.blocks)
        hidden = spec.mlp_ratio * spec.dim
        self.blocks = nn.Sequential(*(FNetBlock(spec.dim, hidden, drop_path=rate) for rate in rates))
        self.classifier = nn.Linear(spec.dim, num_classes)
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        x = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        x = self.blocks(self.projection(self.norm(x)))
        x = self.classifier(x.mean(1))
        return x


class FNetBlock(nn.Module):
    """Figure 1: Fourier mixing, then a two-layer perceptron, each with a skip and LayerNorm after the addition."""

    def __init__(self, dim: int, hidden: int, *, drop_path: float) -> None:
        super().__init__()
        self.mixing_norm = nn.LayerNorm(dim, eps=1e-12)
        self.mlp = mlp(dim, hidden, nn.GELU("tanh"))
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-12)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same shape.

        The transform of half-precision input, and its sum with it, are float32: its values are some sqrt(tokens * dim)
        times larger than x, which would drown in the rounding. (Autocast leaves transforms of float32 alone.)
        """
        x = x if x.dtype is torch.float64 else x.float()
        x = x + self.drop_path(real_fourier(x))
        x = self.mixing_norm(x.to(self.mixing_norm.weight.dtype))
        x = self.mlp_norm(x + self.drop_path(self.mlp(x)))
        return x


def real_fourier(x: Tensor) -> Tensor:
    """The real part of the discrete Fourier transform over tokens and channels, equation (3), of real x.

    y[k, c] = sum over t, d of x[t, d] cos(2 pi (k t / tokens + c d / dim)); (n, tokens, dim) -> the same shape.
    """
    y: Tensor = torch.fft.fft2(x).real
    return y


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """FNet Ti/16, S/16, B/16, B/32 and micro."""
    return [FNet()]
