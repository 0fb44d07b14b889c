"""How long training takes here: a few steps on made-up pictures, and from them a whole search."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from scalenet.convolutions import quick_convolutions
from scalenet.device import Numerics, isolated, numerics, pick_device
from scalenet.errors import ScalenetError, one_line
from scalenet.optimise import make_optimizer
from scalenet.recipe import Recipe
from scalenet.step import WARM, Replayed, Step

if TYPE_CHECKING:
    from scalenet.architecture import Architecture
    from scalenet.experiment import Plan

LONGEST = 2.0  # seconds of steps
FOLLOWED, GENTLY = 6, 1e-3  # replayed steps that are compared with others, and the rate at which they are taken
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

    def step(self, model: nn.Module, how: Numerics, device: torch.device) -> Step | Replayed:
        """A training step of `model` as a search takes it."""
        optimizer = make_optimizer(model, self.recipe)
        step = Step(model, self.arch.objective(self.spec), optimizer, self.recipe.clip_norm, how.bf16)
        return Replayed(step, device) if how.recorded else step

    def batch_of(self, how: Numerics, device: torch.device) -> tuple[tuple[Tensor, ...], Tensor]:
        """Views and class indices of made-up pictures."""
        side = self.spec.resolution
        images = torch.rand(self.batch, 3, side, side, device=device)
        if how.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(self.num_classes, (self.batch,), device=device)
        return self.arch.objective(self.spec).views(images, torch.Generator().manual_seed(0)), labels


def seconds_per_image(
    subject: Subject,
    model: nn.Module,
    how: Numerics,
    device: torch.device,
    *,
    longest: float = LONGEST,
    hopeless: float = math.inf,
    images: int = 1,
    shapes: int = 1,
) -> float:
    """Training time of one picture, in seconds: the median of a few steps of `model`, which they change.

    Args:
        longest: seconds from the first step that counts after which no further one is begun.
        hopeless: seconds per picture; when the first step that counts is that slow, it is the answer.
        images: that a training takes; what recording its steps costs is spread over them.
        shapes: of its batches, each of which is recorded: 2 where an epoch ends with a smaller one.
    """
    views, labels = subject.batch_of(how, device)
    slowest = hopeless * subject.batch
    counts = WARM + 1 if how.recorded else 1  # those before also plan and allocate, or record
    took: list[float] = []
    with quick_convolutions(model, device, channels_last=how.channels_last):
        step = subject.step(model, how, device)
        start = time.perf_counter()
        while len(took) <= counts or (time.perf_counter() - start < longest and took[counts] <= slowest):
            begun = time.perf_counter()
            if len(took) == counts:
                start = begun
            step(views, labels, subject.recipe.lr).item()  # waits for the device
            took.append(time.perf_counter() - begun)
    middle = median(took[counts:])
    if not how.recorded:
        return middle / subject.batch
    eager = median(took[1:WARM])
    once = max(0.0, took[WARM] - middle) + WARM * max(0.0, eager - middle)
    return middle / subject.batch + shapes * once / images


def replays_faithfully(subject: Subject, model: nn.Module, how: Numerics, device: torch.device) -> bool:
    """Whether recorded steps learn what the same steps do one operator at a time; `model` stays as it is.

    A recording repeats what Python decided while it was made: a model that draws its random numbers outside of torch,
    counts its calls, or puts new tensors in the place of its buffers, trains otherwise by it. Losses may differ by 2 %,
    the way that weights and buffers go by 5 %. What changes rarely or slowly in Python is not found in so few steps.
    """
    with isolated(0, device):
        batches = [subject.batch_of(how, device) for _ in range(WARM + FOLLOWED)]
    rates = [min(subject.recipe.lr, GENTLY) * (1 - i / (2 * len(batches))) for i in range(len(batches))]

    def followed(way: Numerics) -> tuple[Tensor, list[float], bool]:
        own = copy.deepcopy(model)
        kinds = _learned(own)
        before = [[tensor.detach().clone() for tensor in kind] for kind in kinds]
        with isolated(0, device), quick_convolutions(own, device, channels_last=way.channels_last):
            step = subject.step(own, way, device)
            losses = [float(step(*batch, lr)) for batch, lr in zip(batches, rates, strict=True)]
        still = [[*map(id, kind)] for kind in _learned(own)] == [[*map(id, kind)] for kind in kinds]
        ways = [_distance(*pair) for pair in zip(kinds, before, strict=True)]
        return torch.tensor(losses[WARM:]), ways, still

    (losses, ways, still), (replayed, its_ways, _) = followed(replace(how, recorded=False)), followed(how)
    alike = torch.allclose(replayed, losses, rtol=0.0, atol=0.02 * float(losses.abs().max()))
    return still and alike and all(math.isclose(a, b, rel_tol=0.05) for a, b in zip(ways, its_ways, strict=True))


def _learned(model: nn.Module) -> list[list[Tensor]]:
    """Weights and, apart from them, running statistics, which go much further."""
    return [[t for t in kind if t.is_floating_point()] for kind in (model.parameters(), model.buffers())]


def _distance(after: list[Tensor], before: list[Tensor]) -> float:
    moves = [(a.detach() - b).masked_fill_(a == b, 0.0) for a, b in zip(after, before, strict=True)]  # inf - inf is NaN
    return float(nn.utils.get_total_norm(moves))


def recordings(planned: Plan) -> dict[str, int]:
    """Over how many pictures a training spreads the cost of recording its steps, and how many it records."""
    fit, recipe = planned.data.counts["fit"], planned.space.recipe
    return {"images": recipe.epochs * fit, "shapes": 1 + (fit > recipe.batch_size and fit % recipe.batch_size > 1)}


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
            model, how = subject.build().to(where), numerics(recipe, where)
            return seconds_per_image(subject, model, how, where, **recordings(planned))
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
