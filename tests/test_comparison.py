from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from scalenet.comparison import at_equal_cost, connected, critical_value, fit, with_a_control, with_the_best

# One-sided, 95 %, one to nine treatments against a control at correlation 1/2, rounded to two digits: nested adaptive
# quadrature (scipy.integrate.quad) of Dunnett's integral, JASA 50 (1955), solved for d by bisection.
DUNNETT = {
    5: (2.02, 2.44, 2.68, 2.85, 2.98, 3.08, 3.16, 3.24, 3.30),
    10: (1.81, 2.15, 2.34, 2.47, 2.56, 2.64, 2.70, 2.76, 2.81),
    20: (1.72, 2.03, 2.19, 2.30, 2.39, 2.46, 2.51, 2.56, 2.60),
    math.inf: (1.64, 1.92, 2.06, 2.16, 2.23, 2.29, 2.34, 2.38, 2.42),
}


@pytest.mark.parametrize("df", DUNNETT)
def test_critical_values_are_those_of_dunnetts_integral(df: float) -> None:
    assert [critical_value(p, df) for p in range(1, 10)] == pytest.approx(DUNNETT[df], abs=0.0051)


@pytest.mark.parametrize(
    ("df", "row"), [(20, [2.09, 2.38, 2.54, 2.65, 2.73, 2.80]), (math.inf, [1.96, 2.21, 2.35, 2.44, 2.51, 2.57])]
)
def test_two_sided_values_are_those_of_the_table(df: float, row: list[float]) -> None:
    """Dunnett, Biometrics 20 (1964), 5 %, one to six treatments."""
    found = [critical_value(k, df, 0.5, 0.95, two_sided=True) for k in range(1, 7)]
    assert found == pytest.approx(row, abs=0.0051)


def test_critical_value_gives_scipys_dunnett_its_level() -> None:
    """Three treatments whose largest t statistic is exactly d: scipy's p-value is then 5 %."""
    control = np.array([-1.0, 0.0, 1.0, 0.0])
    df = 12
    d = critical_value(3, df)
    spread = np.array([-1.0, 0.0, 1.0, 0.0])
    sd = math.sqrt(4 * 2 / df)
    lifted = spread + d * sd * math.sqrt(2 / 4)
    result = stats.dunnett(lifted, spread, spread, control=control, alternative="greater", rng=np.random.default_rng(0))
    assert result.statistic[0] == pytest.approx(d)
    assert result.pvalue[0] == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize(("comparisons", "df", "correlation"), [(7, 7, 0.5), (3, 2, 0.2), (5, 4, 0.8)])
def test_critical_value_against_the_multivariate_t(comparisons: int, df: int, correlation: float) -> None:
    d = critical_value(comparisons, df, correlation)
    shape = np.full((comparisons, comparisons), correlation) + (1 - correlation) * np.eye(comparisons)
    inside = stats.multivariate_t.cdf(np.full(comparisons, d), shape=shape, df=df, maxpts=100_000, random_state=0)
    assert inside == pytest.approx(0.95, abs=0.0005)


def test_negative_correlations_get_bonferronis_value_which_is_the_largest() -> None:
    assert critical_value(6, 9, -0.1) == pytest.approx(stats.t.ppf(1 - 0.05 / 6, 9))
    assert critical_value(6, 9, 0.8) < critical_value(6, 9, 0.2) < critical_value(6, 9, -0.1)


def test_fit_by_hand() -> None:
    """Rows a (1, 3), b (2, 5), c (6, 7): row means 2, 3.5, 6.5; column means 3, 5; residuals +-0, +-0.5, -+0.5."""
    layout = fit({("a", 0): 1, ("a", 1): 3, ("b", 0): 2, ("b", 1): 5, ("c", 0): 6, ("c", 1): 7})
    assert layout.keys == ("a", "b", "c")
    assert layout.means == pytest.approx([2, 3.5, 6.5])
    assert layout.residual == pytest.approx(4 * 0.25)
    assert layout.df == 2


def test_fit_with_a_missing_cell_uses_the_seeds_effect() -> None:
    """Without noise, score = candidate + seed: what is missing is filled in exactly, not averaged away."""
    truth = {"a": 1.0, "b": 2.0, "c": 4.0}
    block = {0: 0.0, 1: 10.0}
    cells = {(k, s): truth[k] + block[s] for k in truth for s in block if (k, s) != ("c", 0)}
    layout = fit(cells)
    assert layout.means - layout.means[0] == pytest.approx([0, 1, 3])
    assert layout.df == 1
    # Hand formula: Var(a - c) with c seen once = 1 + 1/2 + (1/2)(1/2 + ...) by inverting the normal equations.
    contrast = np.array([1, 0, -1])
    design = np.array([[1, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=float)
    expected = np.array([1, 0, -1, 0]) @ np.linalg.inv(design.T @ design) @ np.array([1, 0, -1, 0])
    assert contrast @ layout.covariance @ contrast == pytest.approx(expected)


def test_connected_groups() -> None:
    assert connected([("a", 0), ("b", 1), ("c", 0), ("c", 1)]) == [frozenset("abc")]
    assert connected([("a", 0), ("b", 1), ("b", 2)]) == [frozenset("b"), frozenset("a")]


def test_the_truly_best_stays_in_95_percent_of_unbalanced_layouts() -> None:
    """All equal is the hardest case; unbalanced, the smallest correlation must not let the level slip."""
    rng = np.random.default_rng(1)
    cells = [(k, s) for k in "abcdef" for s in (0, 1) if (k, s) not in {("a", 0), ("b", 1)}]
    kept = 0
    for _ in range(600):
        layout = fit({cell: rng.normal() for cell in cells})
        compared = with_the_best(layout.means, layout.covariance, layout.residual / layout.df, layout.df)
        kept += compared[0].tied  # "a", seen once
    assert kept / 600 >= 0.93  # 95 % less two standard errors of 600 draws


def test_means_at_equal_cost_by_hand() -> None:
    """Baseline 0.5; 0.6 at one doubling, 0.8 at two: 0.2 in 1.5 doublings on average, slope 2/15 a doubling."""
    layout = fit({("base", 0): 0.5, ("a", 0): 0.6, ("b", 0): 0.8})
    moved = at_equal_cost(layout, {"b": 2.0, "a": 1.0}, "base")
    assert moved.layout.keys == ("b", "a")
    assert moved.slope is not None
    assert moved.slope @ layout.means == pytest.approx(0.2 / 1.5)
    assert moved.layout.means == pytest.approx([0.8 - 0.2 / 1.5, 0.6])
    # At four times the cost a moves instead.
    assert at_equal_cost(layout, {"b": 2.0, "a": 1.0}, "base", 4.0).layout.means == pytest.approx(
        [0.8, 0.6 + 0.2 / 1.5]
    )


def test_the_slopes_error_is_carried_along() -> None:
    """Moved b = b - ((a + b) / 2 - base) / 1.5 = (2 / 3) b - (1 / 3) a + (2 / 3) base, each of variance 1 / 2."""
    scores = {(k, s): 0.1 * s for k in ("base", "a", "b") for s in (0, 1)}
    moved = at_equal_cost(fit(scores), {"a": 1.0, "b": 2.0}, "base")
    assert moved.layout.covariance[1, 1] == pytest.approx((4 + 1 + 4) / 9 / 2)
    assert moved.layout.covariance[0, 1] == pytest.approx(-1 / 3 / 2)
    assert (moved.layout.residual, moved.layout.df) == (fit(scores).residual, fit(scores).df)


@pytest.mark.parametrize("growth", [{"a": 1.0, "b": 2.0}, {"a": 0.05, "b": 0.1}])
def test_nothing_moves_without_a_baseline_or_growth(growth: dict[str, float]) -> None:
    layout = fit({("base", 0): 0.5, ("a", 0): 0.6, ("b", 0): 0.8})
    moved = at_equal_cost(layout, growth, "base" if growth["b"] < 1 else None)
    assert moved.slope is None
    assert moved.layout.means == pytest.approx([0.6, 0.8])


@pytest.mark.parametrize("rounding", [0.0, 1e-15, -1e-15])
@pytest.mark.parametrize("ahead", [0, 2])
def test_two_with_one_prediction_are_not_told_apart_and_do_not_disturb_the_others(rounding: float, ahead: int) -> None:
    """The first two are one point of a surface: their difference has no variance, and a mean may differ by rounding."""
    means = np.array([0.0, rounding, 0.0, -50.0]) + np.eye(4)[ahead]
    means[1] += float(ahead == 0)
    covariance = np.eye(4)
    covariance[:2, :2] = 1 - np.eye(2) * rounding
    covariance[0, 0] = 1.0
    compared = with_the_best(means, covariance, 0.25, 10)
    assert [c.tied for c in compared] == [True, True, True, False]
    alone = with_the_best(means[[0, 2, 3]], np.eye(3), 0.25, 10)
    assert compared[0].margin == pytest.approx(alone[0].margin)
    told = with_a_control(means, covariance, 0.25, 10, 0)
    assert [d.told_apart for d in told] == [False, False, False, True]
    assert told[3].margin == pytest.approx(with_a_control(means[[0, 2, 3]], np.eye(3), 0.25, 10, 0)[2].margin)


def test_all_with_one_prediction_are_tied() -> None:
    assert all(c.tied and c.margin == 0 for c in with_the_best(np.zeros(3), np.ones((3, 3)), 1.0, 5))
    assert not any(d.told_apart for d in with_a_control(np.zeros(3), np.ones((3, 3)), 1.0, 5, 1))
