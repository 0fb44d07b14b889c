"""A baseline grown or shrunk along a direction: by phi, or to a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from itertools import product
from typing import Any

from scalenet.architecture import PAPER, Architecture, Scale, Size
from scalenet.cost import Cost, label
from scalenet.errors import ScalenetError
from scalenet.meter import Meter, exponents
from scalenet.metric import FLOPS, PARAMS
from scalenet.reach import FURTHEST, MOST_UNITS, Goal, Point, Reach, reach, step
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
TRIED = 25  # combinations of single steps that are solved again to come nearer to a budget


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
    phi: float  # log2 of `ratio`
    literal: Scale  # alpha^phi, beta^phi, gamma^phi, before rounding and projection
    scale: Scale  # multipliers that were applied
    spec: Any  # the architecture's own dataclass
    size: Size
    cost: Cost
    ratio: float  # price over the baseline's, in the metric of the direction
    step: Step | None = None  # of a budget: what the next step up would cost; None where there is none
    note: str | None = None  # where whole steps miss what was asked for by more than 2 %


def at_phi(meter: Meter, shares: Shares, phi: float) -> ScaledModel:
    """The network whose price is 2^phi x the baseline's, as nearly as steps allow, along constant shares.

    The price is in the meter's metric: FLOPs, unless the search had another. Phi 0 is the baseline itself; below 0 it
    shrinks.

    Raises:
        ScalenetError: phi out of range, or nothing that small along these shares.
    """
    _direction(shares)
    if not (math.isfinite(phi) and abs(phi) <= FURTHEST):
        raise ScalenetError(f"phi must be between {-FURTHEST:g} and {FURTHEST:g}, got {phi:g}.")
    metric, base = meter.metric, meter.price(meter.baseline)
    goal = Goal(metric, base * 2**phi)
    point = reach(meter, shares, goal)
    if phi < 0 and point.error > math.log1p(FLOOR):
        least = meter.price(meter.scaled(point.scale))
        raise ScalenetError(
            f"phi {phi:g} asks for {label(metric.name)} of {metric.text(goal.target)}; along {_named(shares)} "
            f"{meter.arch.name} reaches {metric.text(least)} (phi {math.log2(least / base):.2f}) at the least: "
            f"{_floored(meter, point.scale, shares)}."
        )
    missed = math.expm1(point.error)
    note = None
    if abs(missed) > TOLERANCE:
        note = f"costs {missed:+.1%} of what phi {phi:g} asks for: the nearest whole step along {_named(shares)}"
    return replace(_model(meter, shares, point.scale, phi, f"phi {phi:g}"), note=note)


def at_budget(meter: Meter, shares: Shares, *, flops: int | None = None, params: int | None = None) -> ScaledModel:
    """The largest network along `shares` within a budget of FLOPs or of parameters; it never passes the budget.

    It comes within 2 % of it where the architecture's steps allow: after the solution along the direction, one factor
    is solved again with the others a step or two off, staying as near to the direction as possible. `step` tells what
    the next step up would cost.

    Raises:
        ScalenetError: not exactly one budget, or one that is out of reach along these shares.
    """
    _direction(shares)
    if (flops is None) == (params is None):
        raise ScalenetError("Give one budget: flops or params.")
    metric, budget = (FLOPS, flops) if flops is not None else (PARAMS, params)
    assert budget is not None
    if budget < 1:
        raise ScalenetError(f"A budget must be at least 1, got {budget} {metric.name}.")
    asked, nominal = meter, shares
    if metric == FLOPS != meter.metric:  # the same multipliers, split by what they cost in FLOPs
        meter = asked.priced(FLOPS)
        shares = shares_of(multipliers(nominal, asked.exponents), meter.exponents)
    goal = Goal(metric, budget, below=True)
    base = meter.price(meter.baseline, metric)
    if budget > base * 2**FURTHEST:
        raise ScalenetError(
            f"A budget of {budget:,} {metric.name} is out of reach: permitted are up to {base * 2**FURTHEST:,.0f}, "
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
        note = f"{short:.1%} of the {budget:,} {metric.name} are left"
        if after is not None:
            dearer = metric.of(after.cost, after.size)
            note += f"; the next step up, in {after.factor}, costs {dearer:,}, {dearer / budget - 1:.1%} over"
    phi = math.log2(asked.ratio(meter.scaled(point.scale)))
    model = _model(asked, nominal, point.scale, phi, f"{metric.name} {budget}")
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
    """The point as few single steps away as brings it within 2 % below the goal, the nearest to the direction of those;
    or the best there is.

    The factor with the finest steps, width wherever it has a share, is solved again with the others a step or two off.
    """
    run = Reach(meter, shares, goal)
    *others, finest = sorted(_moving(meter, shares, goal), key=lambda factor: factor == "width")
    alone = Shares(*(float(factor == finest) for factor in FACTORS))
    off = [_moves(run, point.scale, factor) for factor in others]
    found, enough = [point], math.inf
    for moves in sorted(product(*off), key=lambda moves: sum(steps for steps, _ in moves))[:TRIED]:
        steps = sum(steps for steps, _ in moves)
        if steps > enough:
            break
        values = {factor: at for factor, (_, at) in zip(others, moves, strict=True)}
        held = replace(point.scale, **values, **{finest: 1.0})
        path = run.along(alone, held.depth, held.resolution)
        left = max(0.0, -run.sign * run.point(path(0.0)).error / math.log(2))
        near = [p for p in run.crossing(path, left) if p.error <= 0]
        if near and max(p.error for p in near) >= math.log1p(-TOLERANCE):
            enough = steps
        found += near
    return run.best(found)


def _moving(meter: Meter, shares: Shares, goal: Goal) -> list[str]:
    """The factors with a share that move the goal's figure at all: a convolution's parameters know no resolution."""
    base = meter.price(meter.baseline, goal.metric)
    doubled = {factor: meter.scaled(replace(Scale(), **{factor: 2.0})) for factor in FACTORS}
    return [f for f in FACTORS if getattr(shares, f) and meter.price(doubled[f], goal.metric) != base]


def _moves(run: Reach, scale: Scale, factor: str) -> list[tuple[int, float]]:
    """No step, and two up and two down in one factor, none to the wrong side of the baseline: (steps, multiplier)."""
    found = [(0, getattr(scale, factor))]
    for direction in (1, -1):
        at = scale
        for steps in (1, 2):
            moved = _costing(run.meter, run.goal, at, factor, direction)
            if moved is None or run.sign * (getattr(moved, factor) - 1) < 0:
                break
            found.append((steps, getattr(moved, factor)))
            at = moved
    return found


def _costing(meter: Meter, goal: Goal, scale: Scale, factor: str, direction: int) -> Scale | None:
    """The next step that changes the cost: behind a stride, every other pixel costs nothing."""
    here, at = meter.price(meter.scaled(scale), goal.metric), step(meter, scale, factor, direction)
    for _ in range(MOST_UNITS):
        if at is None or meter.price(meter.scaled(at), goal.metric) != here:
            break
        at = step(meter, at, factor, direction)
    return at


def _next_step(meter: Meter, shares: Shares, goal: Goal, scale: Scale) -> Step | None:
    def steps() -> Iterator[Step]:
        for factor in _moving(meter, shares, goal):
            up = _costing(meter, goal, scale, factor, 1)
            if up is not None:
                spec = meter.scaled(up)
                yield Step(factor, meter.arch.size(spec), meter.cost(spec))

    passing = [s for s in steps() if goal.metric.of(s.cost, s.size) > goal.target]
    return min(passing, key=lambda s: goal.metric.of(s.cost, s.size), default=None)


def _unreachable(meter: Meter, shares: Shares, goal: Goal, point: Point) -> ScalenetError:
    reached = goal.metric.text(meter.price(meter.scaled(point.scale), goal.metric))
    if point.error > 0:
        why = f"reaches {reached} at the least: {_floored(meter, point.scale, shares)}"
    elif shares.single == "resolution" and goal.metric == PARAMS:
        why = f"stays at {reached}: resolution alone does not move it"
    else:
        why = f"has {reached} at 2^{FURTHEST:g} x the FLOPs"
    return ScalenetError(
        f"A budget of {goal.target:,} {goal.metric.name} is out of reach: "
        f"along {_named(shares)} {meter.arch.name} {why}."
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
