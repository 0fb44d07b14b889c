"""Scheffe's polynomials of the three shares, fitted by generalised least squares and tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from scalenet.comparison import FloatArray, Layout
from scalenet.mixture import lattice
from scalenet.shares import FACTORS, Shares

POOLING = 0.25  # below it lack of fit is not taken for noise (Bancroft, Biometrics 20, 1964)
LEVERAGE = 1.5  # variance of a prediction anywhere, over that of one candidate's mean
EXACT = 1e-18  # a variance below it is rounding
STEPS = 20  # the lattice that stands for the whole simplex: 231 points


@dataclass(frozen=True)
class Model:
    """A Scheffe canonical polynomial: a sum of products of shares, without a constant.

    The constant is in it all the same, as the shares sum to 1 (Scheffe, JRSS B 20, 1958). A term is the powers of the
    three shares.
    """

    name: str
    terms: tuple[tuple[int, int, int], ...]

    def values(self, points: FloatArray) -> FloatArray:
        """The terms (n, terms) at points (n, 3)."""
        return products(points, self.terms)


LINEAR = Model("linear blend", ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
QUADRATIC = Model("quadratic", (*LINEAR.terms, (1, 1, 0), (1, 0, 1), (0, 1, 1)))
SPECIAL_CUBIC = Model("special cubic", (*QUADRATIC.terms, (1, 1, 1)))
MODELS = (SPECIAL_CUBIC, QUADRATIC, LINEAR)  # the richest that the points allow is taken


@dataclass(frozen=True)
class FTest:
    """A ratio of two mean squares, their degrees of freedom, and how often chance alone gives a larger one."""

    statistic: float
    df: tuple[int, int]
    p: float


@dataclass(frozen=True, eq=False)
class Polynomial:
    """A fitted model, on the scale of the scores.

    The seeds' common level is in `coefficients`, so of `covariance` (error variance included) only what concerns
    differences between two points means anything.
    """

    model: Model
    coefficients: FloatArray  # (terms,), in the model's order
    covariance: FloatArray  # (terms, terms)
    variance: float  # of one run's score: noise, lack of fit or both pooled
    df: int  # of `variance`
    r2: float  # part of the variation between candidates that the polynomial describes; 0 where there is none
    lack_of_fit: FTest | None  # against pure error; None where there are no replicates or no points to spare
    shape: FTest  # against a flat surface
    residuals: Mapping[str, float]  # score less fitted value
    note: str | None  # why not a richer model


@dataclass(frozen=True)
class NoSurface:
    """Why there is no surface, in a sentence."""

    reason: str


def fit(layout: Layout, points: Mapping[str, Shares], models: Sequence[Model] = MODELS) -> Polynomial | NoSurface:
    """The richest of `models` that the points allow, by generalised least squares.

    A model is allowed where (1) no prediction on the simplex has more than 1.5 times the variance of one candidate's
    mean, so that nothing is extrapolated: the {3, 2} lattice gives 1 for the quadratic, and so does the centroid design
    of 7 points for the special cubic (Kiefer, Annals of Mathematical Statistics 32, 1961); (2) something is left to
    show the error: more candidates than terms, or replicates.

    The error variance pools lack of fit and pure error. Where lack of fit shows (p < 0.25) it is used alone; where one
    of the two has no degrees of freedom, the other.

    Args:
        layout: the candidates' means at equal cost (`comparison.at_equal_cost`).
        points: the realised shares of each of its keys.
        models: the richest first.
    """
    if not np.isfinite([*layout.means, layout.residual]).all():
        return NoSurface("There is no surface: a score is not a finite number.")
    shares = as_array([points[key] for key in layout.keys])
    note = None
    for model in models:
        if (reason := objection(model, shares, layout.df)) is None:
            return _fitted(layout, shares, model, note)
        note = f"no {model.name}: {reason}"
    return NoSurface(f"There is {note}.")


def as_array(points: Sequence[Shares]) -> FloatArray:
    """Points as rows (n, 3)."""
    return np.array([(s.depth, s.width, s.resolution) for s in points], dtype=np.float64).reshape(-1, 3)


@lru_cache(maxsize=4)
def grid(steps: int = STEPS) -> FloatArray:
    """The lattice of the simplex as rows (n, 3)."""
    return as_array(lattice(steps))


def products(points: FloatArray, powers: Sequence[tuple[int, int, int]]) -> FloatArray:
    """Products of powers of the shares: (n, terms) at points (n, 3)."""
    return np.asarray(np.prod(points[..., None, :] ** np.array(powers), axis=-1), dtype=np.float64)


def whitened(covariance: FloatArray, *columns: FloatArray) -> list[FloatArray]:
    """Columns (candidates, ...) made such that noise of that covariance is independent and of one variance.

    The seeds' common level is free: any multiple of a matrix of ones may be added to the covariance, which makes it
    regular and leaves every estimate of a difference as it was.
    """
    root = np.linalg.cholesky(covariance + np.diag(covariance).mean())
    return [np.asarray(np.linalg.solve(root, column), dtype=np.float64) for column in columns]


def objection(model: Model, shares: FloatArray, pure_df: int) -> str | None:
    """Why the points do not allow the model; None where they do."""
    terms, number = len(model.terms), len(shares)
    if number < terms:
        return f"{number} candidates for {terms} terms"
    if number == terms and not pure_df:
        return f"{number} candidates for {terms} terms, and no replicates to show the error"
    design = model.values(shares)
    if np.linalg.matrix_rank(design, tol=1e-6) < terms:
        return f"the {number} candidates lie too close together for {terms} terms"
    everywhere = model.values(grid())
    leverage = np.einsum("ij,jk,ik->i", everywhere, np.linalg.inv(design.T @ design), everywhere)
    if leverage.max() > LEVERAGE:
        where = zip(FACTORS, grid()[leverage.argmax()], strict=True)
        return f"no candidate is near {', '.join(f'{factor} {share:.2f}' for factor, share in where)}"
    return None


def _fitted(layout: Layout, shares: FloatArray, model: Model, note: str | None) -> Polynomial:
    number, terms = len(shares), len(model.terms)
    design, level, scores = whitened(layout.covariance, model.values(shares), np.ones((number, 1)), layout.means)
    coefficients = np.asarray(np.linalg.lstsq(design, scores, rcond=None)[0], dtype=np.float64)
    misfit = _squares(scores - design @ coefficients)
    around = _squares(scores - level @ np.linalg.lstsq(level, scores, rcond=None)[0])
    variance, df, lack_of_fit = _error(misfit, number - terms, layout.residual, layout.df)
    residuals = layout.means - model.values(shares) @ coefficients
    return Polynomial(
        model=model,
        coefficients=coefficients,
        covariance=variance * np.linalg.inv(design.T @ design),
        variance=variance,
        df=df,
        r2=1 - misfit / around if around > EXACT else 0.0,
        lack_of_fit=lack_of_fit,
        shape=_ratio((around - misfit) / (terms - 1), variance, (terms - 1, df)),
        residuals=dict(zip(layout.keys, residuals.tolist(), strict=True)),
        note=note,
    )


def _error(misfit: float, misfit_df: int, pure: float, pure_df: int) -> tuple[float, int, FTest | None]:
    """The variance of one run, its degrees of freedom, and the test of lack of fit."""
    if not pure_df:
        return max(EXACT, misfit / misfit_df), misfit_df, None
    if not misfit_df:
        return max(EXACT, pure / pure_df), pure_df, None
    test = _ratio(misfit / misfit_df, max(EXACT, pure / pure_df), (misfit_df, pure_df))
    if test.p < POOLING:
        return max(EXACT, misfit / misfit_df), misfit_df, test
    return max(EXACT, (misfit + pure) / (misfit_df + pure_df)), misfit_df + pure_df, test


def _ratio(square: float, error: float, df: tuple[int, int]) -> FTest:
    statistic = max(0.0, square) / error
    return FTest(statistic, df, float(stats.f.sf(statistic, *df)))


def _squares(values: FloatArray) -> float:
    return float(values @ values)
