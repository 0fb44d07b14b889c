"""ViT (Dosovitskiy et al., 2020, arXiv:2010.11929): a transformer over patches, with a class token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from scalenet.architecture import FINE, PAPER, Architecture, Rounding, Scale, Size, Variant
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl
from scalenet.layers import (
    DropPath,
    PatchEmbedding,
    SelfAttention,
    check_side,
    drop_path_rates,
    mlp,
    resample_grid,
)
from scalenet.rounding import ceil_depths, nearest_multiple, whole_heads

EPS = 1e-6  # of every LayerNorm, in the released code and its ports


@dataclass(frozen=True)
class ViTSpec:
    """The numbers of a ViT: `depth` blocks of `dim` channels (the paper's L and D) over patches of `patch_size` px."""

    resolution: int
    patch_size: int
    dim: int
    depth: int
    num_heads: int
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.dim % self.num_heads:
            raise ScalenetError(f"vit: dim must be a multiple of {self.num_heads} heads, got {self.dim}.")

    @property
    def grid(self) -> int:
        """Patches along a side, the last one padded where `patch_size` does not divide the side."""
        return -(-self.resolution // self.patch_size)


# fmt: off
DEIT = "arXiv:2012.12877, Table 1"  # Ti and S: ViT as in the first paper, smaller
PAPER_TABLE = "arXiv:2010.11929, Table 1"
TABLE: Mapping[str, Variant[ViTSpec]] = {  #     px   p    D   L   h
    "ti16":    Variant(ViTSpec(224, 16, 192, 12,  3), 1000, DEIT, params=5717416, flops=1253683200),
    "s16":     Variant(ViTSpec(224, 16, 384, 12,  6), 1000, DEIT, params=22050664, flops=4598882304),
    "b16":     Variant(ViTSpec(224, 16, 768, 12, 12), 1000, PAPER_TABLE, params=86567656, flops=17563828224),
    "b32":     Variant(ViTSpec(224, 32, 768, 12, 12), 1000, PAPER_TABLE),
    "b16_384": Variant(ViTSpec(384, 16, 768, 12, 12), 1000, PAPER_TABLE + "; fine-tuned at 384 px (section 4.1)"),
    "micro":   Variant(ViTSpec( 32,  4,  24,  6,  2), 10, "ours: the same blocks, 4x4 px a patch, heads of 12"),
}
# fmt: on


class ViT(Architecture[ViTSpec]):
    """Patch embedding, class token, learned positions and pre-norm blocks, all of one width.

    The paper gives sizes and no rule between them. Its heads have 64 channels at every width: the number of heads
    follows the width and their size stays. PAPER: whole heads of that size, depth rounded up, sides of whole patches.
    FINE: the nearest depth, and channels in steps of the number of heads, whose size then moves a little. Sides go to
    whole patches either way: a part of a patch costs what a whole one does.
    """

    name = "vit"
    paper = "https://arxiv.org/abs/2010.11929"
    baseline = "s16"
    variants = TABLE

    def scale(self, spec: ViTSpec, by: Scale, rounding: Rounding = FINE) -> ViTSpec:
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
            side = nearest_multiple(spec.grid * spec.patch_size * by.resolution, spec.patch_size, minimum=16)
        return replace(spec, resolution=side, dim=dim, depth=depth, num_heads=heads)

    def size(self, spec: ViTSpec) -> Size:
        return Size(spec.depth, spec.dim, spec.resolution)

    def build(self, spec: ViTSpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> ViTModel:
        return ViTModel(spec, num_classes=num_classes, in_channels=in_channels, drop_path=drop_path)

    def resample(self, weights: Mapping[str, Tensor], old: ViTSpec, new: ViTSpec) -> Mapping[str, Tensor]:
        """Positions of the patches interpolated in two dimensions (section 3.2); that of the class token stays."""
        if old.grid == new.grid:
            return weights
        class_token, patches = weights["positions"][:, :1], weights["positions"][0, 1:]
        patches = resample_grid(patches, old.grid, new.grid)
        return {**weights, "positions": torch.cat((class_token, patches[None]), 1)}


class ViTModel(nn.Module):
    """The network of a spec: (n, in_channels, side, side) -> logits (n, num_classes), at the spec's side only.

    Sides that the patches do not divide are padded with zeros at the right and below (the paper has none). The paper's
    dropout of 0.1 and the tanh layer that its heads have in pre-training on larger data sets are left out, as in DeiT.
    Initialisation is that of the released code, LeCun normal for the patches, Xavier's for query, key, value and the
    other maps of the blocks, but for the classifier: it is normal with deviation 0.02, as in DeiT, where the released
    code has 0.
    """

    def __init__(self, spec: ViTSpec, *, num_classes: int, in_channels: int, drop_path: float) -> None:
        super().__init__()
        self.side = spec.resolution
        self.class_token = nn.Parameter(torch.empty(1, 1, spec.dim))
        self.positions = nn.Parameter(torch.empty(1, 1 + spec.grid**2, spec.dim))
        self.patches = PatchEmbedding(in_channels, spec.dim, spec.patch_size)
        self.blocks = nn.Sequential(*(Block(spec, drop_path=r) for r in drop_path_rates(drop_path, spec.depth)))
        self.norm = nn.LayerNorm(spec.dim, eps=EPS)
        self.classifier = nn.Linear(spec.dim, num_classes)
        nn.init.zeros_(self.class_token)
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            elif isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                for part in module.qkv.weight.detach().chunk(3):  # three square maps in one
                    nn.init.xavier_uniform_(part)
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, c, side, side) -> logits (n, num_classes)."""
        check_side(x, self.side)
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.class_token.expand(x.shape[0], -1, -1), x), 1) + self.positions
        x = self.blocks(x)
        x = self.classifier(self.norm(x[:, 0]))  # the norm is per token: only the class token's is wanted
        return x


class Block(nn.Module):
    """Section 3.1, equations 2 and 3: attention and a two-layer perceptron with GELU, each after a LayerNorm and in a
    residual branch.
    """

    def __init__(self, spec: ViTSpec, *, drop_path: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.dim, eps=EPS)
        self.attention = SelfAttention(spec.dim, spec.num_heads)
        self.mlp_norm = nn.LayerNorm(spec.dim, eps=EPS)
        self.mlp = mlp(spec.dim, spec.mlp_ratio * spec.dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, dim) -> the same shape."""
        x = x + self.drop_path(self.attention(self.attention_norm(x)))
        x = x + self.drop_path(self.mlp(self.mlp_norm(x)))
        return x


@hookimpl
def register_architectures() -> Iterable[Architecture[Any]]:
    """ViT Ti/16, S/16, B/16, B/32, B/16 at 384 px and micro."""
    return [ViT()]
