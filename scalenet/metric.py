"""What a price is counted in: FLOPs, activations, parameters, or the latency that is predicted for one device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from scalenet.architecture import Size
from scalenet.cost import Cost


class Metric(Protocol):
    """A figure that every spec has and that grows with it."""

    @property
    def name(self) -> str:
        """As `--cost` and a budget say it."""
        ...

    def of(self, cost: Cost, size: Size) -> float:
        """The figure of a spec that costs and measures so much, above 0."""
        ...

    def text(self, amount: float) -> str:
        """An amount as it is printed."""
        ...


@dataclass(frozen=True)
class Counted:
    """What is counted of one image, exactly."""

    name: Literal["flops", "activations", "params"]

    def of(self, cost: Cost, size: Size) -> int:
        """The count itself."""
        count: int = getattr(cost, self.name)
        return count

    def text(self, amount: float) -> str:
        """1234567 -> '1,234,567'."""
        return f"{amount:,.0f}"


FLOPS = Counted("flops")
ACTIVATIONS = Counted("activations")
PARAMS = Counted("params")
