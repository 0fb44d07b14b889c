"""Meeting a cost with whole blocks, channels and pixels: the projection of a direction onto a target.

Depth is rounded first; width and resolution absorb the remainder in proportion to their shares, to the nearest
reachable step. A factor whose share is 0 stays exactly at the baseline; growing, none goes below it, and shrinking,
none above.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from typing import Any

from scalenet.architecture import Scale
from scalenet.meter import Meter
from scalenet.metric import PARAMS, Metric
from scalenet.shares import Shares, multipliers, normalised

CLOSE = 0.02  # |ln cost error| within which the point nearest to the nominal shares is preferred to the nearest cost
EXACT = 0.004  # |ln cost error| that is not worth another count
FURTHEST = 12.0  # doublings to which a direction is followed: 4096 x, beyond which counting itself takes minutes
LEAST_SIDE = 16  # pixels; what every architecture can be built at
MOST_UNITS = 64  # blocks or pixels: no architecture steps further at a time

Path = Callable[[float], Scale]  # log2 of the growth asked for (at least 0) -> multipliers


@dataclass(frozen=True)
class Goal:
    """A cost to meet: nearest to it, or from below."""

    metric: Metric
    target: float
    below: bool = False


@dataclass(frozen=True)
class Point:
    """Multipliers with ln(measured cost / target) of what they build."""

    scale: Scale
    error: float
    at: float = 0.0  # how far along its path, in doublings asked for


class Reach:
    """One search for a goal: measures points of the baseline's family and remembers which way is up."""

    def __init__(self, meter: Meter, shares: Shares, goal: Goal) -> None:
        self.meter, self.shares, self.goal = meter, shares, goal
        self.base = meter.size
        self.sign = 1 if goal.target >= self.price(meter.baseline) else -1
        self.least = min(1.0, LEAST_SIDE / self.base.resolution)

    def price(self, spec: Any) -> float:
        """What the spec has of the goal's figure."""
        return self.meter.price(spec, self.goal.metric)

    def point(self, scale: Scale, at: float = 0.0) -> Point:
        """What the multipliers build, measured."""
        cost = self.price(self.meter.scaled(scale))
        return Point(scale, math.log(cost / self.goal.target), at)

    def met(self, point: Point) -> bool:
        """Whether the point is so close to the goal, and on its right side, that no other needs to be counted."""
        return -EXACT <= point.error <= (0.0 if self.goal.below else EXACT)

    def whole(self, scale: Scale) -> Scale:
        """With depth a whole number of blocks, and sides that every architecture can be built at."""
        blocks = max(1, math.floor(self.base.depth * scale.depth + 0.5))
        return replace(scale, depth=blocks / self.base.depth, resolution=max(self.least, scale.resolution))

    def along(self, shares: Shares, depth: float = 1.0, resolution: float = 1.0) -> Path:
        """The path that splits growth by `shares`, from a given depth and resolution multiplier on."""

        def path(growth: float) -> Scale:
            by = multipliers(shares, self.meter.exponents, self.sign * growth)
            return self.whole(Scale(depth * by.depth, by.width, resolution * by.resolution))

        return path

    def crossing(self, path: Path, guess: float, to_the_side: bool = False) -> list[Point]:
        """The neighbouring reachable points just before and just after the goal, or one that is close enough.

        A secant within brackets, on a staircase: where it lands on a step that has been measured, it goes on from that
        step's end, which takes no count to find. Only the near side is returned where the path ends before the goal.

        Args:
            path: what to follow.
            guess: where on it the goal may be.
            to_the_side: stop as soon as the two points' resolutions are equal or neighbours.
        """
        low, high = 0.0, math.inf
        before, after = self.point(path(low)), None
        if self.sign * before.error >= 0:
            return [before]
        at = max(guess, EXACT)
        while after is None:
            found = self.point(path(at), at)
            if self.met(found):
                return [found]
            if self.sign * found.error >= 0:
                high, after = at, found
            elif at >= FURTHEST:
                return [found]
            else:
                low, before = at, found
                at = min(FURTHEST, at + max(1.2 * abs(found.error) / math.log(2), 0.02))
        while not (to_the_side and self._neighbours(before, after)):
            at = low + (high - low) * abs(before.error) / (abs(after.error) + abs(before.error))
            at = min(max(at, 0.95 * low + 0.05 * high), 0.05 * low + 0.95 * high)
            stepped = self._off_measured(path, low, at, high)
            if stepped is None:
                return [before, after]
            found = self.point(path(stepped), stepped)
            if self.met(found):
                return [found]
            if self.sign * found.error >= 0:
                high, after = stepped, found
            else:
                low, before = stepped, found
        return [before, after]

    def _neighbours(self, before: Point, after: Point) -> bool:
        first, last = (int(self.meter.scaled(p.scale).resolution) for p in (before, after))
        return abs(last - first) <= 1

    def _off_measured(self, path: Path, low: float, at: float, high: float) -> float | None:
        """`at`, moved off the steps that `low` and `high` stand on; None where there is no step between those two."""
        first, last, spec = (self.meter.scaled(path(t)) for t in (low, high, at))
        if spec not in (first, last):
            return at
        inside, outside = (at, high) if spec == first else (at, low)
        for _ in range(20):  # to a millionth of the way
            middle = (inside + outside) / 2
            if self.meter.scaled(path(middle)) == spec:
                inside = middle
            else:
                outside = middle
        return None if self.meter.scaled(path(outside)) in (first, last) else outside

    def distance(self, scale: Scale) -> float:
        """How far, in L1 of shares, what a point really gives to each factor is from the nominal direction.

        Depth, resolution, width, one after the other: the Shapley attribution needs both intermediate specs anyway.
        """
        steps = (Scale(), Scale(depth=scale.depth), replace(scale, width=1.0), scale)
        logs = [math.log(self.price(self.meter.scaled(by))) for by in steps]
        got = normalised([logs[1] - logs[0], logs[3] - logs[2], logs[2] - logs[1]])
        return float(sum(abs(a - b) for a, b in zip(astuple(got), astuple(self.shares), strict=True)))

    def best(self, points: Iterable[Point]) -> Point:
        """The nearest cost (from below, where the goal says so); among close ones, the nearest to the direction."""
        points = list(points)
        if self.goal.below:
            points = [p for p in points if p.error <= 0] or [min(points, key=lambda p: p.error)]
        nearest = min(abs(p.error) for p in points)
        close = [p for p in points if abs(p.error) <= max(CLOSE, nearest)]
        return min(close, key=lambda p: (self.distance(p.scale), abs(p.error)))


def reach(meter: Meter, shares: Shares, goal: Goal) -> Point:
    """The reachable point that meets the goal best along `shares`.

    The goal's figure is the meter's metric, whose exponents tell how far to go, or parameters.
    """
    run = Reach(meter, shares, goal)
    growth = math.log2(goal.target / run.price(meter.baseline))
    if goal.metric == PARAMS:
        return _by_params(run, growth)
    if shares.single == "depth":
        return run.best(run.crossing(run.along(shares), abs(growth)))
    depth = _depth(run, growth)
    free = normalised([0.0, shares.width, shares.resolution])
    left = max(0.0, -run.sign * run.point(Scale(depth=depth)).error / math.log(2))
    both = bool(free.width and free.resolution)
    points = run.crossing(run.along(free, depth), left, to_the_side=both)
    if both:
        points += _by_width(run, depth, points)
    return run.best(points)


def _by_params(run: Reach, growth: float) -> Point:
    """Parameters leave resolution (and whatever is left of a block) open: all three follow the direction, then width
    alone meets the goal.
    """
    points = run.crossing(run.along(run.shares), abs(growth))
    if run.shares.width and run.shares.single is None and not run.met(points[-1]):
        held = points[-1].scale
        path = run.along(Shares(0.0, 1.0, 0.0), held.depth, held.resolution)
        points += run.crossing(path, points[-1].at * run.shares.width)
    return run.best(points)


def _depth(run: Reach, growth: float) -> float:
    """The depth multiplier: the nominal one rounded, then back towards the baseline while it overshoots by itself."""
    if not run.shares.depth:
        return 1.0
    blocks = run.base.depth
    target = max(1, math.floor(blocks * multipliers(run.shares, run.meter.exponents, growth).depth + 0.5))
    while target != blocks and run.sign * run.point(Scale(depth=target / blocks)).error > 0:
        target -= run.sign
    return target / blocks


def _by_width(run: Reach, depth: float, points: list[Point]) -> Iterator[Point]:
    """With the resolutions on either side of the goal held, width alone.

    One more pixel is a row in every strided map, 13 to 27 % of the cost at once: the crossing is mostly such a leap.
    """
    sides = {run.meter.scaled(p.scale).resolution for p in points if not run.met(p)}
    for side in sorted(sides):
        path = run.along(Shares(0.0, 1.0, 0.0), depth, side / run.base.resolution)
        start = run.point(path(0.0))
        yield from run.crossing(path, max(0.0, -run.sign * start.error / math.log(2)))


def step(meter: Meter, scale: Scale, factor: str, direction: int) -> Scale | None:
    """The next point up (+1) or down (-1) that builds another spec, one factor moved; None where there is none near."""
    spec, at = meter.scaled(scale), getattr(scale, factor)
    if factor == "width":
        return _width_step(meter, scale, direction)
    unit = getattr(meter.size, factor)
    least = 1 if factor == "depth" else LEAST_SIDE
    for i in range(1, MOST_UNITS + 1):
        value = round(at * unit) + direction * i
        moved = replace(scale, **{factor: value / unit})
        if value < least:
            return None
        if meter.scaled(moved) != spec:
            return moved
    return None


def _width_step(meter: Meter, scale: Scale, direction: int) -> Scale | None:
    spec, near, far = meter.scaled(scale), 0.0, 2.0**-10
    while meter.scaled(replace(scale, width=scale.width * 2 ** (direction * far))) == spec:
        near, far = far, 2 * far
        if far > 2:
            return None
    for _ in range(12):
        middle = (near + far) / 2
        if meter.scaled(replace(scale, width=scale.width * 2 ** (direction * middle))) == spec:
            near = middle
        else:
            far = middle
    return replace(scale, width=scale.width * 2 ** (direction * far))
