"""Blocks that at least three architectures share. Everything else lives in its own plugin's file."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


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
        stays = torch.rand([len(x)] + [1] * (x.ndim - 1), device=x.device) >= self.rate
        return x * (stays / (1.0 - self.rate)).to(x.dtype)

    def extra_repr(self) -> str:
        """The rate, for `print(model)`."""
        return f"rate={self.rate:g}"


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
