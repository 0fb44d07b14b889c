from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalenet.comparison import FloatArray, Layout
from scalenet.comparison import fit as means
from scalenet.mixture import lattice
from scalenet.scheffe import LINEAR, MODELS, QUADRATIC, SPECIAL_CUBIC, NoSurface, Polynomial, as_array, fit
from scalenet.shares import EQUAL, Shares

CORNERS = {"d": Shares(1, 0, 0), "w": Shares(0, 1, 0), "r": Shares(0, 0, 1)}
MIDDLES = {"dw": Shares(0.5, 0.5, 0), "dr": Shares(0.5, 0, 0.5), "wr": Shares(0, 0.5, 0.5)}
FIVE = {f"{i}": shares for i, shares in enumerate(lattice(5))}


def fitted(layout: Layout, points: dict[str, Shares], *models: object) -> Polynomial:
    found = fit(layout, points, [m for m in MODELS if not models or m in models])
    assert isinstance(found, Polynomial), found
    return found


def runs(truth: FloatArray, seeds: int, noise: float, seed: int = 0, points: dict[str, Shares] = FIVE) -> dict:
    """`truth` at each of the points, a level for every seed, and noise."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 0.1, seeds)
    return {(key, s): truth[i] + level[s] + rng.normal(0, noise) for i, key in enumerate(points) for s in range(seeds)}


def quadratic(*coefficients: float, points: dict[str, Shares] = FIVE) -> FloatArray:
    """b1 x1 + b2 x2 + b3 x3 + b12 x1 x2 + b13 x1 x3 + b23 x2 x3."""
    x = as_array(list(points.values()))
    terms = np.column_stack([x, x[:, 0] * x[:, 1], x[:, 0] * x[:, 2], x[:, 1] * x[:, 2]])
    return np.asarray(terms @ np.array(coefficients))


def by_dummies(scores: dict[tuple[str, int], float], points: dict[str, Shares], columns: FloatArray) -> float:
    """Residual sum of squares of all runs on `columns` at each of the points and a dummy per seed: no means, no GLS."""
    keys, seeds = list(points), sorted({s for _, s in scores})
    design = np.array([[*columns[keys.index(k)], *(float(s == t) for t in seeds)] for k, s in scores])
    y = np.array(list(scores.values()))
    return float(np.sum((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2))


def test_saturated_quadratic_by_scheffes_formulas() -> None:
    """Scheffe 1958: b_i = y_i and b_ij = 4 y_ij - 2 y_i - 2 y_j on the {3, 2} lattice."""
    points = CORNERS | MIDDLES
    y = {"d": 0.6, "w": 0.7, "r": 0.5, "dw": 0.75, "dr": 0.52, "wr": 0.66}
    found = fitted(
        means({(k, s): v + sign * 0.01 * (-1) ** (len(k)) for k, v in y.items() for s, sign in ((0, 1), (1, -1))}),
        points,
    )
    assert found.model is QUADRATIC
    expected = [0.6, 0.7, 0.5, *(4 * y[a + b] - 2 * y[a] - 2 * y[b] for a, b in ("dw", "dr", "wr"))]
    assert found.coefficients == pytest.approx(expected)
    assert found.lack_of_fit is None  # no point to spare
    assert found.df == 5  # of pure error: 12 runs - 6 candidates - 2 seeds + 1
    assert found.r2 == pytest.approx(1)


def test_special_cubic_by_the_centroid_designs_formula() -> None:
    """Scheffe 1963: b_123 = 27 y_123 - 12 (y_12 + y_13 + y_23) + 3 (y_1 + y_2 + y_3)."""
    points = CORNERS | MIDDLES | {"dwr": EQUAL}
    y = {"d": 0.6, "w": 0.7, "r": 0.5, "dw": 0.75, "dr": 0.52, "wr": 0.66, "dwr": 0.7}
    rng = np.random.default_rng(0)
    scores = {
        (k, s): v + e
        for k, v in y.items()
        for e, s in zip((1e-3 * rng.normal() * np.array([1, -1])), (0, 1), strict=True)
    }
    found = fitted(means(scores), points)
    assert found.model is SPECIAL_CUBIC
    expected = 27 * 0.7 - 12 * (0.75 + 0.52 + 0.66) + 3 * (0.6 + 0.7 + 0.5)
    assert found.coefficients[-1] == pytest.approx(expected)


@pytest.mark.parametrize("lost", [[], [("3", 0), ("7", 1), ("7", 2), ("20", 0)]])
def test_sums_of_squares_are_those_of_all_runs_with_a_dummy_per_seed(lost: list[tuple[str, int]]) -> None:
    """The means know all that the runs do, also where some runs are missing."""
    scores = runs(quadratic(0.5, 0.52, 0.48, 0.1, -0.05, 0.2), 3, 0.01, seed=3)
    scores = {cell: score for cell, score in scores.items() if cell not in lost}
    found = fitted(means(scores), FIVE, QUADRATIC)
    x = as_array(list(FIVE.values()))
    columns = np.column_stack([x, x[:, 0] * x[:, 1], x[:, 0] * x[:, 2], x[:, 1] * x[:, 2]])
    of_model = by_dummies(scores, FIVE, columns)
    around = by_dummies(scores, FIVE, np.zeros((21, 0)))
    pure, pure_df = by_dummies(scores, FIVE, np.eye(21)), len(scores) - 21 - 2
    misfit = of_model - pure
    assert found.lack_of_fit is not None
    assert found.lack_of_fit.df == (15, pure_df)
    assert found.lack_of_fit.statistic == pytest.approx((misfit / 15) / (pure / pure_df))
    assert found.lack_of_fit.p == pytest.approx(1 - stats.f.cdf((misfit / 15) / (pure / pure_df), 15, pure_df))
    assert found.lack_of_fit.p > 0.25
    assert (found.variance, found.df) == (pytest.approx(of_model / (15 + pure_df)), 15 + pure_df)
    assert found.shape.statistic == pytest.approx((around - of_model) / 5 / found.variance)
    assert found.r2 == pytest.approx(1 - misfit / (around - pure))
    assert found.shape.p < 1e-6


def test_coefficients_and_their_errors_with_equal_seeds_are_numpys() -> None:
    scores = runs(quadratic(0.5, 0.52, 0.48, 0.1, -0.05, 0.2), 3, 0.01)
    layout = means(scores)
    found = fitted(layout, FIVE, QUADRATIC)
    x = as_array(list(FIVE.values()))
    columns = np.column_stack([x, x[:, 0] * x[:, 1], x[:, 0] * x[:, 2], x[:, 1] * x[:, 2]])
    plain = np.linalg.lstsq(columns, layout.means, rcond=None)[0]
    assert found.coefficients == pytest.approx(plain)
    assert list(found.residuals) == list(FIVE)
    assert np.array(list(found.residuals.values())) == pytest.approx(layout.means - columns @ plain)
    difference = np.array([1, -1, 0, 0, 0, 0])  # depth alone less width alone
    expected = found.variance * difference @ np.linalg.inv(columns.T @ columns) @ difference / 3
    assert difference @ found.covariance @ difference == pytest.approx(expected)


def test_a_level_of_a_seed_changes_nothing_but_the_level() -> None:
    """Corners have a second seed, as the default search gives them: an easier second seed must not lift them."""
    truth = quadratic(0.5, 0.52, 0.48, 0.1, -0.05, 0.2)
    scores = {
        cell: score for cell, score in runs(truth, 2, 0.01).items() if cell[1] == 0 or cell[0] in ("0", "15", "20")
    }
    shifted = {(key, s): score + 0.3 * s for (key, s), score in scores.items()}
    one, other = fitted(means(scores), FIVE), fitted(means(shifted), FIVE)
    assert other.residuals == pytest.approx(one.residuals, abs=1e-12)
    assert other.coefficients - one.coefficients == pytest.approx([0.15] * 3 + [0] * (len(one.coefficients) - 3))
    assert (other.variance, other.shape.p) == (pytest.approx(one.variance), pytest.approx(one.shape.p))


def test_lack_of_fit_shows_and_is_then_the_error() -> None:
    x = as_array(list(FIVE.values()))
    dent = 0.1 * np.exp(-np.sum((x - [0.6, 0.2, 0.2]) ** 2, axis=1) / 0.02)
    found = fitted(means(runs(0.5 + dent, 3, 0.005)), FIVE)
    assert found.lack_of_fit is not None
    assert found.lack_of_fit.p < 0.001
    assert found.df == found.lack_of_fit.df[0]
    assert found.variance == pytest.approx(
        found.lack_of_fit.statistic * means(runs(0.5 + dent, 3, 0.005)).residual / 40
    )


def test_a_flat_surface_has_a_shape_by_chance_as_often_as_the_p_value_says() -> None:
    p = [fitted(means(runs(np.full(21, 0.5), 2, 0.01, seed)), FIVE).shape.p for seed in range(300)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("points", "seeds", "model", "why"),
    [
        (FIVE, 1, SPECIAL_CUBIC, None),
        ({k: s for k, s in FIVE.items() if min(astuple(s)) == 0}, 1, QUADRATIC, "15 candidates lie too close together"),
        (CORNERS | {"equal": EQUAL, "paper": Shares(0.28, 0.29, 0.43)}, 1, LINEAR, "5 candidates for 6 terms"),
        (CORNERS | MIDDLES, 1, LINEAR, "no replicates"),
        (CORNERS | MIDDLES, 2, QUADRATIC, "6 candidates for 7 terms"),
        ({k: s for k, s in FIVE.items() if s.depth < 0.7}, 2, LINEAR, "no candidate is near depth 1.00"),
    ],
)  # fmt: skip
def test_the_richest_model_that_the_points_allow(
    points: dict[str, Shares], seeds: int, model: object, why: str | None
) -> None:
    found = fitted(means(runs(np.full(len(points), 0.5), seeds, 0.01, points=points)), points)
    assert found.model is model
    assert (found.note is None) if why is None else (why in (found.note or ""))


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ({k: CORNERS[k] for k in "dw"}, "no linear blend: 2 candidates for 3 terms"),
        (CORNERS, "no replicates to show the error"),
        ({str(i): Shares(i / 9, 1 - i / 9, 0) for i in range(10)}, "lie too close together"),
    ],
)
def test_no_surface_says_why(points: dict[str, Shares], why: str) -> None:
    found = fit(means(runs(np.full(len(points), 0.5), 1, 0.01, points=points)), points)
    assert isinstance(found, NoSurface)
    assert why in found.reason
    assert found.reason.startswith("There is no ")
    assert found.reason.endswith(".")


def test_scores_that_are_no_numbers_make_no_surface() -> None:
    scores = runs(np.full(21, 0.5), 2, 0.01)
    found = fit(means({**scores, ("3", 1): math.nan}), FIVE)
    assert found == NoSurface("There is no surface: a score is not a finite number.")


def test_where_nothing_varies_nothing_is_described() -> None:
    found = fitted(means(runs(np.full(21, 0.5), 2, 0.0)), FIVE)
    assert (found.r2, found.shape.p) == (0.0, pytest.approx(1.0))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7))
def test_a_truth_of_the_models_form_is_found_exactly(coefficients: list[float]) -> None:
    x = as_array(list(FIVE.values()))
    truth = quadratic(*coefficients[:6]) + coefficients[6] * x.prod(axis=1)
    found = fitted(means(runs(truth, 2, 0.0)), FIVE)
    level = found.coefficients[:3] - coefficients[:3]
    assert level == pytest.approx([level[0]] * 3, abs=1e-9)  # the seeds' mean level is in each of the corners
    assert found.coefficients[3:] == pytest.approx(coefficients[3:], abs=1e-9)
    assert math.isfinite(found.shape.p)
