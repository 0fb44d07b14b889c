"""Blocks that at least three architectures share. Everything else lives in its own plugin's file."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.errors import ScalenetError


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    act: nn.Module | None = None,
) -> nn.Sequential:
    """Convolution without bias, BatchNorm and, if given, an activation; padded symmetrically by half the kernel."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(out_channels)
    return nn.Sequential(conv, norm) if act is None else nn.Sequential(conv, norm, act)


class DropPath(nn.Module):
    """Stochastic depth (arXiv:1603.09382): in training, zeroes whole samples of a residual branch with probability
    `rate` and divides the others by the probability of staying; in evaluation the identity.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, ...) -> the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        stays = torch.rand([x.shape[0]] + [1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (stays / (1.0 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"rate={self.rate:g}"


class PatchEmbedding(nn.Module):
    """A convolution whose kernel is its stride: patches of p x p pixels to tokens of `dim` channels (ViT, section 3.1).

    The papers want sides that p divides, and released code drops the pixels that are left over. Here the right and the
    lower border are padded with zeros to whole patches.
    """

    def __init__(self, in_channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.projection = nn.Conv2d(in_channels, dim, patch_size, patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> the map (n, dim, ceil(h / p), ceil(w / p))."""
        right, below = -x.shape[3] % self.patch_size, -x.shape[2] % self.patch_size
        y: Tensor = self.projection(F.pad(x, (0, right, 0, below)) if right or below else x)
        return y


class SelfAttention(nn.Module):
    """Multi-head self-attention (arXiv:1706.03762) by PyTorch's fused kernel; `dim` must be a multiple of the heads."""

    def __init__(self, dim: int, num_heads: int, *, qkv_bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (n, tokens, dim) -> the same shape."""
        n, tokens, dim = x.shape
        # (n, tokens, 3 dim) -> query, key and value, each (n, heads, tokens, dim / heads)
        query, key, value = self.qkv(x).view(n, tokens, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        y: Tensor = F.scaled_dot_product_attention(query, key, value)  # scaled by the root of the dim of a head
        y = self.out(y.transpose(1, 2).reshape(n, tokens, dim))
        return y


def mlp(dim: int, hidden: int, act: nn.Module | None = None) -> nn.Sequential:
    """The two-layer perceptron of a transformer block, dim -> hidden -> dim; exact GELU unless another is given."""
    return nn.Sequential(nn.Linear(dim, hidden), act or nn.GELU(), nn.Linear(hidden, dim))


def check_side(x: Tensor, side: int) -> None:
    """Refuses images that are not side x side: tables of positions and weights that mix tokens fit one size only.

    Raises:
        ScalenetError: with both sizes.
    """
    height, width = x.shape[2:]
    if (height, width) != (side, side):
        raise ScalenetError(
            f"This network was built for {side} x {side} px, got {height} x {width}; build it for them."
        )


def resample_grid(table: Tensor, old: int, new: int) -> Tensor:
    """A learned table over a square map at another size: (old * old, d) -> (new * new, d), bicubic, antialiased.

    As ViT (arXiv:2010.11929, section 3.2) is fine-tuned at a higher resolution: positions in two dimensions.
    """
    grid = table.reshape(old, old, -1).permute(2, 0, 1)[None].float()
    grid = F.interpolate(grid, (new, new), mode="bicubic", antialias=True, align_corners=False)
    return grid[0].permute(1, 2, 0).reshape(new * new, -1).to(table.dtype).contiguous()


def drop_path_rates(last: float, blocks: int) -> list[float]:
    """Rates rising linearly from 0 at the first block to `last` at the last."""
    return [last * i / max(1, blocks - 1) for i in range(blocks)]


def init_convolutions(model: nn.Module) -> None:
    """He initialisation by fan-out (arXiv:1502.01852) of every Conv2d, a group counted by itself; biases to zero.

    As in the released EfficientNet code and timm; PyTorch's own `kaiming_normal_` overlooks the groups.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
