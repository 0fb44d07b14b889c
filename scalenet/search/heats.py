"""Who gets the next seed: everyone who has finished so far, those not behind the best, or a surface's better half."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scalenet.landscape import nearest, surface_of
from scalenet.mixture import nearby
from scalenet.racing import LEVEL, final_level, guided, race
from scalenet.scheffe import NoSurface
from scalenet.wording import is_baseline

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.runs import Judge, TrialRecord
    from scalenet.shares import Shares
    from scalenet.space import SearchSpace

OPTIMUM = "optimum"  # name of the candidate at the surface's optimum


def going_on(
    records: Iterable[TrialRecord],
    entrants: Sequence[Candidate],
    baseline: Candidate,
    space: SearchSpace,
    *,
    seeds: Sequence[int],
    judge: Judge,
) -> list[Candidate]:
    """The entrants that are to be trained with the next of `seeds`, every block so far having ended.

    Args:
        records: all that has ended; other judges' are left out.
        entrants: who began with the first seed.
        baseline: runs with every seed.
        space: which rule there is, and the target at whose cost scores are compared.
        seeds: of these trainings, in order.
        judge: the part that they are judged on.
    """
    scores = {(r.key, r.seed): r.top1 if r.state == "complete" else None for r in records if r.judge == judge}
    growth = {c.key: math.log2(c.ratio) for c in entrants}
    shares = {c.key: c.realised for c in entrants}
    of_baseline = baseline.key if any(key == baseline.key for key, _ in scores) else None
    if space.sampler == "guided":
        found = guided(scores, growth, shares, seeds=seeds, baseline=of_baseline, target=space.target)
    elif space.racing:
        found = race(
            scores,
            growth,
            seeds=seeds,
            baseline=of_baseline,
            target=space.target,
            level=LEVEL if judge == "select" else final_level(len(seeds)),
            shares=shares if judge == "select" else None,
        )
    else:
        failed = {key for (key, seed), top1 in scores.items() if seed in seeds and top1 is None}
        return [c for c in entrants if c.key not in failed]
    return [c for c in entrants if c.key in found.racing] if found.seed is not None else []


def at_optimum(
    records: Iterable[TrialRecord],
    candidates: Mapping[str, Candidate],
    space: SearchSpace,
    propose: Callable[[Shares], Candidate] | None,
    *,
    among: Sequence[Candidate],
) -> Candidate | None:
    """The candidate at the surface's optimum; where the steps allow none there, the nearest of those in `among`.

    What an earlier driver proposed as the optimum stays it, as it may have been trained: where the surface is another
    since (another version's, or in its last digits another machine's), a resumed search would have two.
    """
    if before := next((c for c in candidates.values() if OPTIMUM in c.names), None):
        return before
    surface = surface_of(records, candidates, space.target)
    if isinstance(surface, NoSurface):
        return None
    found = propose(surface.optimum) if propose else None
    if found is None or found.rejected or is_baseline(candidates.get(found.key, found)):
        return nearest(surface.optimum, among)
    return replace(found, names=(*found.names, OPTIMUM))


def near_the_optimum(
    records: Iterable[TrialRecord], candidates: Mapping[str, Candidate], space: SearchSpace
) -> list[Shares]:
    """Adaptive points: where the surface over the first block is highest and nothing has been tried yet."""
    surface = surface_of(records, candidates, space.target)
    if not space.adaptive or isinstance(surface, NoSurface):
        return []
    tried = [c.realised for c in candidates.values() if c.rejected is None]
    return nearby(tried, surface.predict, 2 * space.lattice, space.adaptive)
