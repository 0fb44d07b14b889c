"""How long training takes here: a few steps on made-up pictures, and from them a whole search."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from scalenet.convolutions import quick_convolutions
from scalenet.device import Numerics, isolated, numerics, pick_device
from scalenet.errors import ScalenetError, one_line
from scalenet.optimise import make_optimizer
from scalenet.recipe import Recipe

if TYPE_CHECKING:
    from scalenet.architecture import Architecture
    from scalenet.experiment import Plan

LONGEST = 2.0  # seconds of steps
JUDGING = 1 / 3  # a picture judged costs a forward pass, one trained on about three
STARTING = 15.0  # seconds until workers have started, torch imported included


@dataclass(frozen=True)
class Subject:
    """A network to be timed, and how it is trained."""

    arch: Architecture[Any]
    spec: Any
    num_classes: int
    recipe: Recipe
    batch: int  # pictures of a step

    def build(self) -> nn.Module:
        """The network, its weights drawn at random."""
        return self.arch.build(self.spec, num_classes=self.num_classes, drop_path=self.recipe.drop_path)


def seconds_per_image(
    subject: Subject,
    model: nn.Module,
    how: Numerics,
    device: torch.device,
    *,
    longest: float = LONGEST,
    hopeless: float = math.inf,
) -> float:
    """Training time of one picture, in seconds: the median of a few steps of `model`, which they change.

    Args:
        longest: seconds after which no further step is begun; the second one always is.
        hopeless: seconds per picture; when the second step is that slow, it is the answer.
    """
    spec, recipe = subject.spec, subject.recipe
    objective, optimizer = subject.arch.objective(spec), make_optimizer(model, recipe)
    images = torch.rand(subject.batch, 3, spec.resolution, spec.resolution, device=device)
    if how.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(subject.num_classes, (subject.batch,), device=device)
    views = objective.views(images, torch.Generator().manual_seed(0))
    took: list[float] = []
    with quick_convolutions(model, device, channels_last=how.channels_last):
        start = time.perf_counter()
        while len(took) < 2 or (time.perf_counter() - start < longest and took[1] <= hopeless):
            begun = time.perf_counter()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=how.bf16):
                loss = objective.loss(model, views, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()  # waits for the device
            took.append((time.perf_counter() - begun) / subject.batch)
    return median(took[1:])  # the first step also plans and allocates


def baseline_seconds(planned: Plan, device: str = "auto") -> float:
    """Training time of one picture through a plan's baseline, measured in this process.

    Raises:
        ScalenetError: the baseline cannot be built or trained.
    """
    space, where = planned.space, pick_device(device)
    meter, recipe = planned.meter, space.recipe
    subject = Subject(meter.arch, meter.baseline, meter.num_classes, recipe, recipe.batch_size)
    try:
        with isolated(0, where, space.threads or 1):
            return seconds_per_image(subject, subject.build().to(where), numerics(recipe, where), where)
    except ScalenetError:
        raise
    except Exception as error:  # a stranger's architecture, or too little memory
        raise ScalenetError(
            f"The baseline of {planned.plugin} cannot be trained on {device} with batches of "
            f"{recipe.batch_size}: {one_line(error)}."
        ) from error


def estimate(planned: Plan, workers: int, of_one: float) -> float:
    """Seconds that the whole search will take with so many trials at a time; right within a factor of 1.5 or so.

    Cost is taken as proportional to FLOPs; `of_one` is a worker's training time of one picture through the baseline.
    """
    counts = planned.data.counts
    pictures = counts["fit"] + JUDGING * max(counts["select"], counts["held"])
    images = planned.trials * planned.space.recipe.epochs * pictures * planned.growth
    return STARTING * (workers > 0) + images * of_one / max(1, workers)
