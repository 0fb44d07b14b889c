from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalenet.comparison import FloatArray
from scalenet.comparison import fit as means
from scalenet.mixture import lattice
from scalenet.scheffe import LINEAR, QUADRATIC, NoSurface, as_array, grid
from scalenet.shares import EQUAL, Shares
from scalenet.surface import NONE, OUT, VARIANCES, Surface, fit

FIVE = {f"{i}": shares for i, shares in enumerate(lattice(5))}
# Corners, edges and one side of the inside: what a network with few blocks leaves of a lattice.
SPARSE = {key: s for key, s in FIVE.items() if min(astuple(s)) == 0 or s.resolution > 0.5}
# A departure's size by degree: 4, 5, 6 and 7 functions of degree 3 to 6.
SIZES = np.repeat([1.0, 0.7, 0.49, 0.343], [4, 5, 6, 7])


def surface(
    truth: Callable[[FloatArray], FloatArray],
    noise: float,
    seeds: int = 3,
    seed: int = 0,
    points: dict[str, Shares] = FIVE,
) -> Surface:
    """The surface of a truth seen at the points, with a level for every seed and noise."""
    rng = np.random.default_rng(seed)
    at = truth(as_array(list(points.values())))
    level = rng.normal(0, 0.1, seeds)
    scores = {(k, s): at[i] + level[s] + rng.normal(0, noise) for i, k in enumerate(points) for s in range(seeds)}
    found = fit(means(scores), points)
    assert isinstance(found, Surface), found
    return found


def hill(*at: float) -> Callable[[FloatArray], FloatArray]:
    """Quadratic, highest at `at`."""
    return lambda x: -np.sum((x - np.array(at)) ** 2, axis=1)


def bump(x: FloatArray) -> FloatArray:
    """Far from quadratic, highest at 0.6 / 0.2 / 0.2."""
    return np.asarray(np.exp(-np.sum((x - np.array([0.6, 0.2, 0.2])) ** 2, axis=1) / 0.18))


@pytest.mark.parametrize(
    ("truth", "optimum"),
    [
        (hill(0.4, 0.35, 0.25), (0.4, 0.35, 0.25)),
        (hill(0.433, 0.567, 0.0), (0.433, 0.567, 0.0)),
        (hill(0.5, 0.7, -0.2), (0.4, 0.6, 0.0)),  # beyond the edge: its foot on the edge
        (hill(0.0, 0.0, 1.0), (0.0, 0.0, 1.0)),
        (hill(0.1, -1.0, 1.9), (0.0, 0.0, 1.0)),  # beyond the corner
        (lambda x: x @ np.array([0.1, 0.3, 0.2]), (0.0, 1.0, 0.0)),
        (lambda x: np.max(x, axis=1) ** 2 + x @ np.array([0.0, 0.0, 0.01]), (0.0, 0.0, 1.0)),  # a peak at each corner
    ],
)
def test_optimum_inside_on_an_edge_and_in_a_corner(
    truth: Callable[[FloatArray], FloatArray], optimum: tuple[float, float, float]
) -> None:
    assert astuple(surface(truth, 1e-7).optimum) == pytest.approx(optimum, abs=2e-3)


def test_a_quadratic_truth_is_predicted_everywhere_and_shows_no_departure() -> None:
    found = surface(hill(0.4, 0.35, 0.25), 1e-9)
    predicted = np.array([found.predict(shares) for shares in lattice(20)])
    true = hill(0.4, 0.35, 0.25)(grid())
    assert predicted - predicted.mean() == pytest.approx(true - true.mean(), abs=1e-5)
    assert found.departure < 1e-5
    assert found.polynomial.model is QUADRATIC


def test_a_truth_far_from_quadratic_is_followed() -> None:
    found = surface(bump, 0.02)
    predicted = np.array([found.predict(shares) for shares in lattice(20)])
    plain = QUADRATIC.values(grid()) @ found.polynomial.coefficients
    true = bump(grid())
    left = [np.std(one - true) for one in (predicted, plain)]
    assert left[0] < left[1] / 3
    assert found.departure > 0.05


def test_the_factors_are_alike() -> None:
    """Other names for depth, width and resolution: the same surface under other names."""
    for order in permutations(range(3)):
        named = {key: Shares(*(astuple(shares)[i] for i in order)) for key, shares in FIVE.items()}
        one = surface(lambda x, o=order: bump(x), 0.05)
        other = surface(lambda x, o=order: bump(x[:, np.argsort(o)]), 0.05, points=named)
        there = Shares(*(astuple(Shares(0.5, 0.3, 0.2))[i] for i in order))
        equal = other.predict(there) - other.predict(EQUAL)
        assert equal == pytest.approx(one.predict(Shares(0.5, 0.3, 0.2)) - one.predict(EQUAL))
        assert other.error(there, EQUAL) == pytest.approx(one.error(Shares(0.5, 0.3, 0.2), EQUAL))


def test_slopes_are_derivatives() -> None:
    found = surface(bump, 0.05)
    points, step = np.array([[0.3, 0.5, 0.2], [0.0, 0.6, 0.4], [1.0, 0.0, 0.0]]), 1e-6
    for share in range(3):
        way = np.eye(3)[share] * step
        difference = (found.basis.values(points + way) - found.basis.values(points - way)) / (2 * step)
        assert found.basis.slopes(points)[..., share] == pytest.approx(difference, rel=1e-5, abs=1e-4)


def test_departures_are_orthonormal_over_the_simplex() -> None:
    values = surface(bump, 0.05).basis.values(grid())
    departures = values[:, 6:]
    assert departures.T @ departures / 231 == pytest.approx(np.eye(22), abs=1e-6)
    assert departures.T @ QUADRATIC.values(grid()) == pytest.approx(np.zeros((22, 6)), abs=1e-6)


def curve(rate: float, share: FloatArray) -> FloatArray:
    """As a polynomial of degree 6, fitted over the simplex."""
    seen = grid()[:, 0]
    return np.asarray(np.polynomial.Polynomial.fit(seen, 1 - np.exp(-rate * seen), 6)(share))


def density(scores: FloatArray, design: FloatArray, covariance: FloatArray, residual: float, df: int) -> float:
    """Log density of the means and of their repeats' residual where it is highest by the noise's variance.

    The coefficients have next to no prior (standard deviation 10), so that all designs are judged alike.
    """
    anything = 100 * design @ design.T
    anything += 100 * np.ones_like(anything)  # the seeds' common level
    found = [
        stats.multivariate_normal(np.zeros(len(scores)), variance * covariance + anything).logpdf(scores)
        - residual / variance / 2
        - df * np.log(variance) / 2
        for variance in np.geomspace(1e-4, 1, 50)
    ]
    return float(max(found))


def saturating(x: FloatArray) -> FloatArray:
    return np.asarray(0.4 * np.tanh(3 * x).sum(axis=1))


@pytest.mark.parametrize(("truth", "noise"), [(saturating, 0.15), (bump, 0.3)])
@pytest.mark.parametrize("seeds", [1, 3])
def test_prediction_and_its_error_are_the_mean_over_all_forms(
    truth: Callable[[FloatArray], FloatArray], noise: float, seeds: int
) -> None:
    """By textbook formulas for each form: universal kriging (Cressie, 1993, section 3.4), weights by scipy's density.

    So noisy that no rate is ruled out.
    """
    shares = as_array(list(FIVE.values()))
    rng = np.random.default_rng(4)
    at = truth(shares)
    scores = {(k, s): at[i] + rng.normal(0, noise) for i, k in enumerate(FIVE) for s in range(seeds)}
    scores = {(k, s): score for (k, s), score in scores.items() if s < 2 or int(k) > 8}  # some have fewer runs
    layout, found = means(scores), fit(means(scores), FIVE)
    assert isinstance(found, Surface)
    one, other = Shares(0.55, 0.25, 0.2), Shares(0.1, 0.3, 0.6)
    departures = found.basis.values(shares)[:, 6:] * SIZES
    there = found.basis.values(as_array([one, other]))[:, 6:] * SIZES
    plain, step = QUADRATIC.values(grid()), there[0] - there[1]
    weights, differences, squares = [], [], []
    quarters = stats.truncexpon(b=3, scale=4.5).ppf([0.125, 0.375, 0.625, 0.875]).tolist()
    for rates in product(quarters, repeat=3):
        shapes = np.stack([curve(rate, grid()[:, i]) for i, rate in enumerate(rates)], axis=1)
        mix = np.linalg.inv(np.linalg.lstsq(plain, shapes, rcond=None)[0][3:])

        def terms(
            x: FloatArray, rates: tuple[float, ...] = rates, mix: FloatArray = mix, shapes: FloatArray = shapes
        ) -> FloatArray:
            curves = np.stack([curve(rate, x[:, i]) for i, rate in enumerate(rates)], axis=1) @ mix
            # Their linear part apart, so that a coefficient is the polynomial's whatever the curves.
            return np.hstack([x, curves - x @ np.linalg.lstsq(plain, shapes @ mix, rcond=None)[0][:3]])

        design, ends = terms(shares), terms(as_array([one, other]))
        for variance in VARIANCES:
            covariance = layout.covariance + variance * departures @ departures.T
            inverse = np.linalg.inv(covariance)
            information = design.T @ inverse @ design
            trend = np.linalg.solve(information, design.T @ inverse @ layout.means)
            far = variance * departures @ step
            left = layout.means - design @ trend
            differences.append(float((ends[0] - ends[1]) @ trend + far @ inverse @ left))
            rest = ends[0] - ends[1] - design.T @ inverse @ far
            spread = variance * step @ step - far @ inverse @ far + rest @ np.linalg.solve(information, rest)
            squares.append(spread * (left @ inverse @ left + layout.residual) / (15 + layout.df - 3))
            prior = 1 / (1 + variance) if variance else NONE
            weights.append(np.log(prior) + density(layout.means, design, covariance, layout.residual, layout.df - 3))
    weight = np.exp(np.array(weights) - max(weights))
    weight /= weight.sum()
    cells = weight.reshape(4, 4, 4, len(VARIANCES))
    assert min(cells.sum(axis=tuple({0, 1, 2, 3} - {factor})).min() for factor in range(3)) > OUT
    mean = float(weight @ differences)
    error = float(np.sqrt(weight @ (np.array(squares) + (np.array(differences) - mean) ** 2)))
    assert found.predict(one) - found.predict(other) == pytest.approx(mean, abs=0.01 * error)
    assert found.error(one, other) == pytest.approx(error, rel=0.01)


def test_returns_that_diminish_do_not_move_the_optimum() -> None:
    """A saturating truth through candidates that leave half of the triangle empty; the quadratic's optimum is off."""
    rates = np.array([3.0, 5.0, 8.0])
    found = [surface(lambda x: np.sum(1 - np.exp(-x * rates), axis=1), 0.03, seed=s, points=SPARSE) for s in range(20)]
    ends = grid(50)
    true = ends[np.sum(1 - np.exp(-ends * rates), axis=1).argmax()]
    off = np.mean([astuple(one.optimum) for one in found], axis=0) - true
    plain = np.mean([ends[(QUADRATIC.values(ends) @ one.polynomial.coefficients).argmax()] for one in found], axis=0)
    assert np.abs(off).max() < 0.05 < np.abs(plain - true).max()


@pytest.mark.parametrize("rates", [(1.7, 2.2, 2.9), (0.8, 3.3, 4.6)])
def test_clear_scores_tell_the_rates(rates: tuple[float, ...]) -> None:
    def truth(x: FloatArray) -> FloatArray:
        return np.asarray(np.sum(1 - np.exp(-x * np.array(rates)), axis=1))

    found = surface(truth, 1e-4)
    predicted = np.array([found.predict(shares) for shares in lattice(20)])
    assert predicted - predicted.mean() == pytest.approx(truth(grid()) - truth(grid()).mean(), abs=1e-3)
    fine = grid(100)
    best = fine[truth(fine).argmax()]
    assert astuple(found.optimum) == pytest.approx(best, abs=0.011)
    assert found.error(Shares(*best.tolist()), EQUAL) < 2e-4


def test_errors_are_larger_than_the_polynomials() -> None:
    """What the scores leave open of the form is counted."""
    here, there = EQUAL, Shares(0.8, 0.1, 0.1)
    found = [surface(hill(0.4, 0.3, 0.3), 0.1, seed=seed) for seed in range(10)]
    step = -np.subtract(*QUADRATIC.values(as_array([here, there])))
    plain = [float(np.sqrt(step @ one.polynomial.covariance @ step)) for one in found]
    ratios = np.array([one.error(here, there) for one in found]) / plain
    assert 1.05 < ratios.mean() < 2


def test_flat_and_not_flat() -> None:
    assert np.mean([surface(lambda x: np.zeros(len(x)), 1.0, seed=seed).flat for seed in range(60)]) > 0.85
    hilly = [surface(lambda x: 6 * hill(0.4, 0.3, 0.3)(x), 1.0, seed=seed) for seed in range(20)]
    assert not any(s.flat for s in hilly)
    # A quadratic has no shape to show here: the candidates differ all the same, and that is not flat.
    narrow = [surface(lambda x: 6 * np.exp(-np.sum((x - 0.3) ** 2, axis=1) / 0.05), 1.0, seed=s) for s in range(20)]
    assert np.mean([s.flat for s in narrow]) < 0.2


def test_few_candidates_get_a_linear_blend_and_its_reason() -> None:
    points = {
        "d": Shares(1, 0, 0),
        "w": Shares(0, 1, 0),
        "r": Shares(0, 0, 1),
        "e": EQUAL,
        "p": Shares(0.28, 0.29, 0.43),
    }
    found = surface(lambda x: x @ np.array([0.5, 0.6, 0.4]), 0.001, seeds=2, points=points)
    assert found.polynomial.model is LINEAR
    assert found.polynomial.note == "no quadratic: 5 candidates for 6 terms"
    assert found.df == 10 - 3 - 1  # runs, terms, a second seed
    assert found.basis.weights.shape[1] == 3 + 25  # departures of degree 2 to 6
    assert found.optimum.width > 0.8


def test_equal_scores_are_flat_and_without_a_departure() -> None:
    found = fit(means({(key, seed): 0.5 for key in FIVE for seed in range(2)}), FIVE)
    assert isinstance(found, Surface)
    assert found.flat
    assert found.departure < 1e-9
    assert found.error(EQUAL, Shares(1, 0, 0)) < 1e-8


def test_few_degrees_of_freedom_are_not_spent_on_rates() -> None:
    ten = {f"{i}": shares for i, shares in enumerate(lattice(3))}
    assert surface(hill(0.4, 0.3, 0.3), 0.1, seeds=1, points=ten).df == 10 - 6
    assert surface(hill(0.4, 0.3, 0.3), 0.1, seeds=2, points=ten).df == 20 - 1 - 6 - 2
    assert surface(hill(0.4, 0.3, 0.3), 0.1, seeds=3).df == 63 - 2 - 6 - 3


def test_no_surface_for_two_candidates() -> None:
    found = fit(means({("d", 0): 0.5, ("w", 0): 0.6}), {"d": Shares(1, 0, 0), "w": Shares(0, 1, 0)})
    assert isinstance(found, NoSurface)


@pytest.mark.parametrize(("unit", "level"), [(1.0, 1e9), (1e-7, 0.0), (1e9, 0.0), (1e-6, -1.0)])
def test_neither_do_very_large_and_very_small_ones(unit: float, level: float) -> None:
    rng = np.random.default_rng(5)
    at = hill(0.4, 0.3, 0.3)(as_array(list(FIVE.values())))
    scores = {(k, s): at[i] + rng.normal(0, 0.1) for i, k in enumerate(FIVE) for s in range(3)}
    one = fit(means(scores), FIVE)
    other = fit(means({cell: level + unit * score for cell, score in scores.items()}), FIVE)
    assert isinstance(one, Surface)
    assert isinstance(other, Surface)
    assert astuple(other.optimum) == pytest.approx(astuple(one.optimum), abs=1e-4)
    a, b = Shares(0.2, 0.3, 0.5), Shares(0.7, 0.2, 0.1)
    assert other.error(a, b) == pytest.approx(unit * one.error(a, b), rel=1e-5)
    assert other.predict(a) - level == pytest.approx(unit * one.predict(a), rel=1e-5, abs=2e-15 * abs(level))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 10), st.floats(-1, 1), st.integers(0, 1000))
def test_units_and_levels_of_the_score_do_not_matter(unit: float, level: float, seed: int) -> None:
    one = surface(bump, 0.1, seed=seed)
    rng = np.random.default_rng(seed)
    at, shift = bump(as_array(list(FIVE.values()))), rng.normal(0, 0.1, 3)
    scores = {(k, s): at[i] + shift[s] + rng.normal(0, 0.1) for i, k in enumerate(FIVE) for s in range(3)}
    other = fit(means({cell: unit * (score + level * (cell[1] == 1)) for cell, score in scores.items()}), FIVE)
    assert isinstance(other, Surface)
    assert astuple(other.optimum) == pytest.approx(astuple(one.optimum), abs=1e-3)
    a, b = Shares(0.2, 0.3, 0.5), Shares(0.7, 0.2, 0.1)
    assert other.error(a, b) == pytest.approx(unit * one.error(a, b), rel=1e-6)
    assert other.flat == one.flat
