"""What a search will resolve: against simulated searches, printed tables of power and every surface of a range."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scalenet import surface
from scalenet.comparison import critical_value, fit, with_the_best
from scalenet.experiment import plan
from scalenet.mixture import lattice
from scalenet.power import AssumedNoise, Flatness, assumed_noise, flatness, foreseen, resolution
from scalenet.shares import EQUAL, Shares
from scalenet.space import resolve
from tests.pictures import png_folder

UNIT = AssumedNoise(pictures=100, accuracy=0.5, judging=0.0, training=1.0, sd=1.0)
RUNS = [(shares, seed) for shares in lattice(4) for seed in (0, 1)] + [(EQUAL, 2), (Shares(1, 0, 0), 2)]
LOPSIDED = [(shares, int(shares.depth > 0.4)) for shares in lattice(6)]  # seeds take sides
LOPSIDED += [(shares, 1 - seed) for shares, seed in LOPSIDED if shares.single or shares == EQUAL]


@pytest.mark.parametrize(("each", "difference"), [(310, 0.20), (50, 0.50), (20, 0.80)])
def test_two_candidates_need_as_many_runs_as_cohen_printed(each: int, difference: float) -> None:
    """Cohen, Statistical Power Analysis, 1988, table 2.4.1 (one-sided 5 %, power 80 %): n for d, rounded up."""
    found = resolution(2, each, 2 * (each - 1), UNIT)
    assert found is not None
    assert found.resolved == pytest.approx(difference, rel=0.01)


def told_apart(candidates: int, seeds: int, difference: float, others: float, draws: int = 500) -> float:
    """How often the first candidate leaves the tied set, `difference` behind the second, the rest `others` behind."""
    rng = np.random.default_rng(3)
    truth = np.array([-difference, 0.0, *[-others] * (candidates - 2), -50.0])  # the last is the baseline
    out = 0
    for _ in range(draws):
        scores = truth[:, None] + rng.normal(size=(1, seeds)) + rng.normal(size=(len(truth), seeds))
        layout = fit({(f"{key}", seed): scores[key, seed] for key in range(len(truth)) for seed in range(seeds)})
        means, covariance = layout.means[:-1], layout.covariance[:-1, :-1]
        out += not with_the_best(means, covariance, layout.residual / layout.df, layout.df)[0].tied
    return out / draws


@pytest.mark.parametrize(("candidates", "seeds"), [(3, 2), (8, 2), (10, 4)])
def test_simulated_searches_tell_apart_what_is_foreseen(candidates: int, seeds: int) -> None:
    found = resolution(candidates, seeds, candidates * (seeds - 1), UNIT)
    assert found is not None
    error = 3 * math.sqrt(0.8 * 0.2 / 500)
    assert told_apart(candidates, seeds, found.resolved, others=40.0) == pytest.approx(0.8, abs=error)
    assert told_apart(candidates, seeds, found.resolved, others=0.0) > 0.8 - error  # more rivals, more chances


def test_the_table_rises_from_the_level_to_certainty() -> None:
    found = resolution(2, 3, 4, replace(UNIT, sd=0.004))
    assert found is not None
    chances = [chance for _, chance in found.chances]
    assert chances == sorted(chances)
    assert 0.05 < chances[0] < 0.8 < chances[-1] < 1


def test_without_a_second_run_nothing_is_resolved() -> None:
    assert resolution(9, 1, 0, UNIT) is None
    assert resolution(1, 5, 4, UNIT) is None


def columns(points: list[Shares]) -> NDArray[np.float64]:
    """Scheffe's six terms as he wrote them."""
    x = np.array([(p.depth, p.width, p.resolution) for p in points])
    return np.column_stack([x, x[:, 0] * x[:, 1], x[:, 0] * x[:, 2], x[:, 1] * x[:, 2]])


def least_visible(runs: list[tuple[Shares, int]]) -> NDArray[np.float64]:
    """Scheffe's coefficients of a surface of range 1 that sticks out least: by search over pairs of points."""
    blocks = np.eye(1 + max(seed for _, seed in runs))[[seed for _, seed in runs]]
    terms = columns([shares for shares, _ in runs])
    terms = terms - blocks @ np.linalg.pinv(blocks) @ terms
    inverse = np.linalg.pinv(terms.T @ terms)
    places = columns(lattice(12))
    best = max(((a - b) for a in places for b in places), key=lambda c: float(c @ inverse @ c))
    return inverse @ best / float(best @ inverse @ best)


def scatter(heights: NDArray[np.float64], runs: list[tuple[Shares, int]]) -> float:
    """The noncentrality of the F test for a surface: its sum of squares about the mean of every seed."""
    seeds = np.array([seed for _, seed in runs])
    return sum(float(np.var(heights[seeds == seed])) * int(sum(seeds == seed)) for seed in set(seeds))


def called_not_flat(heights: NDArray[np.float64], runs: list[tuple[Shares, int]], draws: int = 250) -> float:
    """How often a search's own test says so."""
    rng = np.random.default_rng(4)
    names = {shares: str(i) for i, (shares, _) in enumerate(runs)}
    points, calls = {name: shares for shares, name in names.items()}, 0
    for _ in range(draws):
        scores = heights + rng.normal(size=len(runs))
        layout = fit({(names[s], seed): float(score) for (s, seed), score in zip(runs, scores, strict=True)})
        found = surface.fit(layout, points)
        assert isinstance(found, surface.Surface)
        calls += not found.flat
    return calls / draws


@pytest.mark.parametrize(
    "runs", [RUNS, LOPSIDED, [(s, 0) for s in lattice(4)]], ids=["even", "lopsided", "nothing repeated"]
)
def test_simulated_surfaces_are_called_not_flat_as_often_as_foreseen(runs: list[tuple[Shares, int]]) -> None:
    found = flatness(runs, UNIT)
    assert found is not None
    assert found.df == len(runs) - len({seed for _, seed in runs}) - 5
    heights = columns([shares for shares, _ in runs]) @ least_visible(runs) * found.resolved
    assert called_not_flat(heights, runs) == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 250))


WORST = columns([shares for shares, _ in RUNS]) @ least_visible(RUNS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6).filter(lambda c: np.ptp(columns(lattice(40)) @ c) > 0.1))
def test_no_quadratic_surface_of_that_range_is_seen_less_often(coefficients: list[float]) -> None:
    found = flatness(RUNS, UNIT)
    assert found is not None
    scale = found.resolved / float(np.ptp(columns(lattice(40)) @ coefficients))
    heights = columns([shares for shares, _ in RUNS]) @ coefficients * scale
    worst = WORST * found.resolved
    assert scatter(heights, RUNS) > 0.97 * scatter(worst, RUNS)  # the range on a finer grid is a little larger


def test_too_few_points_show_no_surface() -> None:
    corners = [*lattice(1), EQUAL, Shares(0.28, 0.29, 0.43)]
    assert flatness([(shares, seed) for shares in corners for seed in range(3)], UNIT) is None
    assert flatness([(shares, 0) for shares in lattice(2)], UNIT) is None  # six coefficients, six runs
    assert flatness([(shares, seed) for shares in lattice(2) for seed in range(2)], UNIT) is not None
    assert flatness([(Shares(s, 1 - s, 0), 0) for s in np.linspace(0, 1, 20)], UNIT) is None  # one edge
    assert flatness([(s, 0) for s in lattice(6) if s.width < 0.6], UNIT) is None  # scheffe.fit takes no quadratic there


def test_two_candidates_at_one_point_are_two() -> None:
    """Rounding may build other networks of the same shares: they differ by more than noise, and that is misfit."""
    once = [(shares, seed) for shares in lattice(4) for seed in (0, 1)]
    twice = flatness([*once, (EQUAL, 0), (EQUAL, 1), (EQUAL, 0), (EQUAL, 1)], UNIT)
    other = flatness(
        [*once, (EQUAL, 0), (EQUAL, 1), (Shares(0.3333, 0.3333, 0.3334), 0), (Shares(0.3333, 0.3333, 0.3334), 1)], UNIT
    )
    assert twice is not None
    assert other is not None
    assert twice.resolved == pytest.approx(other.resolved, rel=1e-3)
    assert (twice.points, other.points) == (16, 17)


def test_more_seeds_resolve_flatter_surfaces() -> None:
    ranges = [flatness([(shares, s) for shares in lattice(5) for s in range(n)], UNIT) for n in (1, 2, 3)]
    resolved = [found.resolved for found in ranges if isinstance(found, Flatness)]
    assert len(resolved) == 3
    assert resolved == sorted(resolved, reverse=True)


def test_the_assumption_by_hand() -> None:
    noise = assumed_noise(480, 10)
    assert noise.accuracy == pytest.approx(0.55)  # halfway from 10 % to 100 %
    assert noise.judging == pytest.approx(0.022707, abs=1e-6)  # sqrt(0.55 * 0.45 / 480)
    assert noise.sd == pytest.approx(math.sqrt(0.022707**2 + 0.01**2), abs=1e-6)


def test_a_plan_foresees_what_its_own_runs_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    flags = {"data.source": str(png_folder(tmp_path / "pictures"))}
    planned = plan("mobilenet", resolve("mobilenet", None, ["lattice=3", "confirm.seeds=3"], flags))
    found = foreseen(planned)
    assert found.comparison is not None
    assert found.surface is not None
    assert (found.comparison.candidates, found.comparison.df) == (planned.confirmed, 2 * planned.confirmed)
    assert found.comparison.noise.pictures == planned.data.counts["held"]
    # Every candidate once, the corners and the centre once more; the baseline is on no surface.
    assert found.surface.runs == len(planned.contestants) + 4

    once = replace(planned.space, confirm=replace(planned.space.confirm, seeds=1))
    alone = foreseen(replace(planned, space=once)).comparison
    assert alone is not None
    # What verdict.decide falls back on: corners and centre with one more seed, that seed apart; no baseline.
    assert alone.df == 3
    two_seeds = foreseen(replace(planned, space=replace(once, seeds=2))).comparison
    assert two_seeds is not None
    assert two_seeds.df == len(planned.contestants) - 1 + 3
    assert foreseen(replace(planned, space=replace(once, replicates=0))).comparison is None
    assert foreseen(replace(planned, space=replace(once, sampler="tpe"))).surface is None  # points not known yet


def test_a_guided_plan_foresees_the_best_against_one_of_the_first_seed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    flags = {"data.source": str(png_folder(tmp_path / "pictures"))}
    settings = ["lattice=3", "sampler=guided", "confirm.seeds=3", "data.select=0.4"]
    planned = plan("mobilenet", resolve("mobilenet", None, settings, flags))
    assert planned.data.counts["select"] > planned.data.counts["held"]
    found, number = foreseen(planned), len(planned.contestants)
    assert found.comparison is not None
    assert found.surface is not None
    halves = number // 2, number // 2 // 2
    assert (found.comparison.candidates, found.comparison.seeds, found.comparison.fewest) == (number, 3, 1)
    assert found.comparison.df == halves[0] - 1 + halves[1] - 1  # the blocks of two further seeds
    assert found.surface.noise.pictures == planned.data.counts["held"]
    assert found.surface.runs == number
    # The difference of means of three runs and of one has the variance 1/3 + 1; two such that share the former, a third
    # of that as covariance: a correlation of 1/4.
    d = critical_value(number - 1, found.comparison.df, 0.25)
    assert found.comparison.margin == pytest.approx(d * found.comparison.noise.sd * (4 / 3) ** 0.5)


def test_of_so_few_that_all_get_all_seeds_none_has_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    flags = {"data.source": str(png_folder(tmp_path / "pictures"))}
    settings = ["lattice=1", "sampler=guided", "confirm.seeds=3"]
    planned = plan("mobilenet", resolve("mobilenet", None, settings, flags))
    found = foreseen(planned).comparison
    assert found is not None
    assert len(planned.contestants) <= 6
    assert (found.seeds, found.fewest) == (3, 3)
