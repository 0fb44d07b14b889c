"""A baseline grown or shrunk along a direction: by phi, or to a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from itertools import product
from typing import Any

from scalenet.architecture import PAPER, Architecture, Scale, Size
from scalenet.cost import Cost
from scalenet.errors import ScalenetError
from scalenet.meter import Meter, exponents
from scalenet.reach import FURTHEST, Goal, Metric, Point, Reach, reach, step
from scalenet.shares import (
    FACTORS,
    MEASURED,
    NOTHING,
    PAPER_EXPONENTS,
    Exponents,
    Law,
    Shares,
    multipliers,
    shares_of,
)

__all__ = [
    "MEASURED",
    "Exponents",
    "Law",
    "Meter",
    "ScaledModel",
    "Shares",
    "Step",
    "at_budget",
    "at_phi",
    "exponents",
    "multipliers",
    "paper_scale",
    "shares_of",
]

TOLERANCE = 0.02  # below a budget by more than this part, the steps around are looked through
FLOOR = 0.10  # above a goal by more than this part at the end of shrinking, the goal counts as unreachable
TRIED = 24  # combinations of single steps that are counted to come nearer to a budget


@dataclass(frozen=True)
class Step:
    """The cheapest single step up from a scaled model that would pass its budget."""

    factor: str  # "depth", "width" or "resolution"
    size: Size
    cost: Cost


@dataclass(frozen=True)
class ScaledModel:
    """A baseline scaled along a direction, with what it really costs."""

    shares: Shares  # nominal
    requested: str  # "phi 2", "flops 2000000000", "params 5000000"
    phi: float  # log2 of the measured FLOPs over the baseline's
    literal: Scale  # alpha^phi, beta^phi, gamma^phi, before rounding and projection
    scale: Scale  # multipliers that were applied
    spec: Any  # the architecture's own dataclass
    size: Size
    cost: Cost
    ratio: float  # measured FLOPs over the baseline's
    step: Step | None = None  # of a budget: what the next step up would cost; None where there is none
    note: str | None = None  # where whole steps miss what was asked for by more than 2 %


def at_phi(meter: Meter, shares: Shares, phi: float) -> ScaledModel:
    """The network whose measured FLOPs are 2^phi x the baseline's, as nearly as steps allow, along constant shares.

    Phi 0 is the baseline itself; below 0 it shrinks.

    Raises:
        ScalenetError: phi out of range, or nothing that small along these shares.
    """
    _direction(shares)
    if not (math.isfinite(phi) and abs(phi) <= FURTHEST):
        raise ScalenetError(f"phi must be between {-FURTHEST:g} and {FURTHEST:g}, got {phi:g}.")
    base = meter.cost(meter.baseline).flops
    goal = Goal("flops", base * 2**phi)
    point = reach(meter, shares, goal)
    if phi < 0 and point.error > math.log1p(FLOOR):
        least = meter.cost(meter.scaled(point.scale)).flops
        raise ScalenetError(
            f"phi {phi:g} asks for {goal.target:,.0f} FLOPs; along {_named(shares)} {meter.arch.name} reaches "
            f"{least:,} (phi {math.log2(least / base):.2f}) at the least: {_floored(meter, point.scale, shares)}."
        )
    missed = math.expm1(point.error)
    note = None
    if abs(missed) > TOLERANCE:
        note = f"costs {missed:+.1%} of what phi {phi:g} asks for: the nearest whole step along {_named(shares)}"
    return replace(_model(meter, shares, point.scale, phi, f"phi {phi:g}"), note=note)


def at_budget(meter: Meter, shares: Shares, *, flops: int | None = None, params: int | None = None) -> ScaledModel:
    """The largest network along `shares` within a budget of FLOPs or of parameters; it never passes the budget.

    It comes within 2 % of it where the architecture's steps allow: after the solution along the direction, single steps
    of the factors with a share are combined, staying as near to the direction as possible. `step` tells what the next
    step up would cost.

    Raises:
        ScalenetError: not exactly one budget, or one that is out of reach along these shares.
    """
    _direction(shares)
    if (flops is None) == (params is None):
        raise ScalenetError("Give one budget: flops or params.")
    metric: Metric = "flops" if flops is not None else "params"
    budget = flops if flops is not None else params
    assert budget is not None
    if budget < 1:
        raise ScalenetError(f"A budget must be at least 1, got {budget} {metric}.")
    goal = Goal(metric, budget, below=True)
    base = goal.of(meter.cost(meter.baseline))
    if budget > base * 2**FURTHEST:
        raise ScalenetError(
            f"A budget of {budget:,} {metric} is out of reach: permitted are up to {base * 2**FURTHEST:,.0f}, "
            f"2^{FURTHEST:g} x the baseline."
        )
    point = reach(meter, shares, goal)
    if point.error > 0 or point.at >= FURTHEST:
        raise _unreachable(meter, shares, goal, point)
    if math.exp(point.error) < 1 - TOLERANCE:
        point = _refined(meter, shares, goal, point)
    after = _next_step(meter, shares, goal, point.scale)
    short = 1 - math.exp(point.error)
    note = None
    if short > TOLERANCE:
        note = f"{short:.1%} of the {budget:,} {metric} are left"
        if after is not None:
            dearer = goal.of(after.cost)
            note += f"; the next step up, in {after.factor}, costs {dearer:,}, {dearer / budget - 1:.1%} over"
    spec = meter.scaled(point.scale)
    model = _model(meter, shares, point.scale, math.log2(meter.ratio(spec)), f"{metric} {budget}")
    return replace(model, step=after, note=note)


def paper_scale(arch: Architecture[Any], spec: Any, alpha: float, beta: float, gamma: float, phi: float) -> Any:
    """alpha^phi, beta^phi, gamma^phi taken literally, with the paper's rounding and nothing projected (`--law paper`).

    EfficientNet, arXiv:1905.11946, equation 3.

    Raises:
        ScalenetError: a multiplier below 1, or all of them 1.
    """
    shares_of(Scale(alpha, beta, gamma), PAPER_EXPONENTS)  # for its checks
    by = Scale(alpha**phi, beta**phi, gamma**phi)
    return spec if by == Scale() else arch.scale(spec, by, PAPER)


def _model(meter: Meter, shares: Shares, scale: Scale, phi: float, requested: str) -> ScaledModel:
    spec = meter.scaled(scale)
    ratio = meter.ratio(spec)
    literal = multipliers(shares, meter.exponents, phi)
    size, cost = meter.arch.size(spec), meter.cost(spec)
    return ScaledModel(shares, requested, math.log2(ratio), literal, scale, spec, size, cost, ratio)


def _refined(meter: Meter, shares: Shares, goal: Goal, point: Point) -> Point:
    """A combination of single steps that is within 2 % of the goal, the nearest to the direction; or the best there is.

    Moves of one factor are counted; the cost of their combinations is estimated from those, and only the promising are
    counted too.
    """
    run = Reach(meter, shares, goal)
    moves = {factor: _moves(run, point.scale, factor) for factor in FACTORS if getattr(shares, factor)}
    gains = {(f, s): run.point(s).error - point.error for f, found in moves.items() for s in found}
    estimated: list[tuple[float, Scale]] = []
    for chosen in product(*([None, *found] for found in moves.values())):
        scale, error = point.scale, point.error
        for factor, moved in zip(moves, chosen, strict=True):
            if moved is not None:
                scale = replace(scale, **{factor: getattr(moved, factor)})
                error += gains[factor, moved]
        estimated.append((error, scale))
    # The estimate is good to a per cent or two; the upper half of the band below the budget is the best bet.
    promising = sorted((e for e in estimated if e[0] <= TOLERANCE / 2), key=lambda e: abs(e[0] + TOLERANCE / 4))
    found = [point, *(p for p in (run.point(scale) for _, scale in promising[:TRIED]) if p.error <= 0)]
    return run.best(found)


def _moves(run: Reach, scale: Scale, factor: str) -> list[Scale]:
    """Two steps up and two down in one factor, none to the wrong side of the baseline."""
    found: list[Scale] = []
    for direction in (1, -1):
        at = scale
        for _ in range(2):
            moved = step(run.meter, at, factor, direction)
            if moved is None or run.sign * (getattr(moved, factor) - 1) < 0:
                break
            found.append(moved)
            at = moved
    return found


def _next_step(meter: Meter, shares: Shares, goal: Goal, scale: Scale) -> Step | None:
    def steps() -> Iterator[Step]:
        for factor in FACTORS:
            up = step(meter, scale, factor, 1) if getattr(shares, factor) else None
            if up is not None:
                spec = meter.scaled(up)
                yield Step(factor, meter.arch.size(spec), meter.cost(spec))

    passing = [s for s in steps() if goal.of(s.cost) > goal.target]
    return min(passing, key=lambda s: goal.of(s.cost), default=None)


def _unreachable(meter: Meter, shares: Shares, goal: Goal, point: Point) -> ScalenetError:
    reached = goal.of(meter.cost(meter.scaled(point.scale)))
    if point.error > 0:
        why = f"reaches {reached:,} at the least: {_floored(meter, point.scale, shares)}"
    elif shares.single == "resolution" and goal.metric == "params":
        why = f"stays at {reached:,}: resolution alone does not move it"
    else:
        why = f"has {reached:,} at 2^{FURTHEST:g} x the FLOPs"
    return ScalenetError(
        f"A budget of {goal.target:,} {goal.metric} is out of reach: along {_named(shares)} {meter.arch.name} {why}."
    )


def _floored(meter: Meter, scale: Scale, shares: Shares) -> str:
    size = meter.arch.size(meter.scaled(scale))
    ends = {"depth": f"{size.depth} blocks", "width": f"{size.width:g} channels", "resolution": f"{size.resolution} px"}
    return " and ".join(f"{factor} ends at {ends[factor]}" for factor in FACTORS if getattr(shares, factor))


def _direction(shares: Shares) -> None:
    if shares == NOTHING:
        raise ScalenetError("Shares are all 0, which is no direction.")


def _named(shares: Shares) -> str:
    return "depth/width/resolution shares " + "/".join(f"{share:.2f}" for share in astuple(shares))
