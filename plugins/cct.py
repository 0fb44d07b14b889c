"""CCT (Hassani et al., 2021, arXiv:2104.05704): a convolutional tokenizer, a transformer and sequence pooling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import DropPath, SelfAttention, check_side, drop_path_rates, mlp, resample_grid
from scalenet.rounding import ceil_depths, nearest_multiple, whole_heads

POOL = 2  # stride of the 3x3 max-pooling after every convolution of the tokenizer


@dataclass(frozen=True)
class CCTSpec:
    """The numbers of a CCT-`depth`/`kernel`x`convolutions`.

    All convolutions of the tokenizer but the last, which has `dim`, have `planes` channels.
    """

    resolution: int
    kernel: int
    convolutions: int
    dim: int
    depth: int
    num_heads: int
    mlp_ratio: int
    planes: int = 64

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ScalenetError(f"cct: dim must be a multiple of {self.num_heads} heads, got {self.dim}.")
        if self.kernel % 2 == 0:
            raise ScalenetError(f"cct: the tokenizer's kernel must be odd, got {self.kernel}.")

    @property
    def stride(self) -> int:
        """Of each of the tokenizer's convolutions, as in the released code: 1 for 3x3, 2 for 7x7."""
        return max(1, self.kernel // 2 - 1)

    @property
    def grid(self) -> int:
        """Tokens along a side: every convolution and every pooling keeps ceil(side / stride), so no pixel is lost."""
        side = self.resolution
        for _ in range(self.convolutions):
            side = -(-side // self.stride)
            side = -(-side // POOL)
        return side


# fmt: off
CODE = "arXiv:2104.05704, Table 1 and the released code"
TABLE: Mapping[str, Variant[CCTSpec]] = {  #     px  k  n    D   L  h  ratio
    "2_3x2":      Variant(CCTSpec( 32, 3, 2, 128,  2, 2, 1),   10, CODE, params=283723, flops=35341568),
    "4_3x2":      Variant(CCTSpec( 32, 3, 2, 128,  4, 2, 1),   10, CODE, params=482123, flops=50021632),
    "6_3x2":      Variant(CCTSpec( 32, 3, 2, 256,  6, 4, 2),   10, CODE, params=3326923, flops=253463040),
    "6_3x1":      Variant(CCTSpec( 32, 3, 1, 256,  6, 4, 2),   10, CODE),
    "7_3x2":      Variant(CCTSpec( 32, 3, 2, 256,  7, 4, 2),   10, CODE, params=3853259, flops=289114624),
    "7_3x1":      Variant(CCTSpec( 32, 3, 1, 256,  7, 4, 2),   10, CODE, params=3760139, flops=1181616640),
    "7_7x2":      Variant(CCTSpec(224, 7, 2, 256,  7, 4, 2),  102, CODE + " (Flowers-102)"),
    "14_7x2":     Variant(CCTSpec(224, 7, 2, 384, 14, 6, 3), 1000, CODE, params=22367273, flops=5521901568),
    "14_7x2_384": Variant(CCTSpec(384, 7, 2, 384, 14, 6, 3), 1000, CODE, params=22513193, flops=18580282368),
    "micro":      Variant(CCTSpec( 32, 3, 3,  32,  6, 2, 2, planes=16), 10, "ours: CCT-6/3x3 with heads of 16"),
}
# fmt: on


class CCT(Architecture[CCTSpec]):
    """Convolutions and poolings to tokens, learned positions, blocks of one width, a weighted mean over the tokens.

    Width is D, whose heads follow it and keep their 64 channels; the tokenizer's inner `planes` stay, as they do at
    every size of the released code. PAPER: whole heads of that size, depth rounded up, sides of the tokenizer's whole
    stride. FINE: the nearest depth, channels in steps of the number of heads, sides in steps of the first stride.
    """

    name = "cct"
    paper = "https://arxiv.org/abs/2104.05704"
    baseline = "14_7x2"  # the ImageNet network; CCT-7/3x1 is the one for CIFAR
    variants = TABLE

    def scale(self, spec: CCTSpec, by: Scale, rounding: Rounding = FINE) -> CCTSpec:
        depth = nearest_multiple(spec.depth * by.depth)
        dim, heads, head_dim = spec.dim, spec.num_heads, spec.dim // spec.num_heads
        if rounding is PAPER:
            (depth,) = ceil_depths([spec.depth], by.depth)
        if by.width != 1.0 and rounding is PAPER:
            heads = nearest_multiple(heads * by.width)
            dim = heads * head_dim
        elif by.width != 1.0:
            dim, heads = whole_heads(dim * by.width, head_dim)
        side = spec.resolution
        if by.resolution != 1.0:
            step = (spec.stride * POOL) ** spec.convolutions if rounding is PAPER else spec.stride
            side = nearest_multiple(-(-side // step) * step * by.resolution, step, minimum=16)
        return replace(spec, resolution=side, dim=dim, depth=depth, num_heads=heads)

    def size(self, spec: CCTSpec) -> Size:
        return Size(spec.depth, spec.dim, spec.resolution)

    def build(self, spec: CCTSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> CCTModel:
        return CCTModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: CCTSpec, new: CCTSpec) -> Mapping[str, Tensor]:
        """Positions interpolated in two dimensions."""
        if old.grid == new.grid:
            return weights
        return {**weights, "positions": resample_grid(weights["positions"][0], old.grid, new.grid)[None]}


class CCTModel(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes), at the spec's side only.

    The released code also drops 10 % of the attention weights in training; here `drop_path` is the means for that.
    Its other choice of positions, a sinusoid table, is left out. Initialisation is its own: He by fan-in for the
    convolutions, normal with deviation 0.02 for the rest, and 0.2 for the positions.
    """

    def __init__(self, spec: CCTSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.positions = nn.Parameter(torch.empty(1, spec.grid**2, spec.dim))
        widths = [in_channels, *[spec.planes] * (spec.convolutions - 1), spec.dim]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            # The paper has the ReLU before the pooling. Either order gives the same maxima; this one rectifies fewer.
            conv = nn.Conv2d(before, after, spec.kernel, spec.stride, spec.kernel // 2, bias=False)
            layers += [conv, nn.MaxPool2d(3, POOL, 1), nn.ReLU(inplace=True)]
        self.tokenizer = nn.Sequential(*layers)
        self.blocks = nn.Sequential(*(Block(spec, drop_path=r) for r in drop_path_rates(drop_path, spec.depth)))
        self.norm = nn.LayerNorm(spec.dim)
        self.pool = nn.Linear(spec.dim, 1)
        self.classifier = nn.Linear(spec.dim, num_classes)
        nn.init.trunc_normal_(self.positions, std=0.2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        x = self.tokenizer(x).flatten(2).transpose(1, 2) + self.positions
        x = self.norm(self.blocks(x))
        weights = self.pool(x).softmax(1)  # sequence pooling (section 3.2): (n, tokens, 1), over the tokens
        x = self.classifier((weights.transpose(1, 2) @ x).squeeze(1))
        return x


class Block(nn.Module):
    """Attention (no bias in query, key and value) and a two-layer perceptron with GELU, as the authors coded them.

    Deviation from the text, theirs: the second residual carries the *normalised* stream, s = LN(x + attention(LN(x))),
    then s + mlp(s), where a pre-norm block (the paper's equations) would carry x + attention(LN(x)).
    """

    def __init__(self, spec: CCTSpec, *, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.dim)
        self.attention = SelfAttention(spec.dim, spec.num_heads, qkv_bias=False)
        self.mlp_norm = nn.LayerNorm(spec.dim)
        self.mlp = mlp(spec.dim, spec.mlp_ratio * spec.dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, dim) -> the same shape."""
        x = self.mlp_norm(x + self.drop_path(self.attention(self.attention_norm(x))))
        x = x + self.drop_path(self.mlp(x))
        return x


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """CCT-2, -4, -6, -7 and -14 with their tokenizers, and micro."""
    return [CCT()]
