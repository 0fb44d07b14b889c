"""What a search trains: which candidates, with which seeds, judged on which part.

Every seed is a block: its trials share the split, the order of the pictures and the draws of augmentation, so that
candidates are compared within it. Within a block the order is drawn, so that nothing that changes with time (a warmer
machine, a neighbour's job) takes the side of a candidate.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from scalenet.racing import guided_trainings
from scalenet.search.finalists import always_confirmed, centre_of
from scalenet.search.values import Trial
from scalenet.shares import FACTORS

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.space import SearchSpace


def search_seeds(space: SearchSpace) -> range:
    """Those that every candidate is trained with."""
    return range(space.seed, space.seed + space.seeds)


def replicate_seeds(space: SearchSpace) -> range:
    """Those that only the corners, the centre and the baseline are trained with."""
    return range(search_seeds(space).stop, search_seeds(space).stop + space.replicates)


def confirm_seeds(space: SearchSpace) -> range:
    """Those of the runs that decide: fresh."""
    return range(replicate_seeds(space).stop, replicate_seeds(space).stop + space.confirm.seeds)


def first_block(space: SearchSpace, contestants: Sequence[Candidate]) -> list[Trial]:
    """Every contestant with the search's own seed; their numbers are their places."""
    drawn = _shuffled(contestants, space.seed)
    return [Trial("search", i, c, "search", space.seed, "select") for i, c in enumerate(drawn)]


def further_block(contestants: Sequence[Candidate], seed: int) -> list[Trial]:
    """Contestants with another of the search's seeds."""
    return [Trial("repeats", 0, c, "search", seed, "select") for c in _shuffled(contestants, seed)]


def certain(space: SearchSpace, given: Sequence[Candidate], baseline: Candidate) -> list[Trial]:
    """What is trained whatever the search finds: the baseline, the replicates, and the named points' confirmation.

    The baseline comes first with all its seeds: it is given out before the candidates, as its failure says most. Of a
    guided search nothing is certain but everybody's first training.
    """
    everybody = [c for c in given if c.rejected is None]
    certainly = everybody if space.sampler == "guided" else always_confirmed(given, space.points)
    confirmed = confirmations(certainly, first_confirmed(space))
    if not space.has_search_phase:
        return confirmed
    contestants = [c for c in given if c.rejected is None and c is not baseline]
    replicates = replicate_seeds(space) if contestants else range(0)
    wanted = [Trial("repeats", 0, baseline, "baseline", seed, "select") for seed in (*search_seeds(space), *replicates)]
    for seed in replicates:
        drawn = _shuffled(replicated(contestants), seed)
        wanted += [Trial("repeats", 0, c, "replicate", seed, "select") for c in drawn]
    return [*wanted, *confirmed]


def replicated(contestants: Sequence[Candidate]) -> list[Candidate]:
    """The corners and the centre, each once: what is repeated spans the simplex, so that seeds' blocks are linked."""
    found = [c for factor in FACTORS for c in contestants if factor in c.names]
    centre = centre_of(contestants)
    return list({c.key: c for c in [*found, *([centre] if centre else [])]}.values())


def first_confirmed(space: SearchSpace) -> Sequence[int]:
    """The fresh seeds that every finalist is trained with: all; in a race, or where a surface guides, the first."""
    return confirm_seeds(space)[:1] if space.racing or space.sampler == "guided" else confirm_seeds(space)


def confirmations(finalists: Sequence[Candidate], seeds: Sequence[int]) -> list[Trial]:
    """Finalists with fresh seeds, judged on what nothing before has read."""
    return [Trial("repeats", 0, c, "confirm", seed, "held") for seed in seeds for c in _shuffled(finalists, seed)]


def further_confirmations(space: SearchSpace, confirmed: int, queued: Collection[int]) -> int:
    """Confirmation runs with seeds that are not `queued` yet, of so many finalists and the baseline: an upper bound."""
    open_ = [place for place, seed in enumerate(confirm_seeds(space)) if seed not in queued]
    if space.sampler != "guided":
        return confirmed * len(open_)
    sizes = guided_trainings(confirmed - 1, space.confirm.seeds)
    return sum(1 + sizes[place] for place in open_ if place < len(sizes))


def _shuffled(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    """In an order that is drawn for each by itself: the others' absence (one may have failed since) changes nothing."""
    return sorted(candidates, key=lambda c: random.Random(f"order {seed} {c.key}").random())
