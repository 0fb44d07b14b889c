"""The response surface: a Scheffe polynomial, and as much of a departure from it as the scores show."""

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
DECAY = 0.6  # a departure's standard deviation at one degree over that at the degree below
LEAST = 0.02  # variance of a departure that is always allowed for, in units of one run's noise variance
# What candidates show less of than a lattice of five parts would is taken to be this large, in standard deviations of
# the polynomial's own functions. Of the nine other truths in benchmarks/coverage.py it is 0.06 to 0.62, median 0.30.
HIDDEN = 1 / 3
PARTS = 5  # of that lattice; a departure's degree as well, the highest that it can show
# Of a departure, in the same units, among which the most likely is taken.
VARIANCES = (0.0, *np.geomspace(1e-2, 1e4, 25).tolist())


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
    """A fitted surface: `polynomial` is Scheffe's, as in the textbooks; what is predicted has a departure added to it.

    Scores are on the scale that was fitted (top1 in [0, 1]); shares are the realised ones. Of `covariance` only what
    concerns differences between two points means anything, as the seeds' common level is free.
    """

    polynomial: Polynomial
    departure_sd: float  # typical size of what the polynomial misses, on the scale of the scores; 0 where nothing shows
    basis: Basis
    coefficients: FloatArray  # (functions of the basis,)
    covariance: FloatArray  # of the error of `coefficients`, noise and departure together
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

    The polynomial is the quadratic, or the linear blend where the points allow no more (`scheffe.fit`). No truth is
    exactly of that form, and a polynomial's optimum is then off by more than its errors say. So all further terms up to
    degree 6, the special cubic's among them, are in the surface too, as random ones of one common variance (times 0.36
    for every degree): the "potential terms" of DuMouchel and Jones, Technometrics 36, 1994. Their variance is the most
    likely one by the scores (restricted likelihood), which often is 0. But a departure too small to show may still move
    the optimum; the terms therefore always keep the freedom that a variance of LEAST gives them, and the errors count
    what that costs. The special cubic's term as a free one was worse (benchmarks/coverage.py): it hides departures.

    Candidates that leave a part of the triangle empty, or lie otherwise than a lattice's, cannot show what the
    polynomial misses, or take it for a shift of the optimum: their scores are as likely without it. Silence then proves
    nothing, and the errors count a departure of HIDDEN as far as these candidates miss more of it than a lattice of
    five parts would with the same noise; of the lattice itself that is nothing.

    Args:
        layout: the candidates' means at equal cost (`comparison.at_equal_cost`).
        points: the realised shares of each of its keys.
    """
    polynomial = fit_polynomial(layout, points, (QUADRATIC, LINEAR))
    if isinstance(polynomial, NoSurface):
        return polynomial
    shares = as_array([points[key] for key in layout.keys])
    fixed = len(polynomial.model.terms)
    basis, degrees = _with_departures(polynomial.model)
    sizes = _sizes(degrees, DEGREE)
    level = float(layout.means.mean())  # of no account, but large numbers have few digits left for differences
    design, scores = whitened(layout.covariance, basis.values(shares), layout.means - level)
    df = len(shares) - fixed + layout.df
    found = [_Mixed(design, sizes, fixed, v) for v in VARIANCES]
    likelihoods = np.array([mixed.likelihood(scores, layout, df) for mixed in found])
    likely = found[int(np.argmax(likelihoods > likelihoods.max() - 1e-9))]  # the least of those as likely
    variance = likely.error(scores, layout, df)
    used = likely if likely.variance >= LEAST else _Mixed(design, sizes, fixed, LEAST)
    smoother = used.smoother
    # The error: what noise does to the estimate, and what it misses of a departure of the most likely variance.
    missed = smoother @ design - np.eye(design.shape[1])
    covariance = smoother @ smoother.T + likely.variance * (missed * sizes**2) @ missed.T
    coefficients = smoother @ scores
    curve = _curve(polynomial.model, coefficients[:fixed], variance * covariance[:fixed, :fixed])
    unseen = max(0.0, HIDDEN**2 * curve / variance - likely.variance)
    covariance += unseen * _hidden(layout, shares, basis, degrees, used.variance)
    coefficients[:3] += level  # the shares sum to 1
    return Surface(
        polynomial=polynomial,
        departure_sd=float(np.sqrt(variance * likely.variance * (sizes**2).sum())),
        basis=basis,
        coefficients=coefficients,
        covariance=variance * covariance,
        variance=variance,
        df=df,
    )


def _curve(model: Model, coefficients: FloatArray, covariance: FloatArray) -> float:
    """Mean square of the polynomial's coefficients by orthonormal functions, its mean apart, less what noise adds."""
    values = model.values(grid())
    values = values - values.mean(axis=0)
    noise = np.sum(values @ covariance * values, axis=1)
    return max(0.0, float(np.mean((values @ coefficients) ** 2 - noise))) / (len(model.terms) - 1)


def _hidden(layout: Layout, shares: FloatArray, basis: Basis, degrees: NDArray[np.int_], variance: float) -> FloatArray:
    """Covariance of what is missed of a departure beyond what a lattice would miss, in units of its variance.

    Both by a smoother of the same variance; which misses more of what is told by values over the simplex.
    """
    fixed = int((degrees == 0).sum())
    sizes, most = _sizes(degrees, DEGREE), _sizes(degrees, PARTS)

    def missed(points: FloatArray, covariance: FloatArray) -> FloatArray:
        (design,) = whitened(covariance, basis.values(points))
        left = _Mixed(design, sizes, fixed, variance).smoother @ design - np.eye(design.shape[1])
        return np.asarray((left * most**2) @ left.T, dtype=np.float64)

    number = len(shares)
    noise = (np.trace(layout.covariance) - layout.covariance.sum() / number) / (number - 1)  # the level apart
    more = missed(shares, layout.covariance) - missed(grid(PARTS), noise * np.eye(len(grid(PARTS))))
    values = basis.values(grid())
    root = np.linalg.qr(values - values.mean(axis=0))[1]  # only differences between points matter
    squares, ways = np.linalg.eigh(root @ more @ root.T)
    back = np.linalg.pinv(root, rcond=1e-9) @ (ways * np.sqrt(squares.clip(0)))
    return np.asarray(back @ back.T, dtype=np.float64)


class _Mixed:
    """Fixed terms and random ones of a given variance on whitened scores; all but `error` is free of the scores."""

    def __init__(self, design: FloatArray, sizes: FloatArray, fixed: int, variance: float) -> None:
        self.variance = variance
        random = variance * (design * sizes**2) @ design.T
        inverse = np.linalg.inv(np.eye(len(design)) + random)
        known = design[:, :fixed]
        information = known.T @ inverse @ known
        self.effects = np.linalg.solve(information, known.T @ inverse)  # (fixed, candidates)
        self.left = inverse - inverse @ known @ self.effects
        self.smoother = variance * (sizes**2)[:, None] * (design.T @ self.left)  # (terms, candidates)
        self.smoother[:fixed] = self.effects
        self.determinants = float(np.linalg.slogdet(information)[1] - np.linalg.slogdet(inverse)[1])

    def error(self, scores: FloatArray, layout: Layout, df: int) -> float:
        return max(EXACT, float(scores @ self.left @ scores + layout.residual) / df)

    def likelihood(self, scores: FloatArray, layout: Layout, df: int) -> float:
        """Log restricted likelihood up to a constant (Patterson and Thompson, Biometrika 58, 1971)."""
        return -0.5 * (df * float(np.log(self.error(scores, layout, df))) + self.determinants)


def _sizes(degrees: NDArray[np.int_], most: int) -> FloatArray:
    """A departure's standard deviation by each function, relative to one of its lowest degree; none above `most`."""
    lowest = degrees[degrees > 0].min()
    return np.where((degrees > 0) & (degrees <= most), DECAY ** (degrees - lowest).clip(0), 0.0)


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
