"""What the search phase saw: its scores, the surface over them, and whom it would pick.

Search-phase scores choose who is confirmed and decide nothing about them. The surface is another matter: it is fitted
to the whole design, and nothing of it was selected. A guided search has no such phase; its surface is fitted to the
runs that decide, all that there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from scalenet import surface
from scalenet.comparison import at_equal_cost, connected, fit
from scalenet.region import Region, region
from scalenet.scheffe import NoSurface
from scalenet.shares import Shares
from scalenet.surface import Surface
from scalenet.wording import is_baseline, surface_sentence

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.runs import Judge, TrialRecord


def searched(records: Iterable[TrialRecord], judge: Judge = "select") -> dict[tuple[str, int], float]:
    """top1 of each finished run, by candidate and seed: of those before confirmation, unless `judge` says others."""
    return {
        (r.key, r.seed): r.top1 for r in records if r.judge == judge and r.state == "complete" and r.top1 is not None
    }


@dataclass(frozen=True, eq=False)
class Landscape:
    """The surface over a search's scores, and where its optimum may lie."""

    surface: Surface
    region: Region
    best: Candidate  # trained, and nearest to the surface's optimum
    judge: Judge = "select"  # the part on which the runs were judged that it is fitted to

    @property
    def says(self) -> str:
        """What can be read from it, in a sentence."""
        return surface_sentence(self)


def landscape_of(
    records: Sequence[TrialRecord], candidates: Mapping[str, Candidate], target: float, judge: Judge = "select"
) -> Landscape | NoSurface:
    """The landscape of a run, or why there is none; arguments as for `surface_of`."""
    found = surface_of(records, candidates, target, judge)
    if isinstance(found, NoSurface):
        return found
    best = nearest(found.optimum, [candidates[key] for key in found.polynomial.residuals])
    assert best is not None
    return Landscape(found, region(found), best, judge)


def surface_of(
    records: Iterable[TrialRecord], candidates: Mapping[str, Candidate], target: float, judge: Judge = "select"
) -> Surface | NoSurface:
    """The response surface over the search's scores at equal cost, seeds apart; or why there is none.

    Args:
        records: of the whole run.
        candidates: by key, the baseline among them.
        target: cost over the baseline's at which scores are compared.
        judge: the runs that it is fitted to; confirmation runs are left out unless there are no others.
    """
    scores = searched(records, judge)
    groups = connected(list(scores))
    scores = {cell: score for cell, score in scores.items() if cell[0] in groups[0]} if groups else {}
    keys = list(dict.fromkeys(key for key, _ in scores if not is_baseline(candidates[key])))
    if not keys:
        return NoSurface(f"There is no finished run{' of the search phase' if judge == 'select' else ''}.")
    baseline = next((key for key, _ in scores if is_baseline(candidates[key])), None)
    growth = {key: math.log2(candidates[key].ratio) for key in keys}
    moved = at_equal_cost(fit(scores), growth, baseline, target)
    return surface.fit(moved.layout, {key: candidates[key].realised for key in keys})


def best_of(
    records: Sequence[TrialRecord], candidates: Mapping[str, Candidate], count: int, target: float
) -> list[Candidate]:
    """The `count` best candidates of the search phase by top1, adjusted to `target` times the baseline's cost.

    The slope is the mean candidate's gain over the baseline per doubling, never below 0: what was built too dear must
    not win by its cost. Ties go to the cheaper candidate. Without a baseline the scores are taken as they are.
    """
    scores = searched(records)
    finished = {r.key for r in records if r.phase == "search" and r.state == "complete"} & {key for key, _ in scores}
    if not finished:
        return []
    linked = next(group for group in connected(list(scores)) if group & finished)
    layout = fit({cell: score for cell, score in scores.items() if cell[0] in linked})
    means = dict(zip(layout.keys, layout.means, strict=True))
    baseline = next((r.key for r in records if r.phase == "baseline" and r.key in means), None)
    growth = {key: math.log2(candidates[key].ratio) for key in finished}
    slope = 0.0
    if baseline is not None and (mean_growth := fmean(growth.values())) > 0.1:
        slope = max(0.0, (fmean(means[key] for key in finished) - means[baseline]) / mean_growth)
    adjusted = {key: means[key] - slope * (growth[key] - math.log2(target)) for key in finished}
    order = sorted(adjusted, key=lambda key: (-adjusted[key], candidates[key].cost.flops, key))
    return [candidates[key] for key in order[:count]]


def picked(
    records: Sequence[TrialRecord], candidates: Mapping[str, Candidate], confirmed: Sequence[str], target: float
) -> str | None:
    """The confirmed candidate that the search alone would have answered with, before any confirmation run.

    The one nearest to the surface's optimum; without a surface, or where it is flat, the best by its own score.
    """
    found = surface_of(records, candidates, target)
    among = [candidates[key] for key in confirmed]
    if isinstance(found, Surface) and not found.flat and (there := nearest(found.optimum, among)):
        return there.key
    return next((c.key for c in best_of(records, candidates, len(candidates), target) if c.key in confirmed), None)


def nearest(shares: Shares, candidates: Sequence[Candidate]) -> Candidate | None:
    """The candidate whose realised shares are nearest to `shares`."""
    there = astuple(shares)
    return min(candidates, key=lambda c: (math.dist(astuple(c.realised), there), c.key), default=None)
