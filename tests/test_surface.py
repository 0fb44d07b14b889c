from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize, stats

from scalenet.comparison import FloatArray, Layout
from scalenet.comparison import fit as means
from scalenet.mixture import lattice
from scalenet.scheffe import LINEAR, QUADRATIC, NoSurface, as_array, grid
from scalenet.shares import EQUAL, Shares
from scalenet.surface import DECAY, HIDDEN, LEAST, Surface, fit

FIVE = {f"{i}": shares for i, shares in enumerate(lattice(5))}
# Corners, edges and one side of the inside: what a network with few blocks leaves of a lattice.
SPARSE = {key: s for key, s in FIVE.items() if min(astuple(s)) == 0 or s.resolution > 0.5}
# A departure's size by degree: 4, 5, 6 and 7 functions of degree 3 to 6.
SIZES = np.repeat([1.0, 0.6, 0.36, 0.216], [4, 5, 6, 7])


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
    assert predicted - predicted.mean() == pytest.approx(true - true.mean(), abs=1e-7)
    assert found.departure_sd < 1e-8
    assert found.polynomial.model is QUADRATIC


def test_a_truth_far_from_quadratic_is_followed() -> None:
    found = surface(bump, 0.02)
    predicted = np.array([found.predict(shares) for shares in lattice(20)])
    plain = QUADRATIC.values(grid()) @ found.polynomial.coefficients
    true = bump(grid())
    left = [np.std(one - true) for one in (predicted, plain)]
    assert left[0] < left[1] / 3
    assert found.departure_sd > 0.05


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


def covariances(found: Surface, seeds: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Design, covariance of the means' noise and of the departures, in units of one run's variance."""
    values = found.basis.values(as_array(list(FIVE.values())))
    departures = values[:, 6:] * SIZES
    return values[:, :6], np.eye(21) / seeds, departures @ departures.T


def test_departures_are_orthonormal_over_the_simplex() -> None:
    values = surface(bump, 0.05).basis.values(grid())
    departures = values[:, 6:]
    assert departures.T @ departures / 231 == pytest.approx(np.eye(22), abs=1e-6)
    assert departures.T @ QUADRATIC.values(grid()) == pytest.approx(np.zeros((22, 6)), abs=1e-6)


def test_the_departures_variance_is_the_most_likely_one() -> None:
    """Against the density of contrasts that hold no polynomial, by scipy's multivariate normal; one seed."""
    found = surface(bump, 0.05, seeds=1)
    design, noise, departures = covariances(found, 1)
    contrasts = np.linalg.svd(design)[0][:, 6:].T
    scores = contrasts @ (design @ found.polynomial.coefficients + np.array(list(found.polynomial.residuals.values())))

    def log_density(share: float, variance: float) -> float:
        return float(
            stats.multivariate_normal(
                np.zeros(15), variance * contrasts @ (noise + share * departures) @ contrasts.T
            ).logpdf(scores)
        )

    share = found.departure_sd**2 / found.variance / float(np.sum(SIZES**2))
    here = log_density(share, found.variance)
    best = optimize.minimize(
        lambda p: -log_density(float(np.exp(p[0])), float(np.exp(p[1]))),
        [np.log(share), np.log(found.variance)],
        method="Nelder-Mead",
    )
    assert here <= -best.fun + 1e-6
    assert here == pytest.approx(-best.fun, abs=0.05)  # the grid of variances is that fine
    assert here > log_density(0.0, found.variance) + 1


@pytest.mark.parametrize("seeds", [1, 3])
def test_prediction_and_its_error_are_krigings(seeds: int) -> None:
    """Universal kriging (Cressie, Statistics for Spatial Data, 1993, section 3.4), where a departure shows."""
    found = surface(bump, 0.05, seeds=seeds)
    design, noise, departures = covariances(found, seeds)
    share = found.departure_sd**2 / found.variance / float(np.sum(SIZES**2))
    assert share > LEAST
    scores = design @ found.polynomial.coefficients + np.array(list(found.polynomial.residuals.values()))
    one, other = Shares(0.55, 0.25, 0.2), Shares(0.1, 0.3, 0.6)
    there = found.basis.values(as_array([one, other]))
    step = there[0] - there[1]
    inverse = np.linalg.inv(noise + share * departures)
    far = share * (step[6:] * SIZES) @ (found.basis.values(as_array(list(FIVE.values())))[:, 6:] * SIZES).T
    information = design.T @ inverse @ design
    trend = np.linalg.solve(information, design.T @ inverse @ scores)
    assert found.predict(one) - found.predict(other) == pytest.approx(
        float(step[:6] @ trend + far @ inverse @ (scores - design @ trend))
    )
    rest = step[:6] - design.T @ inverse @ far
    variance = share * np.sum((step[6:] * SIZES) ** 2) - far @ inverse @ far
    variance += rest @ np.linalg.solve(information, rest)
    assert found.error(one, other) == pytest.approx(float(np.sqrt(found.variance * variance)))


def exact(
    points: dict[str, Shares], covariance: FloatArray, raised: FloatArray | float = 0.0, noise: float = 1e-4
) -> Surface:
    """The surface of -|x - a|^2 seen without an error, where runs are said to have that standard deviation."""
    at = hill(0.4, 0.35, 0.25)(as_array(list(points.values()))) + raised
    found = fit(Layout(tuple(points), at, covariance, noise**2 * (len(points) + 34), 40), points)
    assert isinstance(found, Surface)
    assert found.departure_sd == 0
    return found


def between(found: Surface, covariance: FloatArray) -> FloatArray:
    """A covariance of coefficients as one of values over the grid, less their mean."""
    values = found.basis.values(grid())
    values = values - values.mean(axis=0)
    return np.asarray(values @ covariance @ values.T)


def missed(points: dict[str, Shares], covariance: FloatArray) -> FloatArray:
    """Covariance over the grid of what is missed of departures of degree 3 to 5; the fit is linear in the scores."""
    places, step = as_array(list(points.values())), 1e-6
    level = exact(points, covariance)
    ways = [exact(points, covariance, row).coefficients - level.coefficients for row in step * np.eye(len(places))]
    left = (np.stack(ways, axis=1) / step @ level.basis.values(places) - np.eye(28))[:, 6:21] * SIZES[:15]
    return between(level, left @ left.T)


THREE_RUNS = np.eye(len(SPARSE)) / 3


@pytest.mark.parametrize(
    ("covariance", "noise"),
    [
        (THREE_RUNS, 1 / 3),
        (np.diag(np.linspace(0.1, 0.7, len(SPARSE))), 0.4),  # on average
        (THREE_RUNS + 2.0, 1 / 3),  # the seeds' level is no noise
    ],
    ids=["three runs each", "from one to ten runs", "with the level"],
)
def test_what_candidates_show_less_of_than_a_lattice_is_counted(
    monkeypatch: pytest.MonkeyPatch, covariance: FloatArray, noise: float
) -> None:
    """As a share of the polynomial's own size: here of -|x - a|^2, whose five coefficients are known."""
    assert np.repeat(DECAY ** np.arange(4.0), [4, 5, 6, 7]) == pytest.approx(SIZES)
    with_it = exact(SPARSE, covariance)
    more = missed(SPARSE, covariance) - missed(FIVE, noise * np.eye(len(FIVE)))
    more = (more + linalg.polar(more)[1]) / 2  # less what a lattice misses more of
    expected = HIDDEN**2 * float(np.var(hill(0.4, 0.35, 0.25)(grid()))) / 5 * more
    monkeypatch.setattr("scalenet.surface.HIDDEN", 0.0)
    without = exact(SPARSE, covariance)
    counted = between(with_it, with_it.covariance - without.covariance)
    assert counted == pytest.approx(expected, abs=1e-3 * float(np.abs(expected).max()))
    assert with_it.coefficients == pytest.approx(without.coefficients, abs=0)


def test_a_shape_that_may_be_noise_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = exact(SPARSE, THREE_RUNS, noise=1.0)
    monkeypatch.setattr("scalenet.surface.HIDDEN", 0.0)
    assert with_it.covariance == pytest.approx(exact(SPARSE, THREE_RUNS, noise=1.0).covariance, abs=0)


def test_a_departure_that_shows_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this one the scores show more than would be taken to be hidden."""

    def wavy(x: FloatArray) -> FloatArray:
        return hill(0.4, 0.3, 0.3)(x) + 3 * np.prod(x - np.roll(x, 1, axis=1), axis=1)

    with_it = surface(wavy, 0.02, points=SPARSE)
    polynomial = float(np.var(QUADRATIC.values(grid()) @ with_it.polynomial.coefficients)) / 5
    assert with_it.departure_sd**2 / float(np.sum(SIZES**2)) > 1.5 * HIDDEN**2 * polynomial > 0
    monkeypatch.setattr("scalenet.surface.HIDDEN", 0.0)
    assert with_it.covariance == pytest.approx(surface(wavy, 0.02, points=SPARSE).covariance, abs=0)


def test_a_whole_lattice_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Shares(0.45, 0.45, 0.1), Shares(1, 0, 0)
    with_it = surface(hill(0.4, 0.35, 0.25), 0.05)
    monkeypatch.setattr("scalenet.surface.HIDDEN", 0.0)
    assert with_it.error(one, other) == pytest.approx(surface(hill(0.4, 0.35, 0.25), 0.05).error(one, other), rel=0.01)


def test_nothing_is_hidden_under_a_flat_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the polynomial has no shape to show, departures of its size are none."""
    one, other = Shares(0.45, 0.45, 0.1), Shares(1, 0, 0)
    errors = [surface(lambda x: np.zeros(len(x)), 1.0, seed=s, points=SPARSE).error(one, other) for s in range(20)]
    monkeypatch.setattr("scalenet.surface.HIDDEN", 0.0)
    plain = [surface(lambda x: np.zeros(len(x)), 1.0, seed=s, points=SPARSE).error(one, other) for s in range(20)]
    assert np.median(np.array(errors) / plain) < 1.01


def test_one_degree_of_freedom_shows_no_departure() -> None:
    """Noise of any size explains one residual as well as a departure does."""
    seven = {str(i): shares for i, shares in enumerate([*lattice(2), EQUAL])}
    found = [surface(hill(0.4, 0.3, 0.3), 0.1, seeds=1, seed=seed, points=seven) for seed in range(10)]
    assert {one.departure_sd for one in found} == {0.0}


def test_without_a_departure_errors_are_still_larger_than_the_polynomials() -> None:
    """The terms keep some freedom; what it costs is counted."""
    found = next(s for seed in range(20) if (s := surface(hill(0.4, 0.3, 0.3), 0.1, seed=seed)).departure_sd == 0)
    here, there = QUADRATIC.values(as_array([EQUAL, Shares(0.8, 0.1, 0.1)]))
    plain = np.sqrt((here - there) @ found.polynomial.covariance @ (here - there))
    assert plain < found.error(EQUAL, Shares(0.8, 0.1, 0.1)) < 3 * plain


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
    assert found.optimum.width > 0.8


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
    assert other.predict(a) - level == pytest.approx(unit * one.predict(a), rel=1e-5, abs=2e-16 * abs(level))


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
