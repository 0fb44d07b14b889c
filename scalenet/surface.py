"""The response surface: Scheffe's polynomial with returns that may diminish, and what else the scores show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from scalenet.comparison import FloatArray, Layout
from scalenet.scheffe import (
    EXACT,
    LINEAR,
    QUADRATIC,
    Model,
    NoSurface,
    Polynomial,
    as_array,
    grid,
    products,
    whitened,
)
from scalenet.scheffe import fit as fit_polynomial
from scalenet.shares import Shares

ALPHA = 0.05  # of calling a flat surface not flat
DEGREE = 6  # of a departure
DECAY = 0.7  # a departure's standard deviation at one degree over that at the degree below
# A factor's curve is 1 - exp(-rate * share). Before any score, rates are thought to be distributed exponentially, with
# this mean and up to this one; 0 is the parabola.
RATE, HIGHEST = 4.5, 13.5
CELLS = 4  # that rates are looked for in, equally likely before any score
OUT = 0.002  # how likely a cell at an end is at most, if those left are to be looked at more closely
# Variances that a further departure may have, in units of one run's noise variance; how likely none is thought to be,
# over a small one; one as large as the noise is half as likely as a small one, and so on.
VARIANCES = (0.0, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
NONE = 25.0


@dataclass(frozen=True, eq=False)
class Basis:
    """Functions on the simplex: combinations of products of powers of the shares."""

    powers: tuple[tuple[int, int, int], ...]
    weights: FloatArray  # (powers, functions)

    def values(self, points: FloatArray) -> FloatArray:
        """The functions (n, functions) at points (n, 3)."""
        return products(points, self.powers) @ self.weights

    def slopes(self, points: FloatArray) -> FloatArray:
        """Their derivatives by each share (n, functions, 3)."""
        powers = np.array(self.powers)
        lower = [np.maximum(powers - np.eye(3, dtype=int)[share], 0) for share in range(3)]
        found = [(products(points, low) * powers[:, share]) @ self.weights for share, low in enumerate(lower)]
        return np.stack(found, axis=-1)


@dataclass(frozen=True, eq=False)
class Surface:
    """A fitted surface: `polynomial` is Scheffe's, as in the textbooks; what is predicted may depart from it.

    Scores are on the scale that was fitted (top1 in [0, 1]); shares are the realised ones. Of `covariance` only what
    concerns differences between two points means anything, as the seeds' common level is free.
    """

    polynomial: Polynomial
    basis: Basis
    coefficients: FloatArray  # (functions of the basis,)
    covariance: FloatArray  # of the error of `coefficients`, by noise and by what the scores leave open of the form
    variance: float  # of one run's score
    df: int  # of `variance`

    @property
    def flat(self) -> bool:
        """Whether the scores are compatible with every direction being equally good, at the 5 % level.

        That is where neither the polynomial nor the candidates' departures from it show; each is tested at half the
        level (Bonferroni).
        """
        return self.flat_p > ALPHA

    @property
    def flat_p(self) -> float:
        """How often a flat surface shows as much shape as this one: the smaller of two p values, doubled."""
        tests = [test for test in (self.polynomial.shape, self.polynomial.lack_of_fit) if test is not None]
        return min(1.0, len(tests) * min(test.p for test in tests))

    @property
    def departure(self) -> float:
        """Root mean square over the simplex of what is predicted beside a polynomial, on the scale of the scores."""
        return float(np.linalg.norm(self.coefficients[len(self.polynomial.model.terms) :]))  # of orthonormal functions

    def predict(self, shares: Shares) -> float:
        """The score expected there."""
        return float((self.basis.values(as_array([shares])) @ self.coefficients)[0])

    def error(self, one: Shares, other: Shares) -> float:
        """The standard error of the difference between two predictions."""
        here, there = self.basis.values(as_array([one, other]))
        return float(np.sqrt(max(0.0, (here - there) @ self.covariance @ (here - there))))

    @property
    def optimum(self) -> Shares:
        """Where on the simplex the prediction is highest."""
        heights = self.basis.values(grid(50)) @ self.coefficients
        start, unit = grid(50)[np.argmax(heights)], float(np.ptp(heights)) or 1.0  # the tolerance is of that range
        found = optimize.minimize(
            lambda x: -float(self.basis.values(x) @ self.coefficients - heights.max()) / unit,
            start,
            jac=lambda x: -(self.coefficients @ self.basis.slopes(x)) / unit,
            method="SLSQP",
            bounds=[(0.0, 1.0)] * 3,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1.0, "jac": np.ones_like},
            options={"ftol": 1e-12},
        )
        nearer = np.where(found.x > 1e-7, found.x, 0.0)
        both = np.stack([start, nearer / nearer.sum()])
        return Shares(*both[np.argmax(self.basis.values(both) @ self.coefficients)].tolist())


def fit(layout: Layout, points: Mapping[str, Shares]) -> Surface | NoSurface:
    """The surface through the candidates' means.

    The polynomial is the quadratic, or the linear blend where the points allow no more (`scheffe.fit`). On the simplex
    the quadratic is a sum of three parabolas, one of each share, since 2 x y = 1 - 2 z + z^2 - x^2 - y^2. But returns
    diminish: a factor's curve is steep at first and level later, and a polynomial's optimum is then off by more than
    its errors say, although the scores may not show it. So each parabola may as well be a curve 1 - exp(-rate * share),
    and further terms up to degree 6 are in the surface as random ones of one common variance (times 0.49 for every
    degree): the "potential terms" of DuMouchel and Jones, Technometrics 36, 1994. Which rates, and which variance, is
    left open: combinations of them are fitted, the prediction is their mean by how likely each is (Hoeting et al.,
    Statistical Science 14, 1999), and its error counts how they differ. All of it is fitted by polynomials of degree 6.
    Curves that get steeper, and rates above HIGHEST, are followed as departures only.

    The special cubic's term as a free one was worse, and so was a polynomial with departures of the most likely
    variance alone (benchmarks/README.md).

    Args:
        layout: the candidates' means at equal cost (`comparison.at_equal_cost`).
        points: the realised shares of each of its keys.
    """
    polynomial = fit_polynomial(layout, points, (QUADRATIC, LINEAR))
    if isinstance(polynomial, NoSurface):
        return polynomial
    shares = as_array([points[key] for key in layout.keys])
    basis, degrees = _with_departures(polynomial.model)
    level = float(layout.means.mean())  # of no account, but large numbers have few digits left for differences
    design, scores = whitened(layout.covariance, basis.values(shares), layout.means - level)
    df = len(shares) - len(polynomial.model.terms) + layout.df
    if polynomial.model is QUADRATIC:
        # Three rates are chosen by the scores, too; but few scores leave them much as they were thought to be.
        df -= min(3, df // 5)
    found, weights = _by_form(polynomial.model, design, scores, degrees, layout.residual, df)
    each = np.concatenate([one.coefficients for one in found])
    coefficients = weights @ each
    apart = each - coefficients
    within = np.einsum("m,mij->ij", weights, np.concatenate([one.covariances for one in found]))
    coefficients[:3] += level  # the shares sum to 1
    return Surface(
        polynomial=polynomial,
        basis=basis,
        coefficients=coefficients,
        covariance=within + (apart.T * weights) @ apart,
        variance=float(weights @ np.concatenate([one.variances for one in found])),
        df=df,
    )


@dataclass(frozen=True, eq=False)
class _Fitted:
    """The fits by every combination of curves, with departures of one variance."""

    likelihoods: FloatArray  # (combinations,): log posterior weight, up to a constant
    coefficients: FloatArray  # (combinations, functions of the basis)
    covariances: FloatArray  # (combinations, functions, functions)
    variances: FloatArray  # (combinations,): of one run's score


def _by_form(
    model: Model, design: FloatArray, scores: FloatArray, degrees: NDArray[np.int_], residual: float, df: int
) -> tuple[list[_Fitted], FloatArray]:
    """The fits by every combination of curves, for each of VARIANCES, and how likely each is.

    Rates are those in the middle of equally likely cells. Where cells at an end can be left out, the rest is divided
    anew: the clearer the scores, the closer are the rates, so that what is between two of them is open anyway.
    """
    ends = np.tile([0.0, 1 - np.exp(-HIGHEST / RATE)], (3, 1))
    while True:
        shapes = _shapes(model, ends)
        found = [_fitted(shapes, design, scores, degrees, v, residual, df) for v in VARIANCES]
        weights = np.concatenate([one.likelihoods for one in found])
        weights = np.exp(weights - weights.max())
        weights /= weights.sum()
        if len(shapes) == 1:
            return found, weights
        cells = weights.reshape(len(VARIANCES), CELLS, CELLS, CELLS).sum(axis=0)
        narrowed = ends.copy()
        for factor in range(3):
            kept = np.flatnonzero(cells.sum(axis=tuple({0, 1, 2} - {factor})) > OUT)[[0, -1]] + [0, 1]
            narrowed[factor] = ends[factor, 0] + kept * np.ptp(ends[factor]) / CELLS
        if np.allclose(narrowed, ends) or np.ptp(narrowed, axis=1).min() < 1e-3:
            return found, weights
        ends = narrowed


def _fitted(
    shapes: FloatArray,
    design: FloatArray,
    scores: FloatArray,
    degrees: NDArray[np.int_],
    variance: float,
    residual: float,
    df: int,
) -> _Fitted:
    """Universal kriging (Cressie, Statistics for Spatial Data, 1993, section 3.4) of whitened scores.

    What is free are the model's coefficients; a departure of the given variance, in units of the noise's, is around
    them. How likely that is, is by restricted likelihood (Patterson and Thompson, Biometrika 58, 1971).
    """
    fixed = shapes.shape[2]
    departures, sizes = design[:, fixed:], variance * _sizes(degrees[fixed:]) ** 2
    inverse = np.linalg.inv(np.eye(len(design)) + (departures * sizes) @ departures.T)
    gain = sizes[:, None] * (departures.T @ inverse)  # of departures, by what the curves leave of the scores
    known = design @ shapes
    weighted = known.transpose(0, 2, 1) @ inverse
    information = weighted @ known
    trend = np.linalg.solve(information, (weighted @ scores)[..., None])
    left = scores - (known @ trend)[..., 0]
    variances = np.maximum(EXACT, (np.sum(left @ inverse * left, axis=1) + residual) / df)
    determinants = np.linalg.slogdet(information)[1] - np.linalg.slogdet(inverse)[1]
    prior = np.log(NONE if variance == 0 else 1 / (1 + variance))
    coefficients = (shapes @ trend)[..., 0]
    coefficients[:, fixed:] += left @ gain.T
    reach = shapes.copy()  # of an error in the free coefficients
    reach[:, fixed:] -= gain @ known
    covariances = reach @ np.linalg.solve(information, reach.transpose(0, 2, 1))
    covariances[:, fixed:, fixed:] += np.diag(sizes) - gain @ departures * sizes
    return _Fitted(
        likelihoods=prior - 0.5 * (df * np.log(variances) + determinants),
        coefficients=coefficients,
        covariances=variances[:, None, None] * covariances,
        variances=variances,
    )


def _sizes(degrees: NDArray[np.int_]) -> FloatArray:
    """A departure's standard deviation by each function, relative to one of its lowest degree."""
    return np.asarray(DECAY ** (degrees - degrees.min()), dtype=np.float64)


def _shapes(model: Model, ends: FloatArray) -> FloatArray:
    """What functions of the basis come with each term of the model: (combinations, functions, terms).

    Terms mean the same in all: what of the surface a polynomial describes, over the simplex. `ends` are those of the
    cells of each factor's rate, as parts of the distribution of rates.
    """
    inverse, fixed = _projection(model), len(model.terms)
    plain = np.eye(len(inverse))[:, :fixed]
    if model is not QUADRATIC:
        return plain[None]
    middles = ends[:, :1] + np.ptp(ends, axis=1)[:, None] * (np.arange(CELLS) + 0.5) / CELLS
    rates = -RATE * np.log1p(-middles)  # (3, cells)
    # Straight lines come with them anyway; without, much is left of the digits where a rate is small.
    curves = -np.expm1(-rates[..., None] * grid().T[:, None]) - rates[..., None] * grid().T[:, None]
    parts = curves @ inverse.T  # (3, cells, functions)
    cells = np.indices((CELLS, CELLS, CELLS)).reshape(3, -1)
    chosen = np.stack([parts[factor, cells[factor]] for factor in range(3)], axis=-1)  # (combinations, functions, 3)
    shapes = np.tile(plain, (len(chosen), 1, 1))
    shapes[:, fixed:, 3:] = chosen[:, fixed:] @ np.linalg.inv(chosen[:, 3:fixed])  # per unit of a product of two shares
    return shapes


@lru_cache(maxsize=4)
def _projection(model: Model) -> FloatArray:
    """What gives a function's parts along the basis (functions, points) of its values over the simplex."""
    return np.asarray(np.linalg.pinv(_with_departures(model)[0].values(grid())), dtype=np.float64)


@lru_cache(maxsize=4)
def _with_departures(model: Model) -> tuple[Basis, NDArray[np.int_]]:
    """The model's terms and after them those of departures, and the degree of each (0 for the model's).

    Departures of one degree are orthonormal over the simplex, to one another and to all before them, so that the size
    of a departure does not depend on which factor comes first.
    """
    powers = [*model.terms]
    found = np.linalg.qr(model.values(grid()))[0]
    degrees = [0] * len(model.terms)
    for degree in range(2, DEGREE + 1):
        new = [(i, degree - i, 0) for i in range(degree, -1, -1)]
        left = products(grid(), new)
        left = left - found @ (found.T @ left)
        directions, lengths, _ = np.linalg.svd(left, full_matrices=False)
        kept = directions[:, lengths > 1e-9]  # none where the model has all of this degree
        if kept.shape[1]:
            powers, found = powers + new, np.hstack([found, kept])
            degrees += [degree] * kept.shape[1]
    departures = found[:, len(model.terms) :] * np.sqrt(len(grid()))
    weights = np.zeros((len(powers), len(degrees)))
    weights[: len(model.terms), : len(model.terms)] = np.eye(len(model.terms))
    weights[:, len(model.terms) :] = np.linalg.lstsq(products(grid(), powers), departures, rcond=None)[0]
    return Basis(tuple(powers), weights), np.array(degrees)
