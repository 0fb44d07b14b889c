"""What a search leaves open ("auto"), settled by a stopwatch: memory format, arithmetic, and who gets the CPUs;
on CUDA whether steps are recorded, and how many trials share a GPU.

Measured once per network and machine, and kept in the cache; what was chosen is written into the run, so that neither a
resume nor another number of workers changes it. The trials of a plan run side by side, so side by side is how they are
timed: in processes of their own (`scalenet.stopwatch`), as many as would run at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from scalenet.children import Child, ChildDied, answer, started, tell
from scalenet.data.store import Progress, cache_root, hashed, read_json, remember
from scalenet.device import Numerics, machine, numerics, pick_device
from scalenet.environment import cpus
from scalenet.plain import to_plain
from scalenet.recipe import Recipe
from scalenet.timing import recordings

if TYPE_CHECKING:
    from scalenet.experiment import Plan

VERSION = 3  # of what is measured
SECONDS = 0.6  # of a timing
ROUNDS = 2  # timings of an arrangement, in turn; the better one counts, as what disturbs a timing only slows it
WORTH = 1.05  # times faster than the rule's choice; less is noise, and would make the choice a matter of chance
STEP_FLOPS = 5e8  # multiply-adds of a timed step's forward pass, about a quarter of a second on one core
SMALLEST_BATCH = 4
TOO_SLOW = 1.5  # times the best so far; a first step beyond ends the timing
PER_GPU = (1, 2, 4, 8)  # trials that may share one


@dataclass(frozen=True)
class Arrangement:
    """How many trials run at once, with how many CPU threads each."""

    workers: int
    threads: int


@dataclass(frozen=True)
class Timings:
    """Seconds per picture, infinite where that way failed, and the way that was chosen."""

    ways: dict[Numerics, float]  # in each of as many processes as the first arrangement has
    how: Numerics
    shapes: dict[Arrangement, float]  # computed that way, in each of the workers


@dataclass(frozen=True)
class Settled:
    """How a search's trials are computed on this machine."""

    how: Numerics
    arrangement: Arrangement
    seconds_per_image: float  # of the baseline's training, in one of `workers` processes


def settled(
    planned: Plan, device: str, report: Progress | None = None, workers: int | None = None
) -> tuple[Plan, Settled | None]:
    """The plan with nothing left open in its space, and what was measured; None where there was nothing to measure.

    `workers` are the trials at a time where that is decided: a GPU is not timed with more (0: in this process). On a
    CPU it makes no difference, as it must not to the threads of a trial, which are part of the result.

    A timing that fails (a network that only this process knows, too little memory) leaves the rules of
    `device.numerics` and one thread per trial.
    """
    space = planned.space
    recipe = space.recipe
    where = pick_device(device)
    open_still = {recipe.precision, recipe.memory_format, recipe.execution if where.type == "cuda" else "eager"}
    if space.threads is not None and "auto" not in open_still:
        return planned, None
    rule = numerics(recipe, where)
    most = planned.trials if workers is None or where.type != "cuda" else max(1, min(workers, planned.trials))
    found = _known(planned, where, most) or _measured(planned, where, rule, most, report)
    how, threads = (found.how, found.arrangement.threads) if found else (rule, 1)
    chosen = replace(
        recipe,
        precision="bf16" if how.bf16 else "fp32",
        memory_format="channels_last" if how.channels_last else "contiguous",
        execution="cuda_graphs" if how.recorded else "eager",
    )
    return replace(planned, space=replace(space, recipe=chosen, threads=space.threads or threads)), found


def open_ways(planned: Plan, rule: Numerics, where: torch.device) -> list[Numerics]:
    """The ways that the recipe leaves open, the rule's first, then the same with steps recorded."""
    recipe = planned.space.recipe
    formats = (True, False) if recipe.memory_format == "auto" and where.type != "mps" else (rule.channels_last,)
    floats = (False, True) if recipe.precision == "auto" and where.type != "mps" else (rule.bf16,)
    starts = (False, True) if recipe.execution == "auto" and where.type == "cuda" else (rule.recorded,)
    ways = [Numerics(last, bf16, recorded) for bf16 in floats for last in formats for recorded in starts]
    return sorted(ways, key=lambda way: (way != rule, replace(way, recorded=rule.recorded) != rule))


def arrangements(planned: Plan, where: torch.device, most: int) -> list[Arrangement]:
    """The ways to share this machine among at most so many trials, one thread each first; one per GPU at least."""
    threads, have = planned.space.threads, cpus()
    if where.type == "mps":
        return [Arrangement(1, threads or 1)]
    if where.type == "cuda":
        gpus = 1 if where.index is not None else torch.cuda.device_count()
        counts = [n * gpus for n in PER_GPU if n == 1 or n * gpus <= min(have, most)]
        return [Arrangement(count, threads or 1) for count in counts]
    steps = [threads] if threads else [2**i for i in range(have.bit_length()) if 2**i <= have]
    return [Arrangement(max(1, min(have // k, most)), k) for k in steps]


def quickest(timed: dict[Arrangement, float], trials: int) -> Arrangement:
    """The arrangement under which so many equal trials end first, the first one but for a clear gain.

    `timed` holds seconds per picture in each of the workers.
    """

    def makespan(arrangement: Arrangement) -> float:
        return math.ceil(trials / arrangement.workers) * timed[arrangement]

    first, best = next(iter(timed)), min(timed, key=makespan)
    return best if makespan(first) > WORTH * makespan(best) else first


def _measured(planned: Plan, where: torch.device, rule: Numerics, most: int, report: Progress | None) -> Settled | None:
    try:
        measured = timings(planned, where, rule, most, report)
    except ChildDied:
        return None
    shape = quickest(measured.shapes, planned.trials)
    if not math.isfinite(measured.shapes[shape]):
        return None
    found = Settled(measured.how, shape, measured.shapes[shape])
    remember(_place(planned, where, most), asdict(found))
    return found


def timings(planned: Plan, where: torch.device, rule: Numerics, most: int, report: Progress | None = None) -> Timings:
    """Times the ways, and the arrangements of at most so many trials, in processes of their own.

    `rule` is the way to take but for a clear gain.

    Raises:
        ChildDied: one of the processes did.
    """
    ways, shapes = open_ways(planned, rule, where), arrangements(planned, where, most)
    total = len(ways) + ROUNDS * len(shapes)
    with ExitStack() as stack:
        started_anew = partial(_processes, planned, where, max(shape.workers for shape in shapes))
        children = stack.enter_context(started_anew())
        times: dict[Numerics, float] = {}
        recordable = True
        for i, way in enumerate(sorted(ways, key=lambda way: not way.recorded)):
            if not (recordable if way.recorded else _tells(way, times, rule)):
                continue
            if report:
                report(i, total, "timing this machine")
            times[way] = _timed(children, way, shapes[0], TOO_SLOW * min(times.values(), default=math.inf))
            if way.recorded and math.isinf(times[way]):  # a recording that failed may leave torch in disorder
                recordable = False
                stack.close()
                children = stack.enter_context(started_anew())
        best = min(times, key=times.__getitem__)
        how = best if times[rule] > WORTH * times[best] else rule
        if (fullest := max(shapes, key=lambda shape: shape.workers)) != shapes[0]:
            _timed(children, how, fullest)  # no process is to do its first steps, which are slow, beside a timed one
        timed = dict.fromkeys(shapes, math.inf)
        for i, shape in enumerate([*shapes] * ROUNDS):
            if report:
                report(len(ways) + i, total, "timing this machine")
            timed[shape] = min(timed[shape], _timed(children, how, shape))
    return Timings(times, how, timed)


def _tells(eager: Numerics, times: dict[Numerics, float], rule: Numerics) -> bool:
    """Whether to time eager steps too, once recorded ones are timed: the rule's, and those of the quickest layout.

    Started one by one, small steps take as long in every layout and arithmetic: the time goes into starting them.
    """
    recorded = [way for way in times if way.recorded and math.isfinite(times[way])]
    return not recorded or eager in (rule, replace(min(recorded, key=times.__getitem__), recorded=False))


def _known(planned: Plan, where: torch.device, most: int) -> Settled | None:
    kept = read_json(_place(planned, where, most))
    try:
        return Settled(Numerics(**kept["how"]), Arrangement(**kept["arrangement"]), float(kept["seconds_per_image"]))
    except (TypeError, KeyError, ValueError):
        return None


def _place(planned: Plan, where: torch.device, most: int) -> Path:
    key = hashed(VERSION, _job(planned, where), planned.trials, most, machine(where))
    return cache_root() / "timings" / f"{key[:24]}.json"


def _job(planned: Plan, where: torch.device) -> dict[str, Any]:
    meter, recipe = planned.meter, planned.space.recipe
    batch = recipe.batch_size
    if where.type == "cpu":
        fits = int(STEP_FLOPS / max(1, planned.baseline.cost.flops))
        batch = max(min(SMALLEST_BATCH, batch), min(batch, fits))
    spread = recordings(planned) if where.type == "cuda" else {}
    costly = Recipe(  # what takes time in a step; the rest must not lead to another answer
        epochs=1,
        warmup_epochs=0.0,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        drop_path=recipe.drop_path,
        precision=recipe.precision,
        memory_format=recipe.memory_format,
        execution=recipe.execution,
        clip_norm=recipe.clip_norm,
    )
    return {
        "plugin": planned.plugin,
        "spec": to_plain(meter.baseline),
        "flops": planned.baseline.cost.flops,  # an architecture's code may change under the same spec
        "num_classes": meter.num_classes,
        "recipe": to_plain(costly),
        "batch": batch,
        "spread": spread,
        "device": str(where),
        "threads": planned.space.threads,
    }


@contextmanager
def _processes(planned: Plan, where: torch.device, count: int) -> Iterator[Sequence[Child]]:
    """So many stopwatches, ready."""
    with ExitStack() as stack:
        children = [stack.enter_context(started("scalenet.stopwatch", {"OMP_NUM_THREADS": "1"})) for _ in range(count)]
        for i, child in enumerate(children):
            job = _job(planned, where)
            if where.type == "cuda" and where.index is None:
                job["device"] = f"cuda:{i % torch.cuda.device_count()}"
            tell(child, job)
        for child in children:
            answer(child)
        yield children


def _timed(children: Sequence[Child], how: Numerics, shape: Arrangement, hopeless: float = math.inf) -> float:
    """Seconds per picture while so many processes train at once: their median; infinite where one of them cannot."""
    at_once = children[: shape.workers]
    for child in at_once:
        tell(child, {**asdict(how), "threads": shape.threads, "longest": SECONDS, "hopeless": hopeless})
    answers = [float(answer(child)) for child in at_once]
    return median(answers) if all(map(math.isfinite, answers)) else math.inf
