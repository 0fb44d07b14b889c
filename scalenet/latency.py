"""What a forward pass takes on one device, predicted from what is counted: an overhead, and work at so much each.

    milliseconds = fixed + per block + per FLOP + per activation + per activation and element of its map, none below 0

Fitted to a few networks of one family that were timed (`scalenet.calibrate`). FLOPs stand for arithmetic, activations
for memory, blocks for what starting an operator costs: where networks are small or a device is wide, that is most of
it. The last term is what maps cost that have grown out of a cache. As no coefficient is below 0, none of this predicts
a network that is larger in everything to be quicker. `benchmarks/latency.py` has it beside simpler laws.

No count tells that 44 channels in heads of 11 take longer than 48 in heads of 12, as kernels work through channels in
whole vectors. That is the same at any depth, and nearly so at any resolution. Families that can only be so many
channels wide, as those with heads are, therefore have every width timed, and what its networks take over what their
counts say is a factor of that width: the mean of their errors, in logarithms, shrunk to what is more than their spread
(a random effect of the width, whose variance is estimated by the method of moments).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from scalenet.architecture import Size
from scalenet.cost import Cost

FloatArray = NDArray[np.float64]
LEAST_R2, MOST_ERROR = 0.93, 0.19  # of predictions to go by; such is what published predictors reach from FLOPs alone
TURNS = 10  # of coefficients and widths' factors, after which neither moves by as much as timings repeat


@dataclass(frozen=True)
class Coefficients:
    """Milliseconds of a forward pass: of each, times how many."""

    fixed: float
    block: float
    gflop: float  # 10^9 multiply-adds of one picture
    mactivation: float  # 10^6 activations of one picture
    spill: float  # 10^6 activations times 10^6 elements of a map at the input's side (mean width x side^2)

    def of(self, cost: Cost, size: Size) -> float:
        """The prediction."""
        return float(np.dot(astuple(self), _amounts(cost, size)))


@dataclass(frozen=True)
class Width:
    """A width that runs better or worse than its counts say."""

    width: float  # as `Size` has it
    times: float  # what its networks take over what the coefficients say


@dataclass(frozen=True)
class Setting:
    """What was timed, and how: the device and the compute settings of a forward pass in eval mode."""

    device: str  # its name
    batch_size: int  # pictures
    threads: int  # of the CPU
    precision: Literal["fp32", "bf16"]
    memory_format: Literal["channels_last", "contiguous"]

    @property
    def text(self) -> str:
        """In one line."""
        pictures = "one picture" if self.batch_size == 1 else f"{self.batch_size} pictures"
        threads = "1 CPU thread" if self.threads == 1 else f"{self.threads} CPU threads"
        return (
            f"{self.device}, {pictures} at a time, {self.precision}, {self.memory_format.replace('_', ' ')}, {threads}"
        )


@dataclass(frozen=True)
class Timing:
    """A network that was timed."""

    cost: Cost
    size: Size
    milliseconds: float  # of a forward pass of a batch, the median of several
    predicted: float  # by the fit to all the others


@dataclass(frozen=True)
class Calibration:
    """The metric "latency": a prediction, and how well it foretells networks that it was not fitted to."""

    setting: Setting
    coefficients: Coefficients
    timings: tuple[Timing, ...]  # the baseline's first
    r2: float  # of leave-one-out predictions, in milliseconds
    median_error: float  # |prediction / measurement - 1|, leave-one-out
    widths: tuple[Width, ...] = ()  # none where the family can be of any width, and before there were such factors

    @property
    def name(self) -> Literal["latency"]:
        """As `--cost` says it."""
        return "latency"

    def of(self, cost: Cost, size: Size) -> float:
        """Milliseconds of a forward pass of a batch, predicted."""
        return _predicted(self.coefficients, self.widths, cost, size)

    def text(self, amount: float) -> str:
        """1.2345 -> '1.23 ms'."""
        return f"{amount:.3g} ms"

    @property
    def good(self) -> bool:
        """Whether the prediction is one to go by."""
        return self.r2 >= LEAST_R2 and self.median_error <= MOST_ERROR

    def beyond(self, cost: Cost) -> float:
        """How many times the largest timed network, in FLOPs or activations; above 1 is extrapolated."""
        return max(
            cost.flops / max(t.cost.flops for t in self.timings),
            cost.activations / max(t.cost.activations for t in self.timings),
        )

    @property
    def summary(self) -> str:
        """How latency is predicted, and how well, in one line."""
        return (
            f"{self.setting.text}; predicted from {len(self.timings)} networks timed, "
            f"leave-one-out R2 {self.r2:.3f}, median error {100 * self.median_error:.1f} %"
        )


def fit(networks: Sequence[tuple[Cost, Size]], milliseconds: Sequence[float]) -> Coefficients:
    """The coefficients, none below 0, of least squares on relative errors (Lawson and Hanson's NNLS)."""
    taken = np.asarray(milliseconds)
    amounts = np.array([_amounts(cost, size) for cost, size in networks])
    unit = amounts.max(axis=0)  # a common scale, without which the solver's tolerance would drop the smaller ones
    unit[unit == 0] = 1.0
    found, _ = nnls(amounts / unit / taken[:, None], np.ones(len(taken)))
    return Coefficients(*(float(c) for c in found / unit))


def fit_widths(
    networks: Sequence[tuple[Cost, Size]], milliseconds: Sequence[float]
) -> tuple[Coefficients, tuple[Width, ...]]:
    """The coefficients and the widths' factors, fitted in turns, each to what the other leaves."""
    times = {size.width: 1.0 for _, size in networks}
    for _ in range(TURNS):
        found = fit(networks, [t / times[size.width] for t, (_, size) in zip(milliseconds, networks, strict=True)])
        errors: dict[float, list[float]] = {width: [] for width in times}
        for (cost, size), took in zip(networks, milliseconds, strict=True):
            errors[size.width].append(math.log(took / found.of(cost, size)))
        times = {width: math.exp(mean) for width, mean in shrunk(errors).items()}
    return found, tuple(Width(width, factor) for width, factor in times.items())


def shrunk(errors: Mapping[float, Sequence[float]]) -> dict[float, float]:
    """The mean of every group, times the part of its variance that is not the spread within groups.

    The variances of a one-way random effect around 0, by the method of moments. Groups that differ by no more than
    their spread explains have no effect at all.
    """
    total = sum(map(len, errors.values()))
    means = {group: sum(found) / len(found) for group, found in errors.items()}
    spread = sum((e - means[group]) ** 2 for group, found in errors.items() for e in found)
    within = spread / max(1, total - len(errors))
    squares = sum(len(found) * means[group] ** 2 for group, found in errors.items())
    between = max(0.0, (squares - len(errors) * within) / total)
    if between == 0:
        return dict.fromkeys(errors, 0.0)
    return {group: means[group] * between / (between + within / len(found)) for group, found in errors.items()}


def calibration(
    setting: Setting,
    networks: Sequence[tuple[Cost, Size]],
    milliseconds: Sequence[float],
    *,
    by_width: bool = False,
) -> Calibration:
    """The fit to timed networks, with the error of predicting each from the others.

    Args:
        by_width: every width has a factor of its own (see above).
    """

    def fitted(left_out: int | None = None) -> tuple[Coefficients, tuple[Width, ...]]:
        kept = [i for i in range(len(networks)) if i != left_out]
        chosen, taken = [networks[i] for i in kept], [milliseconds[i] for i in kept]
        return fit_widths(chosen, taken) if by_width else (fit(chosen, taken), ())

    taken = np.asarray(milliseconds)
    predicted = np.array([_predicted(*fitted(left_out=i), *network) for i, network in enumerate(networks)])
    coefficients, widths = fitted()
    return Calibration(
        setting=setting,
        coefficients=coefficients,
        timings=tuple(
            Timing(cost, size, float(took), float(said))
            for (cost, size), took, said in zip(networks, taken, predicted, strict=True)
        ),
        r2=r_squared(taken, predicted),
        median_error=median_error(taken, predicted),
        widths=widths,
    )


def r_squared(measured: FloatArray, predicted: FloatArray) -> float:
    """The part of the measurements' variance that the predictions account for; below 0 the mean would do better."""
    return 1 - float(np.square(measured - predicted).sum() / np.square(measured - measured.mean()).sum())


def median_error(measured: FloatArray, predicted: FloatArray) -> float:
    """Half of the predictions are off by less than this part of the measurement."""
    return float(np.median(np.abs(predicted / measured - 1)))


def _predicted(coefficients: Coefficients, widths: Sequence[Width], cost: Cost, size: Size) -> float:
    return coefficients.of(cost, size) * next((w.times for w in widths if w.width == size.width), 1.0)


def _amounts(cost: Cost, size: Size) -> tuple[float, ...]:
    """What the coefficients are multiplied by, in their order."""
    return (
        1.0,
        float(size.depth),
        cost.flops / 1e9,
        cost.activations / 1e6,
        cost.activations / 1e6 * size.width * size.resolution**2 / 1e6,
    )
