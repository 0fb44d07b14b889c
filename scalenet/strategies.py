"""Ways to search, for `replay`: all seeds for all, the best few confirmed, early stopping, racing, a shared surface."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from scalenet.mixture import lattice
from scalenet.racing import LEVEL, final_level, race, tied
from scalenet.racing import guided as halved
from scalenet.replay import GridLog, Replay
from scalenet.search.rungs import goes_on, rung_epochs
from scalenet.shares import EQUAL, FACTORS, Shares


def every_seed(replay: Replay, seeds: Sequence[int]) -> tuple[str, ...]:
    """Everybody is trained with all of `seeds` and compared pairwise; with the held ones, the full grid's verdict."""
    scores: dict[tuple[str, int], float] = {}
    for seed in seeds:
        scores |= replay.block([*replay.log.keys, replay.log.baseline], seed)
    return not_told_apart(replay.log, scores)


def best_few(replay: Replay, *, best: int, seeds: int, stops: bool = False) -> tuple[str, ...]:
    """One seed for all; the `best` and the named ones again with that many held seeds, which alone are compared.

    Args:
        stops: the first seed's trainings end at a rung unless in the best third there (`search.rungs`, ASHA).
    """
    log, seed = replay.log, replay.log.select[0]
    arrived: dict[int, list[float]] = {rung: [] for rung in rung_epochs(log.epochs)} if stops else {}

    def survives(key: str) -> bool:
        for rung, earlier in arrived.items():
            value = replay.train(key, seed, rung)
            passed = goes_on(value, earlier)
            earlier.append(value)
            if not passed:
                return False
        return True

    whole = [key for key in log.keys if survives(key)]
    finalists = not_told_apart(log, replay.block([*whole, log.baseline], seed), among=whole)[:best]
    confirmed = tuple(dict.fromkeys((*log.named, *finalists)))
    scores: dict[tuple[str, int], float] = {}
    for held in log.held[:seeds]:
        scores |= replay.block([*confirmed, log.baseline], held)
    return not_told_apart(log, scores, among=confirmed)


def raced(replay: Replay, seeds: Sequence[int], *, surface: bool = False) -> tuple[str, ...]:
    """A race over `seeds`; those left at its end are compared, and the two share the error (`racing.final_level`).

    Args:
        surface: every run speaks for all candidates (`pooling`), so that the race begins with the first seed.
    """
    log = replay.log
    shares, level = log.shares if surface else None, final_level(len(seeds))
    scores: dict[tuple[str, int], float] = {}
    while True:
        stands = race(
            scores, log.growth, seeds=seeds, baseline=log.baseline, target=log.target, level=level, shares=shares
        )
        if stands.seed is None:
            compared = not_told_apart(log, scores, shares=shares, level=level)
            return tuple(key for key in compared if key in stands.racing) or stands.racing
        scores |= replay.block([*stands.racing, log.baseline], stands.seed)


def guided(replay: Replay, seeds: Sequence[int]) -> tuple[str, ...]:
    """As `scalenet search --sampler guided`: one seed each, every further one for the better half (`racing.guided`).

    The last comparison is of everybody, by a surface through all runs: who got one seed only is not dropped, but known
    less well.
    """
    log = replay.log
    scores: dict[tuple[str, int], float] = {}
    while True:
        stands = halved(scores, log.growth, log.shares, seeds=seeds, baseline=log.baseline, target=log.target)
        if stands.seed is None:
            return not_told_apart(log, scores, shares=log.shares)
        scores |= replay.block([*stands.racing, log.baseline], stands.seed)


def adaptive(replay: Replay, seeds: Sequence[int], *, budget: float) -> tuple[str, ...]:
    """A surface from a coarse lattice: other candidates are trained only where the surface does not rule out the best.

    The first seed goes to `coarse`, then to those of the others that the surface does not tell apart from the best; the
    rest is compared by what the surface predicts for it.

    Args:
        budget: share of the full grid's epochs.
    """
    log = replay.log
    scores = replay.block([*coarse(log), log.baseline], seeds[0])
    for seed in seeds:
        contenders = not_told_apart(log, scores, shares=log.shares)
        scores |= _block(replay, [key for key in contenders if (key, seed) not in scores], seed, budget)
    return not_told_apart(log, scores, shares=log.shares)


def coarse(log: GridLog) -> tuple[str, ...]:
    """The named candidates, and those nearest to the {3, 2} lattice and its centre."""

    def nearest(point: Shares) -> str:
        return min(
            log.keys, key=lambda key: math.dist(*([getattr(s, f) for f in FACTORS] for s in (log.shares[key], point)))
        )

    return tuple(dict.fromkeys((*log.named, *(nearest(point) for point in (*lattice(2), EQUAL)))))


def not_told_apart(
    log: GridLog,
    scores: Mapping[tuple[str, int], float],
    *,
    among: Sequence[str] | None = None,
    shares: Mapping[str, Shares] | None = None,
    level: float = LEVEL,
) -> tuple[str, ...]:
    """`racing.tied` with the log's costs, the best first; `among` None: all candidates."""
    growth = {key: log.growth[key] for key in (log.keys if among is None else among)}
    return tied(scores, growth, baseline=log.baseline, target=log.target, level=level, shares=shares)


def _block(replay: Replay, order: Sequence[str], seed: int, budget: float) -> dict[tuple[str, int], float]:
    """As many of `order` as the budget still allows, with one seed."""
    affordable = int((budget * replay.log.cost - replay.spent) / replay.log.epochs + 1e-9)
    return replay.block(order[: max(0, affordable)], seed)
