"""How long a search will take, from a few training steps of its baseline on made-up pictures."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

import torch

from scalenet.device import isolated, numerics, pick_device
from scalenet.errors import ScalenetError
from scalenet.optimise import make_optimizer

if TYPE_CHECKING:
    from scalenet.experiment import Plan

LONGEST = 2.0  # seconds of steps
JUDGING = 1 / 3  # a picture judged costs a forward pass, one trained on about three
STARTING = 15.0  # seconds until workers have started, torch imported included


def seconds_per_image(planned: Plan, device: str = "auto") -> float:
    """Training time of one picture through the baseline, in seconds: the median of a few steps."""
    recipe, spec, arch = planned.space.recipe, planned.meter.baseline, planned.meter.arch
    where = pick_device(device)
    how = numerics(recipe, where)
    with isolated(0, where, planned.space.threads):
        model = arch.build(spec, num_classes=planned.meter.num_classes).to(where)
        layout = torch.channels_last if how.channels_last else torch.contiguous_format
        images = torch.rand(recipe.batch_size, 3, spec.resolution, spec.resolution, device=where).contiguous(
            memory_format=layout
        )
        labels = torch.randint(planned.meter.num_classes, (recipe.batch_size,), device=where)
        objective, optimizer = arch.objective(spec), make_optimizer(model, recipe)
        views = objective.views(images, torch.Generator().manual_seed(0))
        took: list[float] = []
        start = time.perf_counter()
        while len(took) < 3 or (time.perf_counter() - start < LONGEST and len(took) < 12):
            begun = time.perf_counter()
            with torch.autocast(where.type, dtype=torch.bfloat16, enabled=how.bf16):
                loss = objective.loss(model, views, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss.item()  # waits for the device
            took.append(time.perf_counter() - begun)
    return median(took[1:]) / recipe.batch_size  # the first step also plans and allocates


def estimate(planned: Plan, workers: int, device: str = "auto") -> float:
    """Seconds that the whole search will take with so many trials at a time; right within a factor of 1.5 or so.

    Cost is taken as proportional to FLOPs, and a worker as no slower for having neighbours.

    Raises:
        ScalenetError: the baseline cannot be built or trained.
    """
    counts = planned.data.counts
    pictures = counts["fit"] + JUDGING * max(counts["select"], counts["held"])
    images = planned.trials * planned.space.recipe.epochs * pictures * planned.growth
    try:
        of_one = seconds_per_image(planned, device)
    except ScalenetError:
        raise
    except Exception as error:  # a stranger's architecture, or too little memory
        text = (str(error).strip().splitlines() or ["no message"])[0]
        raise ScalenetError(
            f"The baseline of {planned.plugin} cannot be trained on {device} with batches of "
            f"{planned.space.recipe.batch_size}: {type(error).__name__}: {text}."
        ) from error
    return STARTING * (workers > 0) + images * of_one / max(1, workers)
