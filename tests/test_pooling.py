from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet.comparison import FloatArray, fit, with_the_best
from scalenet.pooling import _degrees_of_freedom, pooled
from scalenet.shares import Shares
from tests.test_racing import POINTS, surface


def terms(shares: Shares) -> FloatArray:
    d, w, r = shares.depth, shares.width, shares.resolution
    return np.array([d, w, r, d * w, d * r, w * r])


def drawn(seed: int, departure: float, cells: list[tuple[str, int]]) -> dict[tuple[str, int], float]:
    rng = np.random.default_rng(seed)
    own = {key: rng.normal(0, departure) for key in POINTS}
    block = {s: rng.normal() for s in sorted({s for _, s in cells})}
    return {(k, s): surface(POINTS[k]) + own[k] + block[s] + rng.normal() for k, s in cells}


ONCE = [(key, 0) for key in POINTS]
ALL_TWICE = [(key, seed) for seed in (0, 1) for key in POINTS]
SOME_TWICE = ONCE + [(key, 1) for key in list(POINTS)[::2]]


def test_without_noise_it_is_the_quadratic_also_where_nothing_was_trained() -> None:
    trained = [key for key in POINTS if key not in ("k4", "k7", "k16")]
    layout = pooled(fit({(key, seed): surface(POINTS[key]) + seed for key in trained for seed in (0, 1)}), POINTS)
    assert layout.keys == tuple(POINTS)
    assert layout.means == pytest.approx([surface(s) + 0.5 for s in POINTS.values()])
    assert layout.residual == pytest.approx(0, abs=1e-12)
    assert layout.df == 14 * 2 - 6 - 1


@pytest.mark.parametrize(("departure", "cells"), [(0.8, ALL_TWICE), (2.0, ALL_TWICE), (3.0, SOME_TWICE)])
def test_predictions_are_those_of_the_textbooks_formula(departure: float, cells: list[tuple[str, int]]) -> None:
    """y ~ N(X b, s2 V), V = I + r Z Z': generalised least squares, u = r Z' V^-1 (y - X b), r where REML is largest."""
    scores = drawn(2, departure, cells)
    layout = pooled(fit(scores), POINTS)
    y = np.array(list(scores.values()))
    keys = list(POINTS)
    x = np.array([[*terms(POINTS[k]), float(s == 1)] for k, s in scores])
    z = np.array([[float(k == other) for other in keys] for k, _ in scores])

    def solved(ratio: float) -> tuple[float, FloatArray, float]:
        v = np.eye(len(y)) + ratio * z @ z.T
        inverse = np.linalg.inv(v)
        b = np.linalg.solve(x.T @ inverse @ x, x.T @ inverse @ y)
        rest = y - x @ b
        s2 = float(rest @ inverse @ rest) / (len(y) - 7)
        logs = np.linalg.slogdet(v)[1] + np.linalg.slogdet(x.T @ inverse @ x)[1]
        means = np.array([terms(s) for s in POINTS.values()]) @ b[:6] + b[6] / 2 + ratio * z.T @ inverse @ rest
        return -0.5 * ((len(y) - 7) * math.log(s2) + logs), means, s2

    best = max((solved(r) for r in np.geomspace(1e-2, 1e2, 2000)), key=lambda found: found[0])
    assert best[0] > solved(0.0)[0]  # else this test has nothing to say
    assert layout.means == pytest.approx(best[1], abs=2e-3)
    assert layout.residual / layout.df == pytest.approx(best[2], rel=2e-3)


def test_large_departures_leave_each_candidate_to_its_own_runs() -> None:
    scores = drawn(3, 1000.0, ALL_TWICE)
    plain, layout = fit(scores), pooled(fit(scores), POINTS)
    assert layout.means == pytest.approx(plain.means, abs=20)  # of a spread of 1000
    contrast = np.array([1.0, -1.0, *[0.0] * 15])
    variance = layout.residual / layout.df
    assert contrast @ layout.covariance @ contrast * variance == pytest.approx(
        contrast @ plain.covariance @ contrast * plain.residual / plain.df, rel=0.25
    )


def test_a_surface_that_fits_makes_one_seed_as_good_as_three() -> None:
    """Variance of fitted values around their mean: 5 of 16 degrees of freedom; three runs of its own would give 1/3."""
    layout = pooled(fit(drawn(0, 0.0, ONCE)), POINTS)
    assert layout.df == 17 - 6
    centred = np.eye(17) - 1 / 17  # the seed's level is free
    assert np.trace(centred @ layout.covariance @ centred) / 16 == pytest.approx(5 / 16)


def test_points_that_settle_no_quadratic_are_compared_pairwise() -> None:
    edge = {key: shares for key, shares in POINTS.items() if shares.depth == 0}
    scores = {(key, seed): float(i * seed) for i, key in enumerate(edge) for seed in (0, 1, 2)}
    layout = fit(scores)
    assert pooled(layout, edge) is layout


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-5, 5), st.randoms(use_true_random=False))
def test_neither_order_nor_a_common_shift_matters(seed: int, shift: float, rng: object) -> None:
    scores = drawn(seed, 1.0, SOME_TWICE)
    cells = list(scores)
    rng.shuffle(cells)  # type: ignore[attr-defined]
    moved = pooled(fit({cell: scores[cell] + shift * cell[1] for cell in cells}), POINTS)
    layout = pooled(fit(scores), POINTS)
    assert moved.means - shift / 2 == pytest.approx(layout.means, abs=1e-3)


@pytest.mark.parametrize("cells", [ONCE, ALL_TWICE], ids=["one seed", "two seeds"])
def test_the_truly_best_is_kept(cells: list[tuple[str, int]]) -> None:
    """A flat surface is the hardest case; 95 % less two standard errors of 300 draws."""
    kept = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        layout = pooled(fit({cell: rng.normal() for cell in cells}), POINTS)
        compared = with_the_best(layout.means, layout.covariance, layout.residual / layout.df, layout.df)
        kept += compared[seed % 17].tied
    assert kept / 300 >= 0.925


def test_what_went_into_the_departures_is_not_counted_for_the_noise_as_well() -> None:
    """All with two seeds: repeats alone tell the noise, 16 degrees of freedom, wherever departures show."""
    showing = pooled(fit(drawn(3, 2.0, ALL_TWICE)), POINTS)
    assert showing.df == len(POINTS) - 1
    scores = drawn(3, 3.0, SOME_TWICE)
    repeats, found = fit(scores), pooled(fit(scores), POINTS)
    assert repeats.df <= found.df < repeats.df + 11
    assert found.residual / found.df == pytest.approx(repeats.residual / repeats.df, rel=0.5)


def test_degrees_of_freedom_are_those_of_the_likelihoods_information() -> None:
    """Twice the variance squared over the variance of its estimate, which the inverse information holds."""
    variances, ratio, repeats = np.array([1.0, 0.5, 0.5, 0.2]), 0.7, 6
    both = variances + ratio
    information = 0.5 * np.array(
        [
            [repeats + np.sum((variances / both) ** 2), np.sum(variances / both**2)],
            [np.sum(variances / both**2), np.sum(1 / both**2)],
        ]
    )
    expected = 2 / np.linalg.inv(information)[0, 0]
    assert _degrees_of_freedom(repeats, variances, ratio) == pytest.approx(expected)
    assert repeats < expected < repeats + 4


@pytest.mark.parametrize("repeats", [1, 2, 16])
def test_departures_cost_none_of_the_repeats_degrees_of_freedom(repeats: int) -> None:
    """All with as many seeds: misfit then tells nothing of the noise, and rounding must not take what repeats tell."""
    for ratio in np.geomspace(1e-2, 1e6, 200):
        assert _degrees_of_freedom(repeats, np.full(11, 0.5), float(ratio)) >= repeats
    for seed in range(8):
        found = pooled(fit(drawn(seed, 1e4, ALL_TWICE)), POINTS)
        assert found.df == len(POINTS) - 1
