"""Who is worth another seed, decided after whole blocks of seeds so that no clock can change it.

Two rules: a race drops whoever is behind the best by more than noise; a guided search keeps the better half.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scalenet.comparison import Layout, at_equal_cost, connected, fit, with_the_best
from scalenet.pooling import pooled
from scalenet.scheffe import EXACT, QUADRATIC
from scalenet.shares import Shares

LEVEL = 0.95
FEW = len(QUADRATIC.terms)  # candidates through whom a surface goes exactly, or none does
LEAST = 2  # candidates that a further seed is for: with one there is nothing to compare

Scores = Mapping[tuple[str, int], float | None]  # top1 by (key, seed); None: ended without one


@dataclass(frozen=True)
class Race:
    """Where a race stands after its last whole block."""

    racing: tuple[str, ...]  # keys that the next seed is for
    seed: int | None  # the next one; None: the seeds are used up, or fewer than two still race
    dropped: Mapping[str, int]  # key -> the seed after whose block it was dropped (or failed)


def race(
    scores: Scores,
    growth: Mapping[str, float],
    *,
    seeds: Sequence[int],
    baseline: str | None = None,
    target: float = 2.0,
    level: float = LEVEL,
    shares: Mapping[str, Shares] | None = None,
) -> Race:
    """Who still races for the next of `seeds`, of the candidates in `growth`.

    After every block (all who raced for a seed, and the baseline, have ended) whoever `tied` does not hold is dropped
    for good. Nothing of a block counts before all of it has ended, so that no order of arrival and no number of workers
    changes who gets which seed. The truly best is lost with probability 1 - `level` at most over the whole race: the
    level is spent in equal parts over the looks between the seeds (Bonferroni), each a comparison of all that began.
    Without an estimate of the noise (one seed, no replicates, no surface) nobody is dropped.

    Args:
        scores: None ends that candidate's race. Cells of seeds that are not among `seeds` (replicates) join every
            comparison: they are to be given once all of them have ended.
        growth: log2 of cost over the baseline's, by the key of every candidate that began, in the order to be kept.
        seeds: the race's, in order.
        baseline: its key, if it runs with every seed: scores are then compared at equal cost.
        target: cost over the baseline's at which they are compared.
        shares: realised, by candidate: a surface joins the comparisons (`tied`), and a single seed may drop some.
    """
    others = [cell for cell in scores if cell[1] not in seeds]
    look = 1 - (1 - level) / max(1, len(seeds) - 1)

    def not_behind(finished: Sequence[str], done: Sequence[int]) -> Collection[str]:
        seen = _seen(scores, done, others)
        return tied(seen, _scored(growth, seen), baseline=baseline, target=target, level=look, shares=shares)

    return _block_by_block(scores, growth, seeds, baseline, not_behind)


def guided(
    scores: Scores,
    growth: Mapping[str, float],
    shares: Mapping[str, Shares],
    *,
    seeds: Sequence[int],
    baseline: str | None = None,
    target: float = 2.0,
) -> Race:
    """Whom a guided search trains with the next of `seeds`, of the candidates in `growth`.

    After every block the better half of those who finished it goes on (rounded down, at least two), by the means at
    equal cost that a surface through all runs so far predicts (`estimated`). After the first seed, when nothing has
    been repeated, these are the surface's alone. The others are not ruled out, only known less well: whoever compares
    in the end is to compare everybody. So few that a surface leaves each to its own runs all go on: halves by their
    own scores lose the truly best more often than the comparison allows for (of five alike with five seeds in 9 %).

    Args:
        scores: None ends that candidate's part.
        growth: log2 of cost over the baseline's, by the key of every candidate that began.
        shares: realised, of the same.
        seeds: in order.
        baseline: its key; it is trained with every seed.
        target: cost over the baseline's at which they are compared.
    """

    def better_half(finished: Sequence[str], done: Sequence[int]) -> Collection[str]:
        seen = _seen(scores, done)
        began = _scored(growth, seen)
        layout = estimated(seen, began, baseline=baseline, target=target, shares=shares)
        means = dict(zip(layout.keys, layout.means.tolist(), strict=True))
        kept = half(len(finished)) if len(growth) > FEW else len(finished)
        return sorted(finished, key=lambda key: (-means[key], key))[:kept]

    return _block_by_block(scores, growth, seeds, baseline, better_half)


def final_level(seeds: int) -> float:
    """The level of the comparison at the end of a race over so many seeds; the race is run at the same.

    Both may lose the truly best, so each has half of the error and the whole holds at LEVEL. A race of two seeds or
    fewer drops nobody, as nothing is repeated before its only look; there the comparison has all.
    """
    return LEVEL if seeds <= 2 else (1 + LEVEL) / 2


def half(candidates: int) -> int:
    """How many of so many go on to a guided search's next seed."""
    return min(candidates, max(LEAST, candidates // 2))


def guided_trainings(candidates: int, seeds: int) -> tuple[int, ...]:
    """How many candidates a guided search trains with each of its seeds if none fails, the baseline apart."""
    sizes = [candidates]
    while len(sizes) < seeds and sizes[-1] >= LEAST:
        sizes.append(half(sizes[-1]) if candidates > FEW else candidates)
    return tuple(sizes)


def _block_by_block(
    scores: Scores,
    growth: Mapping[str, float],
    seeds: Sequence[int],
    baseline: str | None,
    going_on: Callable[[Sequence[str], Sequence[int]], Collection[str]],
) -> Race:
    """Where a race stands whose rule says, of those who finished all of some seeds, who is to have the next one."""
    racing = tuple(key for key in growth if key != baseline)
    dropped: dict[str, int] = {}
    for number, seed in enumerate(seeds, 1):
        block = [(key, seed) for key in (*racing, *([baseline] if baseline else []))]
        if len(racing) < LEAST:
            return Race(racing, None, dropped)
        if any(cell not in scores for cell in block):
            return Race(racing, seed, dropped)
        finished = [key for key in racing if scores[key, seed] is not None]
        kept = going_on(finished, seeds[:number]) if number < len(seeds) else finished
        dropped |= {key: seed for key in racing if key not in finished or key not in kept}
        racing = tuple(key for key in racing if key not in dropped)
    return Race(racing, None, dropped)


def _seen(
    scores: Scores, seeds: Sequence[int], others: Collection[tuple[str, int]] = ()
) -> dict[tuple[str, int], float]:
    """The scores with `seeds`, and those of `others`, in an order of their own: sums depend on it in the last digit."""
    cells = sorted([*(cell for cell in scores if cell[1] in seeds), *others])
    return {cell: score for cell in cells if (score := scores[cell]) is not None}


def _scored(growth: Mapping[str, float], seen: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """Those of whom something was seen: what a surface predicts of others, who failed, is no reason to drop anybody."""
    keys = {key for key, _ in seen}
    return {key: value for key, value in growth.items() if key in keys}


def tied(
    scores: Mapping[tuple[str, int], float],
    growth: Mapping[str, float],
    *,
    baseline: str | None = None,
    target: float = 2.0,
    level: float = LEVEL,
    shares: Mapping[str, Shares] | None = None,
) -> tuple[str, ...]:
    """The candidates in `growth` that cannot be told apart from the best at equal cost, the best first.

    Hsu's comparison of the `estimated` means; without `shares` it is the verdict's tied set of the same runs. Without
    an idea of the noise nobody is told apart, and a candidate of which nothing is known never is; those come last.
    """
    layout = estimated(scores, growth, baseline=baseline, target=target, shares=shares)
    unknown = tuple(key for key in growth if key not in layout.keys and key != baseline)
    order = sorted(range(len(layout.keys)), key=lambda i: (-layout.means[i], layout.keys[i]))
    if layout.df < 1 or layout.residual < EXACT:
        return (*(layout.keys[i] for i in order), *unknown)
    variance = layout.residual / layout.df
    compared = with_the_best(layout.means, layout.covariance, variance, layout.df, level)
    return (*(layout.keys[i] for i in order if compared[i].tied), *unknown)


def estimated(
    scores: Mapping[tuple[str, int], float],
    growth: Mapping[str, float],
    *,
    baseline: str | None = None,
    target: float = 2.0,
    shares: Mapping[str, Shares] | None = None,
) -> Layout:
    """The means at equal cost of the candidates in `growth` that have a score, as far as the scores tell.

    Those that no seed links to most of the others are left out, as nothing tells them from the others.

    Args:
        scores: top1 by (key, seed); keys that are neither in `growth` nor the baseline are passed over.
        growth: log2 of cost over the baseline's, by candidate.
        baseline: its key; without one nothing is moved to equal cost.
        target: cost over the baseline's.
        shares: realised, by candidate: a surface through all of them then lets every run speak for all candidates, also
            for those without a score (`pooling.pooled`).
    """
    cells = {cell: score for cell, score in scores.items() if cell[0] in growth or cell[0] == baseline}
    linked = next((group for group in connected(list(cells)) if group - {baseline}), frozenset())
    cells = {cell: score for cell, score in cells.items() if cell[0] in linked}
    own = {cell: score for cell, score in cells.items() if cell[0] != baseline}
    known = {key: growth[key] for key in growth if any(key == other for other, _ in own)}
    if not known:
        return Layout((), np.zeros(0), np.zeros((0, 0)), 0.0, 0)
    noise = fit(own)  # the baseline's ups and downs are not the candidates'
    layout = replace(fit(cells), residual=noise.residual, df=noise.df)
    layout = at_equal_cost(layout, known, baseline if baseline in layout.keys else None, target).layout
    return pooled(layout, {key: shares[key] for key in growth if key != baseline}) if shares is not None else layout
