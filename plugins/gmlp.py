"""gMLP (Liu et al., 2021, arXiv:2105.08050): one kind of block, in which half of the channels gate the other half."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, PatchEmbedding, check_side, drop_path_rates, resample_grid
from scalenet.rounding import ceil_depths, nearest_multiple


@dataclass(frozen=True)
class GMLPSpec:
    """The numbers of a gMLP for vision. `mlp_ratio` is d_ffn / d_model, an even number: d_ffn is split in halves."""

    resolution: int
    patch_size: int
    blocks: int
    dim: int
    mlp_ratio: int = 6

    def __post_init__(self) -> None:
        if self.mlp_ratio < 2 or self.mlp_ratio % 2:
            raise ScalenetError(f"gmlp: mlp_ratio must be even, for d_ffn is split in halves, got {self.mlp_ratio}.")

    @property
    def grid(self) -> int:
        """Patches along a side; a border that does not fill one is padded."""
        return math.ceil(self.resolution / self.patch_size)


# fmt: off
SIZES = {  # Table 1: px, patch, L, d_model
    "ti16": GMLPSpec(224, 16, 30, 128),
    "s16":  GMLPSpec(224, 16, 30, 256),
    "b16":  GMLPSpec(224, 16, 30, 512),
}
COSTS = {  # params, multiply-adds with 1000 classes (timm 1.0)
    "ti16": ( 5_867_328, 1_328_989_184),
    "s16":  (19_422_656, 4_392_060_928),
}
# fmt: on
MICRO = GMLPSpec(resolution=32, patch_size=3, blocks=6, dim=24, mlp_ratio=2)


class GMLP(Architecture[GMLPSpec]):
    """Equal blocks on one grid of patches. Depth counts the blocks; width is d_model, with d_ffn tied to it.

    The spatial weights are tokens x tokens in every block: cost and parameters grow with the fourth power of resolution
    in that part. The paper varies the width only. PAPER: depth rounded up, d_model to a multiple of 8; FINE: single
    blocks and channels. Sides go by whole patches either way, for a padded border costs as much as a full one.
    """

    name = "gmlp"
    paper = "https://arxiv.org/abs/2105.08050"
    baseline = "s16"
    variants: Mapping[str, Variant[GMLPSpec]] = {
        **{
            name: Variant(spec, 1000, "arXiv:2105.08050, Table 1", *COSTS.get(name, ())) for name, spec in SIZES.items()
        },
        "micro": Variant(MICRO, 10, "ours: 6 of the same blocks, d_ffn / d_model 2, at 32 px on 11 x 11 patches"),
    }

    def scale(self, spec: GMLPSpec, by: Scale, rounding: Rounding = FINE) -> GMLPSpec:
        blocks, dim, side = nearest_multiple(spec.blocks * by.depth), spec.dim, spec.resolution
        if rounding is PAPER:
            (blocks,) = ceil_depths((spec.blocks,), by.depth)
        if by.width != 1.0:
            dim = nearest_multiple(dim * by.width, 8 if rounding is PAPER else 1)
        if by.resolution != 1.0:
            side = nearest_multiple(spec.grid * spec.patch_size * by.resolution, spec.patch_size, minimum=16)
        return replace(spec, resolution=side, blocks=blocks, dim=dim)

    def size(self, spec: GMLPSpec) -> Size:
        return Size(spec.blocks, float(spec.dim), spec.resolution)

    def build(self, spec: GMLPSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> GMLPModel:
        return GMLPModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: GMLPSpec, new: GMLPSpec) -> Mapping[str, Tensor]:
        """Spatial weights and biases as pictures on the grid of patches, interpolated to the new grid.

        Outputs and inputs of the weights are both tokens. Over the inputs it sums, so the weights are also divided by
        how many times more there are: its sums keep their size.
        """
        if old.grid == new.grid:
            return weights
        resampled = dict(weights)
        for name, value in weights.items():
            if name.endswith("spatial.weight"):
                inputs = resample_grid(value.T, old.grid, new.grid).T * (old.grid / new.grid) ** 2
                resampled[name] = resample_grid(inputs, old.grid, new.grid)
            elif name.endswith("spatial.bias"):
                resampled[name] = resample_grid(value, old.grid, new.grid)[:, 0]
        return resampled


class GMLPModel(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes), at the spec's side only.

    A side that patches do not tile is padded to whole ones. There are no positions: the spatial weights know them.
    The spatial weights begin near 0 and their biases at 1 (section 2.1), so that a block begins as a plain perceptron;
    the rest, of which the paper says nothing, as Mixer's released code: LeCun normal, biases and the classifier zero.
    """

    def __init__(self, spec: GMLPSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch_size)
        rates = drop_path_rates(drop_path, spec.blocks)
        half = spec.mlp_ratio * spec.dim // 2
        self.blocks = nn.Sequential(*(GMLPBlock(spec.grid**2, spec.dim, half, drop_path=rate) for rate in rates))
        self.norm = nn.LayerNorm(spec.dim, eps=1e-6)
        self.classifier = nn.Linear(spec.dim, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if isinstance(module, SpatialLinear):
                nn.init.normal_(module.weight, std=1e-6)
                nn.init.ones_(module.bias)
        nn.init.zeros_(self.classifier.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        x = self.stem(x).flatten(2).transpose(1, 2).contiguous()
        x = self.norm(self.blocks(x))
        x = self.classifier(x.mean(1))
        return x


class GMLPBlock(nn.Module):
    """Figure 1: LayerNorm, channels d_model -> d_ffn, GELU, the spatial gating unit, channels d_ffn / 2 -> d_model.

    The first projection is two here, one for each half of d_ffn: splitting its output would copy both halves.
    """

    def __init__(self, tokens: int, dim: int, half: int, *, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.u = nn.Linear(dim, half)
        self.v = nn.Linear(dim, half)
        self.gate_norm = nn.LayerNorm(half)
        self.spatial = SpatialLinear(tokens, tokens)
        self.project = nn.Linear(half, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same shape."""
        y = self.norm(x)
        u, v = F.gelu(self.u(y)), F.gelu(self.v(y))
        x = x + self.drop_path(self.project(u * self.spatial(self.gate_norm(v))))
        return x


class SpatialLinear(nn.Linear):
    """A linear map over the tokens, the same for every channel: multiplied from the left, so nothing is transposed."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_features, channels) -> (n, out_features, channels)."""
        return torch.baddbmm(self.bias[:, None], self.weight.expand(x.shape[0], -1, -1), x)


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """The gMLPs Ti/16, S/16 and B/16 and micro."""
    return [GMLP()]
