"""Swin Transformer (Liu et al., 2021, arXiv:2103.14030): attention within windows that shift from block to block."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, PatchEmbedding, check_side, drop_path_rates, mlp, resample_grid
from scalenet.rounding import allot_depths, nearest_multiple, whole_heads

# What is added to the logits of pairs that must not see each other. The released code adds -100, which leaves them
# 4e-44 of the attention: a denormal number, for which a CPU takes a quarter longer over the whole step.
MASKED = -1e4


@dataclass(frozen=True)
class SwinSpec:
    """The numbers of a Swin. Each further stage has twice the channels and heads, and half the map's side."""

    resolution: int
    channels: int  # of the first stage, the paper's C
    num_heads: int  # of the first stage
    blocks: tuple[int, ...]  # per stage
    window_size: int  # tokens, both ways
    patch_size: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.channels % self.num_heads:
            raise ScalenetError(f"swin: channels must be a multiple of {self.num_heads} heads, got {self.channels}.")


# fmt: off
#                               px    C  heads  blocks per stage     window
VARIANTS = {  # section 3.3
    "t":              SwinSpec(224,  96,  3,    (2, 2,  6, 2),        7),
    "s":              SwinSpec(224,  96,  3,    (2, 2, 18, 2),        7),
    "b":              SwinSpec(224, 128,  4,    (2, 2, 18, 2),        7),
    "b_384":          SwinSpec(384, 128,  4,    (2, 2, 18, 2),       12),  # section 4.1
}
MICRO =               SwinSpec( 32,  12,  1,    (2, 2,  2),           4, patch_size=2, mlp_ratio=3)
# fmt: on


class Grid(NamedTuple):
    """Where a stage attends: its map of side x side tokens in windows of window x window."""

    side: int
    window: int

    @property
    def padded(self) -> int:
        """The map's side in whole windows."""
        return math.ceil(self.side / self.window) * self.window

    @property
    def shift(self) -> int:
        """How far the odd blocks' windows are shifted: half a window; not at all where one window is the whole map."""
        return self.window // 2 if self.side > self.window else 0


def grids(spec: SwinSpec) -> list[Grid]:
    """The grid of every stage. Odd maps are halved upwards, and windows larger than a map shrink to it, as in timm."""
    side = math.ceil(spec.resolution / spec.patch_size)
    sides = [math.ceil(side / 2**i) for i in range(len(spec.blocks))]
    return [Grid(side, min(side, spec.window_size)) for side in sides]


class Swin(Architecture[SwinSpec]):
    """Four stages of window attention; depth is their blocks, width the channels C, from which all others follow.

    The window follows the side, as in the paper's own 224 px with 7 and 384 px with 12: the last stage keeps its
    number of windows per side (one, in all of the paper's), and the window is the smallest that covers the map so. (A
    window that stayed 7 would pad the last map from 8 to 14 at 256 px.)
    PAPER: blocks in pairs without and with a shift, heads of 32 channels, sides that divide into whole windows. FINE:
    single blocks (those at odd places shift), channels to a multiple of the first stage's heads, whole patches.
    """

    name = "swin"
    paper = "https://arxiv.org/abs/2103.14030"
    baseline = "t"
    variants: Mapping[str, Variant[SwinSpec]] = {
        "t": Variant(VARIANTS["t"], 1000, "arXiv:2103.14030, section 3.3", params=28288354, flops=4490566656),
        "s": Variant(VARIANTS["s"], 1000, "arXiv:2103.14030, section 3.3", params=49606258, flops=8740875264),
        "b": Variant(VARIANTS["b"], 1000, "arXiv:2103.14030, section 3.3", params=87768224, flops=15430946816),
        "b_384": Variant(VARIANTS["b_384"], 1000, "arXiv:2103.14030, Table 1 (a), with the window of section 4.1"),
        "micro": Variant(
            MICRO, 10, "ours: the same blocks at 32 px with patches of 2, three stages and heads of 12 channels"
        ),
    }

    def scale(self, spec: SwinSpec, by: Scale, rounding: Rounding = FINE) -> SwinSpec:
        blocks, channels, heads = spec.blocks, spec.channels, spec.num_heads
        if by.depth != 1.0 and rounding is PAPER:
            blocks = tuple(2 * max(1, math.ceil(n * by.depth / 2 - 1e-9)) for n in blocks)
        elif by.depth != 1.0:
            blocks = allot_depths(blocks, by.depth)
        head_dim = channels // heads
        if by.width != 1.0 and rounding is PAPER:
            channels = nearest_multiple(channels * by.width, head_dim)
            heads = channels // head_dim
        elif by.width != 1.0:
            channels, heads = whole_heads(channels * by.width, head_dim)
        scaled = replace(spec, blocks=blocks, channels=channels, num_heads=heads)
        if by.resolution == 1.0:
            return scaled
        step = spec.patch_size * (2 ** (len(blocks) - 1) if rounding is PAPER else 1)
        # From the padded side, lest a little more than a side between two steps round down to less.
        side = nearest_multiple(-(-spec.resolution // step) * step * by.resolution, step, minimum=16)
        last = grids(spec)[-1]
        window = math.ceil(grids(replace(scaled, resolution=side))[-1].side / (last.padded // last.window))
        return replace(scaled, resolution=side, window_size=window)

    def size(self, spec: SwinSpec) -> Size:
        """All stages' blocks; the width is the mean over them."""
        depth = sum(spec.blocks)
        return Size(depth, sum(n * spec.channels * 2**i for i, n in enumerate(spec.blocks)) / depth, spec.resolution)

    def build(
        self, spec: SwinSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0
    ) -> SwinTransformer:
        return SwinTransformer(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: SwinSpec, new: SwinSpec) -> Mapping[str, Tensor]:
        """The bias tables of stages whose window changes, stretched over it (section 4.1); the rest as it is."""
        resampled = dict(weights)
        for i, (before, after) in enumerate(zip(grids(old), grids(new), strict=True)):
            for name, table in weights.items():
                if name.startswith(f"stages.{i}.") and name.endswith(".bias_table") and before.window != after.window:
                    resampled[name] = resample_grid(table, 2 * before.window - 1, 2 * after.window - 1)
        return resampled


class SwinTransformer(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes).

    Inside, maps are (n, h, w, c): everything but the patch embedding works along the channels.
    """

    def __init__(self, spec: SwinSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.patches = PatchEmbedding(in_channels, spec.channels, spec.patch_size)
        self.patch_norm = nn.LayerNorm(spec.channels)
        rates = iter(drop_path_rates(drop_path, sum(spec.blocks)))
        dim, heads = spec.channels, spec.num_heads
        stages: list[Stage] = []
        for i, (grid, count) in enumerate(zip(grids(spec), spec.blocks, strict=True)):
            merging = PatchMerging(dim) if i else nn.Identity()
            dim, heads = (2 * dim, 2 * heads) if i else (dim, heads)
            blocks = [
                Block(dim, heads, spec.mlp_ratio * dim, grid, shifts=j % 2 == 1, drop_path=next(rates))
                for j in range(count)
            ]
            stages.append(Stage(merging, blocks, grid))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # The released code draws with a standard deviation of 0.02, as this does at about 2500 channels: so
                # little that narrow networks hardly start to learn. torchvision, too, draws its MLPs so.
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        x = self.patch_norm(self.patches(x).permute(0, 2, 3, 1))
        x = self.classifier(self.norm(self.stages(x)).mean((1, 2)))
        return x


class PatchMerging(nn.Module):
    """Section 3.1: 2x2 neighbours concatenated, normalised, and mapped from 4 to 2 times the channels.

    Odd maps are padded with zeros to the right and below. The neighbours go down the left column first.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> (n, ceil(h / 2), ceil(w / 2), 2 c)."""
        n, height, width, dim = x.shape
        if height % 2 or width % 2:
            x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.view(n, (height + 1) // 2, 2, (width + 1) // 2, 2, dim).permute(0, 1, 3, 4, 2, 5).flatten(3)
        x = self.reduction(self.norm(x))
        return x


class Stage(nn.Module):
    """Patch merging, but in the first stage, and blocks, which share what follows from the grid alone."""

    pairs: Tensor
    mask: Tensor | None

    def __init__(self, merging: nn.Module, blocks: list[Block], grid: Grid) -> None:
        super().__init__()
        self.merging = merging
        self.blocks = nn.ModuleList(blocks)
        self.register_buffer("pairs", relative_positions(grid.window), persistent=False)
        self.register_buffer("mask", shift_mask(grid) if grid.shift and len(blocks) > 1 else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, h, w, c) -> the stage's map."""
        x = self.merging(x)
        for block in self.blocks:
            x = block(x, self.pairs, self.mask)
        return x


class Block(nn.Module):
    """Pre-norm transformer layer: window attention and a two-layer perceptron, each in a residual branch (figure 3)."""

    def __init__(self, dim: int, num_heads: int, hidden: int, grid: Grid, *, shifts: bool, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, num_heads, grid, grid.shift if shifts else 0)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, pairs: Tensor, mask: Tensor | None) -> Tensor:
        """(n, h, w, c) -> the same shape; `pairs` and `mask` are the stage's."""
        x = x + self.drop_path(self.attention(self.attention_norm(x), pairs, mask))
        x = x + self.drop_path(self.mlp(self.mlp_norm(x)))
        return x


class WindowAttention(nn.Module):
    """Section 3.2: self-attention within windows, whose logits have a bias per relative position and head.

    Maps that the windows do not divide are padded to the right and below with zeros, which are attended to like any
    token, as in torchvision. With a shift the map is rolled up and to the left first, and the mask keeps those apart
    that are neighbours by the roll alone.
    """

    def __init__(self, dim: int, num_heads: int, grid: Grid, shift: int) -> None:
        super().__init__()
        self.num_heads, self.grid, self.shift = num_heads, grid, shift
        self.bias_table = nn.Parameter(torch.zeros((2 * grid.window - 1) ** 2, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor, pairs: Tensor, mask: Tensor | None) -> Tensor:
        """(n, side, side, c) -> the same shape."""
        n, dim = x.shape[0], x.shape[3]
        side, window = self.grid
        tokens, missing = window * window, self.grid.padded - side
        if missing:  # as if `x` were padded: what pads become is the bias
            x = F.pad(F.linear(x, self.qkv.weight), (0, 0, 0, missing, 0, missing)) + self.qkv.bias
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = partition(x, window)
        if not missing:
            x = self.qkv(x)
        query, key, value = x.view(-1, tokens, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        bias = self.bias_table[pairs].view(tokens, tokens, -1).permute(2, 0, 1)[None]
        if self.shift and mask is not None:
            bias = bias + mask[:, None]
        y: Tensor = attend(query, key, value, bias)
        y = unpartition(y.transpose(1, 2).reshape(-1, tokens, dim), n, self.grid.padded, window)
        if self.shift:
            y = torch.roll(y, (self.shift, self.shift), (1, 2))
        y = self.out(y[:, :side, :side])
        return y


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention within windows, all (n x windows, heads, tokens, d), with a bias (1 or windows, heads, tokens, tokens).

    Where the bias learns on a CPU the fused kernel does not apply, and what PyTorch does instead is slower than this.
    """
    windows = bias.shape[0]
    if not (bias.requires_grad and bias.device.type == "cpu"):
        bias = bias.repeat(query.shape[0] // windows, 1, 1, 1) if windows > 1 else bias
        fused: Tensor = F.scaled_dot_product_attention(query, key, value, bias)
        return fused
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    logits = (logits.unflatten(0, (-1, windows)) + bias).flatten(0, 1)
    y: Tensor = logits.softmax(-1) @ value
    return y


def partition(x: Tensor, window: int) -> Tensor:
    """(n, s, s, c) -> its windows by image, row and column, (n x (s / window)^2, window x window, c)."""
    n, side, _, dim = x.shape
    x = x.view(n, side // window, window, side // window, window, dim).transpose(2, 3)
    return x.reshape(-1, window * window, dim)


def unpartition(x: Tensor, n: int, side: int, window: int) -> Tensor:
    """The inverse of `partition`, for n maps of side x side."""
    x = x.view(n, side // window, side // window, window, window, -1).transpose(2, 3)
    return x.reshape(n, side, side, -1)


def relative_positions(window: int) -> Tensor:
    """For each pair of tokens of a window, the row of the bias table that holds their offset; flat, query by key."""
    places = torch.arange(window * window)
    row, column = places // window, places % window
    down, right = row[:, None] - row, column[:, None] - column  # from -(window - 1) to window - 1
    return ((down + window - 1) * (2 * window - 1) + right + window - 1).flatten()


def shift_mask(grid: Grid) -> Tensor:
    """What is added to the logits in the windows of the rolled map, (windows, tokens, tokens): 0, or MASKED.

    The roll brings the first rows below the last ones, and the first columns to the right of the last.
    """
    moved = (torch.arange(grid.padded) >= grid.padded - grid.shift).long()
    part = partition((2 * moved[:, None] + moved)[None, :, :, None], grid.window).squeeze(2)
    return MASKED * (part[:, :, None] != part[:, None, :]).float()


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """Swin T, S, B, B at 384 px and micro."""
    return [Swin()]
