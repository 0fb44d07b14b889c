"""A device timed on a few networks of a family, so that `scalenet.latency` can predict all others.

The networks: the baseline, and the seven points of Scheffé's simplex-centroid design (the three corners, their
midpoints, the centre) grown to 2 and to 4 x its FLOPs. Where twice the latency is more than that, as where starting
operators takes most of the time, the corners at the target are timed as well, so that no candidate lies far outside.
Where the family can be of few widths only, each of them is timed too, at the baseline's depth and resolution.

Each is run in eval mode under inference mode, warmed up, then timed over and over; its time is the median of a round,
and the median over several rounds through all networks, in alternating order, as devices have better and worse minutes.
Memory that a pass frees stays with the process, as servers have it (jemalloc, tcmalloc, or glibc told so): else glibc
hands large blocks back, or not, by what the process did before, and the same network takes up to 1.7 times as long.
Kept in the cache per network, device and settings, and by the search in its run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch

from scalenet.allocator import give_back_memory, keep_freed_memory
from scalenet.architecture import Scale
from scalenet.convolutions import lay_out
from scalenet.data.store import Progress, cache_root, hashed, read_json, remember
from scalenet.device import Numerics, device_name, isolated, machine, numerics, pick_device
from scalenet.errors import ScalenetError, one_line
from scalenet.latency import Calibration, Setting, calibration
from scalenet.meter import Meter
from scalenet.metric import FLOPS
from scalenet.plain import from_plain, to_plain
from scalenet.reach import Goal, reach, step
from scalenet.shares import EQUAL, FACTORS, Shares, multipliers
from scalenet.space import SearchSpace

VERSION = 4  # of what is timed, and how
GROWTHS = (2.0, 4.0)  # FLOPs of the timed networks over the baseline's
MOST_WIDTHS = 24  # besides the baseline's, up to which each is timed; of more, few networks of a search share one
FURTHEST = 16.0  # FLOPs over the baseline's up to which a corner at the target may lie
LEAST_GROWTH = 1.1  # of latency, from doubling a factor: below, such a corner need not be looked for
ROUNDS = 8  # through all networks
LONGEST = 20.0  # seconds after which no third round, or a later one, is begun
WARM_UP = 2  # passes
LEAST = 3  # timed passes
SECONDS = 0.06  # of timed passes, in each round
BUSY = {"cpu": 3e7, "mps": 1e9, "cuda": 3e10}  # multiply-adds of a pass beside which starting its operators is little
MOST = 1024  # pictures of a pass that nobody has asked for


@dataclass(frozen=True, eq=False)
class Subject:
    """What is timed, where and how."""

    meter: Meter  # in FLOPs
    device: torch.device
    how: Numerics
    setting: Setting
    clock: Callable[[], float] = time.perf_counter  # seconds


def calibrated(meter: Meter, space: SearchSpace, device: str = "auto", report: Progress | None = None) -> Calibration:
    """The metric of a search by latency: this device timed, or as it was timed before.

    Raises:
        ScalenetError: the baseline cannot be run there, or a factor hardly moves latency.
    """
    subject = subject_of(meter, space, device)
    place = cache_root() / "latencies" / f"{_key(subject, space.target)}.json"
    try:
        return from_plain(Calibration, read_json(place), str(place))
    except ScalenetError:
        found = measured(subject, space.target, report)
        if found.good:  # what a busy machine has spoilt is timed again
            remember(place, to_plain(found))
        return found


def measured(subject: Subject, target: float, report: Progress | None = None) -> Calibration:
    """The device timed now, nothing remembered; `target` is the cost of candidates over the baseline's.

    Raises:
        ScalenetError: as `calibrated` does.
    """
    meter = subject.meter
    specs, by_width = timed(meter)
    taken = milliseconds(subject, specs, report)
    found = _calibration(subject, specs, taken, by_width)
    further = [spec for spec in _at_target(meter, found, target) if meter.ratio(spec) > 1.1 * max(GROWTHS)]
    if not further:
        return found
    specs, taken = [*specs, *further], [*taken, *milliseconds(subject, further, report)]
    found = _calibration(subject, specs, taken, by_width)
    _at_target(meter, found, target)
    return found


def subject_of(meter: Meter, space: SearchSpace, device: str = "auto") -> Subject:
    """What is timed of a search on a device, as `space.latency` and the recipe's arithmetic have it.

    Raises:
        ScalenetError: this machine lacks the device.
    """
    where = pick_device(device)
    how = numerics(space.recipe, where)
    meter = meter.priced(FLOPS)
    setting = Setting(
        device=device_name(where),
        batch_size=space.latency.batch_size or usual_batch(meter.price(meter.baseline), where),
        threads=space.latency.threads,
        precision="bf16" if how.bf16 else "fp32",
        memory_format="channels_last" if how.channels_last else "contiguous",
    )
    return Subject(meter, where, how, setting)


def usual_batch(flops: float, device: torch.device) -> int:
    """Pictures of a pass where nobody says: one, or of small networks a power of 2 that keeps the device busy."""
    doublings = math.ceil(math.log2(BUSY[device.type] / flops))
    return min(MOST, 1 << max(0, doublings))


def timed(meter: Meter) -> tuple[list[Any], bool]:
    """The specs of a calibration, the baseline first, and whether every width of the family is among them."""
    specs = design(meter)
    every = widths(meter, max(meter.arch.size(spec).width for spec in specs))
    return list(dict.fromkeys([*specs, *every])), bool(every)


def widths(meter: Meter, widest: float) -> list[Any]:
    """The baseline at every other width up to `widest`; empty where there are more than `MOST_WIDTHS`."""
    found: list[Any] = []
    scale = step(meter, Scale(), "width", 1)
    while scale is not None and meter.arch.size(meter.scaled(scale)).width <= widest:
        if len(found) == MOST_WIDTHS:
            return []
        found.append(meter.scaled(scale))
        scale = step(meter, scale, "width", 1)
    return found


def design(meter: Meter, growths: Sequence[float] = GROWTHS) -> list[Any]:
    """The specs that are timed: the baseline first, then every direction grown to each of `growths`; all different."""
    corners = _corners()
    middles = [Shares(*((1 - getattr(corner, factor)) / 2 for factor in FACTORS)) for corner in corners]
    grown = [
        meter.scaled(multipliers(shares, meter.exponents, math.log2(growth)))
        for growth in growths
        for shares in (*corners, *middles, EQUAL)
    ]
    return list(dict.fromkeys([meter.baseline, *grown]))


def milliseconds(subject: Subject, specs: Sequence[Any], report: Progress | None = None) -> list[float]:
    """What a forward pass of a batch takes through the network of each spec, all of them different.

    Raises:
        ScalenetError: one of them cannot be built or run there.
    """
    found: dict[Any, list[float]] = {spec: [] for spec in specs}
    clock = subject.clock
    if subject.device.type == "cpu":
        keep_freed_memory()
    start, done, total = clock(), 0, ROUNDS * len(found)
    spec = specs[0]
    try:
        while done < total and (done < 2 * len(found) or clock() - start < LONGEST):
            for spec in found if done // len(found) % 2 == 0 else reversed(found):
                if report:
                    report(done, total, "timing this device")
                found[spec].append(_milliseconds(subject, spec))
                done += 1
    except ScalenetError:
        raise
    except Exception as error:  # a stranger's architecture, or too little memory
        raise ScalenetError(
            f"A network of {subject.meter.arch.name} at {spec.resolution} px cannot be run on "
            f"{subject.setting.text}: {one_line(error)}."
        ) from error
    if subject.device.type == "cpu":
        give_back_memory()
    return [median(rounds) for rounds in found.values()]


def _calibration(subject: Subject, specs: Sequence[Any], taken: Sequence[float], by_width: bool) -> Calibration:
    meter = subject.meter
    networks = [(meter.cost(spec), meter.arch.size(spec)) for spec in specs]
    return calibration(subject.setting, networks, taken, by_width=by_width)


def _at_target(meter: Meter, found: Calibration, target: float) -> list[Any]:
    """The corners at the target.

    Raises:
        ScalenetError: one of them is no sensible network, as its factor hardly moves latency.
    """
    priced = meter.priced(found)
    goal = Goal(found, target * priced.price(meter.baseline))
    specs = []
    for factor, corner in zip(FACTORS, _corners(), strict=True):
        doubled = meter.scaled(replace(Scale(), **{factor: 2.0}))
        growth = priced.ratio(doubled)
        spec = meter.scaled(reach(priced, corner, goal).scale) if growth > LEAST_GROWTH else None
        if spec is None or meter.ratio(spec) > FURTHEST:
            raise ScalenetError(
                f"{meter.arch.name}: doubling {factor} costs {meter.ratio(doubled):.2f} x the FLOPs but only "
                f"{growth:.2f} x the latency ({found.summary}), so {target:g} x the latency would be a network out of "
                "all proportion. Give the device more pictures at a time (--set latency.batch_size=N) or a larger "
                "--variant."
            )
        specs.append(spec)
    return specs


def _corners() -> list[Shares]:
    return [Shares(*(float(factor == other) for other in FACTORS)) for factor in FACTORS]


def _milliseconds(subject: Subject, spec: Any) -> float:
    """The median of repeated forward passes of a batch."""
    meter, device, how, clock = subject.meter, subject.device, subject.how, subject.clock
    with isolated(0, device, subject.setting.threads):
        model = meter.arch.build(spec, num_classes=meter.num_classes).to(device).eval()
        lay_out(model, channels_last=how.channels_last)
        shape = (subject.setting.batch_size, meter.in_channels, spec.resolution, spec.resolution)
        images = torch.rand(shape, device=device)
        if how.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        took: list[float] = []
        with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=how.bf16):
            for _ in range(WARM_UP):
                model(images)
            wait(device)
            start = clock()
            while len(took) < LEAST or clock() - start < SECONDS:
                begun = clock()
                model(images)
                wait(device)
                took.append(clock() - begun)
    return 1000 * median(took)


def wait(device: torch.device) -> None:
    """Returns when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _key(subject: Subject, target: float) -> str:
    meter = subject.meter
    network = {
        "plugin": meter.arch.name,
        "spec": to_plain(meter.baseline),
        "cost": to_plain(meter.cost(meter.baseline)),  # an architecture's code may change under the same spec
        "num_classes": meter.num_classes,
    }
    return hashed(VERSION, network, to_plain(subject.setting), target, machine(subject.device))[:24]
