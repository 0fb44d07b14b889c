"""Who is confirmed: named candidates always, and the best of the search phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.runs import TrialRecord

ALWAYS = ("baseline", "depth", "width", "resolution", "equal", "paper")


def always_confirmed(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Baseline, corners, equal shares and 1.2/1.1/1.15, in this order, as far as they were not rejected."""
    usable = [c for c in candidates if c.rejected is None]
    found = [c for name in ALWAYS for c in usable if name in c.names]
    return list({c.key: c for c in found}.values())


def best_of(
    records: Sequence[TrialRecord], candidates: Mapping[str, Candidate], count: int, target: float
) -> list[Candidate]:
    """The `count` best candidates of the search phase by top1, adjusted to `target` times the baseline's FLOPs.

    The slope is the mean candidate's gain over the baseline per doubling, never below 0: what was built too dear must
    not win by its cost. Ties go to the cheaper candidate. Without a baseline the scores are taken as they are.
    """
    scores = {r.key: r.top1 for r in records if r.phase == "search" and r.state == "complete" and r.top1 is not None}
    baseline = next((r.top1 for r in records if r.phase == "baseline" and r.state == "complete"), None)
    growth = {key: math.log2(candidates[key].ratio) for key in scores}
    slope = 0.0
    if scores and baseline is not None and (mean_growth := sum(growth.values()) / len(growth)) > 0.1:
        slope = max(0.0, (sum(scores.values()) / len(scores) - baseline) / mean_growth)
    adjusted = {key: score - slope * (growth[key] - math.log2(target)) for key, score in scores.items()}
    order = sorted(adjusted, key=lambda key: (-adjusted[key], candidates[key].cost.flops, key))
    return [candidates[key] for key in order[:count]]


def centre_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """Where the replicates go: equal shares, or, that having been rejected, the candidate nearest to it as built."""

    def distance(candidate: Candidate) -> float:
        shares = candidate.realised
        return sum((share - 1 / 3) ** 2 for share in (shares.depth, shares.width, shares.resolution))

    equal = next((c for c in candidates if "equal" in c.names), None)
    return equal or min(candidates, key=distance, default=None)
