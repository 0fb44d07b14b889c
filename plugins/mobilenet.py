"""MobileNet V1 (Howard et al., 2017, arXiv:1704.04861): depthwise separable convolutions, no skips."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.hookspecs import hookimpl
from scalenet.layers import conv_bn, init_convolutions
from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple


@dataclass(frozen=True)
class Stage:
    """Rows of Table 1 between two changes of width: `blocks` depthwise separable blocks, the first with the stride."""

    stride: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class MobileNetSpec:
    """The numbers of a MobileNet. The classifier reads the last stage's channels, so it scales along."""

    resolution: int
    stem: int
    stages: tuple[Stage, ...]


# fmt: off
# Table 1, from the first "Conv dw" on. It prints "s2" also for the last depthwise layer, though with a 7 x 7 map on
# both of its sides: the stride is 1, and only so are the multiply-adds the 569 million of the paper.
FULL = MobileNetSpec(
    resolution=224,
    stem=32,
    stages=(  # s     c  n
        Stage(1,   64, 1),
        Stage(2,  128, 2),
        Stage(2,  256, 2),
        Stage(2,  512, 6),
        Stage(2, 1024, 2),
    ),
)

MICRO = MobileNetSpec(
    resolution=32,
    stem=16,
    stages=(  # s     c  n
        Stage(1,   32, 2),
        Stage(2,   64, 3),
        Stage(2,  128, 2),
    ),
)

ALPHAS = {  # Table 6, counted to the last: params, multiply-adds
    1.00: (4231976, 568740352),
    0.75: (2585560, 325400448),
    0.50: (1331592, 149497088),
    0.25: ( 470072, None),
}
# fmt: on


class MobileNet(Architecture[MobileNetSpec]):
    """Depthwise separable stages; the paper's alpha multiplies every channel number, its rho the side.

    Depth is not a knob of the paper. Here it multiplies the blocks of every stage, so that what is added or removed are
    the stride-1 repeats and every stage keeps its first block. PAPER: stages rounded up, channels to a multiple of 8
    never below 90 %, sides to a multiple of the total stride (224, 192, 160, 128). FINE: single blocks, channels and
    pixels.
    """

    name = "mobilenet"
    paper = "https://arxiv.org/abs/1704.04861"
    baseline = "1x"
    variants: Mapping[str, Variant[MobileNetSpec]]

    def __init__(self) -> None:
        self.variants = {
            **{
                f"{alpha:g}x": Variant(
                    self.scale(FULL, Scale(width=alpha), PAPER), 1000, "arXiv:1704.04861, Table 6", params, flops
                )
                for alpha, (params, flops) in ALPHAS.items()
            },
            "micro": Variant(MICRO, 10, "ours: the same blocks at 32 px with three halvings instead of five"),
        }

    def scale(self, spec: MobileNetSpec, by: Scale, rounding: Rounding = FINE) -> MobileNetSpec:
        def channels(count: int) -> int:
            if by.width == 1.0:
                return count  # even where it is no multiple of 8
            return make_divisible(count * by.width) if rounding is PAPER else nearest_multiple(count * by.width)

        allot = ceil_depths if rounding is PAPER else allot_depths
        depths = allot([stage.blocks for stage in spec.stages], by.depth)
        side = spec.resolution
        if by.resolution != 1.0:
            step = 2 * math.prod(stage.stride for stage in spec.stages) if rounding is PAPER else 1
            side = nearest_multiple(spec.resolution * by.resolution, step, minimum=16)
        return replace(
            spec,
            resolution=side,
            stem=channels(spec.stem),
            stages=tuple(
                replace(stage, channels=channels(stage.channels), blocks=blocks)
                for stage, blocks in zip(spec.stages, depths, strict=True)
            ),
        )

    def size(self, spec: MobileNetSpec) -> Size:
        depth = sum(stage.blocks for stage in spec.stages)
        width = sum(stage.channels * stage.blocks for stage in spec.stages) / depth
        return Size(depth, width, spec.resolution)

    def build(
        self, spec: MobileNetSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0
    ) -> MobileNetModel:
        """The network; `drop_path` has nothing to act on, for without skips a dropped block would drop the image."""
        return MobileNetModel(spec, num_classes=num_classes, in_channels=in_channels)


class MobileNetModel(nn.Module):
    """The network of a spec: (n, in_channels, h, w) -> logits (n, num_classes), at any side.

    ReLU as in the paper (the released code and timm clip at 6); convolutions are padded symmetrically.
    """

    def __init__(self, spec: MobileNetSpec, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = conv_bn(in_channels, spec.stem, 3, stride=2, act=nn.ReLU(inplace=True))
        channels, blocks = spec.stem, []
        for stage in spec.stages:
            for i in range(stage.blocks):
                blocks.append(separable(channels, stage.channels, stride=stage.stride if i == 0 else 1))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)
        init_convolutions(self)  # the paper states none; the classifier uniform by fan-out, as in EfficientNet's code
        bound = 1.0 / math.sqrt(num_classes)
        nn.init.uniform_(self.classifier.weight, -bound, bound)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        x = self.blocks(self.stem(x))
        x = self.classifier(x.mean((2, 3)))
        return x


def separable(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    """Figure 3, right: depthwise 3x3 and pointwise 1x1 convolution, each followed by BatchNorm and ReLU."""
    depthwise = conv_bn(in_channels, in_channels, 3, stride=stride, groups=in_channels, act=nn.ReLU(inplace=True))
    return nn.Sequential(depthwise, conv_bn(in_channels, out_channels, act=nn.ReLU(inplace=True)))


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """MobileNet V1 at four widths and micro."""
    return [MobileNet()]
