"""Alpha, beta, gamma as a way to split one unit of compute growth: shares, cost exponents and what links them."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from enum import Enum

from scalenet.architecture import Scale
from scalenet.errors import ScalenetError

FACTORS = ("depth", "width", "resolution")  # the order of alpha, beta, gamma everywhere


class Law(Enum):
    """How multipliers follow from shares.

    MEASURED meets the target with the cost that is measured. PAPER takes the literal powers of EfficientNet
    (arXiv:1905.11946, equation 3: cost grows as alpha beta^2 gamma^2), rounds as the paper does and leaves the cost be.
    """

    MEASURED = "measured"
    PAPER = "paper"


MEASURED = Law.MEASURED


@dataclass(frozen=True)
class Shares:
    """How one unit of log-cost growth is split. Each is at least 0; they sum to 1, or to 0 where nothing grew.

    Raises:
        ScalenetError: a negative share, or another sum.
    """

    depth: float
    width: float
    resolution: float

    def __post_init__(self) -> None:
        values = astuple(self)
        if not all(math.isfinite(v) and v >= 0 for v in values):
            raise ScalenetError(f"Shares must be at least 0, got depth, width, resolution = {_listed(values)}.")
        if any(values) and abs(sum(values) - 1) > 1e-6:
            raise ScalenetError(f"Shares must sum to 1, got {_listed(values)} = {sum(values):.6g}.")

    @property
    def single(self) -> str | None:
        """The one factor that takes everything ("depth", "width" or "resolution"); None inside and on the edges."""
        taking = [factor for factor in FACTORS if getattr(self, factor)]
        return taking[0] if len(taking) == 1 else None


NOTHING = Shares(0.0, 0.0, 0.0)  # the baseline's: nothing grew
EQUAL = Shares(1 / 3, 1 / 3, 1 / 3)
DWR = Shares(0.1, 0.8, 0.1)  # mostly width, which activations grow least by: dWr of arXiv:2103.06877, alpha = 0.8


@dataclass(frozen=True)
class Exponents:
    """ln cost per ln multiplier: how steeply each factor costs. (1, 2, 2) is the paper's assumption."""

    depth: float
    width: float
    resolution: float


PAPER_EXPONENTS = Exponents(1.0, 2.0, 2.0)
PAPER_MULTIPLIERS = Scale(1.2, 1.1, 1.15)  # alpha, beta, gamma of arXiv:1905.11946, section 3.3


def multipliers(shares: Shares, exponents: Exponents, log2_growth: float = 1.0) -> Scale:
    """alpha = 2^(g s_d / e_d), beta = 2^(g s_w / e_w), gamma = 2^(g s_r / e_r): cost grows 2^g to first order."""
    return Scale(
        2 ** (log2_growth * shares.depth / exponents.depth),
        2 ** (log2_growth * shares.width / exponents.width),
        2 ** (log2_growth * shares.resolution / exponents.resolution),
    )


def shares_of(by: Scale, exponents: Exponents) -> Shares:
    """The shares that alpha, beta, gamma stand for: s_i proportional to e_i ln x_i.

    Raises:
        ScalenetError: a multiplier below 1, or all of them 1.
    """
    values = astuple(by)
    if not all(math.isfinite(v) and v >= 1 for v in values):
        raise ScalenetError(f"alpha, beta and gamma must be at least 1, got {_listed(values)}; phi below 0 shrinks.")
    growth = [e * math.log(v) for e, v in zip(astuple(exponents), values, strict=True)]
    if not sum(growth):
        raise ScalenetError("alpha, beta and gamma are all 1, which is no direction; at least one must be above 1.")
    return normalised(growth)


def normalised(parts: list[float]) -> Shares:
    """Shares in proportion to three numbers of one sign; a part of the other sign counts as 0."""
    sign = 1.0 if sum(parts) >= 0 else -1.0
    kept = [max(0.0, sign * part) for part in parts]
    total = sum(kept)
    return Shares(*(part / total for part in kept)) if total else NOTHING


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in values)
