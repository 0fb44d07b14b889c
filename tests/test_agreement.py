"""Kendall's tau of two noisy rankings: against scipy and by hand, and how often its interval holds the truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalenet.agreement import Outcome, Scores, agreement, at_least
from scalenet.comparison import FloatArray

COUNT = 6


def scores(means: list[float] | FloatArray, error: float = 0.01, df: float = 10) -> Scores:
    return Scores(np.array(means), np.full((len(means), len(means)), error), df)


def confirmed(rng: np.random.Generator, truth: FloatArray, seeds: int) -> Scores:
    """What runs with a noise sd of 1 would show: means over the seeds, and the noise pooled over all directions."""
    runs = truth[:, None] + rng.normal(0, 2, seeds) + rng.normal(size=(len(truth), seeds))
    rest = runs - runs.mean(1, keepdims=True) - runs.mean(0) + runs.mean()
    df = (len(truth) - 1) * (seeds - 1)
    return scores(runs.mean(1), float(np.sqrt((rest**2).sum() / df * 2 / seeds)), df)


def test_tau_by_hand_and_as_scipy_has_it() -> None:
    # one neighbouring pair of four turned: 5 pairs kept less 1 turned, of 6
    assert agreement(scores([1, 2, 3, 4]), scores([1, 2, 4, 3])).tau == pytest.approx(4 / 6)
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.normal(size=(2, COUNT))
        assert agreement(scores(a), scores(b)).tau == stats.kendalltau(a, b).statistic


@pytest.mark.parametrize(
    ("second", "outcome", "low", "high", "kept", "turned"),
    [
        ([1, 2, 3, 4], "held", 1, 1, 6, 0),
        ([4, 3, 2, 1], "not held", -1, -1, 0, 6),
        ([4, 3, 1, 2], "not held", -4 / 6, -4 / 6, 1, 5),
        ([2, 4, 1, 3], "not held", 0, 0, 3, 3),
        ([1, 2, 3, 3.001], "held", 4 / 6, 1, 5, 0),  # the last pair is not told apart
        ([1, 1, 1, 1.001], "open", -1, 1, 0, 0),
    ],
)
def test_clear_rankings(second: list[float], outcome: str, low: float, high: float, kept: int, turned: int) -> None:
    found = agreement(scores([1, 2, 3, 4]), scores(second))
    assert (found.kept, found.turned, found.pairs) == (kept, turned, 6)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.outcome == outcome


def test_a_pair_must_be_told_apart_in_both_runs() -> None:
    needed = float(stats.t.ppf(0.975, 10))  # 2.228 standard errors, one-sided at 2.5 %
    assert needed == pytest.approx(2.228, abs=1e-3)
    clear, not_quite = scores([0, needed + 0.01], 1.0), scores([0, needed - 0.01], 1.0)
    assert agreement(clear, clear).kept == 1
    assert agreement(clear, not_quite).kept == agreement(not_quite, clear).kept == 0
    assert agreement(clear, scores([needed + 0.01, 0], 1.0)).turned == 1
    few = Scores(clear.means, clear.errors, 2)  # so few degrees of freedom need 4.30
    assert agreement(clear, few).kept == 0


def test_without_noise_nothing_is_said() -> None:
    found = agreement(scores([1, 2, 3]), scores([1, 2, 3], np.inf, 1))
    assert (found.tau, found.low, found.high, found.outcome) == (1, -1, 1, "open")
    for few in ([], [1.0]):
        none = agreement(scores(few), scores(few))
        assert (none.tau, none.pairs, none.low, none.high, none.outcome) == (None, 0, -1, 1, "open")
    assert agreement(scores([1, 1]), scores([1, 2])).tau is None


values = st.lists(st.floats(-5, 5), min_size=COUNT, max_size=COUNT)


@settings(deadline=None)
@given(values, values, st.permutations(range(COUNT)))
def test_order_and_direction_do_not_matter(a: list[float], b: list[float], order: list[int]) -> None:
    found = agreement(scores(a, 1.0), scores(b, 1.0))
    if found.tau is not None and len(set(a)) == len(set(b)) == COUNT:  # tau-b leaves ties out, the interval does not
        assert found.low - 1e-9 <= found.tau <= found.high + 1e-9
    swapped = agreement(scores(b, 1.0), scores(a, 1.0))
    assert (swapped.kept, swapped.turned) == (found.kept, found.turned)
    again = agreement(scores([a[i] for i in order], 1.0), scores([b[i] for i in order], 1.0))
    assert (again.kept, again.turned) == (found.kept, found.turned)
    opposite = agreement(scores(a, 1.0), scores([-x for x in b], 1.0))
    assert (opposite.kept, opposite.turned) == (found.turned, found.kept)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=6))
def test_the_bound_is_that_of_trying_all_subsets(p_values: list[float]) -> None:
    level = 0.2

    def rejected(some: tuple[float, ...]) -> bool:
        return any(p * len(some) <= level * rank for rank, p in enumerate(sorted(some), 1))

    true = max(
        (size for size in range(1, len(p_values) + 1) for some in combinations(p_values, size) if not rejected(some)),
        default=0,
    )
    assert at_least(np.array(p_values), level) == len(p_values) - true


STEPS = np.arange(COUNT, dtype=float)
NOTHING = 1e-9 * STEPS
BLOCKS = np.array([0.0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NOTHING, NOTHING),  # as good as flat, but not quite: tau is 1
        (0.5 * STEPS, 0.5 * STEPS),
        (2 * STEPS, 2 * STEPS),
        (NOTHING, -100 * STEPS),  # the hardest: one ranking clear, the other noise
        (-STEPS, 100 * STEPS),
        (3 * STEPS, 3 * STEPS[[1, 0, 3, 2, 5, 4]]),
        (20 * BLOCKS + NOTHING, 20 * BLOCKS - STEPS),
    ],
)
def test_the_interval_holds_the_truth(first: FloatArray, second: FloatArray) -> None:
    rng = np.random.default_rng(0)
    truth = stats.kendalltau(first, second).statistic
    held = 0
    for _ in range(400):
        found = agreement(confirmed(rng, first, 2), confirmed(rng, second, 3))
        held += found.low - 1e-9 <= truth <= found.high + 1e-9
    assert held / 400 >= 0.93  # 95 % less two standard errors of 400 draws


@pytest.mark.parametrize(("step", "most"), [(4.0, "held"), (-4.0, "not held"), (0.0, "open")])
def test_the_interval_is_not_idle(step: float, most: Outcome) -> None:
    rng = np.random.default_rng(0)
    outcomes = [agreement(confirmed(rng, 4 * STEPS, 2), confirmed(rng, step * STEPS, 3)).outcome for _ in range(200)]
    assert outcomes.count(most) / 200 >= 0.95
