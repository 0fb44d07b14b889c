"""RedNet (Li et al., 2021, arXiv:2103.06255): ResNets whose 3x3 convolutions are involutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, conv_bn, drop_path_rates, init_convolutions
from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple


@dataclass(frozen=True)
class Stage:
    """`blocks` bottlenecks: 1x1 convolution to `middle`, involution, 1x1 to `channels`; the first has the stride."""

    stride: int
    middle: int
    channels: int
    blocks: int


@dataclass(frozen=True)
class RedNetSpec:
    """The numbers of a RedNet.

    The stem is a 3x3 convolution of stride 2 to `stem_middle`, a 3x3 involution, a 3x3 convolution to `stem` and, where
    `pool`, a 3x3 max-pooling of stride 2.
    """

    resolution: int
    stem_middle: int
    stem: int
    stages: tuple[Stage, ...]
    kernel: int = 7  # K of the stages' involutions
    group_channels: int = 16  # that share a kernel: C / G
    reduction: int = 4  # r of the branch that makes the kernels
    pool: bool = True

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise ScalenetError(f"involution: kernel must be odd, got {self.kernel}.")
        for stage in self.stages:
            if not 1 <= stage.stride < self.kernel:
                raise ScalenetError(
                    f"involution: stride must be at least 1 and below the kernel's {self.kernel}, got {stage.stride}."
                )
        for channels in (self.stem_middle, *(stage.middle for stage in self.stages)):
            if channels % self.group_channels:
                raise ScalenetError(
                    f"involution: channels of an involution must be a multiple of {self.group_channels} group_channels,"
                    f" got {channels}."
                )


def _rednet(*blocks: int) -> RedNetSpec:
    """Section 4.1: ResNet's stages, of `blocks` blocks each."""
    # fmt: off
    rows = (
        # s  inv  1x1
        (1,  64,  256),
        (2, 128,  512),
        (2, 256, 1024),
        (2, 512, 2048),
    )
    # fmt: on
    stages = tuple(Stage(*row, count) for row, count in zip(rows, blocks, strict=True))
    return RedNetSpec(resolution=224, stem_middle=32, stem=64, stages=stages)


# fmt: off
MICRO = RedNetSpec(
    resolution=32,
    stem_middle=4,
    stem=12,
    stages=(  # s inv 1x1  n
        Stage(1,  12, 40, 2),
        Stage(2,  20, 64, 3),
        Stage(2,  28, 96, 2),
    ),
    kernel=3,  # the smallest of the paper's
    group_channels=4,
)
# fmt: on


class Involution(nn.Module):
    """Section 3: every place has kernels of its own, one for each group of channels, made from the channels there.

    The strided form makes them from the means of stride x stride pixels. The released code drops a row and a column
    that are left over there, and then fails as the windows are one more; here the last means are of what there is
    (ceil_mode), so any side will do.
    """

    def __init__(self, channels: int, kernel: int, *, stride: int, group_channels: int, reduction: int) -> None:
        super().__init__()
        self.kernel, self.stride, self.groups = kernel, stride, channels // group_channels
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.reduce = conv_bn(channels, max(1, channels // reduction), act=nn.ReLU(inplace=True))
        self.span = nn.Conv2d(max(1, channels // reduction), kernel * kernel * self.groups, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, ceil(h / stride), ceil(w / stride))."""
        kernels = self.span(self.reduce(self.pool(x)))  # (n, groups * K * K, ...), the groups outermost
        return involve(x, kernels, self.kernel, self.stride)


def involve(x: Tensor, kernels: Tensor, kernel: int, stride: int) -> Tensor:
    """Equation 4: y[c, i, j] = sum over u, v of kernels[group of c, u, v, i, j] * x[c, s i + u - p, s j + v - p].

    x (n, c, h, w), zero outside, and kernels (n, groups * kernel * kernel, ceil(h / s), ceil(w / s)) -> (n, c, like
    the kernels). Memory is a small multiple of the arguments': nothing is unfolded into kernel * kernel copies.
    """
    product: Callable[..., Tensor] = _Product.apply
    return product(x, kernels, kernel, stride)


class _Product(torch.autograd.Function):
    """K * K multiply-adds of whole maps, each with the input shifted to another place of the window.

    Left to autograd, every term would hand back a gradient of the whole padded map; here all add to the same one.
    """

    @staticmethod
    def forward(x: Tensor, kernels: Tensor, kernel: int, stride: int) -> Tensor:
        layout = _Layout(x, kernels, kernel, stride)
        factors = layout.rows(kernels)[:, :, :, None].unbind(2)
        y = x.new_zeros(())
        for window, factor in zip(layout.windows(layout.source(x)), factors, strict=True):
            y = y.addcmul_(window, factor) if y.ndim else window * factor
        return layout.map(y).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        x, kernels, ctx.kernel, ctx.stride = inputs
        ctx.save_for_backward(x, kernels)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, kernels = ctx.saved_tensors
        layout = _Layout(x, kernels, ctx.kernel, ctx.stride)
        source, factors, grad = layout.source(x), layout.rows(kernels), layout.rows(grad)
        to_source, to_factors = torch.zeros_like(source), []
        for window, to_window, factor in zip(
            layout.windows(source), layout.windows(to_source), factors[:, :, :, None].unbind(2), strict=True
        ):
            to_window.addcmul_(grad, factor)
            to_factors.append((grad * window).sum(2))
        return (
            layout.unsource(to_source).to(x.dtype),
            layout.map(torch.stack(to_factors, 2)).to(kernels.dtype),
            None,
            None,
        )


class _Layout:
    """Maps as rows end to end, so that one shift of the window, up, down or sideways, is one offset.

    All have the width of the padded input; what the outputs hold in the last columns is cut off. With a stride of s,
    the padded input is split into its s * s phases, every s-th row and column, each with its own rows. Sums are kept
    in float32 at least, as those of convolutions.
    """

    def __init__(self, x: Tensor, kernels: Tensor, kernel: int, stride: int) -> None:
        self.n, self.channels, self.height, self.width = x.shape
        self.groups = kernels.shape[1] // kernel**2
        self.out_height, self.out_width = kernels.shape[2:]
        self.stride, self.border = stride, kernel // 2
        beyond = (kernel - 1) // stride  # rows and columns of a phase that the last window reaches below and beside
        self.columns = self.out_width + beyond
        self.lines = self.out_height + beyond + 1  # the last window starts in the middle of a row
        self.length = self.out_height * self.columns
        self.places = [  # of the window: the phase and the offset in it
            (u % stride * stride + v % stride, u // stride * self.columns + v // stride)
            for u in range(kernel)
            for v in range(kernel)
        ]

    def windows(self, source: Tensor) -> list[Tensor]:
        """What each place of the window meets, as views (n, groups, c / groups, length)."""
        phases = source.unbind()
        return [phases[phase].narrow(-1, start, self.length) for phase, start in self.places]

    def source(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the phases of the padded map (s * s, n, groups, c / groups, lines * columns)."""
        s, n, height, width = self.stride, self.n, self.lines * self.stride, self.columns * self.stride
        padded = x.new_zeros((n, self.channels, height, width), dtype=torch.promote_types(x.dtype, torch.float32))
        self._inside(padded).copy_(x)
        phases = padded.view(n, self.groups, -1, self.lines, s, self.columns, s).permute(4, 6, 0, 1, 2, 3, 5)
        return phases.reshape(s * s, n, self.groups, -1, self.lines * self.columns)

    def unsource(self, phases: Tensor) -> Tensor:
        """The inverse of `source`, as a view where there is one phase."""
        s = self.stride
        phases = phases.view(s, s, self.n, self.groups, -1, self.lines, self.columns).permute(2, 3, 4, 5, 0, 6, 1)
        return self._inside(phases.reshape(self.n, self.channels, self.lines * s, self.columns * s))

    def rows(self, y: Tensor) -> Tensor:
        """Something of the output's size, (n, groups * d, h, w) -> (n, groups, d, length)."""
        dtype = torch.promote_types(y.dtype, torch.float32)
        rows = y.new_zeros((*y.shape[:3], self.columns), dtype=dtype)
        rows[..., : self.out_width].copy_(y)
        return rows.view(self.n, self.groups, -1, self.length)

    def map(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`."""
        maps = rows.view(self.n, -1, self.out_height, self.columns)
        return maps[..., : self.out_width].contiguous()

    def _inside(self, padded: Tensor) -> Tensor:
        b = self.border
        return padded[..., b : b + self.height, b : b + self.width]


def _multiply_adds(module: Involution, inputs: tuple[Tensor, ...], output: Tensor) -> int:
    """K * K for every element of the output."""
    return module.kernel**2 * output.numel()


class RedNet(Architecture[RedNetSpec]):
    """Bottleneck stages behind a stem that has an involution of its own; every channel number scales.

    FLOPs: the involutions' own products, K * K * C * H * W of the output, come on top of the published figures, which
    are those of the convolutions (2.1 to 2.8 % of them at 224 px).
    The paper gives sizes and no rule between them. PAPER: blocks rounded up per stage, channels in multiples of 16 and
    of the group's, sides of the total stride. FINE: single blocks, pixels and, outside of the involutions, channels;
    these work on whole groups, whose number follows the width while a group keeps its channels.
    """

    name = "involution"
    paper = "https://arxiv.org/abs/2103.06255"
    baseline = "rednet50"
    flop_counts: ClassVar[Mapping[type, Callable[..., int]]] = {Involution: _multiply_adds}
    variants: Mapping[str, Variant[RedNetSpec]] = {
        "rednet26": Variant(
            _rednet(1, 2, 4, 1), 1000, "arXiv:2103.06255 and its released code", params=9233166, flops=1650831360
        ),
        "rednet38": Variant(
            _rednet(2, 3, 5, 2), 1000, "arXiv:2103.06255 and its released code", params=12386986, flops=2114056192
        ),
        "rednet50": Variant(
            _rednet(3, 4, 6, 3), 1000, "arXiv:2103.06255 and its released code", params=15540806, flops=2577281024
        ),
        "rednet101": Variant(
            _rednet(3, 4, 23, 3), 1000, "arXiv:2103.06255 and its released code", params=25652950, flops=4545986560
        ),
        "rednet152": Variant(_rednet(3, 8, 36, 3), 1000, "arXiv:2103.06255 and its released code"),
        "micro": Variant(
            MICRO, 10, "ours: the same blocks, 3x3 in groups of 4 channels, at 32 px with four halvings instead of five"
        ),
    }

    def scale(self, spec: RedNetSpec, by: Scale, rounding: Rounding = FINE) -> RedNetSpec:
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
            halvings = 4 if spec.pool else 2
            step = halvings * math.prod(stage.stride for stage in spec.stages) if rounding is PAPER else 1
            side = nearest_multiple(spec.resolution * by.resolution, step, minimum=16)
        return replace(
            spec,
            resolution=side,
            stem_middle=channels(spec.stem_middle, spec.group_channels),
            stem=channels(spec.stem),
            stages=tuple(
                replace(
                    stage,
                    middle=channels(stage.middle, spec.group_channels),
                    channels=channels(stage.channels),
                    blocks=blocks,
                )
                for stage, blocks in zip(spec.stages, depths, strict=True)
            ),
        )

    def size(self, spec: RedNetSpec) -> Size:
        """The width is the mean over the blocks' outputs."""
        depth = sum(stage.blocks for stage in spec.stages)
        width = sum(stage.channels * stage.blocks for stage in spec.stages) / depth
        return Size(depth, width, spec.resolution)

    def build(self, spec: RedNetSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> RedNetModel:
        return RedNetModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)


class RedNetModel(nn.Module):
    """The network of a spec: (n, in_channels, h, w) -> logits (n, num_classes), at any side.

    Initialised as the released code: He's normal by fan-out, and the last norm of every branch starts at zero.
    """

    def __init__(self, spec: RedNetSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_bn(in_channels, spec.stem_middle, 3, stride=2, act=nn.ReLU(inplace=True)),
            _involution_bn(spec.stem_middle, 3, spec),
            conv_bn(spec.stem_middle, spec.stem, 3, act=nn.ReLU(inplace=True)),
            nn.MaxPool2d(3, 2, padding=1) if spec.pool else nn.Identity(),
        )
        rates = iter(drop_path_rates(drop_path, sum(stage.blocks for stage in spec.stages)))
        channels = spec.stem
        blocks: list[nn.Module] = []
        for stage in spec.stages:
            for i in range(stage.blocks):
                stride = stage.stride if i == 0 else 1
                blocks.append(Bottleneck(channels, stage, spec, stride=stride, drop_path=next(rates)))
                channels = stage.channels
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, num_classes)
        init_convolutions(self)
        for block in blocks:
            nn.init.zeros_(block.expand[1].weight)  # type: ignore[index, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        x = self.blocks(self.stem(x))
        x = self.classifier(x.mean((2, 3)))
        return x


class Bottleneck(nn.Module):
    """1x1 convolution, involution with the stride, 1x1 convolution; a projecting shortcut where the shape changes."""

    def __init__(self, in_channels: int, stage: Stage, spec: RedNetSpec, *, stride: int, drop_path: float) -> None:
        super().__init__()
        self.reduce = conv_bn(in_channels, stage.middle, act=nn.ReLU(inplace=True))
        self.involution = _involution_bn(stage.middle, spec.kernel, spec, stride=stride)
        self.expand = conv_bn(stage.middle, stage.channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != stage.channels:
            self.shortcut = conv_bn(in_channels, stage.channels, stride=stride)
        self.drop_path = DropPath(drop_path)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, ceil(h / stride), ceil(w / stride))."""
        y: Tensor = self.drop_path(self.expand(self.involution(self.reduce(x))))
        y = self.act(y + self.shortcut(x))
        return y


def _involution_bn(channels: int, kernel: int, spec: RedNetSpec, *, stride: int = 1) -> nn.Sequential:
    involution = Involution(
        channels, kernel, stride=stride, group_channels=spec.group_channels, reduction=spec.reduction
    )
    return nn.Sequential(involution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """RedNet 26, 38, 50, 101 and 152 and micro."""
    return [RedNet()]
