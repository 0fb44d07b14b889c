"""Borrowing strength: a candidate's mean is Scheffe's quadratic at its shares, and a departure of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import linalg, optimize

from scalenet.comparison import FloatArray, Layout
from scalenet.scheffe import QUADRATIC, as_array
from scalenet.shares import Shares

LEAST, MOST = 1e-2, 1e6  # variance of the departures over that of one run's noise, as far as it is looked for


def pooled(layout: Layout, shares: Mapping[str, Shares]) -> Layout:
    """Candidates' means predicted from all of them: `mean = surface(shares) + departure`.

    A mixed model: departures are normal and independent, their variance is found by restricted maximum likelihood, and
    the means are best linear unbiased predictions (Robinson, Statistical Science 6, 1991) whose covariance allows for
    the departures. Where the surface fits, every run speaks for all candidates; where it does not, each is left to its
    own runs. Departures show only against repeats: without any (`layout.df` 0) all that the surface misses is noise.
    Candidates are points of their own here, as rounding made them; a surface between them is `surface.fit`'s.

    Args:
        layout: the means at equal cost (`comparison.at_equal_cost`).
        shares: the realised shares of its keys; of further keys, which have not been trained, the surface alone tells.

    Returns:
        The same for the keys of `shares`; `layout` itself where its points do not settle a quadratic. `residual / df`
        is the noise variance by repeats and misfit together. As far as the misfit went into the departures' variance it
        tells nothing of the noise, so its degrees of freedom then count in part, by Satterthwaite's approximation with
        the likelihood's information on both variances (Giesbrecht and Burns, Biometrics 41, 1985), rounded down.
    """
    trained = [key for key in layout.keys if key in shares]
    at = [layout.keys.index(key) for key in trained]
    means, terms = layout.means[at], QUADRATIC.values(as_array([shares[key] for key in trained]))
    if np.linalg.matrix_rank(terms, tol=1e-6) < terms.shape[1]:
        return layout
    noise = layout.covariance[np.ix_(at, at)]
    blind = linalg.null_space(terms.T)  # contrasts of the means that no quadratic touches
    variances, axes = np.linalg.eigh(blind.T @ noise @ blind)
    squares = (axes.T @ blind.T @ means) ** 2
    df = layout.df + len(squares)

    def residual(ratio: float) -> float:
        return layout.residual + float(np.sum(squares / (variances + ratio)))

    def unlikely(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        return df * math.log(residual(ratio)) + float(np.sum(np.log(variances + ratio)))

    ratio = 0.0
    if layout.df and layout.residual > 0:
        bounds = (math.log(LEAST), math.log(MOST))
        found = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded")
        none = df * math.log(residual(0.0)) + float(np.sum(np.log(variances)))
        ratio = math.exp(found.x) if found.fun < none else 0.0

    all_terms = QUADRATIC.values(as_array(list(shares.values())))
    own = np.array([[float(key == other) for other in trained] for key in shares])
    total = noise + ratio * np.eye(len(trained))
    weights = np.linalg.inv(total)
    surface = np.linalg.solve(terms.T @ weights @ terms, terms.T @ weights)
    predict = all_terms @ surface + ratio * own @ weights @ (np.eye(len(trained)) - terms @ surface)
    shared = ratio * predict @ own.T  # covariance of a prediction with the departure it is to meet
    covariance = predict @ total @ predict.T - shared - shared.T + ratio * np.eye(len(shares))
    told = df if ratio == 0 else math.floor(_degrees_of_freedom(layout.df, variances, ratio))
    return Layout(tuple(shares), predict @ means, covariance, residual(ratio) * told / max(df, 1), told)


def _degrees_of_freedom(repeats: int, variances: FloatArray, ratio: float) -> float:
    """Of the noise's variance, where that of the departures (`ratio` times it) is estimated from the same scores."""
    both = variances + ratio
    shared = np.sum(variances / both**2) ** 2 / np.sum(1 / both**2)
    return float(repeats + max(0.0, np.sum((variances / both) ** 2) - shared))  # below 0 by rounding alone
