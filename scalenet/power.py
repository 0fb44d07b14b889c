"""What a search will be able to tell apart, and what not, before anything is trained."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, stats

from scalenet.comparison import FloatArray, critical_value
from scalenet.mixture import lattice
from scalenet.scheffe import POOLING, QUADRATIC, as_array, objection
from scalenet.shares import Shares
from scalenet.surface import ALPHA

if TYPE_CHECKING:
    from scalenet.experiment import Plan

POWER = 0.8
LEVEL = 0.95
DIFFERENCES = (0.005, 0.01, 0.02, 0.04)  # of top1, for the table
TRAINING_SD = 0.01  # of top1, between trainings judged on endless pictures; an assumption
TERMS = 6  # coefficients of Scheffe's quadratic in three shares
NODES = 40  # of what each error's sum of squares may come to
FINENESS = 12  # of the lattice on which a surface's range is looked for; holds the middle of every edge and the centre


@dataclass(frozen=True)
class AssumedNoise:
    """What one run's top1 is taken to vary by: `judging` and `training`, independent of each other.

    `judging` is binomial, of `pictures` judged with `accuracy` halfway between chance and 1. Candidates judged on the
    same pictures share part of it, and so do the seeds of one candidate; counted in full it is on the cautious side.
    `training` is a guess. Six searches (4 or 5 epochs, 300 to 830 pictures judged) measured 0.4 to 1.1 times `sd`.
    """

    pictures: int
    accuracy: float
    judging: float
    training: float
    sd: float


@dataclass(frozen=True)
class Resolution:
    """What the confirmation runs tell apart: Hsu's comparison with the best of `candidates`.

    The best has had all `seeds` and its rival `fewest`, which differ in a guided search: who has only one seed there is
    compared, too. `margin` is how far behind a candidate must come out, `resolved` how far behind it must truly be for
    that to happen in 80 % of searches; `chances` are (true difference, how often it is told apart). All in top1. Only
    the best is looked at as its rival: others nearly as good raise the chances.
    """

    candidates: int
    seeds: int
    fewest: int  # seeds that every candidate is trained with
    df: int
    noise: AssumedNoise
    margin: float
    resolved: float
    chances: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Flatness:
    """What the search phase tells from a flat surface, by the tests of `surface.Surface.flat`.

    `resolved` is the range over the triangle (in top1) from which any quadratic surface, whatever its form, is called
    not flat in at least 80 % of searches.
    """

    points: int
    runs: int
    df: int
    noise: AssumedNoise
    resolved: float


@dataclass(frozen=True)
class Power:
    """What a search resolves with probability `power`; None for what it cannot show at all."""

    power: float
    comparison: Resolution | None
    surface: Flatness | None


def foreseen(planned: Plan) -> Power:
    """The power of a planned search, under the assumption that `AssumedNoise` states.

    Costs are taken as equal: what an adjustment for cost adds to the noise is left out.
    """
    space, counts, classes = planned.space, planned.data.counts, len(planned.data.classes)
    repeated, candidates, guided = planned.repeated, planned.confirmed, planned.space.sampler == "guided"
    with_seeds = planned.confirmed_with
    if guided:  # of its runs the surface is promised the first seed's alone, as who gets others is open
        df = guided_df(with_seeds)
        runs = [(c.realised, 0) for c in planned.contestants]
    else:
        # The baseline is confirmed too; with one seed the noise comes from what the search phase repeats.
        df = candidates * (space.confirm.seeds - 1) or _repeats(planned)
        seeds = range(space.seeds + space.replicates)
        runs = [(c.realised, s) for c in planned.contestants for s in seeds if s < space.seeds or c in repeated]
    noise = assumed_noise(counts["held"], classes)
    return Power(
        POWER,
        resolution(candidates, space.confirm.seeds, df, noise, with_seeds.count(candidates)),
        None if planned.drawn else flatness(runs, assumed_noise(counts[space.mapped], classes)),
    )


def guided_df(trained: Sequence[int]) -> int:
    """Degrees of freedom of the noise where so many candidates are trained with each seed: of the repeats alone.

    What a surface misses shows noise, too, but only as far as it is not the candidates' own departures from it.
    """
    return sum(number - 1 for number in trained[1:])


def _repeats(planned: Plan) -> int:
    """Degrees of freedom of the search phase's noise, seeds apart and without the baseline: the verdict's fallback."""
    space = planned.space
    if space.sampler == "named":
        return 0
    again = sum(c is not planned.baseline for c in planned.repeated)
    tried = len(planned.contestants) + planned.drawn + space.adaptive
    return (tried - 1) * (space.seeds - 1) + max(0, again - 1) * space.replicates


def assumed_noise(pictures: int, classes: int) -> AssumedNoise:
    """The assumption about a run judged on so many pictures."""
    accuracy = (1 + 1 / classes) / 2
    judging = math.sqrt(accuracy * (1 - accuracy) / pictures)
    return AssumedNoise(pictures, accuracy, judging, TRAINING_SD, math.hypot(judging, TRAINING_SD))


def resolution(
    candidates: int, seeds: int, df: int, noise: AssumedNoise, fewest: int | None = None
) -> Resolution | None:
    """The power of Hsu's comparison with the best; None for fewer than two candidates, or no noise estimate (`df` 0).

    A candidate that is truly `difference` behind the best is told apart when their means differ by more than d times
    the estimated standard error of their difference, with d Dunnett's one-sided critical value. The ratio follows a
    noncentral t with `df` and noncentrality difference / (sd sqrt(1 / seeds + 1 / fewest)).

    In a guided search not everybody is trained with all `seeds`, but a surface through all runs (`pooling`) speaks for
    all, as far as candidates follow it. Counted is neither for nor against it: the best has all seeds, its rival the
    `fewest`. benchmarks/guided.py holds that against simulated searches.
    """
    if candidates < 2 or df < 1:
        return None
    fewest = seeds if fewest is None else fewest
    d = critical_value(candidates - 1, df, fewest / (fewest + seeds), LEVEL)
    error = noise.sd * math.sqrt(1 / seeds + 1 / fewest)

    def chance(noncentrality: float) -> float:
        return float(stats.nct.sf(d, df, noncentrality))

    return Resolution(
        candidates=candidates,
        seeds=seeds,
        fewest=fewest,
        df=df,
        noise=noise,
        margin=d * error,
        resolved=error * _reaching(POWER, chance),
        chances=tuple((difference, chance(difference / error)) for difference in DIFFERENCES),
    )


def flatness(runs: Sequence[tuple[Shares, int]], noise: AssumedNoise) -> Flatness | None:
    """The power of the test for a flat surface; None where the points do not allow a quadratic, or show no error.

    `runs` are (shares, seed); the same one twice is two candidates. The noncentrality of F for a surface f is
    f' M f / sd^2, M the information on the five coefficients that are not the mean, seeds apart. Of all f that differ
    by r between two points, a c-contrast of the coefficients, the least is r^2 / (c' M^-1 c); the largest c' M^-1 c
    over all pairs of points bounds every surface of range r, and one of them attains it.
    """
    levels = sorted({seed for _, seed in runs})
    blocks = np.array([[float(seed == level) for level in levels] for _, seed in runs])
    terms = _terms([shares for shares, _ in runs])
    copies: dict[Shares, int] = {}
    for (shares, _), times in Counter(runs).items():
        copies[shares] = max(times, copies.get(shares, 0))
    candidates = [shares for shares, times in copies.items() for _ in range(times)]
    spare = len(candidates) - TERMS
    repeats = len(runs) - len(levels) - (len(candidates) - 1)
    if objection(QUADRATIC, as_array(candidates), repeats) is not None:
        return None
    if np.linalg.matrix_rank(np.hstack([blocks, terms])) < len(levels) + TERMS - 1:
        return None
    within = terms - blocks @ np.linalg.lstsq(blocks, terms, rcond=None)[0]
    covariance = np.linalg.inv(within.T @ within)
    places = _terms(lattice(FINENESS))
    spread = places @ covariance @ places.T
    largest = float((np.diag(spread)[:, None] + np.diag(spread)[None, :] - 2 * spread).max())
    noncentrality = _reaching(POWER, _not_flat(spare, repeats))
    return Flatness(len(copies), len(runs), spare + repeats, noise, noise.sd * math.sqrt(noncentrality * largest))


def _not_flat(spare: int, repeats: int) -> Callable[[float], float]:
    """How often a quadratic surface is called not flat, by its noncentrality.

    Given what misfit (on `spare` degrees of freedom) and pure error (on `repeats`) come to, the shape's sum of squares
    is a noncentral chi squared that must exceed a limit; the chance is averaged over both. A surface that fits less
    well than repeats let expect is called not flat too, and is then measured against its misfit (`scheffe.fit`).
    """
    middles = (np.arange(NODES) + 0.5) / NODES
    misfit = stats.chi2.ppf(middles, spare)[:, None] if spare else np.zeros((1, 1))
    pure = stats.chi2.ppf(middles, repeats)[None, :] if repeats else np.zeros((1, 1))
    both, shape = spare + repeats, TERMS - 1
    if not spare or not repeats:
        limit, seen = shape * stats.f.ppf(1 - ALPHA, shape, both) * (misfit + pure) / both, np.zeros(1, dtype=bool)
    else:
        lack = stats.f.sf((misfit / spare) / (pure / repeats), spare, repeats)
        alone, pooled = (shape * stats.f.ppf(1 - ALPHA / 2, shape, df) / df for df in (spare, both))
        limit, seen = np.where(lack < POOLING, alone * misfit, pooled * (misfit + pure)), lack < ALPHA / 2
    return lambda value: float(np.where(seen, 1.0, stats.ncx2.sf(limit, shape, value)).mean())


def _terms(points: Sequence[Shares]) -> FloatArray:
    """Scheffe's quadratic on the simplex, (n, 5): its sixth coefficient is the mean's, as the shares sum to 1."""
    rows = [(p.depth, p.width, p.depth * p.width, p.depth * p.resolution, p.width * p.resolution) for p in points]
    return np.array(rows)


def _reaching(chance: float, of: Callable[[float], float]) -> float:
    """Where a rising function reaches `chance`."""
    upper = 1.0
    while of(upper) < chance:
        upper *= 2
    return float(optimize.brentq(lambda value: of(value) - chance, 0.0, upper, xtol=1e-6))
