"""Whether two rankings of the same directions agree: Kendall's tau, and an interval that noise justifies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from scalenet.comparison import FloatArray

LEVEL = 0.95
Outcome = Literal["held", "not held", "open"]


@dataclass(frozen=True)
class Scores:
    """One run's scores of the directions that are compared, in one order for both runs.

    `errors[i, j]` is the standard error of `means[i] - means[j]` on `df` degrees of freedom; infinite where nothing
    shows the noise.
    """

    means: FloatArray
    errors: FloatArray
    df: float


@dataclass(frozen=True)
class Agreement:
    """How far two rankings agree."""

    tau: float | None  # Kendall's tau-b of the scores; None for fewer than two directions
    low: float  # of tau's 95 % interval
    high: float
    pairs: int  # of directions
    kept: int  # of them at least so many have the same order in both, with 97.5 % confidence
    turned: int  # and at least so many the opposite order

    @property
    def outcome(self) -> Outcome:
        """Held: most pairs kept their order, whatever the noise did. Not held: at most half of them did."""
        if self.low > 0:
            return "held"
        return "not held" if self.high <= 0 else "open"


def agreement(first: Scores, second: Scores) -> Agreement:
    """Kendall's tau of two runs' scores, with a 95 % interval for the tau of the scores without noise.

    The directions are fixed, so what is uncertain is the order within each pair of them. That a pair kept its order is
    an intersection-union test: in both runs the same one must be ahead, and the larger of the two one-sided t tests'
    p-values counts (Berger, Technometrics 24, 1982). The p-values of all pairs together give a lower bound for the
    number of pairs that kept their order, and in the same way one for those that turned (`at_least`), each with 97.5 %
    confidence: of N pairs tau lies between 2 kept / N - 1 and 1 - 2 turned / N.

    Resampling seeds is not used: a noisy order agrees less with any other than the true one does, and every resample is
    noisier still, so that such intervals leave out a true tau near 1. Of 1500 simulated pairs of runs with 2 and 3
    seeds, six directions and steps of one noise sd between neighbours, 59 % of them held the true tau of 1; with steps
    of half a noise sd, 17 %.
    """
    i, j = np.triu_indices(len(first.means), 1)
    ups, downs = [], []
    for scores in (first, second):
        t = (scores.means[i] - scores.means[j]) / scores.errors[i, j]
        ups.append(stats.t.sf(t, scores.df))  # small where i is ahead of j
        downs.append(stats.t.sf(-t, scores.df))
    kept = np.minimum(np.maximum(ups[0], ups[1]), np.maximum(downs[0], downs[1]))
    turned = np.minimum(np.maximum(ups[0], downs[1]), np.maximum(downs[0], ups[1]))
    pairs, level = len(i), (1 - LEVEL) / 2
    same, opposite = at_least(kept, level), at_least(turned, level)
    tau = float(stats.kendalltau(first.means, second.means).statistic) if pairs else float("nan")
    return Agreement(
        tau=None if np.isnan(tau) else tau,
        low=2 * same / pairs - 1 if pairs else -1.0,
        high=1 - 2 * opposite / pairs if pairs else 1.0,
        pairs=pairs,
        kept=same,
        turned=opposite,
    )


def at_least(p_values: FloatArray, level: float) -> int:
    """How many of the tested hypotheses are false, at least, with confidence 1 - `level`.

    Simes' test (Biometrika 73, 1986) of all true ones together rejects with probability `level` at most; so, but for
    that, they are no more than the most hypotheses that it does not reject, which are those of the largest p-values
    (Goeman and Solari, Statistical Science 26, 2011). Simes' test needs p-values that are not too negatively dependent;
    for all pairs of means it has been found to keep its level (tests/test_agreement.py simulates it).
    """
    ordered = np.sort(p_values)
    number = len(ordered)
    for true in range(number, 0, -1):
        if np.all(true * ordered[number - true :] > level * np.arange(1, true + 1)):
            return number - true
    return number
