"""Candidates: directions made into specs of one cost, with what each factor really got."""

from __future__ import annotations

import gc
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

from scalenet.architecture import FINE, PAPER, Rounding, Scale, Size
from scalenet.cost import Cost, label
from scalenet.errors import ScalenetError
from scalenet.meter import Meter
from scalenet.plain import to_plain
from scalenet.reach import Goal, reach
from scalenet.shares import (
    DWR,
    EQUAL,
    FACTORS,
    MEASURED,
    NOTHING,
    PAPER_EXPONENTS,
    PAPER_MULTIPLIERS,
    Law,
    Shares,
    multipliers,
    normalised,
    shares_of,
)

OFF_TARGET = 0.10  # off by more than this part of the target, costs are not equal enough to be compared


@dataclass(frozen=True)
class Candidate:
    """A spec to be tried."""

    key: str  # 12 hex digits: the architecture's name and the spec
    names: tuple[str, ...]  # "depth" "width" "resolution" "equal" "paper" "lattice 2/2/1" ... "baseline"
    shares: Shares  # nominal, of the first name
    scale: Scale  # multipliers that make the spec from the baseline
    spec: dict[str, Any]  # plain
    size: Size  # as built
    cost: Cost
    ratio: float  # measured cost over the baseline's: FLOPs, or what else the search calls cost
    realised: Shares  # Shapley attribution of ln(ratio)
    off_target: bool = False  # kept though off by more than 10 %: compared only after adjusting for cost
    rejected: str | None = None  # why it is not trained


def project(
    meter: Meter, shares: Shares, *, target: float = 2.0, law: Law = MEASURED, names: Sequence[str] = ()
) -> Candidate:
    """The candidate that grows the baseline's price `target` times along `shares`, as nearly as whole steps allow.

    The price is in the meter's metric. A single factor's candidate is always kept (marked `off_target` where off by
    more than 10 %); any other that is off by more than 10 % is `rejected`. The paper's law is literal: nothing is
    projected, so nothing rejected either.

    Raises:
        ScalenetError: shares that are all 0, or a target not above 0.
    """
    if shares == NOTHING:
        raise ScalenetError("Shares are all 0, which is no direction.")
    if not target > 0 or target == 1:
        raise ScalenetError(f"target must be above 0 and not 1 (cost over the baseline's), got {target:g}.")
    if law is Law.PAPER:
        return _candidate(meter, shares, multipliers(shares, PAPER_EXPONENTS, math.log2(target)), names, target, law)
    goal = Goal(meter.metric, target * meter.price(meter.baseline))
    return _candidate(meter, shares, reach(meter, shares, goal).scale, names, target, law)


def candidates(
    meter: Meter,
    points: Iterable[tuple[str, Shares]],
    target: float = 2.0,
    law: Law = MEASURED,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Candidate]:
    """Every point projected, in order; points that build the same spec are one candidate with all their names.

    Args:
        progress: called with (done, total, what) after every point.
    """
    points = list(points)
    found: dict[str, Candidate] = {}
    gc.freeze()  # a hundred networks are built and dropped: PyTorch's own objects need not be looked through each time
    try:
        for done, (name, shares) in enumerate(points, 1):
            new = project(meter, shares, target=target, law=law, names=(name,))
            old = found.get(new.key)
            found[new.key] = new if old is None else _merged(old, new)
            if progress is not None:
                progress(done, len(points), name)
    finally:
        gc.unfreeze()
    return list(found.values())


def baseline_candidate(meter: Meter) -> Candidate:
    """The baseline as a candidate: nothing grew, so its shares are 0."""
    return _candidate(meter, NOTHING, Scale(), ("baseline",), 1.0, MEASURED)


def named_points(meter: Meter, law: Law = MEASURED) -> list[tuple[str, Shares]]:
    """The points that are always in a run: three corners, equal shares, the paper's 1.2 / 1.1 / 1.15, and dWr."""
    exponents = PAPER_EXPONENTS if law is Law.PAPER else meter.exponents
    corners = [(factor, Shares(*(float(factor == f) for f in FACTORS))) for factor in FACTORS]
    return [*corners, ("equal", EQUAL), ("paper", shares_of(PAPER_MULTIPLIERS, exponents)), ("dwr", DWR)]


def realised_shares(meter: Meter, scale: Scale, rounding: Rounding = FINE) -> Shares:
    """The Shapley attribution of ln(measured cost ratio) to the three moves, divided by its sum.

    Mean over the six orders of applying depth, width and resolution, every intermediate spec measured. A factor that
    lowered the cost of a growing network (a window that fits better) gets 0.
    """

    def log_cost(moved: frozenset[str]) -> float:
        by = Scale(*(getattr(scale, f) if f in moved else 1.0 for f in FACTORS))
        return math.log(meter.ratio(meter.scaled(by, rounding)))

    parts = dict.fromkeys(FACTORS, 0.0)
    for order in permutations(FACTORS):
        for i, factor in enumerate(order):
            if getattr(scale, factor) != 1.0:
                parts[factor] += (log_cost(frozenset(order[: i + 1])) - log_cost(frozenset(order[:i]))) / 6
    return normalised(list(parts.values()))


def key_of(name: str, spec: dict[str, Any]) -> str:
    """12 hex digits of what decides a network: the architecture's name and its plain spec."""
    text = json.dumps([name, spec], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _candidate(meter: Meter, shares: Shares, scale: Scale, names: Sequence[str], target: float, law: Law) -> Candidate:
    rounding = PAPER if law is Law.PAPER else FINE
    spec = meter.scaled(scale, rounding)
    cost, ratio, plain = meter.cost(spec), meter.ratio(spec), to_plain(spec)
    off = abs(ratio / target - 1) > OFF_TARGET
    kept = shares.single is not None or law is Law.PAPER
    rejected = None
    if off and not kept:
        rejected = (
            f"costs {ratio:.2f} x the baseline's {label(meter.metric.name)}, {ratio / target - 1:+.0%} off the target "
            f"of {target:g} x: "
            f"the steps of {meter.arch.name} allow nothing nearer along depth/width/resolution shares "
            f"{shares.depth:.2f}/{shares.width:.2f}/{shares.resolution:.2f}"
        )
    return Candidate(
        key=key_of(meter.arch.name, plain),
        names=tuple(names),
        shares=shares,
        scale=scale,
        spec=plain,
        size=meter.arch.size(spec),
        cost=cost,
        ratio=ratio,
        realised=realised_shares(meter, scale, rounding),
        off_target=off and kept,
        rejected=rejected,
    )


def _merged(old: Candidate, new: Candidate) -> Candidate:
    """One spec reached from two points; it is kept if either keeps it."""
    names = (*old.names, *(name for name in new.names if name not in old.names))
    keeper = old if old.rejected is None else new
    return replace(keeper, names=names, shares=old.shares)
