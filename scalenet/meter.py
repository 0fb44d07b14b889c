"""What specs cost, measured once each, and how steeply cost grows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

from scalenet.architecture import FINE, Architecture, Rounding, Scale, Size
from scalenet.cost import Cost, label
from scalenet.errors import ScalenetError
from scalenet.metric import FLOPS, Metric
from scalenet.shares import FACTORS, Exponents


class Meter:
    """The costs of a baseline and of what it can be scaled to; no spec is counted twice.

    Args:
        arch: the architecture.
        baseline: the spec that phi = 0 means.
        num_classes: of the classifier.
        in_channels: of the pictures.
        metric: what a price and a ratio are of.
    """

    def __init__(
        self,
        arch: Architecture[Any],
        baseline: Any,
        *,
        num_classes: int,
        in_channels: int = 3,
        metric: Metric = FLOPS,
    ) -> None:
        self.arch = arch
        self.baseline = baseline
        self.num_classes = num_classes
        self.in_channels = in_channels
        self.metric = metric
        self._costs: dict[Any, Cost] = {}
        self._memory: dict[Any, Any] = {}

    def cost(self, spec: Any) -> Cost:
        """The measured cost of one image (see `scalenet.complexity.measure`)."""
        from scalenet.complexity import measure  # torch, which reading a Meter's results does not need

        if spec not in self._costs:
            self._costs[spec] = measure(
                self.arch, spec, num_classes=self.num_classes, in_channels=self.in_channels, memory=self._memory
            )
        return self._costs[spec]

    def scaled(self, by: Scale, rounding: Rounding = FINE) -> Any:
        """The baseline multiplied; `Scale()` is the baseline itself."""
        return self.baseline if by == Scale() else self.arch.scale(self.baseline, by, rounding)

    def price(self, spec: Any, metric: Metric | None = None) -> float:
        """What the spec costs in the meter's metric, or in another."""
        return (metric or self.metric).of(self.cost(spec), self.arch.size(spec))

    def ratio(self, spec: Any) -> float:
        """The price over the baseline's."""
        return self.price(spec) / self.price(self.baseline)

    def priced(self, metric: Metric) -> Meter:
        """The same counts, those to come included, under another metric."""
        if metric == self.metric:
            return self
        other = Meter(
            self.arch, self.baseline, num_classes=self.num_classes, in_channels=self.in_channels, metric=metric
        )
        other._costs, other._memory = self._costs, self._memory
        return other

    @cached_property
    def size(self) -> Size:
        """The baseline's."""
        return self.arch.size(self.baseline)

    @property
    def counted(self) -> int:
        """How many specs have been counted so far."""
        return len(self._costs)

    @cached_property
    def exponents(self) -> Exponents:
        """See `exponents`."""
        return exponents(self)


def exponents(meter: Meter) -> Exponents:
    """Secants of ln price, one factor doubled at a time; where doubling is rounded, over the step that was reached.

    Raises:
        ScalenetError: doubling a factor does not raise the cost.
    """
    return Exponents(*(_secant(meter, factor, reached) for factor, reached in zip(FACTORS, _REACHED, strict=True)))


_REACHED: tuple[Callable[[Size], float], ...] = (lambda s: s.depth, lambda s: s.width, lambda s: s.resolution)


def _secant(meter: Meter, factor: str, reached: Callable[[Size], float]) -> float:
    spec = meter.scaled(replace(Scale(), **{factor: 2.0}))
    step = reached(meter.arch.size(spec)) / reached(meter.size)
    growth = meter.ratio(spec)
    if step <= 1 or growth <= 1:
        raise ScalenetError(
            f"{meter.arch.name}: doubling {factor} multiplies it by {step:g} and {label(meter.metric.name)} by "
            f"{growth:g}; a factor to be searched must raise both."
        )
    return math.log(growth) / math.log(step)
