"""The report's figures as inline SVG: no scripts, colours from the page's CSS, hover texts in <title>.

Every figure is 440 units wide, so that its smallest text stays legible on a telephone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from scalenet.cost import label
from scalenet.landscape import Landscape
from scalenet.mixture import lattice
from scalenet.ranking import Row
from scalenet.scheffe import STEPS, as_array
from scalenet.shares import FACTORS
from scalenet.verdict import Estimate
from scalenet.wording import percent

WIDTH = 440
# Dark to light, told apart in grey too; between the stops linearly.
SHADES = ((45, 44, 110), (36, 111, 142), (47, 165, 131), (143, 208, 74), (250, 225, 60))
LineKind = Literal["search", "confirmed", "tied", "winner", "baseline"]


@dataclass(frozen=True)
class Line:
    """A learning curve: top1 by epoch (1-based)."""

    title: str
    kind: LineKind
    points: tuple[tuple[float, float], ...]


def simplex(rows: Sequence[Row], landscape: Landscape | None = None) -> Markup:
    """top1 over the realised shares: a triangle whose corners are depth, width and resolution alone.

    With a landscape, the surface lies below the points: strong where the optimum may be, pale where it is not.
    """
    left, base, side = 60.0, 336.0, 320.0
    high = side * math.sqrt(3) / 2

    def at(depth: float, width: float, resolution: float) -> tuple[float, float]:
        total = depth + width + resolution or 1.0
        return left + side * (width + resolution / 2) / total, base - high * resolution / total

    scored = [(row, score) for row in rows if (score := _colouring(row)) is not None]
    shown = [(row, score) for row, score in scored if row.role != "baseline"]
    low, top = min((s for _, s in shown), default=0.0), max((s for _, s in shown), default=1.0)
    triangle = at(1, 0, 0), at(0, 1, 0), at(0, 0, 1)
    parts = []
    if landscape:
        cells, optimum = _surface(landscape, at, side / STEPS, low, top)
        parts = [*cells, _around(triangle, side / STEPS), optimum]
    parts.append(_polygon(triangle, "frame"))
    for i in range(1, 5):
        a, b = i / 5, 1 - i / 5
        for start, end in (((a, b, 0), (a, 0, b)), ((b, a, 0), (0, a, b)), ((b, 0, a), (0, b, a))):
            parts.append(_line(*at(*start), *at(*end), "grid"))
    for (x, y), anchor, text in (
        ((left - 8, base + 34), "start", "depth"),
        ((left + side + 8, base + 34), "end", "width"),
        ((left + side / 2, base - high - 24), "middle", "resolution"),
    ):
        parts.append(_text(x, y, text, "corner", anchor))
    for row in rows:
        if row.state in ("pruned", "failed") and row.confirmed_top1 is None:
            x, y = at(*(getattr(row.realised, factor) for factor in FACTORS))
            parts.append(_group(_circle(x, y, 5, "stopped"), _hover(row)))
    # The marked ones last, so that nothing lies on them.
    for row, score in sorted(shown, key=lambda pair: ("searched", "confirmed", "tied", "winner").index(pair[0].role)):
        x, y = at(*(getattr(row.realised, factor) for factor in FACTORS))
        fill = _shade((score - low) / (top - low) if top > low else 0.5)
        drawn = _polygon(_star(x, y, 13), "point", fill) if row.role == "winner" else _circle(x, y, 7, "point", fill)
        parts.append(_group(drawn + _frames(row, x, y), _hover(row)))
    for row, score in scored:
        if row.role == "baseline":
            text = _text(28, 26, "baseline", "tick") + _text(28, 44, percent(score), "tick")
            parts.append(_group(_polygon(_square(14, 27, 6), "baseline") + text, _hover(row)))
    if top > low:  # one score has no scale
        for i in range(40):
            parts.append(_rect(120 + 5 * i, 390, 5.5, 10, _shade(i / 39)))
        parts += [_text(114, 400, percent(low), "tick", "end"), _text(326, 400, percent(top), "tick")]
    return _svg(412, "Accuracy over the shares of depth, width and resolution", parts)


def _frames(row: Row, x: float, y: float) -> Markup:
    """What is drawn around a point: a ring where it is tied, a diamond for the paper's, a square for dWr's."""
    drawn = _circle(x, y, 11, "ring") if row.role == "tied" else Markup()
    if "paper" in row.names:
        drawn += _polygon(((x, y - 18), (x + 18, y), (x, y + 18), (x - 18, y)), "paper")
    if "dwr" in row.names:
        drawn += _polygon(_square(x, y, 13), "paper")
    return drawn


def _surface(
    landscape: Landscape, at: Callable[[float, float, float], tuple[float, float]], step: float, low: float, top: float
) -> tuple[list[Markup], Markup]:
    """A cell per point of the region's lattice, in the points' colours; and the optimum."""
    surface, inside = landscape.surface, set(landscape.region.points)
    points = lattice(STEPS)
    cells = []
    for shares in points:
        x, y = at(shares.depth, shares.width, shares.resolution)
        turns = [math.pi * (i / 3 + 1 / 6) for i in range(6)]
        hexagon = [(x + step * 0.58 * math.cos(turn), y + step * 0.58 * math.sin(turn)) for turn in turns]
        level = (surface.predict(shares) - low) / (top - low) if top > low else 0.5
        kind = "cell" if shares in inside else "cell outside"
        cells.append(_polygon(hexagon, kind, _shade(level)))
    x, y = at(*(getattr(surface.optimum, factor) for factor in FACTORS))
    cross = _line(x - 9, y, x + 9, y, "optimum") + _line(x, y - 9, x, y + 9, "optimum")
    optimum = surface.optimum
    title = f"the surface's optimum: {optimum.depth:.2f} / {optimum.width:.2f} / {optimum.resolution:.2f}"
    return cells, _group(cross, title)


def residuals(landscape: Landscape, rows: Sequence[Row]) -> Markup:
    """Each candidate's score less what the polynomial fits there, over that."""
    by_key = {row.key: row for row in rows}
    found = landscape.surface.polynomial
    keys = list(found.residuals)
    fitted = found.model.values(as_array([by_key[key].realised for key in keys])) @ found.coefficients
    shown = [(by_key[key], float(value), found.residuals[key]) for key, value in zip(keys, fitted, strict=True)]
    x_axis = _Axis(*_padded(predicted for _, predicted, _ in shown), 46, WIDTH - 12)
    y_axis = _Axis(*_padded((0.0, *(gap for *_, gap in shown))), 190, 22)
    x_ticks = [(v / 100, f"{v:g} %") for v in _ticks(100 * x_axis.low, 100 * x_axis.high, 5)]
    parts = _axes(x_axis, y_axis, x_ticks, "fitted by the polynomial, at equal cost", "points")
    parts.append(_line(x_axis.start, y_axis(0.0), x_axis.end, y_axis(0.0), "frame"))
    for row, predicted, gap in shown:
        dot = _circle(x_axis(predicted), y_axis(gap), 4.5, f"dot {row.role}")
        parts.append(_group(dot, f"{row.label}: {100 * gap:+.2f} points off the surface"))
    return _svg(236, "Residuals of the surface", parts)


def curves(lines: Sequence[Line]) -> Markup:
    """top1 by epoch: the search's runs thin, the confirmed bold, the baseline dashed."""
    points = [point for line in lines for point in line.points]
    if not points:
        return _svg(60, "No learning curves yet", [_text(WIDTH / 2, 35, "no finished epoch yet", "tick", "middle")])
    last = max(2.0, *(epoch for epoch, _ in points))
    x_axis = _Axis(1, last, 46, WIDTH - 12)
    y_axis = _Axis(*_padded(top1 for _, top1 in points), 270, 22)
    steps = [epoch for epoch in _ticks(1, last, 6) if epoch == int(epoch)]
    parts = _axes(x_axis, y_axis, [(epoch, f"{epoch:.0f}") for epoch in steps], "epoch")
    order = ("search", "confirmed", "tied", "baseline", "winner")
    for line in sorted(lines, key=lambda line: order.index(line.kind)):
        path = " ".join(f"{x_axis(epoch):.1f},{y_axis(top1):.1f}" for epoch, top1 in line.points)
        drawn = Markup('<polyline class="curve {}" points="{}"/>').format(line.kind, path)
        if len(line.points) == 1:
            drawn += _circle(x_axis(line.points[0][0]), y_axis(line.points[0][1]), 4.5, f"dot {line.kind}")
        parts.append(_group(drawn, line.title))
    return _svg(316, "Learning curves", parts)


def cost(rows: Sequence[Row]) -> Markup:
    """top1 over the measured cost ratio, log2: confirmed means with their standard errors, and the search's scores."""
    marks = [(row, row.confirmed_top1, row.error or 0.0) for row in rows if row.confirmed_top1 is not None]
    faint = [(row, row.search_top1) for row in rows if row.search_top1 is not None and row.state == "complete"]
    scores = [s for _, mean, error in marks for s in (mean - error, mean + error)] + [score for _, score in faint]
    if not scores:
        return _svg(60, "No finished trial yet", [_text(WIDTH / 2, 35, "no finished trial yet", "tick", "middle")])
    ratios = [row.ratio for row in rows if row.confirmed_top1 is not None or row.search_top1 is not None]
    x_axis = _Axis(math.log2(min(1.0, *ratios)) - 0.08, math.log2(max(2.0, *ratios)) + 0.08, 46, WIDTH - 12)
    y_axis = _Axis(*_padded(scores), 270, 22)
    ticks: list[tuple[float, str]] = []
    for ratio in (0.5, 0.7, 1.0, 2.0, 4.0, 8.0, 16.0, 1.4, 2.8, 5.6, 11.3, 1.2, 1.7, 2.4, 3.4, 1.9, 2.1):
        where = math.log2(ratio)
        if x_axis.low <= where <= x_axis.high and all(abs(x_axis(where) - x_axis(t)) > 50 for t, _ in ticks):
            ticks.append((where, f"x {ratio:g}"))
    how = "predicted" if rows[0].metric == "latency" else "measured"
    parts = _axes(x_axis, y_axis, ticks, f"{label(rows[0].metric)}, {how}, over the baseline's")
    for row, score in faint:
        x, y = x_axis(math.log2(row.ratio)), y_axis(score)
        drawn = _circle(x, y, 3.5, "faint off" if row.off_target else "faint")
        if row.role == "baseline" and row.confirmed_top1 is None:
            drawn = _polygon(_square(x, y, 4), "baseline")
        parts.append(_group(drawn, _hover(row)))
    for row, mean, error in reversed(marks):  # the best is drawn last
        x, y = x_axis(math.log2(row.ratio)), y_axis(mean)
        drawn = _line(x, y_axis(mean - error), x, y_axis(mean + error), f"error {row.role}") if error else Markup()
        if row.role == "baseline":
            drawn += _polygon(_square(x, y, 6), "baseline")
        elif row.role == "winner":
            drawn += _polygon(_star(x, y, 10), "dot winner")
        else:
            drawn += _circle(x, y, 5.5, f"dot {row.role}{' off' if row.off_target else ''}")
        parts.append(_group(drawn, _hover(row)))
    return _svg(316, "Cost against accuracy", parts)


def forest(estimates: Sequence[Estimate]) -> Markup:
    """The confirmed candidates at equal cost: a row each, with standard errors and where being behind begins."""
    ends = [e.adjusted + sign * (e.error or 0.0) for e in estimates for sign in (-1, 1)]
    bottom = 12 + 40 * len(estimates)
    axis = _Axis(*_padded(ends), 14, WIDTH - 14)
    parts = []
    for value in _ticks(100 * axis.low, 100 * axis.high, 6):
        x = axis(value / 100)
        parts += [_line(x, 6, x, bottom, "grid"), _text(x, bottom + 17, f"{value:g} %", "tick", "middle")]
    for i, e in enumerate(estimates):
        role = "winner" if i == 0 else "tied" if e.tied else "confirmed"
        y = 40 * i + 38
        title = f"{e.label}: {percent(e.adjusted)} at equal cost, {100 * e.behind:.2f} points behind the best"
        drawn = _text(14, y - 14, e.label, f"name {role}")
        if e.error is not None:
            title += f", standard error {100 * e.error:.2f} points"
            drawn += _line(axis(e.adjusted - e.error), y, axis(e.adjusted + e.error), y, f"error {role}")
        if e.margin is not None and i > 0:
            limit = estimates[0].adjusted - e.margin
            title += f", told apart from {100 * e.margin:.2f} points on"
            if axis.low <= limit:
                drawn += _line(axis(limit), y - 8, axis(limit), y + 8, "limit")
        x = axis(e.adjusted)
        drawn += _polygon(_star(x, y, 10), "dot winner") if i == 0 else _circle(x, y, 5.5, f"dot {role}")
        parts.append(_group(drawn, title))
    parts.append(_text(WIDTH / 2, bottom + 36, "top1 on the held-out part, at equal cost", "tick", "middle"))
    return _svg(bottom + 44, "Confirmed candidates at equal cost", parts)


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float  # where `low` is drawn
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def _axes(
    x_axis: _Axis, y_axis: _Axis, x_ticks: Iterable[tuple[float, str]], x_name: str, y_name: str = "top1, %"
) -> list[Markup]:
    parts = []
    for value in _ticks(100 * y_axis.low, 100 * y_axis.high, 6):
        y = y_axis(value / 100)
        parts += [
            _line(x_axis.start, y, x_axis.end, y, "grid"),
            _text(x_axis.start - 6, y + 4, f"{value:g}", "tick", "end"),
        ]
    for value, text in x_ticks:
        x = x_axis(value)
        parts += [
            _line(x, y_axis.start, x, y_axis.start + 5, "frame"),
            _text(x, y_axis.start + 19, text, "tick", "middle"),
        ]
    middle = (x_axis.start + x_axis.end) / 2
    parts += [
        _line(x_axis.start, y_axis.start, x_axis.end, y_axis.start, "frame"),
        _text(middle, y_axis.start + 38, x_name, "tick", "middle"),
        _text(0, y_axis.end - 10, y_name, "tick"),
    ]
    return parts


def _padded(values: Iterable[float]) -> tuple[float, float]:
    """The range of `values` with some room, never empty."""
    held = list(values)
    low, high = min(held), max(held)
    room = max(0.06 * (high - low), 0.004)
    return low - room, high + room


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in [low, high], at most `most` + 1 of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _colouring(row: Row) -> float | None:
    """The score a point is coloured by: the search run's if it ran to its end, else the confirmed one."""
    whole = row.state == "complete" and row.search_top1 is not None
    return row.search_top1 if whole else row.confirmed_top1


def _hover(row: Row) -> str:
    lines = [
        f"{row.label} ({', '.join(row.names)})",
        f"alpha {row.alpha:.3g}, beta {row.beta:.3g}, gamma {row.gamma:.3g}",
        "realised shares " + " / ".join(f"{getattr(row.realised, c):.2f}" for c in FACTORS),
        f"{row.ratio:.3f} x the baseline's {label(row.metric)}{', off target' if row.off_target else ''}",
    ]
    if row.search_top1 is not None:
        lines.append(f"search {percent(row.search_top1)}{'' if row.state == 'complete' else f' ({row.state})'}")
    if row.confirmed_top1 is not None:
        error = f" +- {100 * row.error:.2f}" if row.error is not None else ""
        lines.append(f"confirmed {percent(row.confirmed_top1)}{error}")
    return "\n".join(lines)


def _shade(level: float) -> str:
    place = min(max(level, 0.0), 1.0) * (len(SHADES) - 1)
    i = min(int(place), len(SHADES) - 2)
    mixed = (round(a + (place - i) * (b - a)) for a, b in zip(SHADES[i], SHADES[i + 1], strict=True))
    return f"rgb({','.join(map(str, mixed))})"


def _star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    turns = [math.pi * (i / 5 - 0.5) for i in range(10)]
    sizes = [radius if i % 2 == 0 else radius * 0.45 for i in range(10)]
    return [(x + size * math.cos(turn), y + size * math.sin(turn)) for turn, size in zip(turns, sizes, strict=True)]


def _square(x: float, y: float, half: float) -> list[tuple[float, float]]:
    return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]


def _svg(height: float, name: str, parts: Iterable[Markup]) -> Markup:
    opening = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(WIDTH, height, name)
    return opening + Markup("\n").join(parts) + Markup("</svg>")


def _group(drawn: Markup, title: str) -> Markup:
    return Markup("<g><title>{}</title>{}</g>").format(title, drawn)


def _polygon(corners: Iterable[tuple[float, float]], mark: str, fill: str | None = None) -> Markup:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return Markup('<polygon class="{}" points="{}"{}/>').format(mark, points, _fill(fill))


def _circle(x: float, y: float, radius: float, mark: str, fill: str | None = None) -> Markup:
    return Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"{}/>').format(mark, x, y, radius, _fill(fill))


def _rect(x: float, y: float, width: float, height: float, fill: str) -> Markup:
    return Markup('<rect x="{}" y="{}" width="{}" height="{}"{}/>').format(x, y, width, height, _fill(fill))


def _fill(fill: str | None) -> Markup:
    return Markup(' style="fill:{}"').format(fill) if fill else Markup()


def _line(x1: float, y1: float, x2: float, y2: float, mark: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(mark, x1, y1, x2, y2)


def _around(corners: Sequence[tuple[float, float]], margin: float) -> Markup:
    """What covers a margin outside a polygon, so that nothing below sticks out of it."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    box = (
        f"M{min(xs) - margin:.1f} {min(ys) - margin:.1f}H{max(xs) + margin:.1f}V{max(ys) + margin:.1f}"
        f"H{min(xs) - margin:.1f}Z"
    )
    hole = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in corners) + "Z"
    return Markup('<path class="around" fill-rule="evenodd" d="{}{}"/>').format(box, hole)


def _text(x: float, y: float, text: str, mark: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        mark, x, y, anchor, escape(text)
    )
