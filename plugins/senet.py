"""SENet (Hu et al., 2017, arXiv:1709.01507): residual networks whose branches are gated per channel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, conv_bn, drop_path_rates, init_convolutions
from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple


@dataclass(frozen=True)
class Stage:
    """A column's rows of Table 1: `blocks` bottlenecks 1x1 -> 3x3 -> 1x1, of which the first has the stride.

    `reduce`, `middle` and `channels` are the outputs of the three convolutions; in all but SENet-154 the first two are
    equal.
    """

    stride: int
    reduce: int
    middle: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class SENetSpec:
    """The numbers of a SENet. `dropout` acts before the classifier, in training only.

    The stem is a chain of convolutions, as many as `stem` has entries, of which the first has the stride 2, and a 3x3
    max-pooling of stride 2: padded on all sides, or only where the last window would stick out ("ceil"), or none.
    """

    resolution: int
    stem: tuple[int, ...]
    stages: tuple[Stage, ...]
    stem_kernel: int = 7
    pool: Literal["padded", "ceil", "none"] = "padded"
    stride_in: Literal["1x1", "3x3"] = "3x3"  # the convolution of a bottleneck that has the stride
    groups: int = 1  # of the 3x3 convolution
    shortcut_kernel: int = 1  # of the projections that have a stride
    reduction: int = 16  # r: channels of a block / of its squeezed description
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.stem or not self.stages:
            raise ScalenetError("senet: stem and stages must have at least one entry each, got none.")
        for stage in self.stages:
            for channels in (stage.reduce, stage.middle):
                if channels % self.groups:
                    raise ScalenetError(
                        f"senet: the channels around a 3x3 must be a multiple of {self.groups} groups, got {channels}."
                    )


# fmt: off
SE_RESNET_50 = SENetSpec(  # Table 1, column 2; the stride where ResNet v1.5 and timm have it
    resolution=224,
    stem=(64,),
    stages=(  # s   1x1   3x3   1x1  n
        Stage(1,   64,   64,  256,  3),
        Stage(2,  128,  128,  512,  4),
        Stage(2,  256,  256, 1024,  6),
        Stage(2,  512,  512, 2048,  3),
    ),
)

SE_RESNEXT_50 = SENetSpec(  # Table 1, column 3: 32 groups of 4 channels in the first stage
    resolution=224,
    stem=(64,),
    groups=32,
    stages=(  # s   1x1   3x3   1x1  n
        Stage(1,  128,  128,  256,  3),
        Stage(2,  256,  256,  512,  4),
        Stage(2,  512,  512, 1024,  6),
        Stage(2, 1024, 1024, 2048,  3),
    ),
)

SENET_154 = SENetSpec(  # Appendix: ResNeXt-152 (64x4d) with half of the first 1x1s and 3x3 projections
    resolution=224,
    stem=(64, 64, 128),
    stem_kernel=3,
    pool="ceil",
    groups=64,
    shortcut_kernel=3,
    dropout=0.2,
    stages=(  # s   1x1   3x3   1x1  n
        Stage(1,  128,  256,  256,  3),
        Stage(2,  256,  512,  512,  8),
        Stage(2,  512, 1024, 1024, 36),
        Stage(2, 1024, 2048, 2048,  3),
    ),
)

MICRO = SENetSpec(
    resolution=32,
    stem=(8,),
    stem_kernel=3,
    pool="none",
    reduction=8,
    stages=(  # s  1x1 3x3 1x1  n
        Stage(1,   8,  8, 32, 2),
        Stage(2,  12, 12, 48, 3),
        Stage(2,  16, 16, 64, 3),
    ),
)
# fmt: on


def _deeper(*blocks: int) -> SENetSpec:
    stages = zip(SE_RESNET_50.stages, blocks, strict=True)
    return replace(SE_RESNET_50, stages=tuple(replace(stage, blocks=count) for stage, count in stages))


class SENet(Architecture[SENetSpec]):
    """Bottleneck stages behind a strided stem; every channel number scales, and with a block's its squeezed ones.

    The paper gives sizes and no rule between them. PAPER: blocks rounded up per stage, channels in multiples of 16,
    the paper's r, and of the groups, sides of the total stride. FINE: single blocks, channels (around grouped
    convolutions multiples of the groups, whose number stays) and pixels.
    """

    name = "senet"
    paper = "https://arxiv.org/abs/1709.01507"
    baseline = "se_resnet50"
    variants: Mapping[str, Variant[SENetSpec]] = {
        "se_resnet50": Variant(
            SE_RESNET_50, 1000, "arXiv:1709.01507, Table 1; timm seresnet50", params=28088024, flops=4091699200
        ),
        "se_resnet50_caffe": Variant(
            replace(SE_RESNET_50, pool="ceil", stride_in="1x1"),
            1000,
            "arXiv:1709.01507, Table 1; the authors' Caffe network, timm legacy_seresnet50",
            params=28088024,
            flops=3860488192,
        ),
        "se_resnet101": Variant(
            _deeper(3, 4, 23, 3), 1000, "arXiv:1709.01507, Table 2; timm seresnet101", params=49326872, flops=7806148608
        ),
        "se_resnet152": Variant(
            _deeper(3, 8, 36, 3),
            1000,
            "arXiv:1709.01507, Table 2; timm seresnet152",
            params=66821848,
            flops=11520204800,
        ),
        "se_resnext50_32x4d": Variant(SE_RESNEXT_50, 1000, "arXiv:1709.01507, Table 1; timm seresnext50_32x4d"),
        "senet154": Variant(SENET_154, 1000, "arXiv:1709.01507, appendix; timm legacy_senet154"),
        "micro": Variant(MICRO, 10, "ours: the same blocks, r = 8, at 32 px with three halvings instead of five"),
    }

    def scale(self, spec: SENetSpec, by: Scale, rounding: Rounding = FINE) -> SENetSpec:
        def channels(count: int, step: int = 1) -> int:
            if by.width == 1.0:
                return count
            if rounding is PAPER:
                return make_divisible(count * by.width, math.lcm(16, step))
            return nearest_multiple(count * by.width, step)

        allot = ceil_depths if rounding is PAPER else allot_depths
        depths = allot([stage.blocks for stage in spec.stages], by.depth)
        side = spec.resolution
        if by.resolution != 1.0:
            halvings = 2 * (1 if spec.pool == "none" else 2)
            step = halvings * math.prod(stage.stride for stage in spec.stages) if rounding is PAPER else 1
            side = nearest_multiple(spec.resolution * by.resolution, step, minimum=16)
        return replace(
            spec,
            resolution=side,
            stem=tuple(channels(count) for count in spec.stem),
            stages=tuple(
                replace(
                    stage,
                    reduce=channels(stage.reduce, spec.groups),
                    middle=channels(stage.middle, spec.groups),
                    channels=channels(stage.channels),
                    blocks=blocks,
                )
                for stage, blocks in zip(spec.stages, depths, strict=True)
            ),
        )

    def size(self, spec: SENetSpec) -> Size:
        """The width is the mean over the blocks' outputs."""
        depth = sum(stage.blocks for stage in spec.stages)
        width = sum(stage.channels * stage.blocks for stage in spec.stages) / depth
        return Size(depth, width, spec.resolution)

    def build(self, spec: SENetSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> SENetModel:
        return SENetModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)


class SENetModel(nn.Module):
    """The network of a spec: (n, in_channels, h, w) -> logits (n, num_classes), at any side.

    Initialised as the paper's section 5 says (arXiv:1502.01852); timm also starts the last norm of every branch at
    zero, which the paper does not.
    """

    def __init__(self, spec: SENetSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        channels = in_channels
        stem: list[nn.Module] = []
        for i, count in enumerate(spec.stem):
            act = nn.ReLU(inplace=True)
            stem.append(conv_bn(channels, count, spec.stem_kernel, stride=2 if i == 0 else 1, act=act))
            channels = count
        if spec.pool != "none":
            ceil = spec.pool == "ceil"
            stem.append(nn.MaxPool2d(3, 2, padding=0 if ceil else 1, ceil_mode=ceil))
        self.stem = nn.Sequential(*stem)
        rates = iter(drop_path_rates(drop_path, sum(stage.blocks for stage in spec.stages)))
        blocks: list[nn.Module] = []
        for stage in spec.stages:
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(Bottleneck(channels, stage, spec, stride=stride, drop_path=next(rates)))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(channels, num_classes)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        x = self.blocks(self.stem(x))
        x = self.classifier(self.dropout(x.mean((2, 3))))
        return x


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, gated (Figure 3), added to the shortcut: a projection where the shape changes.

    The gate comes after the last norm and before the addition, and does not touch the shortcut.
    """

    def __init__(self, in_channels: int, stage: Stage, spec: SENetSpec, *, stride: int, drop_path: float) -> None:
        super().__init__()
        early = stride if spec.stride_in == "1x1" else 1
        self.reduce = conv_bn(in_channels, stage.reduce, stride=early, act=nn.ReLU(inplace=True))
        self.middle = conv_bn(
            stage.reduce, stage.middle, 3, stride=stride // early, groups=spec.groups, act=nn.ReLU(inplace=True)
        )
        self.expand = conv_bn(stage.middle, stage.channels)
        self.gate = Gate(stage.channels, max(1, stage.channels // spec.reduction))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != stage.channels:
            kernel = spec.shortcut_kernel if stride != 1 else 1
            self.shortcut = conv_bn(in_channels, stage.channels, kernel, stride=stride)
        self.drop_path = DropPath(drop_path)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.expand(self.middle(self.reduce(x)))
        gate = self.drop_path(self.gate(y))  # a dropped branch is one whose gates are zero
        y = self.act((y * gate).add_(self.shortcut(x)))
        return y


class Gate(nn.Module):
    """Squeeze and excitation (section 3): channel means -> C / r -> ReLU -> C -> sigmoid, a factor for each channel."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.Linear(channels, squeezed), nn.ReLU(inplace=True), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, 1, 1)."""
        gate: Tensor = self.excite(x.mean((2, 3)))
        return gate[:, :, None, None]


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """SE-ResNet 50, 101 and 152, SE-ResNeXt-50, SENet-154 and micro."""
    return [SENet()]
