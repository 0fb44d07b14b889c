"""What a search would do, and about how long it would take; trains nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalenet.search.finalists import always_confirmed, centre_of

if TYPE_CHECKING:
    from scalenet.architecture import Architecture
    from scalenet.data import Prepared
    from scalenet.projection import Candidate
    from scalenet.runs import Phase
    from scalenet.space import SearchSpace

JUDGED = 1 / 3  # of a training step's cost: a forward pass of the three that a step costs


@dataclass(frozen=True)
class Plan:
    """The trials of a search before any has run."""

    trials: dict[Phase, int]  # confirmations are an upper bound: the best may be among those always confirmed
    epochs: int  # of all trials together
    images: float  # trained on, in baseline's equivalents: an image of a candidate at ratio r counts r times
    seconds: float  # on all workers together

    @property
    def total(self) -> int:
        """Trials in all."""
        return sum(self.trials.values())


def plan(
    space: SearchSpace,
    candidates: Sequence[Candidate],
    data: Prepared,
    *,
    seconds_per_image: float,
    workers: int,
) -> Plan:
    """The number of trials and an estimate of the time, without early stopping.

    Args:
        space: the search.
        candidates: measured, the baseline and rejected ones among them.
        data: for the number of pictures.
        seconds_per_image: of one training step of the baseline, per picture (`time_baseline`).
        workers: trials at a time; 0 counts as 1.
    """
    contestants = [c for c in candidates if c.rejected is None and "baseline" not in c.names]
    centre, always = centre_of(contestants), always_confirmed(candidates)
    drawn = 0 if space.sampler == "grid" else space.trials
    unnamed = len([c for c in contestants if c not in always]) + drawn
    best = min(space.confirm.best, unnamed)
    seeds = space.confirm.seeds
    trials: dict[Phase, int] = {
        "baseline": 1,
        "search": len(contestants) + drawn,
        "replicate": space.replicates if centre else 0,
        "confirm": (len(always) + best) * seeds,
    }

    def images(ratios: Sequence[float], judge: str) -> float:
        one = space.recipe.epochs * (data.counts["fit"] + JUDGED * data.counts[judge])
        return one * sum(ratios)

    target = space.target
    work = images([1.0, *(c.ratio for c in contestants), *[target] * drawn], "select")
    work += images([centre.ratio] * space.replicates if centre else [], "select")
    work += images([*(c.ratio for c in always), *[target] * best] * seeds, "held")
    total = sum(trials.values())
    # Trials are whole: the last round of workers is seldom full.
    rounds = math.ceil(total / max(1, workers)) * max(1, workers) / total
    seconds = work * seconds_per_image / max(1, workers) * (rounds if workers > 1 else 1.0)
    return Plan(trials, total * space.recipe.epochs, work, seconds)


def time_baseline(
    arch: Architecture[Any],
    spec: Any,
    space: SearchSpace,
    *,
    num_classes: int,
    device: str = "auto",
    seconds: float = 2.0,
    progress: Callable[[int, int, str], None] | None = None,
) -> float:
    """Seconds per picture of a training step of `spec`, from a few steps on random pictures; takes about `seconds`.

    Rough: the pictures' preparation and the recipe's precision are not in it.
    """
    import torch

    from scalenet.device import isolated, pick_device

    where = pick_device(device)
    size = space.recipe.batch_size
    with isolated(0, where, space.threads):
        model = arch.build(spec, num_classes=num_classes).to(where).train()
        objective = arch.objective(spec)
        images = torch.rand(size, 3, spec.resolution, spec.resolution, device=where)
        targets = torch.arange(size, device=where) % num_classes
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        generator = torch.Generator().manual_seed(0)
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begun < seconds:
            start = time.perf_counter()
            loss = objective.loss(model, objective.views(images, generator), targets)
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # waits for the device
            times.append(time.perf_counter() - start)
            if progress is not None:
                progress(min(100, round(100 * (time.perf_counter() - begun) / seconds)), 100, "timing the baseline")
    return sorted(times[1:])[len(times[1:]) // 2] / size  # the first step also compiles and allocates
