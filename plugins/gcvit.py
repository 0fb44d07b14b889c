"""GC ViT (Hatamizadeh et al., 2022, arXiv:2206.09959): window attention with every other block's queries global."""

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
from scalenet.layers import DropPath, check_side, drop_path_rates, mlp, resample_grid
from scalenet.rounding import allot_depths, ceil_depths, nearest_multiple, whole_heads

SE_RATIO = 4  # channels / channels between the two maps of squeeze-and-excitation


@dataclass(frozen=True)
class GCViTSpec:
    """The numbers of a GC ViT. Each further stage has twice the channels and heads, and half the map's side.

    `windows` cut each stage's map into that many windows per side, powers of two. `layer_scale` is the value that the
    factors of the residual branches start from; 0: the branches have none.
    """

    resolution: int
    channels: int  # of the stem and the first stage
    num_heads: int  # of the first stage
    blocks: tuple[int, ...]  # per stage; at even places with local, at odd ones with global queries
    windows: tuple[int, ...] = (8, 4, 1, 1)  # at 224 px: 7, 7, 14 and 7 tokens wide (released configurations)
    mlp_ratio: int = 3
    layer_scale: float = 0.0

    def __post_init__(self) -> None:
        if self.channels % self.num_heads:
            raise ScalenetError(f"gcvit: channels must be a multiple of {self.num_heads} heads, got {self.channels}.")
        if len(self.windows) != len(self.blocks):
            raise ScalenetError(
                f"gcvit: windows must have one number for each of {len(self.blocks)} stages, got {self.windows}."
            )
        for count in self.windows:
            if count < 1 or count & (count - 1):
                raise ScalenetError(f"gcvit: windows must be powers of two, got {count}.")


# fmt: off
#                           px    C  heads  blocks per stage
VARIANTS = {  # Table 1 of the appendix, and the released configurations
    "xxt":       GCViTSpec(224,  64,  2,    (2, 2,  6, 2)),
    "xt":        GCViTSpec(224,  64,  2,    (3, 4,  6, 5)),
    "t":         GCViTSpec(224,  64,  2,    (3, 4, 19, 5)),
    "s":         GCViTSpec(224,  96,  3,    (3, 4, 19, 5), mlp_ratio=2, layer_scale=1e-5),
    "b":         GCViTSpec(224, 128,  4,    (3, 4, 19, 5), mlp_ratio=2, layer_scale=1e-5),
}
MICRO =          GCViTSpec( 32,  16,  1,    (4, 4), windows=(2, 1), mlp_ratio=2)
# fmt: on


class Grid(NamedTuple):
    """Where a stage attends: its map of side x side tokens in windows of window x window."""

    side: int
    window: int

    @property
    def padded(self) -> int:
        """The map's side in whole windows."""
        return math.ceil(self.side / self.window) * self.window


def grids(spec: GCViTSpec) -> list[Grid]:
    """The grid of every stage: its windows are the smallest that cover the map in the spec's number.

    Maps are halved upwards, from a quarter of the image's side. At multiples of 32 px this is timm's rule.
    """
    sides = [math.ceil(spec.resolution / 2 ** (i + 2)) for i in range(len(spec.blocks))]
    return [Grid(side, math.ceil(side / count)) for side, count in zip(sides, spec.windows, strict=True)]


class GCViT(Architecture[GCViTSpec]):
    """Four stages of window attention; depth is their blocks, width the channels C, from which all others follow.

    Windows grow with the side, as in timm: a map is cut into the same number at any side, which leaves the query
    generator the same number of halvings. (NVIDIA's released code has windows of 7, 7, 14, 7 tokens and takes 224 px.)
    Their tables of biases are all that depends on the side. A stage that shrinks to one block has local attention
    alone, and no query generator.
    PAPER: blocks rounded up per stage, heads of 32 channels, sides that divide into whole windows. FINE: single
    blocks, channels to a multiple of the first stage's heads, single pixels.
    """

    name = "gcvit"
    paper = "https://arxiv.org/abs/2206.09959"
    baseline = "t"
    variants: Mapping[str, Variant[GCViTSpec]] = {
        "xxt": Variant(VARIANTS["xxt"], 1000, "arXiv:2206.09959, Table 1", params=11995428, flops=2120792320),
        "xt": Variant(VARIANTS["xt"], 1000, "arXiv:2206.09959, Table 1", params=19981294, flops=2912519424),
        "t": Variant(VARIANTS["t"], 1000, "arXiv:2206.09959, Table 1", params=28221974, flops=4761003264),
        "s": Variant(VARIANTS["s"], 1000, "arXiv:2206.09959, Table 1", params=51092173, flops=8529546624),
        "b": Variant(VARIANTS["b"], 1000, "arXiv:2206.09959, Table 1"),
        "micro": Variant(MICRO, 10, "ours: the same blocks at 32 px in two stages of 2 x 2 windows and one, one head"),
    }

    def scale(self, spec: GCViTSpec, by: Scale, rounding: Rounding = FINE) -> GCViTSpec:
        blocks, channels, heads, side = spec.blocks, spec.channels, spec.num_heads, spec.resolution
        if by.depth != 1.0:
            blocks = (ceil_depths if rounding is PAPER else allot_depths)(blocks, by.depth)
        head_dim = channels // heads
        if by.width != 1.0 and rounding is PAPER:
            channels = nearest_multiple(channels * by.width, head_dim)
            heads = channels // head_dim
        elif by.width != 1.0:
            channels, heads = whole_heads(channels * by.width, head_dim)
        if by.resolution != 1.0:
            step = 2 ** (len(blocks) + 1) if rounding is PAPER else 1
            side = nearest_multiple(side * by.resolution, step, minimum=16)
        return replace(spec, blocks=blocks, channels=channels, num_heads=heads, resolution=side)

    def size(self, spec: GCViTSpec) -> Size:
        """All stages' blocks; the width is the mean over them."""
        depth = sum(spec.blocks)
        return Size(depth, sum(n * spec.channels * 2**i for i, n in enumerate(spec.blocks)) / depth, spec.resolution)

    def build(
        self, spec: GCViTSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0
    ) -> GlobalContextViT:
        return GlobalContextViT(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: GCViTSpec, new: GCViTSpec) -> Mapping[str, Tensor]:
        """The bias tables of stages whose window changes, stretched over it; the rest as it is."""
        resampled = dict(weights)
        for i, (before, after) in enumerate(zip(grids(old), grids(new), strict=True)):
            for name, table in weights.items():
                if name.startswith(f"stages.{i}.") and name.endswith(".bias_table") and before.window != after.window:
                    resampled[name] = resample_grid(table, 2 * before.window - 1, 2 * after.window - 1)
        return resampled


class GlobalContextViT(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes).

    Between the parts maps are (n, c, h, w), laid out channels last.
    """

    def __init__(self, spec: GCViTSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, spec.channels, 3, 2, 1), ReduceSize(spec.channels, spec.channels)
        )
        rates = iter(drop_path_rates(drop_path, sum(spec.blocks)))
        stages: list[nn.Module] = []
        for i, (grid, count) in enumerate(zip(grids(spec), spec.blocks, strict=True)):
            dim, heads = spec.channels * 2**i, spec.num_heads * 2**i
            reduce = ReduceSize(dim // 2, dim) if i else nn.Identity()
            queries = QueryGenerator(dim, heads, int(math.log2(spec.windows[i]))) if count > 1 else None
            blocks = [
                Block(dim, heads, spec, grid, has_global_query=j % 2 == 1, drop_path=next(rates)) for j in range(count)
            ]
            stages.append(Stage(reduce, queries, blocks, grid))
        self.stages = nn.Sequential(*stages)
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                # The released code draws with a standard deviation of 0.02, as this does at about 2500 channels: so
                # little that narrow networks hardly start to learn. Convolutions are PyTorch's, as there.
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        x = self.stages(self.stem(x)).permute(0, 2, 3, 1)
        x = self.classifier(self.norm(x).mean((1, 2)))
        return x


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (n, c, h, w), which it lays out channels last."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FusedMBConv(nn.Module):
    """Section 3.2: depthwise 3x3, GELU, squeeze-and-excitation, 1x1, in a residual branch; no norms, no biases."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim, bias=False)
        self.act = nn.GELU()
        self.gate = nn.Sequential(
            nn.Conv2d(dim, max(1, dim // SE_RATIO), 1, bias=False),
            nn.GELU(),
            nn.Conv2d(max(1, dim // SE_RATIO), dim, 1, bias=False),
            nn.Sigmoid(),
        )
        self.project = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        y: Tensor = self.act(self.depthwise(x))
        y = self.project(y * self.gate(y.mean((2, 3), keepdim=True)))
        return x + y


class ReduceSize(nn.Sequential):
    """Halves a map, upwards: norm, MBConv, 3x3 convolution of stride 2 to other channels, norm (section 3.2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            ChannelNorm(in_channels),
            FusedMBConv(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, 2, 1, bias=False),
            ChannelNorm(out_channels),
        )


class QueryGenerator(nn.Module):
    """Section 3.3: a stage's map to one window of queries, by an MBConv and a max-pool for every halving.

    Without halvings, where a window is the whole map, there is one MBConv. Since both round upwards, any map ends as
    the stage's window. The queries belong to the image: all of its windows and all global blocks of the stage share
    them.
    """

    def __init__(self, dim: int, num_heads: int, halvings: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        steps: list[nn.Module] = []
        for _ in range(halvings):
            steps += [FusedMBConv(dim), nn.MaxPool2d(3, 2, 1)]
        self.steps = nn.Sequential(*(steps or [FusedMBConv(dim)]))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, heads, window x window, c / heads)."""
        y: Tensor = self.steps(x).flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3)
        return y


class Stage(nn.Module):
    """Reduction, but in the first stage, and blocks, which share the queries and what follows from the grid alone."""

    pairs: Tensor

    def __init__(self, reduce: nn.Module, queries: QueryGenerator | None, blocks: list[Block], grid: Grid) -> None:
        super().__init__()
        self.reduce, self.queries = reduce, queries
        self.blocks = nn.ModuleList(blocks)
        self.register_buffer("pairs", relative_positions(grid.window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the stage's map."""
        x = self.reduce(x)
        query = self.queries(x) if self.queries is not None else None
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, self.pairs, query)
        return x.permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """A learned factor for every channel (arXiv:2103.17239)."""

    def __init__(self, dim: int, start: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((dim,), start))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> the same shape."""
        return x * self.factor


class Block(nn.Module):
    """Pre-norm transformer layer: window attention and a two-layer perceptron, each in a residual branch."""

    def __init__(
        self, dim: int, num_heads: int, spec: GCViTSpec, grid: Grid, *, has_global_query: bool, drop_path: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = WindowAttention(dim, num_heads, grid, has_global_query=has_global_query)
        self.attention_scale = LayerScale(dim, spec.layer_scale) if spec.layer_scale else nn.Identity()
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, spec.mlp_ratio * dim)
        self.mlp_scale = LayerScale(dim, spec.layer_scale) if spec.layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, pairs: Tensor, query: Tensor | None) -> Tensor:
        """(n, h, w, c) -> the same shape; `pairs` and the global `query` are the stage's."""
        x = x + self.drop_path(self.attention_scale(self.attention(self.attention_norm(x), pairs, query)))
        x = x + self.drop_path(self.mlp_scale(self.mlp(self.mlp_norm(x))))
        return x


class WindowAttention(nn.Module):
    """Section 3.1: attention within windows, with a bias per relative position and head, by own or global queries.

    Maps that the windows do not divide are padded to the right and below with zeros, which are attended to like any
    token.
    """

    def __init__(self, dim: int, num_heads: int, grid: Grid, *, has_global_query: bool) -> None:
        super().__init__()
        self.num_heads, self.grid, self.has_global_query = num_heads, grid, has_global_query
        self.bias_table = nn.Parameter(torch.zeros((2 * grid.window - 1) ** 2, num_heads))
        self.project = nn.Linear(dim, (2 if has_global_query else 3) * dim)  # to [query,] key and value
        self.out = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.bias_table, std=0.02)

    def forward(self, x: Tensor, pairs: Tensor, query: Tensor | None) -> Tensor:
        """(n, side, side, c) -> the same shape."""
        n, dim = x.shape[0], x.shape[3]
        side, window = self.grid
        tokens, missing = window * window, self.grid.padded - side
        if missing:  # as if `x` were padded: what pads become is the bias
            x = F.pad(F.linear(x, self.project.weight), (0, 0, 0, missing, 0, missing)) + self.project.bias
        x = partition(x, window)
        if not missing:
            x = self.project(x)
        x = x.view(x.shape[0], tokens, -1, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        if self.has_global_query and query is not None:
            key, value = x.unbind()
            query = query.repeat_interleave(key.shape[0] // n, 0)  # windows are in the order of the images
        else:
            query, key, value = x.unbind()
        bias = self.bias_table[pairs].view(tokens, tokens, -1).permute(2, 0, 1)[None]
        y: Tensor = attend(query, key, value, bias).transpose(1, 2).reshape(-1, tokens, dim)
        y = self.out(unpartition(y, n, self.grid.padded, window)[:, :side, :side])
        return y


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention within windows, all (n x windows, heads, tokens, d), with a bias (1, heads, tokens, tokens).

    Where the bias learns on a CPU the fused kernel does not apply, and what PyTorch does instead is slower than this.
    """
    if not (bias.requires_grad and bias.device.type == "cpu"):
        fused: Tensor = F.scaled_dot_product_attention(query, key, value, bias)
        return fused
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    y: Tensor = logits.add_(bias).softmax(-1) @ value
    return y


def partition(x: Tensor, window: int) -> Tensor:
    """(n, s, s, c) -> its windows by image, row and column, (n x (s / window)^2, window x window, c)."""
    n, side, _, dim = x.shape
    x = x.reshape(n, side // window, window, side // window, window, dim).transpose(2, 3)
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


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """GC ViT XXT, XT, T, S, B and micro."""
    return [GCViT()]
