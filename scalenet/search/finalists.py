"""Who is confirmed whatever the search finds, and where the replicates go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scalenet.landscape import nearest
from scalenet.mixture import point_name
from scalenet.scheffe import LINEAR
from scalenet.shares import EQUAL, Shares

if TYPE_CHECKING:
    from scalenet.projection import Candidate

ALWAYS = ("baseline", "depth", "width", "resolution", "equal", "paper", "dwr")


def always_confirmed(candidates: Sequence[Candidate], points: Sequence[Shares] = ()) -> list[Candidate]:
    """The baseline, the named points and `points`, in this order, as far as they were not rejected."""
    usable = [c for c in candidates if c.rejected is None]
    found = [c for name in (*ALWAYS, *map(point_name, points)) for c in usable if name in c.names]
    return list({c.key: c for c in found}.values())


def centre_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """Where the replicates go: equal shares, or, that having been rejected, the candidate nearest to it as built."""
    equal = next((c for c in candidates if "equal" in c.names), None)
    return equal or nearest(EQUAL, candidates)


def has_optimum(contestants: int) -> bool:
    """Whether so many may lead to a point that is none of them: a surface through fewer peaks at a corner."""
    return contestants > len(LINEAR.terms)
