"""Comparing candidates that ran with the same few seeds: least squares, and one-sided comparison with the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

FloatArray = NDArray[np.float64]
SAME = 1e-9  # variance of a difference, over that of the means, below which it is rounding


@dataclass(frozen=True)
class Layout:
    """Least-squares fit of candidate + seed, `score = mean[candidate] + block[seed] + noise`.

    `means` are as over all seeds alike, in the order of `keys`. `covariance` is theirs in units of the noise variance;
    only its contrasts (rows that sum to 0) are free of the seeds. `residual` is the residual sum of squares on `df`
    degrees of freedom.
    """

    keys: tuple[str, ...]
    means: FloatArray
    covariance: FloatArray
    residual: float
    df: int


def fit(scores: Mapping[tuple[str, int], float]) -> Layout:
    """The fit of `{(candidate, seed): score}`; cells may be missing as long as `connected` holds all of them."""
    keys = tuple(dict.fromkeys(key for key, _ in scores))
    seeds = sorted({seed for _, seed in scores})
    design = np.zeros((len(scores), len(keys) + len(seeds)))
    for row, (key, seed) in enumerate(scores):
        design[row, keys.index(key)] = design[row, len(keys) + seeds.index(seed)] = 1.0
    values = np.fromiter(scores.values(), dtype=np.float64, count=len(scores))
    # One constant is free between candidates and seeds; the pseudo-inverse picks one, no mean depends on it.
    inverse = np.linalg.pinv(design)
    effects = inverse @ values
    over_seeds = np.hstack([np.eye(len(keys)), np.full((len(keys), len(seeds)), 1.0 / len(seeds))]) @ inverse
    residual = values - design @ effects
    rank = int(np.linalg.matrix_rank(design))
    return Layout(keys, over_seeds @ values, over_seeds @ over_seeds.T, float(residual @ residual), len(scores) - rank)


@dataclass(frozen=True)
class AtEqualCost:
    """Candidates' means moved to one cost.

    `layout` has the moved means and their covariance; the residual and its degrees of freedom are those of the runs.
    `weights` (candidates x keys of the original layout) is what made the moved means of the original ones. `slope` is
    the contrast of the original means that gives the score per doubling of cost, None where it cannot be told.
    """

    layout: Layout
    weights: FloatArray
    slope: FloatArray | None


def at_equal_cost(
    layout: Layout, growth: Mapping[str, float], baseline: str | None, target: float = 2.0
) -> AtEqualCost:
    """The means of the candidates in `growth`, as if each had `target` times the baseline's cost.

    Scores move along the straight line from the baseline to the candidates' mean. That slope is itself a contrast of
    the same means, so its error is in the covariance that comes out.

    Args:
        layout: the fit of the candidates and the baseline.
        growth: log2 of each candidate's measured cost over the baseline's.
        baseline: its key; without one nothing is moved.
        target: cost over the baseline's.
    """
    weights = np.array([[float(key == other) for other in layout.keys] for key in growth])
    doublings = np.fromiter(growth.values(), dtype=np.float64, count=len(growth))
    slope = None
    # Where the candidates are hardly bigger than the baseline there was no doubling, and the slope would be noise.
    if baseline is not None and doublings.mean() > 0.1:
        gain = weights.mean(axis=0) - np.array([float(key == baseline) for key in layout.keys])
        slope = gain / doublings.mean()
        weights = weights - np.outer(doublings - math.log2(target), slope)
    covariance = weights @ layout.covariance @ weights.T
    moved = Layout(tuple(growth), weights @ layout.means, covariance, layout.residual, layout.df)
    return AtEqualCost(moved, weights, slope)


def connected(cells: Sequence[tuple[str, int]]) -> list[frozenset[str]]:
    """The candidates in groups that shared seeds link, the most cells first; across groups nothing can be compared."""
    groups: list[tuple[set[str], set[int]]] = []
    for key, seed in cells:
        merged: tuple[set[str], set[int]] = ({key}, {seed})
        apart = []
        for group in groups:
            if key in group[0] or seed in group[1]:
                merged = (merged[0] | group[0], merged[1] | group[1])
            else:
                apart.append(group)
        groups = [*apart, merged]
    found = [frozenset(keys) for keys, _ in groups]
    return sorted(found, key=lambda keys: (-sum(key in keys for key, _ in cells), min(keys)))


@dataclass(frozen=True)
class Comparison:
    """One candidate against the best: how far `behind`, and the `margin` that would tell it apart from the best."""

    behind: float
    margin: float
    tied: bool


def with_the_best(
    means: FloatArray, covariance: FloatArray, variance: float, df: float, level: float = 0.95
) -> tuple[Comparison, ...]:
    """Hsu's one-sided multiple comparison with the best, on `means` of covariance `variance * covariance`.

    A candidate leaves the tied set when some other exceeds it by more than Dunnett's one-sided critical value with that
    candidate as the control (Hsu, Annals of Statistics 12, 1984; Hsu, Multiple Comparisons, 1996, ch. 4). The truly
    best one stays with probability `level` or more. Two that a surface predicts to be the same, whatever the scores,
    are not told apart.
    """
    best = int(np.argmax(means))
    compared = []
    for i in range(len(means)):
        others = [j for j in range(len(means)) if j != i and _differ(covariance, i, j)]
        contrasts = np.eye(len(means))[others] - np.eye(len(means))[i]
        spread = contrasts @ covariance @ contrasts.T
        errors = np.sqrt(variance * np.diag(spread))
        critical = critical_value(len(others), df, _least_correlation(spread), level)
        gaps = contrasts @ means
        rival = others.index(best) if best in others else int(np.argmax(gaps)) if others else None
        margin = critical * float(errors[rival]) if rival is not None else 0.0
        compared.append(Comparison(float(means[best] - means[i]), margin, bool(np.all(gaps <= critical * errors))))
    return tuple(compared)


@dataclass(frozen=True)
class Difference:
    """A control's mean less another's, and half of the simultaneous two-sided interval."""

    value: float
    margin: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return abs(self.value) > self.margin


def with_a_control(
    means: FloatArray, covariance: FloatArray, variance: float, df: float, control: int, level: float = 0.95
) -> tuple[Difference, ...]:
    """Dunnett's two-sided comparison of a control with all others (JASA 50, 1955), all at once at `level`.

    The control must have been named before these means were seen. Its own place holds a difference of 0.
    """
    contrasts = np.eye(len(means))[control] - np.eye(len(means))
    spread = contrasts @ covariance @ contrasts.T
    others = [i for i in range(len(means)) if i != control and _differ(covariance, i, control)]
    correlation = _least_correlation(spread[np.ix_(others, others)])
    critical = critical_value(len(others), df, max(0.0, correlation), level, two_sided=True)
    margins = critical * np.sqrt(variance * np.diag(spread).clip(0))
    gaps = np.where(np.isin(np.arange(len(means)), others), contrasts @ means, 0.0)
    return tuple(Difference(float(gap), float(margin)) for gap, margin in zip(gaps, margins, strict=True))


@lru_cache(maxsize=512)
def critical_value(
    comparisons: int, df: float, correlation: float = 0.5, level: float = 0.95, *, two_sided: bool = False
) -> float:
    """Dunnett's critical value d: P(max of `comparisons` equicorrelated t's with `df` <= d) = `level`.

    Dunnett, JASA 50, 1955, table 1a has correlation 1/2 (equal numbers of runs). Correlations that differ are to be
    given by their smallest: by Slepian's inequality d is then too large, never too small (two-sided, and not below 0,
    by Sidak's). Below 0 the value is Bonferroni's, for the same reason. `df` may be `math.inf`. `two_sided`: of the
    largest t's absolute value (Dunnett, Biometrics 20, 1964).
    """
    if comparisons == 0:
        return 0.0
    bonferroni = float(stats.t.ppf(1 - (1 - level) / (2 * comparisons if two_sided else comparisons), df))
    if comparisons == 1 or correlation < 0:
        return bonferroni
    # Given the common part z and the scale s of the t's, they are independent: the probability is a double integral.
    z, z_weights, u, u_weights = _nodes()
    if math.isinf(df):
        s, s_weights = np.ones(1), np.ones(1)
    else:
        s, s_weights = np.sqrt(stats.chi2.ppf(u, df) / df), u_weights
    root, rest = math.sqrt(correlation), math.sqrt(1 - correlation)

    def excess(d: float) -> float:
        within = special.ndtr((d * s[:, None] + root * z[None, :]) / rest)
        if two_sided:
            within = within - special.ndtr((-d * s[:, None] + root * z[None, :]) / rest)
        return float(s_weights @ within**comparisons @ z_weights) - level

    least = 0.0 if two_sided else -bonferroni
    return float(optimize.brentq(excess, least, bonferroni + 1e-6, xtol=1e-8))


@lru_cache(maxsize=1)
def _nodes() -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Nodes and weights that average over a standard normal (Gauss-Hermite) and over [0, 1] (Gauss-Legendre)."""
    z, z_weights = np.polynomial.hermite_e.hermegauss(96)
    u, u_weights = np.polynomial.legendre.leggauss(128)
    return z, z_weights / z_weights.sum(), (u + 1) / 2, u_weights / 2


def _differ(covariance: FloatArray, i: int, j: int) -> bool:
    """Whether scores can tell two means apart; not where a surface gives both points one prediction."""
    difference = covariance[i, i] + covariance[j, j] - 2 * covariance[i, j]
    return bool(difference > SAME * max(covariance[i, i], covariance[j, j]))


def _least_correlation(covariance: FloatArray) -> float:
    """The smallest correlation of a covariance matrix, rounded down to three digits and kept off 1."""
    if len(covariance) < 2:
        return 0.5  # one comparison: it does not enter
    sd = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(sd, sd)
    return min(0.99, math.floor(float(correlation.min()) * 1000 + 1e-6) / 1000)
