"""Convolutions as they are trained quickest on a CPU: the same numbers but for the order of sums, by other operators.

Depthwise: oneDNN computes the gradient of the kernels row by row, which on the small maps of a search's networks takes
longer than all the rest of the layer: for 240 channels, a 4 x 4 map, a 5 x 5 kernel and 128 pictures 4.5 ms, the whole
forward pass 0.3 ms. As one product of matrices per channel, every place of the output with every place of the input
over all pictures, of which each tap then takes the sum of a diagonal, it is 0.9 ms.

Pointwise: on a map of a few pixels a 1 x 1 convolution is a small product of matrices, and as such twice as quick.

`benchmarks/convolutions.py` measures both by size of the map, and shows which way is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[int, int]
ROWS = 1024  # pictures times pixels up to which a 1 x 1 convolution is quicker as a plain product
MET = 144 * 144  # places of the output times places of the input up to which their table is kept
MET_PER_TAP = 4  # the same over pictures times taps, up to which products are quicker for a depthwise kernel


def lay_out(model: nn.Module, *, channels_last: bool) -> list[nn.Conv2d]:
    """Lays the kernels of a model's convolutions out channels last or contiguously; returns the convolutions.

    Other four-dimensional parameters (tables of positions) stay as they are: models may reshape them with `view`.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for conv in convolutions:
        conv.to(memory_format=layout)
    return convolutions


@contextmanager
def quick_convolutions(model: nn.Module, device: torch.device, *, channels_last: bool) -> Iterator[None]:
    """Inside, the convolutions of `model` are as a training on `device` wants them; then they are plain ones again.

    Kernels are laid out channels last or contiguously, which they stay. On a CPU, depthwise and pointwise convolutions
    become those below: the same modules with the same parameters, hooks and names, of another class while it lasts.
    """
    convolutions = lay_out(model, channels_last=channels_last)
    quick = [conv for conv in convolutions if device.type == "cpu" and type(conv) is nn.Conv2d]
    for conv in quick:
        conv.__class__ = _quickest(conv)
    try:
        yield
    finally:
        for conv in quick:
            conv.__class__ = nn.Conv2d


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution, on small maps as a linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c', h, w), as nn.Conv2d has it."""
        if input.dim() != 4 or input.device.type != "cpu" or input.numel() // self.in_channels > ROWS:
            return super().forward(input)
        if not (input.shape[2:].numel() == 1 or input.is_contiguous(memory_format=torch.channels_last)):
            return super().forward(input)
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution, to be trained in float32 on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h', w'), as nn.Conv2d has it."""
        kernel, stride, padding = _pair(self.kernel_size), _pair(self.stride), _pair(self.padding)
        if not (
            torch.is_grad_enabled()
            and input.dim() == 4
            and input.device.type == "cpu"
            and input.dtype is torch.float32
            and not torch.is_autocast_enabled("cpu")
            and _pays(len(input), _pair(input.shape[2:]), kernel, stride, padding)
        ):
            return super().forward(input)
        out: Tensor = _Depthwise.apply(input, self.weight, stride, padding)
        return out if self.bias is None else out + self.bias[:, None, None]


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_input: Tensor | None = None
        of_kernel: Tensor | None = None
        if ctx.needs_input_grad[0]:
            of_input = torch.ops.aten.convolution_backward(
                grad, x, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), len(weight),
                (True, False, False),
            )[0]  # fmt: skip
        if ctx.needs_input_grad[1]:
            of_kernel = _kernel_gradient(x, grad, _pair(weight.shape[2:]), ctx.stride, ctx.padding)
        return of_input, of_kernel, None, None


def _kernel_gradient(x: Tensor, grad: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    """(c, 1, k, k) from the inputs (n, c, h, w) and the outputs' gradient (n, c, h', w')."""
    channels = x.shape[1]
    met = _by_channel(grad).transpose(1, 2) @ _by_channel(x)  # (c, h' * w', h * w)
    taps = met.reshape(channels, -1) @ _diagonals(_pair(x.shape[2:]), _pair(grad.shape[2:]), kernel, stride, padding)
    return taps.view(channels, 1, *kernel)


def _by_channel(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (c, n, h * w), contiguous: one transposition of a matrix where the channels lie last."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(-1, c).t().contiguous().view(c, n, h * w)


@lru_cache(maxsize=64)  # some 100 kB each, 7 MB at most; a network has few kinds of layers
def _diagonals(size: Pair, outputs: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Tensor:
    """(h' * w' * h * w, k * k): 1 where the output at that place meets the input at that place by that tap."""
    rows, columns = (_met(size[i], outputs[i], kernel[i], stride[i], padding[i]) for i in (0, 1))
    return torch.einsum("yhi,xwj->yxhwij", rows, columns).reshape(-1, kernel[0] * kernel[1])


def _met(size: int, outputs: int, kernel: int, stride: int, padding: int) -> Tensor:
    """(outputs, size, kernel): 1 where an output meets an input by a tap, along one axis."""
    taps = torch.arange(size) - stride * torch.arange(outputs)[:, None] + padding
    return (taps[:, :, None] == torch.arange(kernel)).float()


def _pays(pictures: int, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether the products are quicker than oneDNN, which has a better way for 3 x 3 kernels that fit the map.

    Summing the diagonals takes as long for one picture as for many; oneDNN's time grows with pictures times taps.
    """
    outputs = [(size[i] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
    if max(kernel) <= 3:
        return max(size) <= 3 and max(outputs) <= 2
    met = math.prod(size) * math.prod(outputs)
    return max(kernel) <= 9 and met <= min(MET, MET_PER_TAP * pictures * math.prod(kernel))


def _quickest(conv: nn.Conv2d) -> type[nn.Conv2d]:
    if conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        return nn.Conv2d
    if conv.groups == conv.in_channels == conv.out_channels > 1 and max(conv.kernel_size) > 1:
        return DepthwiseConv2d
    if (conv.groups, conv.kernel_size, conv.stride, conv.padding) == (1, (1, 1), (1, 1), (0, 0)):
        return PointwiseConv2d
    return nn.Conv2d


def _pair(values: Any) -> Pair:
    first, second = values
    return int(first), int(second)
