"""MobileViT (Mehta and Rastegari, 2021, arXiv:2110.02178): inverted bottlenecks, and attention across 2x2 patches."""

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
from scalenet.layers import DropPath, SelfAttention, conv_bn, drop_path_rates, init_convolutions, mlp
from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple

PATCH = 2  # pixels, both ways, in every MobileViT block of the paper


@dataclass(frozen=True)
class Stage:
    """Rows of Table 4 between two changes of width.

    `blocks` MV2 blocks, of which the first has the stride, then, where `layers` is not 0, one MobileViT block of that
    many transformer layers (the paper's L) of `dim` channels (its d).
    """

    stride: int
    channels: int
    blocks: int
    dim: int = 0
    layers: int = 0


@dataclass(frozen=True)
class MobileViTSpec:
    """The numbers of a MobileViT. `dropout` acts before the classifier, in training only."""

    resolution: int
    stem: int
    stages: tuple[Stage, ...]
    expand_ratio: int  # of the MV2 blocks
    dropout: float
    head_ratio: int = 4  # channels of the last 1x1 convolution / of the last stage
    num_heads: int = 4
    mlp_ratio: int = 2

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage.dim % self.num_heads or (stage.layers and not stage.dim):
                raise ScalenetError(f"mobilevit: dim must be a multiple of {self.num_heads} heads, got {stage.dim}.")


# fmt: off
XXS = MobileViTSpec(  # Table 4; dropout from the released configuration
    resolution=256,
    stem=16,
    stages=(  # s    c  n    d  L
        Stage(1,  16, 1),
        Stage(2,  24, 3),
        Stage(2,  48, 1,  64, 2),
        Stage(2,  64, 1,  80, 4),
        Stage(2,  80, 1,  96, 3),
    ),
    expand_ratio=2,
    dropout=0.1,
)

XS = MobileViTSpec(
    resolution=256,
    stem=16,
    stages=(  # s    c  n    d  L
        Stage(1,  32, 1),
        Stage(2,  48, 3),
        Stage(2,  64, 1,  96, 2),
        Stage(2,  80, 1, 120, 4),
        Stage(2,  96, 1, 144, 3),
    ),
    expand_ratio=4,
    dropout=0.1,
)

S = MobileViTSpec(
    resolution=256,
    stem=16,
    stages=(  # s    c  n    d  L
        Stage(1,  32, 1),
        Stage(2,  64, 3),
        Stage(2,  96, 1, 144, 2),
        Stage(2, 128, 1, 192, 4),
        Stage(2, 160, 1, 240, 3),
    ),
    expand_ratio=4,
    dropout=0.1,
)

MICRO = MobileViTSpec(
    resolution=32,
    stem=8,
    stages=(  # s    c  n    d  L
        Stage(1,   8, 1),
        Stage(2,  16, 2,  16, 1),
        Stage(2,  24, 1,  32, 2),
    ),
    expand_ratio=2,
    dropout=0.0,  # trainings of a few epochs underfit
    num_heads=2,
)
# fmt: on


class MobileViT(Architecture[MobileViTSpec]):
    """MV2 stages, the later ones each with a MobileViT block.

    The paper gives three sizes and no rule between them. Here both its repeated things count as depth, MV2 blocks and
    transformer layers, every stage keeping at least one of what it has; and all its channel numbers as width: stem,
    stages, d (to a multiple of the heads, whose number stays) and, through the last stage, the head.
    PAPER: rounded up per stage, multiples of 8, sides of the total stride (the paper trains at multiples of 32). FINE:
    single layers, channels and pixels, for maps that 2x2 patches do not tile are resized inside the block.
    """

    name = "mobilevit"
    paper = "https://arxiv.org/abs/2110.02178"
    baseline = "s"
    variants: Mapping[str, Variant[MobileViTSpec]] = {
        "xxs": Variant(XXS, 1000, "arXiv:2110.02178, Table 4", params=1272024, flops=407364096),
        "xs": Variant(XS, 1000, "arXiv:2110.02178, Table 4", params=2317848, flops=1025911808),
        "s": Variant(S, 1000, "arXiv:2110.02178, Table 4", params=5578632, flops=2000831488),
        "micro": Variant(MICRO, 10, "ours: the same blocks at 32 px with three halvings instead of five, two heads"),
    }

    def scale(self, spec: MobileViTSpec, by: Scale, rounding: Rounding = FINE) -> MobileViTSpec:
        def channels(count: int, step: int = 1) -> int:
            if by.width == 1.0 or count == 0:
                return count
            if rounding is PAPER:
                return make_divisible(count * by.width, math.lcm(8, step))
            return nearest_multiple(count * by.width, step)

        stages = spec.stages
        transformers = [stage.layers for stage in stages if stage.layers]
        allot = ceil_depths if rounding is PAPER else allot_depths
        depths = allot([stage.blocks for stage in stages] + transformers, by.depth)
        layers = iter(depths[len(stages) :])
        side = spec.resolution
        if by.resolution != 1.0:
            step = 2 * math.prod(stage.stride for stage in stages) if rounding is PAPER else 1
            side = nearest_multiple(spec.resolution * by.resolution, step, minimum=16)
        return replace(
            spec,
            resolution=side,
            stem=channels(spec.stem),
            stages=tuple(
                replace(
                    stage,
                    channels=channels(stage.channels),
                    blocks=blocks,
                    dim=channels(stage.dim, spec.num_heads),
                    layers=next(layers) if stage.layers else 0,
                )
                for stage, blocks in zip(stages, depths[: len(stages)], strict=True)
            ),
        )

    def size(self, spec: MobileViTSpec) -> Size:
        """MV2 blocks and transformer layers together; the width is the mean over the outputs of both."""
        depth = sum(stage.blocks + stage.layers for stage in spec.stages)
        width = sum(stage.blocks * stage.channels + stage.layers * stage.dim for stage in spec.stages) / depth
        return Size(depth, width, spec.resolution)

    def build(
        self, spec: MobileViTSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0
    ) -> MobileViTModel:
        return MobileViTModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)


class MobileViTModel(nn.Module):
    """The network of a spec: (n, in_channels, h, w) -> logits (n, num_classes), at any side.

    The released configuration (cvnets) also drops 10 % of the activations inside the transformer layers; here, as in
    timm, `drop_path` is the means for that, over MV2 blocks and transformer layers in their order (in the latter it
    drops single sequences, of which an image has four).
    """

    def __init__(self, spec: MobileViTSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.stem = conv_bn(in_channels, spec.stem, 3, stride=2, act=nn.SiLU())
        rates = iter(drop_path_rates(drop_path, sum(stage.blocks + stage.layers for stage in spec.stages)))
        channels = spec.stem
        blocks: list[nn.Module] = []
        for stage in spec.stages:
            for i in range(stage.blocks):
                wide, stride = channels * spec.expand_ratio, stage.stride if i == 0 else 1
                blocks.append(MV2(channels, wide, stage.channels, stride=stride, drop_path=next(rates)))
                channels = stage.channels
            if stage.layers:
                layers = [
                    TransformerLayer(stage.dim, spec.num_heads, spec.mlp_ratio * stage.dim, drop_path=next(rates))
                    for _ in range(stage.layers)
                ]
                blocks.append(MobileViTBlock(channels, stage.dim, layers))
        self.blocks = nn.Sequential(*blocks)
        self.head = conv_bn(channels, spec.head_ratio * channels, act=nn.SiLU())
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(spec.head_ratio * channels, num_classes)
        init_convolutions(self)
        for module in self.modules():  # as in the released configuration
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        x = self.head(self.blocks(self.stem(x)))
        x = self.classifier(self.dropout(x.mean((2, 3))))
        return x


class MV2(nn.Module):
    """MobileNetV2's inverted bottleneck (arXiv:1801.04381) with SiLU; the skip where stride and channels let it."""

    def __init__(self, in_channels: int, wide: int, out_channels: int, *, stride: int, drop_path: float) -> None:
        super().__init__()
        self.expand = conv_bn(in_channels, wide, act=nn.SiLU())
        self.depthwise = conv_bn(wide, wide, 3, stride=stride, groups=wide, act=nn.SiLU())
        self.project = conv_bn(wide, out_channels)
        self.residual = stride == 1 and in_channels == out_channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + self.drop_path(y) if self.residual else y


class MobileViTBlock(nn.Module):
    """Section 3.1: local convolutions, transformers across the patches, and fusion with the input by a 3x3 convolution.

    Pixels attend only to those at the same place of the other patches. Maps of odd height or width are resized
    bilinearly before and after the transformers, as in the released code.
    """

    def __init__(self, channels: int, dim: int, layers: list[TransformerLayer]) -> None:
        super().__init__()
        self.local = conv_bn(channels, channels, 3, act=nn.SiLU())
        self.to_dim = nn.Conv2d(channels, dim, 1, bias=False)
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(dim)
        self.to_channels = conv_bn(dim, channels, act=nn.SiLU())
        self.fuse = conv_bn(2 * channels, channels, 3, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        y: Tensor = self.to_dim(self.local(x))
        n, _, height, width = y.shape
        rows, columns = (height + PATCH - 1) // PATCH, (width + PATCH - 1) // PATCH
        tiled = (rows * PATCH, columns * PATCH) == (height, width)
        if not tiled:
            y = F.interpolate(y, (rows * PATCH, columns * PATCH), mode="bilinear", align_corners=False)
        y = unfold(y, rows, columns)
        y = self.norm(self.layers(y))
        y = fold(y, n, rows, columns)
        if not tiled:
            y = F.interpolate(y, (height, width), mode="bilinear", align_corners=False)
        y = self.fuse(torch.cat((x, self.to_channels(y)), 1))
        return y


class TransformerLayer(nn.Module):
    """Pre-norm transformer layer: attention and a two-layer perceptron with SiLU, each in a residual branch."""

    def __init__(self, dim: int, num_heads: int, hidden: int, *, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, hidden, nn.SiLU())
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, dim) -> the same shape."""
        x = x + self.drop_path(self.attention(self.attention_norm(x)))
        x = x + self.drop_path(self.mlp(self.mlp_norm(x)))
        return x


def unfold(x: Tensor, rows: int, columns: int) -> Tensor:
    """(n, d, 2 rows, 2 columns) -> one sequence per place in a patch, (4 n, rows x columns, d)."""
    n, dim = x.shape[:2]
    x = x.view(n, dim, rows, PATCH, columns, PATCH).permute(0, 3, 5, 2, 4, 1)
    return x.reshape(n * PATCH * PATCH, rows * columns, dim)


def fold(x: Tensor, n: int, rows: int, columns: int) -> Tensor:
    """The inverse of `unfold`, as a channels-last map."""
    x = x.view(n, PATCH, PATCH, rows, columns, -1).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n, rows * PATCH, columns * PATCH, -1).permute(0, 3, 1, 2)


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """MobileViT XXS, XS, S and micro."""
    return [MobileViT()]
