"""How near a training step comes to what the device can do: FLOP/s and bytes/s against measured ceilings.

    python benchmarks/roofline.py [--device cuda] [--architectures vit,swin] [--variant b0] [--batch 128]
                                  [--execution cuda_graphs]

The ceilings are measured here: the rate of a large matrix product in the step's arithmetic, and of a copy between two
large tensors. A step is forward, backward and optimiser on pictures in memory. Its FLOPs are counted by torch's own
counter (two per multiply-add), its bytes are those of all tensors that its operators read and write, as if nothing
stayed in a cache: so small networks can show more than 100 % of the copy's rate. `bound` is the larger of the two
shares: far below 100 % with small batches means that launching operators is what takes the time.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from scalenet.device import numerics, pick_device
from scalenet.optimise import make_optimizer
from scalenet.plugins import architectures
from scalenet.space import resolve
from scalenet.step import WARM, Replayed, Step

SECONDS = 1.0  # of a timing


class Traffic(TorchDispatchMode):
    """Bytes of the tensors that operators read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        written = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        storages = {t.untyped_storage()._cdata for t in read}
        if any(t.untyped_storage()._cdata not in storages for t in written) or _in_place(func):
            self.bytes += sum(t.numel() * t.element_size() for t in (*read, *written))
        return out


def _in_place(func: Any) -> bool:
    return bool(func._schema.is_mutable)


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """The median over timings of one call."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(WARM + 1):  # one more is recorded, where steps are
        work()
    finish()
    took: list[float] = []
    begun = time.perf_counter()
    while len(took) < 3 or time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        work()
        finish()
        took.append(time.perf_counter() - start)
    return median(took)


def ceilings(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """FLOP/s of a matrix product and bytes/s of a copy."""
    side = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    product = 2 * side**3 / seconds_of(lambda: torch.mm(a, b), device)
    size = 2**30 if device.type == "cuda" else 2**27
    source, target = (torch.empty(size, dtype=torch.uint8, device=device).fill_(1) for _ in range(2))
    return product, 2 * size / seconds_of(lambda: target.copy_(source), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", default=",".join(architectures()))
    parser.add_argument("--variant", default="micro")
    parser.add_argument("--batch", type=int, default=None, help="default: the default search's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--execution", choices=["eager", "cuda_graphs"], default="eager")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    device = pick_device(told.device)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {told.threads} threads"
    how = numerics(resolve("").recipe, device)
    dtype = torch.bfloat16 if how.bf16 else torch.float32
    flops, traffic = ceilings(device, dtype)
    print(f"{where}, torch {torch.__version__}, {platform.machine()}, {dtype}")
    print(f"ceilings: {flops / 1e12:.3f} TFLOP/s (matrix product), {traffic / 1e9:.1f} GB/s (copy)\n")
    print(f"{'':<14}{'batch':>6}{'step ms':>10}{'GFLOP/s':>10}{'%':>6}{'GB/s':>9}{'%':>6}{'bound %':>9}")
    for name in told.architectures.split(","):
        arch, recipe = architectures()[name], resolve(name).recipe
        variant = arch.variant(told.variant)
        batch = told.batch or recipe.batch_size
        model = arch.build(variant.spec, num_classes=variant.num_classes).to(device)
        if how.channels_last:
            model.to(memory_format=torch.channels_last)
        objective = arch.objective(variant.spec)
        side = variant.spec.resolution
        layout = torch.channels_last if how.channels_last else torch.contiguous_format
        images = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=layout)
        labels = torch.randint(variant.num_classes, (batch,), device=device)
        views = objective.views(images, torch.Generator().manual_seed(0))

        step = Step(model, objective, make_optimizer(model, recipe), 0.0, how.bf16)
        with FlopCounterMode(display=False) as counter:
            step(views, labels, recipe.lr)
        with Traffic() as moved:
            step(views, labels, recipe.lr)
        timed = Replayed(step, device) if told.execution == "cuda_graphs" else step
        seconds = seconds_of(partial(timed, views, labels, recipe.lr), device)
        rates = counter.get_total_flops() / seconds, moved.bytes / seconds
        shares = 100 * rates[0] / flops, 100 * rates[1] / traffic
        print(
            f"{name:<14}{batch:>6}{1000 * seconds:>10.1f}{rates[0] / 1e9:>10.1f}{shares[0]:>6.0f}{rates[1] / 1e9:>9.1f}"
            f"{shares[1]:>6.0f}{max(shares):>9.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
