"""EAMLP, EANet's ImageNet networks (Guo et al., 2021, arXiv:2105.02358): external attention in T2T-ViT's skeleton."""

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
from scalenet.layers import DropPath, check_side, drop_path_rates, mlp
from scalenet.rounding import ceil_depths, nearest_multiple, whole_heads

EXPANSION = 4  # in the blocks: channels and heads of external attention / those of the block (released code)


@dataclass(frozen=True)
class Split:
    """A soft split of T2T-ViT (arXiv:2101.11986): overlapping windows of kernel x kernel, each one's pixels a token."""

    kernel: int
    stride: int
    padding: int

    def tokens(self, side: int) -> int:
        """Windows along a side: the usual number, and one more where that would drop the last pixel.

        The released code does drop it: 7/4 at sides of 4 k + 2.
        """
        usual = (side + 2 * self.padding - self.kernel) // self.stride + 1
        needed = math.ceil((side + self.padding - self.kernel) / self.stride) + 1
        return max(usual, needed)


T2T = (Split(7, 4, 2), Split(3, 2, 1), Split(3, 2, 1))


@dataclass(frozen=True)
class EANetSpec:
    """The numbers of an EAMLP; `slots` (the paper's S) are the rows of a memory.

    Between each two `splits` stands a token block of `token_dim` channels, whose memory has `token_slots` rows.
    """

    resolution: int
    dim: int
    depth: int
    num_heads: int
    mlp_ratio: int
    splits: tuple[Split, ...] = T2T
    token_dim: int = 64
    token_slots: int = 128
    slots: int = 64

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ScalenetError(f"eanet: dim must be a multiple of {self.num_heads} heads, got {self.dim}.")

    @property
    def grid(self) -> int:
        """Tokens along a side after all splits."""
        side = self.resolution
        for split in self.splits:
            side = split.tokens(side)
        return side


# fmt: off
CODE = "arXiv:2105.02358 and its released code"
OURS = "ours: the same parts at 32 px, only the first split with a stride"
SMALL = (Split(7, 4, 2), Split(3, 1, 1), Split(3, 1, 1))
TABLE: Mapping[str, Variant[EANetSpec]] = {  #  px    D   L  h  ratio
    "eamlp7":  Variant(EANetSpec(224, 256,  7, 4, 2), 1000, CODE, params=6146638, flops=1465194496),
    "eamlp14": Variant(EANetSpec(224, 384, 14, 6, 3), 1000, CODE, params=29877070, flops=6450351104),
    "eamlp19": Variant(EANetSpec(224, 448, 19, 7, 3), 1000, CODE),
    "micro":   Variant(EANetSpec( 32,  16,  6, 2, 2, SMALL, token_dim=16, token_slots=16, slots=8), 10, OURS),
}
# fmt: on


class EANet(Architecture[EANetSpec]):
    """Soft splits with token blocks between them, class token, fixed positions, blocks with external attention.

    Width is the blocks' D, whose heads follow it and keep their 64 channels; the token blocks' width and the memories'
    slots stay, as they do at every size of the released code. PAPER: whole heads of that size, depth rounded up, sides
    of the splits' whole stride. FINE: the nearest depth, channels in steps of the number of heads, sides in steps of
    the first stride.
    """

    name = "eanet"
    paper = "https://arxiv.org/abs/2105.02358"
    baseline = "eamlp14"
    variants = TABLE
    unlearned = {  # noqa: RUF012
        "positions": "a sinusoid table, frozen, which the released code keeps among its parameters",
        "blocks.*.attention.keys.bias": "the softmax over tokens cancels what is the same for all of them",
    }

    def scale(self, spec: EANetSpec, by: Scale, rounding: Rounding = FINE) -> EANetSpec:
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
            strides = [split.stride for split in spec.splits]
            step, tokens = strides[0], spec.splits[0].tokens(side)
            if rounding is PAPER:
                step, tokens = math.prod(strides), spec.grid
            side = nearest_multiple(tokens * step * by.resolution, step, minimum=16)
        return replace(spec, resolution=side, dim=dim, depth=depth, num_heads=heads)

    def size(self, spec: EANetSpec) -> Size:
        """The token blocks, whose number and width are fixed, are not counted."""
        return Size(spec.depth, spec.dim, spec.resolution)

    def build(self, spec: EANetSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> EANetModel:
        return EANetModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: EANetSpec, new: EANetSpec) -> Mapping[str, Tensor]:
        """The position table is that of the new size: nothing in it was learned."""
        if old.grid == new.grid:
            return weights
        return {**weights, "positions": sinusoids(1 + new.grid**2, new.dim)[None].to(weights["positions"])}


class EANetModel(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes), at the spec's side only.

    Sides that the splits do not cover are padded with zeros at the right and below. The token blocks' dropout of 0.1 on
    attention and its output is left out; `drop_path` is the means for that.

    Initialisation is ours: Xavier's, and for the blocks' memories so that scores and what values tell apart are well
    above 1. With the released code's 0.02 for all of them a token of a short training sees next to nothing of
    the others: what reaches it is how much averages over S slots differ.
    """

    def __init__(self, spec: EANetSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.splits = spec.splits
        self.class_token = nn.Parameter(torch.empty(1, 1, spec.dim))
        self.positions = nn.Parameter(sinusoids(1 + spec.grid**2, spec.dim)[None], requires_grad=False)
        channels = in_channels
        token_blocks = []
        for split in spec.splits[:-1]:
            token_blocks.append(TokenBlock(channels * split.kernel**2, spec.token_dim, spec.token_slots))
            channels = spec.token_dim
        self.token_blocks = nn.ModuleList(token_blocks)
        self.project = nn.Linear(channels * spec.splits[-1].kernel ** 2, spec.dim)
        self.blocks = nn.Sequential(*(Block(spec, drop_path=r) for r in drop_path_rates(drop_path, spec.depth)))
        self.norm = nn.LayerNorm(spec.dim)
        self.classifier = nn.Linear(spec.dim, num_classes)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, (TokenAttention, MultiHeadExternalAttention)):
                module.init_memory()
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        side = self.side
        for split, block in zip(self.splits, self.token_blocks, strict=False):
            x = block(soft_split(x, split))
            side = split.tokens(side)
            x = x.view(x.shape[0], side, side, x.shape[2]).permute(0, 3, 1, 2)
        x = self.project(soft_split(x, self.splits[-1]))
        x = torch.cat((self.class_token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        x = self.blocks(x)
        x = self.classifier(self.norm(x[:, 0]))  # the norm is per token: only the class token's is wanted
        return x


def soft_split(x: Tensor, split: Split) -> Tensor:
    """(n, c, h, w) -> the windows as tokens (n, windows, c x kernel x kernel)."""
    kernel, stride, padding = split.kernel, split.stride, split.padding
    # What the last window reaches beyond the padded side, where it begins before the last pixel.
    below, right = (max(0, (split.tokens(s) - 1) * stride + kernel - s - 2 * padding) for s in x.shape[2:])
    if below or right:
        x = F.pad(x, (0, right, 0, below))
    return F.unfold(x, kernel, padding=padding, stride=stride).transpose(1, 2)


def sinusoids(positions: int, dim: int) -> Tensor:
    """The table of arXiv:1706.03762, section 3.5, (positions, dim), sines and cosines alternating."""
    # Angles of hundreds of radians need double precision, which not every device has.
    frequencies = 10000.0 ** (-2.0 * (torch.arange(dim, dtype=torch.float64, device="cpu") // 2) / dim)
    angles = torch.arange(positions, dtype=torch.float64, device="cpu")[:, None] * frequencies
    angles[:, 1::2] += math.pi / 2
    return torch.empty(positions, dim).copy_(angles.sin())


def double_normalised(scores: Tensor) -> Tensor:
    """Section 3.2, equations 7 and 8: softmax over the tokens, then every token's weights divided by their sum.

    Scores are (n, tokens, ..., slots). Without the first of the two no token would learn of any other.
    """
    weights = scores.softmax(1)
    return weights / (1e-9 + weights.sum(-1, keepdim=True))


class MultiHeadExternalAttention(nn.Module):
    """Section 3.3: tokens attend to a learned memory, of which all heads share one, with keys and values of its own.

    As in the released code the heads are those of `EXPANSION` times the channels, and their number grows as much.
    """

    def __init__(self, dim: int, num_heads: int, slots: int) -> None:
        super().__init__()
        self.num_heads = EXPANSION * num_heads
        self.query = nn.Linear(dim, EXPANSION * dim)
        self.keys = nn.Linear(dim // num_heads, slots)  # M_k
        self.values = nn.Linear(slots, dim // num_heads)  # M_v
        self.out = nn.Linear(EXPANSION * dim, dim)

    def init_memory(self) -> None:
        """Scores of deviation 4, so that softmaxes over tokens differ between images; values that outweigh a mean."""
        nn.init.normal_(self.keys.weight, std=4 * self.keys.in_features**-0.5)
        nn.init.normal_(self.values.weight, std=self.values.in_features**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, dim) -> the same shape."""
        # (n, tokens, heads, dim of a head) all the way: heads are just more rows of the products.
        n, tokens, dim = x.shape
        x = self.query(x).view(n, tokens, self.num_heads, EXPANSION * dim // self.num_heads)
        x = self.values(double_normalised(self.keys(x)))
        x = self.out(x.view(n, tokens, EXPANSION * dim))
        return x


class TokenAttention(nn.Module):
    """External attention with one head that changes the width; its skip starts from the query.

    In the released code M_v is created as the transpose of M_k in the same memory, counted twice and, in some ways of
    moving and copying a network, untied. Here they start equal and are two parameters.
    """

    def __init__(self, in_dim: int, dim: int, slots: int) -> None:
        super().__init__()
        self.query = nn.Linear(in_dim, dim)
        self.keys = nn.Linear(dim, slots, bias=False)  # M_k
        self.values = nn.Linear(slots, dim)  # M_v
        self.out = nn.Linear(dim, dim)

    def init_memory(self) -> None:
        """M_v is the transpose of M_k at first."""
        nn.init.normal_(self.keys.weight, std=self.keys.in_features**-0.5)
        with torch.no_grad():
            self.values.weight.copy_(self.keys.weight.T)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, in_dim) -> (n, tokens, dim)."""
        x = self.query(x)
        x = x + self.out(self.values(double_normalised(self.keys(x))))
        return x


class TokenBlock(nn.Module):
    """What T2T-ViT has as a Performer between two splits: attention without an outer skip, then a perceptron."""

    def __init__(self, in_dim: int, dim: int, slots: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(in_dim)
        self.attention = TokenAttention(in_dim, dim, slots)
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, in_dim) -> (n, tokens, dim)."""
        x = self.attention(self.attention_norm(x))
        x = x + self.mlp(self.mlp_norm(x))
        return x


class Block(nn.Module):
    """Pre-norm block: external attention and a two-layer perceptron with GELU, each in a residual branch."""

    def __init__(self, spec: EANetSpec, *, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.dim)
        self.attention = MultiHeadExternalAttention(spec.dim, spec.num_heads, spec.slots)
        self.mlp_norm = nn.LayerNorm(spec.dim)
        self.mlp = mlp(spec.dim, spec.mlp_ratio * spec.dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, dim) -> the same shape."""
        x = x + self.drop_path(self.attention(self.attention_norm(x)))
        x = x + self.drop_path(self.mlp(self.mlp_norm(x)))
        return x


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """EAMLP-7, -14 and -19, and micro."""
    return [EANet()]
