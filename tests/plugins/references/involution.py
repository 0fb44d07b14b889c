"""RedNet with the involution as the paper writes it: every window unfolded, multiplied and summed.

arXiv:2103.06255, equation 4 and algorithm 1; the strided form and the layout of the channels as in the figures there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def unfolded(x: Tensor, kernels: Tensor, kernel: int, stride: int) -> Tensor:
    """x (n, c, h, w) and kernels (n, groups * kernel * kernel, h', w') -> (n, c, h', w')."""
    n, channels = x.shape[:2]
    height, width = kernels.shape[2:]
    groups = kernels.shape[1] // kernel**2
    windows = F.unfold(x, kernel, padding=kernel // 2, stride=stride)
    windows = windows.view(n, groups, channels // groups, kernel**2, height, width)
    kernels = kernels.view(n, groups, 1, kernel**2, height, width)
    return (windows * kernels).sum(3).view(n, channels, height, width)


def multiplied(x: Tensor, kernels: Tensor, kernel: int, stride: int) -> Tensor:
    """The same as matrix products, which torch's counter sees: (c / groups, K * K) @ (K * K, 1) at every place."""
    n, channels = x.shape[:2]
    height, width = kernels.shape[2:]
    groups = kernels.shape[1] // kernel**2
    windows = F.unfold(x, kernel, padding=kernel // 2, stride=stride)
    windows = windows.view(n, groups, channels // groups, kernel**2, height * width).permute(0, 1, 4, 2, 3)
    kernels = kernels.view(n, groups, kernel**2, height * width).transpose(2, 3)[..., None]
    return torch.matmul(windows, kernels).permute(0, 1, 3, 4, 2).reshape(n, channels, height, width)


def means(x: Tensor, side: int) -> Tensor:
    """The mean of every side x side pixels, at the lower and right border of as many as there are."""
    right, below = -x.shape[3] % side, -x.shape[2] % side
    there = F.pad(torch.ones_like(x), (0, right, 0, below))
    return F.avg_pool2d(F.pad(x, (0, right, 0, below)), side) / F.avg_pool2d(there, side)


class Unfolded(nn.Module):
    def __init__(self, channels: int, kernel: int, stride: int, group_channels: int, reduction: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.reduce = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels // reduction)
        self.span = nn.Conv2d(channels // reduction, channels // group_channels * kernel**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kernels = means(x, self.stride)
        return unfolded(x, self.span(self.norm(self.reduce(kernels)).relu()), self.kernel, self.stride)


class Block(nn.Module):
    def __init__(self, in_channels: int, stage: Any, spec: Any, stride: int) -> None:
        super().__init__()
        middle, out = stage.middle, stage.channels
        self.first, self.first_norm = nn.Conv2d(in_channels, middle, 1, bias=False), nn.BatchNorm2d(middle)
        self.second = Unfolded(middle, spec.kernel, stride, spec.group_channels, spec.reduction)
        self.second_norm = nn.BatchNorm2d(middle)
        self.third, self.third_norm = nn.Conv2d(middle, out, 1, bias=False), nn.BatchNorm2d(out)
        self.projects = stride != 1 or in_channels != out
        if self.projects:
            self.side = nn.Conv2d(in_channels, out, 1, stride, bias=False)
            self.side_norm = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first_norm(self.first(x)).relu()
        y = self.second_norm(self.second(y)).relu()
        y = self.third_norm(self.third(y))
        return (y + (self.side_norm(self.side(x)) if self.projects else x)).relu()


class Reference(nn.Module):
    def __init__(self, spec: Any, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, spec.stem_middle, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(spec.stem_middle)
        self.involution = Unfolded(spec.stem_middle, 3, 1, spec.group_channels, spec.reduction)
        self.norm2 = nn.BatchNorm2d(spec.stem_middle)
        self.conv3 = nn.Conv2d(spec.stem_middle, spec.stem, 3, 1, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(spec.stem)
        self.pool = spec.pool
        channels, blocks = spec.stem, []
        for stage in spec.stages:
            for i in range(stage.blocks):
                blocks.append(Block(channels, stage, spec, stage.stride if i == 0 else 1))
                channels = stage.channels
        self.blocks = nn.ModuleList(blocks)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        x = self.norm2(self.involution(x)).relu()
        x = self.norm3(self.conv3(x)).relu()
        if self.pool:
            x = F.max_pool2d(x, 3, 2, 1)
        for block in self.blocks:
            x = block(x)
        return self.linear(x.mean((2, 3)))


def reference(spec: Any, num_classes: int) -> nn.Module:
    """The network of a spec."""
    return Reference(spec, num_classes)
