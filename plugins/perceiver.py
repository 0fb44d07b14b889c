"""Perceiver (Jaegle et al., 2021, arXiv:2103.03206) and Perceiver IO (arXiv:2107.14795): latents that read pixels."""

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
from scalenet.layers import DropPath, SelfAttention, check_side, conv_bn, drop_path_rates, mlp, resample_grid
from scalenet.rounding import make_divisible, nearest_multiple, whole_heads

ALIGNMENT = 8  # channels of a head that fused attention kernels like or ask for


@dataclass(frozen=True)
class PerceiverSpec:
    """The numbers of a Perceiver.

    A pixel is described by its colours and a Fourier encoding of its place, 2 + 4 `bands` numbers, or, where
    `position_channels` is given, by as many channels each of a 1x1 convolution and of a learned table. With a `stem`,
    the pixels are those of a map at a quarter of the side, with that many channels for colours. `num_latents`
    vectors of `dim` channels read these pixels in a cross-attend, which is repeated in every round or not, and then
    pass `self_attends` blocks of self-attention, `rounds` times over. Logits come from their mean or from one query
    that reads them in its turn (the decoder of Perceiver IO).
    """

    resolution: int
    num_latents: int
    dim: int
    num_heads: int  # of the self-attends; cross-attends have one
    rounds: int
    self_attends: int  # per round
    repeat_cross: bool  # a cross-attend in every round; else in the first one only
    query_decoder: bool
    bands: int = 0  # per axis, of the Fourier features
    position_channels: int = 0  # of the learned positions
    stem: int = 0  # channels of a convolution and max-pool in front of Fourier features; 0: raw pixels

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ScalenetError(f"perceiver: dim must be a multiple of {self.num_heads} heads, got {self.dim}.")
        if (self.bands > 0) == (self.position_channels > 0):
            raise ScalenetError(
                "perceiver: positions are either Fourier bands or learned channels, one of them above 0, "
                f"got bands {self.bands} and position_channels {self.position_channels}."
            )
        if self.stem and self.position_channels:
            raise ScalenetError(f"perceiver: stem must be 0 with learned positions, got {self.stem}.")


# fmt: off
#                             px   latents  dim  h  rounds selfs repeat decoder
V1_PAPER    = PerceiverSpec(  224,     512, 1024, 8,     8,    6, True,  False, bands=64)  # section 4.1
V1_IO_TABLE = PerceiverSpec(  224,     512, 1024, 8,     8,    6, False, False, bands=64)
V1_1CROSS   = PerceiverSpec(  224,     512, 1024, 8,     1,    6, False, False, bands=64)
IO_FOURIER  = PerceiverSpec(  224,     512, 1024, 8,     8,    6, False, True,  bands=64)
IO_LEARNED  = PerceiverSpec(  224,     512, 1024, 8,     8,    6, False, True,  position_channels=256)
IO_CONV     = PerceiverSpec(  224,     512, 1024, 8,     8,    6, False, True,  bands=64, stem=64)
MICRO       = PerceiverSpec(   32,      16,   48, 2,     5,    1, True,  False, bands=4,  stem=16)
# fmt: on


class Perceiver(Architecture[PerceiverSpec]):
    """Latents that alternate between reading the pixels (cross-attends) and self-attention among themselves.

    Depth is the number of self-attends that an image passes. It grows by whole rounds, which share their weights, but
    for the first cross-attend: parameters do not grow. Where there is one round only, its self-attends are repeated,
    each with its own weights. Width is the channels of the latents (and the decoder's query) alone: what describes a
    pixel keeps its size, so that the work on pixels does not grow with width, nor that on latents with the resolution.
    The paper has no rule for growing. PAPER: rounds rounded up, channels to multiples of 8 per head with the heads as
    they are, sides of multiples of 32; FINE: single rounds and pixels, heads that keep about their size.

    `flops` counts keys and values in every round, as the paper does, though rounds that share weights repeat them.
    """

    name = "perceiver"
    paper = "https://arxiv.org/abs/2103.03206"
    baseline = "v1_paper"
    variants: Mapping[str, Variant[PerceiverSpec]] = {
        "v1_paper": Variant(V1_PAPER, 1000, "arXiv:2103.03206, section 4.1", 44912254, 353139548160),
        "v1_io_table": Variant(V1_IO_TABLE, 1000, "arXiv:2107.14795, its table on ImageNet", 42135859, 201983387648),
        "v1_1cross": Variant(V1_1CROSS, 1000, "arXiv:2103.03206: one cross-attend, six self-attends, once"),
        "io_fourier": Variant(IO_FOURIER, 1000, "arXiv:2107.14795, Fourier features", 48440627, 203062372352),
        "io_learned": Variant(IO_LEARNED, 1000, "arXiv:2107.14795, learned positions", 62255848, 239019466752),
        "io_conv": Variant(IO_CONV, 1000, "arXiv:2107.14795, a convolution and a max-pool in front"),
        "micro": Variant(
            MICRO,
            10,
            "ours: five rounds of a cross- and a self-attend at 32 px, behind Perceiver IO's stem: reading raw pixels "
            "takes more than a few epochs",
        ),
    }

    def scale(self, spec: PerceiverSpec, by: Scale, rounding: Rounding = FINE) -> PerceiverSpec:
        def blocks(count: int) -> int:
            return math.ceil(count * by.depth - 1e-9) if rounding is PAPER else nearest_multiple(count * by.depth)

        once = spec.rounds == 1
        dim, heads = spec.dim, spec.num_heads
        if by.width != 1.0:
            if rounding is PAPER:
                dim = make_divisible(dim * by.width, 8 * heads)
            else:
                dim, heads = whole_heads(dim * by.width, dim // heads)
        side = spec.resolution
        if by.resolution != 1.0:
            side = nearest_multiple(side * by.resolution, 32 if rounding is PAPER else 1, minimum=16)
        return replace(
            spec,
            resolution=side,
            dim=dim,
            num_heads=heads,
            rounds=1 if once else blocks(spec.rounds),
            self_attends=blocks(spec.self_attends) if once else spec.self_attends,
        )

    def size(self, spec: PerceiverSpec) -> Size:
        """Self-attends that an image passes, shared weights or not; the width is that of the latents."""
        return Size(spec.rounds * spec.self_attends, spec.dim, spec.resolution)

    def build(
        self, spec: PerceiverSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0
    ) -> PerceiverModel:
        return PerceiverModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: PerceiverSpec, new: PerceiverSpec) -> Mapping[str, Tensor]:
        """Learned positions are interpolated; Fourier features are those of the new side, up to its frequencies."""
        if not old.position_channels or old.resolution == new.resolution:
            return weights
        table = resample_grid(weights["pixels.table"], old.resolution, new.resolution)
        return {**weights, "pixels.table": table}


class PerceiverModel(nn.Module):
    """The network of a spec: (n, in_channels, h, w) -> logits (n, num_classes).

    With learned positions for images of the spec's side only. With Fourier features for any height and width: places
    run from -1 to 1 on both axes whatever the size, at the frequencies of the spec's side.

    As in the released code: perceptrons of the width of their input, biases everywhere, no dropout; weights drawn by
    their inputs' number, latents, tables and queries small, and zeros for the classifier of a mean. Deviations: GELU is
    the exact one (there its tanh form); `drop_path` rises over the blocks as they are passed, so that a block has
    another rate in every round (there is none); convolution and max-pool of the stem are padded as PyTorch does.
    """

    def __init__(self, spec: PerceiverSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.rounds = spec.rounds
        self.pixels: FourierPixels | LearnedPixels = (
            LearnedPixels(in_channels, spec.position_channels, spec.resolution)
            if spec.position_channels
            else FourierPixels(in_channels, spec.stem, spec.bands, spec.resolution)
        )
        self.latents = nn.Parameter(torch.empty(spec.num_latents, spec.dim))
        self.first = CrossAttend(spec.dim, self.pixels.channels)
        repeated = spec.repeat_cross and spec.rounds > 1
        self.again = CrossAttend(spec.dim, self.pixels.channels) if repeated else None  # all rounds but the first
        self.blocks = nn.ModuleList(SelfAttend(spec.dim, spec.num_heads) for _ in range(spec.self_attends))
        crosses = spec.rounds if repeated else 1
        rates = drop_path_rates(drop_path, crosses + spec.rounds * spec.self_attends)
        self.drop_paths = nn.ModuleList(DropPath(rate) for rate in rates)  # in the order in which blocks are passed
        self.decoder = Decoder(spec.dim) if spec.query_decoder else None
        self.classifier = nn.Linear(spec.dim, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init_small(module.weight, math.sqrt(1.0 / module.in_features))
                nn.init.zeros_(module.bias)
        init_small(self.latents, 0.02)
        if not spec.query_decoder:
            nn.init.zeros_(self.classifier.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, h, w) -> logits (n, num_classes)."""
        pixels = self.pixels(x)
        drop_paths = iter(self.drop_paths)
        latents = self.first(self.latents[None], pixels, next(drop_paths))
        for i in range(self.rounds):
            if i > 0 and self.again is not None:
                latents = self.again(latents, pixels, next(drop_paths))
            for block in self.blocks:
                latents = block(latents, next(drop_paths))
        latents = latents.mean(1) if self.decoder is None else self.decoder(latents)
        logits: Tensor = self.classifier(latents)
        return logits


class FourierPixels(nn.Module):
    """The byte array: colours, place, and sines and cosines of the place at `bands` frequencies (section 3.2).

    Or, instead of colours, what Perceiver IO's stem makes of them at a quarter of the side: a 7x7 convolution and a 3x3
    max-pool, both of stride 2, whose last windows may reach over the border.
    """

    def __init__(self, in_channels: int, stem: int, bands: int, side: int) -> None:
        super().__init__()
        self.channels = (stem or in_channels) + 2 + 4 * bands
        self.bands = bands
        self.side = (side + 1) // 2 // 2 if stem else side  # of the map that is read
        self.stem = (
            nn.Sequential(
                conv_bn(in_channels, stem, 7, stride=2, act=nn.ReLU(inplace=True)), nn.MaxPool2d(3, 2, ceil_mode=True)
            )
            if stem
            else nn.Identity()
        )
        self.features: Tensor
        self.register_buffer("features", fourier_features(self.side, self.side, self.side, bands), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, pixels, channels)."""
        x = self.stem(x)
        height, width = x.shape[2:]
        features = self.features
        if (height, width) != (self.side, self.side):
            features = fourier_features(height, width, self.side, self.bands, device=x.device)
        return with_positions(x.flatten(2).transpose(1, 2), features)


class LearnedPixels(nn.Module):
    """The pixels of Perceiver IO's learned positions: a 1x1 convolution, beside a table and a linear map of it."""

    def __init__(self, in_channels: int, position_channels: int, side: int) -> None:
        super().__init__()
        self.channels = 2 * position_channels
        self.side = side
        self.table = nn.Parameter(torch.empty(side * side, position_channels))
        self.colours = nn.Linear(in_channels, position_channels)  # of every pixel by itself
        self.places = nn.Linear(position_channels, position_channels)
        init_small(self.table, 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, side, side) -> (n, side * side, channels)."""
        check_side(x, self.side)
        return with_positions(self.colours(x.flatten(2).transpose(1, 2)), self.places(self.table))


class CrossAttend(nn.Module):
    """Queries of `dim` channels read a sequence of `source` channels: pre-norm attention of one head, as wide as the
    source (the paper's 261), and a perceptron, each in a residual branch.
    """

    def __init__(self, dim: int, source: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.source_norm = nn.LayerNorm(source)
        self.query = nn.Linear(dim, source)
        self.key_value = nn.Linear(source, 2 * source)
        self.out = nn.Linear(source, dim)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, dim)

    def forward(self, x: Tensor, source: Tensor, drop_path: nn.Module) -> Tensor:
        """(n or 1, queries, dim), (n, tokens, source) -> (n, queries, dim)."""
        query = self.query(self.norm(x)).expand(source.shape[0], -1, -1)
        key, value = self._keys_and_values(self.source_norm(source))
        x = x + drop_path(self.out(attend(query, key, value)))
        x = x + drop_path(self.mlp(self.mlp_norm(x)))
        return x

    def _keys_and_values(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Each with its channels filled with zeros to a multiple of 8, which changes nothing.

        On a CPU the product with 264 channels takes half as long as that with 261, and on CUDA no fused attention takes
        261, while the others hold a matrix of queries x pixels per image. On the meta device, where networks are
        counted, nothing is filled.
        """
        width = source.shape[-1]
        fill = 0 if source.is_meta else -width % ALIGNMENT
        if not fill:
            key, value = self.key_value(source).chunk(2, -1)
            return key, value
        weight = F.pad(self.key_value.weight.view(2, width, width), (0, fill, 0, fill)).flatten(0, 1)
        bias = F.pad(self.key_value.bias.view(2, width), (0, fill)).flatten()
        key, value = F.linear(F.pad(source, (0, fill)), weight, bias).chunk(2, -1)
        return key, value


class SelfAttend(nn.Module):
    """A pre-norm transformer block with a perceptron of the latents' own width."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, dim)

    def forward(self, x: Tensor, drop_path: nn.Module) -> Tensor:
        """(n, latents, dim) -> the same shape."""
        x = x + drop_path(self.attention(self.norm(x)))
        x = x + drop_path(self.mlp(self.mlp_norm(x)))
        return x


class Decoder(nn.Module):
    """One learned query reads the latents (arXiv:2107.14795, section 3.2)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, dim))
        self.cross = CrossAttend(dim, dim)
        self.keep = nn.Identity()  # no drop path
        init_small(self.query, 0.02)

    def forward(self, latents: Tensor) -> Tensor:
        """(n, latents, dim) -> (n, dim)."""
        y: Tensor = self.cross(self.query[None], latents, self.keep)
        return y[:, 0]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of one head by PyTorch's fused kernel: (n, queries, d), (n, tokens, >= d) twice -> (n, queries, d).

    What keys and values have beyond the query's channels are zeros.
    """
    dim = query.shape[-1]
    query = F.pad(query, (0, key.shape[-1] - dim))
    y: Tensor = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=dim**-0.5)
    return y[:, 0, :, :dim]


def with_positions(colours: Tensor, positions: Tensor) -> Tensor:
    """(n, pixels, c) and (pixels, p), the same for every image -> (n, pixels, c + p)."""
    return torch.cat((colours, positions.expand(colours.shape[0], -1, -1)), 2)


def fourier_features(height: int, width: int, side: int, bands: int, device: torch.device | None = None) -> Tensor:
    """(height width, 2 + 4 bands): y and x from -1 to 1, then sin(pi f y), sin(pi f x), cos(pi f y), cos(pi f x).

    The frequencies f are equally spaced from 1 to the Nyquist frequency of `side` pixels, side / 2.
    """
    axes = [torch.linspace(-1.0, 1.0, count, device=device) for count in (height, width)]
    places = torch.stack(torch.meshgrid(axes, indexing="ij"), -1).view(-1, 2)
    angles = places[:, :, None] * torch.linspace(1.0, side / 2, bands, device=device) * math.pi
    return torch.cat((places, angles.sin().flatten(1), angles.cos().flatten(1)), 1)


def init_small(weight: Tensor, std: float) -> None:
    """Normal, cut off at twice its deviation and then of deviation `std`, as haiku draws weights."""
    wide = std / 0.87962566
    nn.init.trunc_normal_(weight, std=wide, a=-2 * wide, b=2 * wide)


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """Perceiver, Perceiver IO and micro."""
    return [Perceiver()]
