"""MLP-Mixer (Tolstikhin et al., 2021, arXiv:2105.01601): perceptrons over the tokens and over the channels, in turn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, PatchEmbedding, check_side, drop_path_rates, mlp, resample_grid
from scalenet.rounding import ceil_depths, nearest_multiple


@dataclass(frozen=True)
class MixerSpec:
    """The numbers of a Mixer. In every row of Table 1 the perceptrons' widths are D_S = dim / 2 and D_C = 4 dim."""

    resolution: int
    patch_size: int
    blocks: int
    dim: int

    def __post_init__(self) -> None:
        if self.dim < 2 or self.dim % 2:
            raise ScalenetError(f"mixer: dim must be even, for D_S is half of it, got {self.dim}.")

    @property
    def grid(self) -> int:
        """Patches along a side; a border that does not fill one is padded."""
        return math.ceil(self.resolution / self.patch_size)


# fmt: off
SIZES = {  # Table 1: px, patch, layers, C
    "s32": MixerSpec(224, 32,  8,  512),
    "s16": MixerSpec(224, 16,  8,  512),
    "b32": MixerSpec(224, 32, 12,  768),
    "b16": MixerSpec(224, 16, 12,  768),
    "l16": MixerSpec(224, 16, 24, 1024),
}
COSTS = {  # params, multiply-adds with 1000 classes (timm 1.0)
    "s32": (19_104_624,  1_002_426_368),
    "s16": (18_528_264,  3_776_958_464),
    "b16": (59_880_472, 12_601_767_936),
}
# fmt: on
MICRO = MixerSpec(resolution=32, patch_size=4, blocks=6, dim=24)


class Mixer(Architecture[MixerSpec]):
    """Equal blocks on one grid of patches. Depth counts the blocks, width is C, with D_S and D_C tied to it.

    Because D_S follows C and not the number of tokens, the work is exactly quadratic in resolution. The paper gives
    sizes and no rule between them. PAPER: depth rounded up, C to a multiple of 8; FINE: single blocks, C even. Sides go
    by whole patches either way, for a padded border costs as much as a full one.
    """

    name = "mixer"
    paper = "https://arxiv.org/abs/2105.01601"
    baseline = "s16"
    variants: Mapping[str, Variant[MixerSpec]] = {
        **{
            name: Variant(spec, 1000, "arXiv:2105.01601, Table 1", *COSTS.get(name, ())) for name, spec in SIZES.items()
        },
        "micro": Variant(MICRO, 10, "ours: 6 of the same blocks at 32 px on 8 x 8 patches"),
    }

    def scale(self, spec: MixerSpec, by: Scale, rounding: Rounding = FINE) -> MixerSpec:
        blocks, dim, side = nearest_multiple(spec.blocks * by.depth), spec.dim, spec.resolution
        if rounding is PAPER:
            (blocks,) = ceil_depths((spec.blocks,), by.depth)
        if by.width != 1.0:
            dim = nearest_multiple(dim * by.width, 8 if rounding is PAPER else 2)
        if by.resolution != 1.0:
            side = nearest_multiple(spec.grid * spec.patch_size * by.resolution, spec.patch_size, minimum=16)
        return replace(spec, resolution=side, blocks=blocks, dim=dim)

    def size(self, spec: MixerSpec) -> Size:
        return Size(spec.blocks, float(spec.dim), spec.resolution)

    def build(self, spec: MixerSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> MixerModel:
        return MixerModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: MixerSpec, new: MixerSpec) -> Mapping[str, Tensor]:
        """Token-mixing weights and biases as pictures on the grid of patches, interpolated to the new grid.

        The first layer sums over the tokens: its weights are also divided by how many times more there are, so that
        its sums keep their size. The second one has an output per token, with weights and biases as they were.
        """
        if old.grid == new.grid:
            return weights
        resampled = dict(weights)
        for name, value in weights.items():
            if name.endswith("token_mlp.0.weight"):  # (D_S, tokens)
                resampled[name] = resample_grid(value.T, old.grid, new.grid).T * (old.grid / new.grid) ** 2
            elif name.endswith("token_mlp.2.weight"):  # (tokens, D_S)
                resampled[name] = resample_grid(value, old.grid, new.grid)
            elif name.endswith("token_mlp.2.bias"):
                resampled[name] = resample_grid(value, old.grid, new.grid)[:, 0]
        return resampled


class MixerModel(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes), at the spec's side only.

    A side that patches do not tile is padded to whole ones. Initialised as in the released code: LeCun normal, biases
    and the classifier zero. LayerNorm's epsilon is 1e-6, Flax's.
    """

    def __init__(self, spec: MixerSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.stem = PatchEmbedding(in_channels, spec.dim, spec.patch_size)
        rates = drop_path_rates(drop_path, spec.blocks)
        self.blocks = nn.Sequential(*(MixerBlock(spec.grid**2, spec.dim, drop_path=rate) for rate in rates))
        self.norm = nn.LayerNorm(spec.dim, eps=1e-6)
        self.classifier = nn.Linear(spec.dim, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.classifier.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        x = self.stem(x).flatten(2).transpose(1, 2).contiguous()
        x = self.norm(self.blocks(x))
        x = self.classifier(x.mean(1))
        return x


class MixerBlock(nn.Module):
    """Figure 1: a perceptron over the tokens, shared by the channels, and one over the channels, shared by the tokens.

    Each has its own LayerNorm (over the channels) before it and a skip around it.
    """

    def __init__(self, tokens: int, dim: int, *, drop_path: float) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(dim, eps=1e-6)
        self.token_mlp = nn.Sequential(TokenLinear(tokens, dim // 2), nn.GELU(), TokenLinear(dim // 2, tokens))
        self.channel_norm = nn.LayerNorm(dim, eps=1e-6)
        self.channel_mlp = mlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, dim) -> the same shape."""
        x = x + self.drop_path(self.token_mlp(self.token_norm(x)))
        x = x + self.drop_path(self.channel_mlp(self.channel_norm(x)))
        return x


class TokenLinear(nn.Linear):
    """A linear map over the tokens, the same for every channel: multiplied from the left, so nothing is transposed."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_features, dim) -> (n, out_features, dim)."""
        return torch.baddbmm(self.bias[:, None], self.weight.expand(x.shape[0], -1, -1), x)


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """MLP-Mixer S/32, S/16, B/32, B/16, L/16 and micro."""
    return [Mixer()]
