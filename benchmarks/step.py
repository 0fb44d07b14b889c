"""What the training engine adds to a step: an epoch of `train` against a bare loop on tensors already in memory.

    python benchmarks/step.py [--architectures vit,swin] [--variant b0 --batch 8] [--pairs 5] [--device cuda]
                              [--execution cuda_graphs]

Both train copies of one network, by one optimiser, in the same arithmetic, on batches of one size. The engine gathers,
resizes, cuts and mirrors its pictures, follows a schedule and watches the losses; the bare loop has its normalised
images and targets ready and does nothing but loss, gradients, clipping and step. `--execution cuda_graphs` lets the
engine replay a recorded step; the bare loop never does, so below 0 is what that spares. A pair is an epoch of the one
and then as many steps of the other; a figure is the median over the pairs (lowest and highest in brackets) but the
first.

Bar: 5 % on a CPU; on CUDA 10 % for micro, 3 % for published variants. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import copy
import platform
import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from scalenet.allocator import keep_freed_memory
from scalenet.architecture import Objective
from scalenet.augment import augmented
from scalenet.convolutions import quick_convolutions
from scalenet.data import DataRequest, Prepared, prepare
from scalenet.data.batches import Batches, normalise
from scalenet.device import isolated, numerics, pick_device
from scalenet.optimise import make_optimizer
from scalenet.plugins import architectures
from scalenet.recipe import Recipe
from scalenet.space import resolve
from scalenet.train import train


class Bare:
    """The loop that anyone would write, its batches in memory."""

    def __init__(
        self, model: nn.Module, objective: Objective, recipe: Recipe, batches: list[tuple[Tensor, Tensor]], bf16: bool
    ) -> None:
        self.model, self.objective, self.recipe, self.batches, self.bf16 = model, objective, recipe, batches, bf16
        self.optimizer = make_optimizer(model, recipe)
        self.parameters = list(model.parameters())
        self.device = batches[0][0].device

    def epoch(self) -> float:
        """Seconds of a step, over all batches once."""
        self.model.train()
        views_generator = torch.Generator().manual_seed(0)
        _finish(self.device)
        start = time.perf_counter()
        for images, targets in self.batches:
            views = self.objective.views(images, views_generator)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                loss = self.objective.loss(self.model, views, targets)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.recipe.clip_norm:
                nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm)
            self.optimizer.step()
        _finish(self.device)
        return (time.perf_counter() - start) / len(self.batches)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def overheads(
    name: str, variant: str | None, data: Prepared, recipe: Recipe, device: torch.device
) -> tuple[float, list[float]]:
    """Milliseconds of a bare step, and what the engine added in each pair, as a share of it."""
    arch = architectures()[name]
    spec = arch.variant(variant or "micro").spec
    objective, how = arch.objective(spec), numerics(recipe, device)
    with isolated(0, device):
        model = arch.build(spec, num_classes=len(data.classes)).to(device)
    bare_model = copy.deepcopy(model)
    size, last = recipe.batch_size, how.channels_last
    drawn = Batches(
        data, "fit", side=spec.resolution, batch_size=size, seed=0, device=device, channels_last=last
    ).epoch(1)
    batches = []
    for i, (pictures, labels) in enumerate(drawn):
        images, targets = augmented(pictures, labels, recipe, classes=len(data.classes), batch=(i,))
        batches.append((normalise(images), targets))
    added, bare_seconds = [], []
    engine = train(model, objective, data, recipe, side=spec.resolution, seed=0, judge="select", device=device)
    with quick_convolutions(bare_model, device, channels_last=last):  # on both sides: what is left is the engine
        bare = Bare(bare_model, objective, recipe, batches, how.bf16)
        for metrics in engine:
            alone = bare.epoch()
            bare_seconds.append(alone)
            added.append(metrics["seconds"] / len(batches) / alone - 1)
    return 1000 * median(bare_seconds[1:]), added[1:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", default=",".join(architectures()))
    parser.add_argument("--variant", default=None, help="default: micro")
    parser.add_argument("--batch", type=int, default=None, help="default: the default search's")
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="as the trials of a search")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--execution", choices=["eager", "cuda_graphs"], default="eager")
    told = parser.parse_args()
    device = pick_device(told.device)
    torch.set_num_threads(told.threads)
    keep_freed_memory()  # as the trials of a search
    torch.set_flush_denormal(told.threads == 1)  # likewise
    bar = 0.05 if device.type == "cpu" else 0.03 if told.variant else 0.10
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {told.threads} threads"
    print(f"{where}, torch {torch.__version__}, {platform.machine()}, {told.pairs} pairs, bar {100 * bar:.0f} %")
    print(f"{'':<14}{'side':>5}{'batch':>7}{'bare step ms':>14}{'engine adds %':>15}")
    missed = []
    for name in told.architectures.split(","):
        recipe: Any = replace(resolve(name).recipe, epochs=told.pairs + 1, execution=told.execution)
        recipe = replace(recipe, batch_size=told.batch or recipe.batch_size)
        side = architectures()[name].variant(told.variant or "micro").spec.resolution
        data = prepare(DataRequest("shapes", subset=told.pictures), side)
        step, added = overheads(name, told.variant, data, recipe, device)
        middle = median(added)
        word = "ok" if middle < bar else "MISSED"
        missed += [name] * (middle >= bar)
        spread = f"[{100 * min(added):.1f} .. {100 * max(added):.1f}]"
        print(
            f"{name:<14}{side:>5}{recipe.batch_size:>7}{step:>14.1f}{100 * middle:>15.1f}  {spread:<16} {word}",
            flush=True,
        )
    print(f"missed: {', '.join(missed) or 'none'}")
    return len(missed)


if __name__ == "__main__":
    raise SystemExit(min(1, main()))
