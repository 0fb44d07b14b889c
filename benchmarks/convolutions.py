"""The quick convolutions of `scalenet.convolutions` against torch's own, by size of the map: where does each pay?

    python benchmarks/convolutions.py [--batch 32] [--channels 96] [--threads 1]

Forward and backward together on float32 tensors whose channels lie last, in milliseconds: torch's, ours whatever the
module's own limits say, and their ratio; medians. `taken` says which of them the module takes. With one thread it is
processor time, which other processes hardly change; with more, run it alone.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from scalenet.allocator import keep_freed_memory
from scalenet.convolutions import ROWS, _Depthwise, _pays

SIDES = (1, 2, 3, 4, 6, 8, 10, 12, 16)
TIMES = 15

Layer = Callable[[Tensor, Tensor], Tensor]


def milliseconds(plain: Layer, ours: Layer, x: Tensor, weight: Tensor, clock: Callable[[], float]) -> list[float]:
    """Medians of forward and backward through both, taken in turn."""
    took: list[list[float]] = [[], []]
    for _ in range(TIMES + 1):
        for layer, times in zip((plain, ours), took, strict=True):
            start = clock()
            out = layer(x, weight)
            torch.autograd.grad(out, (x, weight), torch.ones_like(out))
            times.append(clock() - start)
    return [1000 * median(times[1:]) for times in took]


def as_product(x: Tensor, weight: Tensor) -> Tensor:
    """A 1 x 1 convolution as a linear layer."""
    return F.linear(x.permute(0, 2, 3, 1), weight.flatten(1)).permute(0, 3, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=240)
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    keep_freed_memory()  # as every training does
    clock = time.process_time if told.threads == 1 else time.perf_counter
    n, c = told.batch, told.channels
    print(f"{n} pictures, {c} channels, {told.threads} threads, torch {torch.__version__}, {platform.machine()}")
    print(f"{'':<14}{'map':>5}{'torch ms':>10}{'ours ms':>10}{'ratio':>8}  taken")
    for kernel in (3, 5, 7, 9):
        for side in SIDES:
            x = torch.randn(n, c, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
            weight, pad = torch.randn(c, 1, kernel, kernel, requires_grad=True), kernel // 2
            plain, ours = milliseconds(
                lambda x, w: F.conv2d(x, w, None, 1, pad, 1, c),  # noqa: B023
                lambda x, w: _Depthwise.apply(x, w, (1, 1), (pad, pad)),  # noqa: B023
                x,
                weight,
                clock,
            )
            taken = _pays(n, (side, side), (kernel, kernel), (1, 1), (pad, pad))
            _row(f"depthwise {kernel}x{kernel}", side, plain, ours, taken)
    for side in SIDES:
        x = torch.randn(n, c, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(c // 4, c, 1, 1).contiguous(memory_format=torch.channels_last).requires_grad_()
        plain, ours = milliseconds(F.conv2d, as_product, x, weight, clock)
        _row("pointwise", side, plain, ours, n * side * side <= ROWS)


def _row(name: str, side: int, plain: float, ours: float, taken: bool) -> None:
    print(
        f"{name:<14}{side:>5}{plain:>10.2f}{ours:>10.2f}{plain / ours:>8.2f}  {'ours' if taken else 'torch'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
