"""EfficientNet (Tan and Le, 2019, arXiv:1905.11946): mobile inverted bottlenecks with squeeze-and-excitation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, conv_bn, drop_path_rates, init_convolutions
from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple


@dataclass(frozen=True)
class Stage:
    """Rows of Table 1: `blocks` MBConvs, of which the first has the stride and changes the number of channels."""

    expand_ratio: int
    kernel: int
    stride: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class EfficientNetSpec:
    """The numbers of an EfficientNet. `dropout` acts before the classifier, in training only."""

    resolution: int
    stem: int
    stages: tuple[Stage, ...]
    head: int
    dropout: float
    se_ratio: float = 0.25  # of the block's *input* channels


# fmt: off
B0 = EfficientNetSpec(  # Table 1
    resolution=224,
    stem=32,
    stages=(  # e  k  s    c  n
        Stage(1, 3, 1,  16, 1),
        Stage(6, 3, 2,  24, 2),
        Stage(6, 5, 2,  40, 2),
        Stage(6, 3, 2,  80, 3),
        Stage(6, 5, 1, 112, 3),
        Stage(6, 5, 2, 192, 4),
        Stage(6, 3, 1, 320, 1),
    ),
    head=1280,
    dropout=0.2,
)

COEFFICIENTS = {  # the released code: width, depth, side in pixels, dropout; params, multiply-adds
    "b0": (1.0, 1.0, 224, 0.2,  5288548,   385814752),
    "b1": (1.0, 1.1, 240, 0.2,  7794184,   686802832),
    "b2": (1.1, 1.2, 260, 0.3,  9109994,   993561872),
    "b3": (1.2, 1.4, 300, 0.3, 12233232,  1827141392),
    "b4": (1.4, 1.8, 380, 0.4, 19341616,  4393771024),
    "b5": (1.6, 2.2, 456, 0.4, 30389784, 10266384752),
    "b6": (1.8, 2.6, 528, 0.5, 43040704, 19067593536),
    "b7": (2.0, 3.1, 600, 0.5, 66347960, 37745884192),
}

MICRO = EfficientNetSpec(
    resolution=32,
    stem=12,
    stages=(  # e  k  s    c  n
        Stage(1, 3, 1,  12, 1),
        Stage(3, 3, 2,  20, 2),
        Stage(3, 5, 2,  32, 3),
        Stage(3, 3, 1,  40, 1),
    ),
    head=128,
    dropout=0.0,  # trainings of a few epochs underfit
)
# fmt: on


class EfficientNet(Architecture[EfficientNetSpec]):
    """MBConv stages between a strided stem and a 1x1 head; all channel numbers scale, stem and head included.

    PAPER rounds every stage's blocks up and channels to a multiple of 8, FINE takes single blocks and channels. Sides
    go to the nearest pixel either way: four of the published ones are no multiple of 32.
    """

    name = "efficientnet"
    paper = "https://arxiv.org/abs/1905.11946"
    baseline = "b0"
    variants: Mapping[str, Variant[EfficientNetSpec]]

    def __init__(self) -> None:
        published = {
            name: Variant(
                replace(self.scale(B0, Scale(depth, width, side / B0.resolution), PAPER), dropout=dropout),
                1000,
                "arXiv:1905.11946 and its released code",
                params,
                flops,
            )
            for name, (width, depth, side, dropout, params, flops) in COEFFICIENTS.items()
        }
        self.variants = {
            **published,
            "micro": Variant(
                MICRO, 10, "ours: the same blocks, expanded 3 times, at 32 px with three halvings instead of five"
            ),
        }

    def scale(self, spec: EfficientNetSpec, by: Scale, rounding: Rounding = FINE) -> EfficientNetSpec:
        def channels(count: int) -> int:
            if by.width == 1.0:
                return count  # even where it is no multiple of 8
            return make_divisible(count * by.width) if rounding is PAPER else nearest_multiple(count * by.width)

        allot = ceil_depths if rounding is PAPER else allot_depths
        depths = allot([stage.blocks for stage in spec.stages], by.depth)
        return replace(
            spec,
            resolution=nearest_multiple(spec.resolution * by.resolution, minimum=16),
            stem=channels(spec.stem),
            stages=tuple(
                replace(stage, channels=channels(stage.channels), blocks=blocks)
                for stage, blocks in zip(spec.stages, depths, strict=True)
            ),
            head=channels(spec.head),
        )

    def size(self, spec: EfficientNetSpec) -> Size:
        depth = sum(stage.blocks for stage in spec.stages)
        width = sum(stage.channels * stage.blocks for stage in spec.stages) / depth
        return Size(depth, width, spec.resolution)

    def build(
        self, spec: EfficientNetSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0
    ) -> EfficientNetModel:
        return EfficientNetModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)


class EfficientNetModel(nn.Module):
    """The network of a spec: (n, in_channels, h, w) -> logits (n, num_classes), at any side.

    Deviations from the released code, the first two as in timm: convolutions are padded symmetrically (TensorFlow's
    SAME pads strided ones at the bottom right first); BatchNorm has PyTorch's eps 1e-5 and momentum 0.1 (there 1e-3
    and 0.01; with 0.01 the running statistics of a short training would lag behind); `drop_path` is the last block's
    rate (there it would be reached one block later).
    """

    def __init__(self, spec: EfficientNetSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.stem = conv_bn(in_channels, spec.stem, 3, stride=2, act=nn.SiLU())
        rates = iter(drop_path_rates(drop_path, sum(stage.blocks for stage in spec.stages)))
        channels, blocks = spec.stem, []
        for stage in spec.stages:
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(MBConv(channels, stage, stride=stride, se_ratio=spec.se_ratio, drop_path=next(rates)))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.head = conv_bn(channels, spec.head, act=nn.SiLU())
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(spec.head, num_classes)
        init_convolutions(self)  # and the classifier as in the released code: uniform, by fan-out
        bound = 1.0 / math.sqrt(num_classes)
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        x = self.head(self.blocks(self.stem(x)))
        x = self.classifier(self.dropout(x.mean((2, 3))))
        return x


class MBConv(nn.Module):
    """Inverted bottleneck: 1x1 expansion (none at ratio 1), depthwise, squeeze-and-excitation, linear 1x1 projection.

    The skip is there where stride and channels let it.
    """

    def __init__(self, in_channels: int, stage: Stage, *, stride: int, se_ratio: float, drop_path: float) -> None:
        super().__init__()
        wide = in_channels * stage.expand_ratio
        self.expand = conv_bn(in_channels, wide, act=nn.SiLU()) if stage.expand_ratio != 1 else nn.Identity()
        self.depthwise = conv_bn(wide, wide, stage.kernel, stride=stride, groups=wide, act=nn.SiLU())
        self.se = SqueezeExcite(wide, max(1, int(in_channels * se_ratio)))
        self.project = conv_bn(wide, stage.channels)
        self.residual = stride == 1 and in_channels == stage.channels
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + self.drop_path(y) if self.residual else y


class SqueezeExcite(nn.Module):
    """Channel gates from the channel means (arXiv:1709.01507), with SiLU as in the released EfficientNet code."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the same shape."""
        gate: Tensor = self.gate(x.mean((2, 3), keepdim=True))
        return x * gate


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """EfficientNet B0 to B7 and micro."""
    return [EfficientNet()]
