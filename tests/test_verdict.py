from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalenet.comparison import with_a_control
from scalenet.errors import ScalenetError
from scalenet.landscape import landscape_of
from scalenet.projection import Candidate
from scalenet.racing import estimated, guided_trainings, tied
from scalenet.runs import TrialRecord
from scalenet.scheffe import NoSurface
from scalenet.shares import NOTHING, Shares
from scalenet.space import Confirm, SearchSpace
from scalenet.verdict import Verdict, decide, decide_for
from tests.synthetic import candidate, design, trial, truth

BASE = candidate("baseline")
CORNERS = [candidate("depth"), candidate("width"), candidate("resolution")]
INNER = candidate("lattice 2/1/2", shares=Shares(0.4, 0.2, 0.4))
ALL = [BASE, *CORNERS, INNER, candidate("equal"), candidate("paper")]


def runs(scores: dict[str, list[float | None]], of: list[Candidate] = ALL) -> list[TrialRecord]:
    """One confirmation run per score, seeds 101, 102, ...; candidates by first name."""
    by_name = {c.names[0]: c for c in of}
    return [trial(by_name[name], top1, seed=101 + i) for name, row in scores.items() for i, top1 in enumerate(row)]


def decided(trials: list[TrialRecord], of: list[Candidate] = ALL, classes: int | None = 10) -> Verdict:
    verdict = decide(of, trials, num_classes=classes)
    assert verdict is not None
    return verdict


def simulated(seed: int, truth: Callable[[Candidate], float], noise: float, block: float = 0.01) -> list[TrialRecord]:
    rng = np.random.default_rng(seed)
    trials = []
    for s in (101, 102):
        shift = rng.normal(0, block)
        trials += [trial(c, truth(c) + shift + rng.normal(0, noise), seed=s) for c in ALL]
    return trials


def test_pooled_sd_and_gains_by_hand() -> None:
    """Residuals of ((.60,.62),(.66,.64),(.70,.74)): column means .653, .667; sum of squares .000933 on 2 df."""
    verdict = decided(
        runs({"baseline": [0.50, 0.50], "depth": [0.60, 0.62], "width": [0.66, 0.64], "equal": [0.70, 0.74]})
    )
    table = np.array([[0.60, 0.62], [0.66, 0.64], [0.70, 0.74]])
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    assert verdict.noise_sd == pytest.approx(math.sqrt((residual**2).sum() / 2))
    assert (verdict.noise_df, verdict.noise_source) == (2, "confirmation")
    assert verdict.doubling is not None
    assert verdict.doubling.value == pytest.approx(0.66 - 0.50)
    # Var(mean of 6 runs - mean of 2 runs) = sd^2 (1/6 + 1/2); t(0.975, 2) = 4.303.
    assert verdict.noise_sd is not None
    assert verdict.doubling.margin == pytest.approx(4.3027 * verdict.noise_sd * math.sqrt(1 / 6 + 1 / 2), rel=1e-4)
    assert verdict.direction is not None
    assert verdict.direction.value == pytest.approx(0.72 - 0.66)
    # E(max - mean) of three equal normals is 0.8463 sd (order statistics); two runs each.
    assert verdict.by_luck == pytest.approx(0.8463 * verdict.noise_sd / math.sqrt(2), rel=1e-3)


def test_search_scores_decide_nothing() -> None:
    confirmed = runs({"depth": [0.60, 0.61], "width": [0.70, 0.72], "baseline": [0.5, 0.5]})
    searched = [trial(c, 0.99, judge="select", phase="search") for c in CORNERS]
    with_search = decided([*confirmed, *searched])
    assert replace(with_search, pick=None, rivals=()) == decided(confirmed)
    assert with_search.pick is not None


def test_the_pick_is_held_against_the_named_points() -> None:
    """Dunnett's two-sided interval; its critical value by simulation."""
    confirmed = runs({"baseline": [0.5] * 3, "depth": [0.60, 0.62, 0.61], "width": [0.69, 0.71, 0.72]})
    confirmed += runs({"lattice 2/1/2": [0.70, 0.74, 0.71]})
    searched = [trial(c, 0.6, seed=0, judge="select", phase="search") for c in CORNERS]
    verdict = decided([*confirmed, *searched, trial(INNER, 0.7, seed=0, judge="select", phase="search")])
    assert verdict.pick == INNER.key
    assert [rival.label for rival in verdict.rivals] == ["depth alone", "width alone"]
    assert [rival.behind for rival in verdict.rivals] == pytest.approx([2.15 / 3 - 0.61, 2.15 / 3 - 2.12 / 3])
    table = np.array([[0.60, 0.62, 0.61], [0.69, 0.71, 0.72], [0.70, 0.74, 0.71]])
    residual = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    error = math.sqrt((residual**2).sum() / 4 * 2 / 3)
    draws = np.random.default_rng(0)
    z, scale = draws.normal(size=(400_000, 3)), np.sqrt(draws.chisquare(4, 400_000) / 4)
    largest = np.abs((z[:, :1] - z[:, 1:]) / math.sqrt(2)).max(axis=1) / scale
    assert verdict.rivals[0].margin == pytest.approx(np.quantile(largest, 0.95) * error, rel=0.02)
    assert [rival.told_apart for rival in verdict.rivals] == [True, False]


@pytest.mark.parametrize(("spread", "ties"), [(0.0, None), (0.5, 1)])
def test_flat_truths_tie_and_large_differences_do_not(spread: float, ties: int | None) -> None:
    order = {c.key: i for i, c in enumerate(ALL)}
    kept = []
    for seed in range(200):
        verdict = decided(simulated(seed, lambda c: 0.2 + spread * order[c.key] / 10, 0.004))
        kept.append(INNER.key in verdict.tied_set)  # where all are equal, each is a best
        assert ties is None or (len(verdict.tied_set) == ties and verdict.winner == ALL[-1].key)
    assert ties is not None or np.mean(kept) >= 0.92  # 95 % less two standard errors of 200 draws


def test_the_lead_of_a_best_that_was_picked_by_its_lead_is_covered() -> None:
    """Equally good candidates: the true lead of whichever came out best is 0, in 95 of 100 intervals."""
    leads = [decided(simulated(seed, lambda _: 0.5, 0.004)).direction for seed in range(300)]
    inside = [lead is not None and lead.margin is not None and lead.value <= lead.margin for lead in leads]
    assert np.mean(inside) >= 0.93  # 95 % less two standard errors of 300 draws; an interval for one fixed: 0.85


def test_the_noise_estimate_is_unbiased() -> None:
    found = [decided(simulated(seed, lambda _: 0.5, 0.01)).noise_sd for seed in range(200)]
    assert math.sqrt(np.mean(np.square(np.array(found, dtype=float)))) == pytest.approx(0.01, rel=0.1)


@settings(max_examples=25, deadline=None)
@given(shift=st.floats(-0.1, 0.1), seed=st.integers(0, 1000), missing=st.integers(0, 6))
def test_a_constant_on_a_seed_changes_nothing(shift: float, seed: int, missing: int) -> None:
    trials = simulated(seed, lambda c: 0.5 + 0.01 * len(c.names[0]), 0.004)
    del trials[missing]
    moved = [replace(t, top1=(t.top1 or 0) + shift) if t.seed == 102 else t for t in trials]
    before, after = decided(trials), decided(moved)
    assert after.tied_set == before.tied_set
    assert after.noise_sd == pytest.approx(before.noise_sd)
    assert [e.behind for e in after.estimates] == pytest.approx([e.behind for e in before.estimates], abs=1e-9)
    assert before.doubling is not None
    assert after.doubling is not None
    assert after.doubling.value == pytest.approx(before.doubling.value)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(1, 7)), seed=st.integers(0, 1000))
def test_relabelling_candidates_relabels_the_verdict(order: list[int], seed: int) -> None:
    trials = simulated(seed, lambda c: 0.5 + 0.002 * len(c.names[0]), 0.004)
    renamed = {ALL[i].key: ALL[j].key for i, j in zip(range(1, 7), order, strict=True)} | {BASE.key: BASE.key}
    ratios = {c.key: c.ratio for c in ALL}
    assert len(set(ratios.values())) == 2  # the baseline's and one for all, so that keys are only labels
    before = decided(trials)
    after = decided([replace(t, key=renamed[t.key]) for t in trials])
    assert after.winner == renamed[before.winner]
    assert set(after.tied_set) == {renamed[key] for key in before.tied_set}


def test_scores_are_compared_at_equal_cost() -> None:
    """The corner's 2.83 x is half a doubling more; at +10 points a doubling 5 points more are then no more."""
    dear = candidate("depth", ratio=2 * math.sqrt(2))
    others = [candidate("width"), candidate("resolution")]
    scores: dict[str, list[float | None]] = {"baseline": [0.5, 0.5], "depth": [0.65, 0.652], "width": [0.60, 0.598]}
    scores["resolution"] = [0.5000, 0.5002]
    verdict = decided(runs(scores, [BASE, dear, *others]), [BASE, dear, *others])
    means = {e.label: e.mean for e in verdict.estimates}
    adjusted = {e.label: e.adjusted for e in verdict.estimates}
    slope = (np.mean(list(means.values())) - 0.5) / np.mean([1.5, 1, 1])
    assert verdict.slope is not None
    assert verdict.slope.value == pytest.approx(slope)
    assert adjusted["depth alone"] == pytest.approx(means["depth alone"] - slope / 2)
    assert adjusted["width alone"] == pytest.approx(means["width alone"])


def test_the_slopes_error_widens_the_comparison_of_unequal_costs() -> None:
    rows: dict[str, list[float | None]] = {"baseline": [0.5, 0.501], "depth": [0.6, 0.604], "width": [0.59, 0.588]}
    equal = decided(runs(rows), ALL).estimates[1].margin
    unequal = [BASE, candidate("depth"), candidate("width", ratio=4.0)]
    dearer = next(e for e in decided(runs(rows, unequal), unequal).estimates if e.label == "width alone").margin
    assert equal is not None
    assert dearer is not None
    assert dearer > 1.1 * equal


def test_failed_runs_leave_an_unbalanced_layout_and_a_note() -> None:
    verdict = decided(
        runs({"baseline": [0.5, 0.5], "depth": [0.60, None], "width": [0.70, 0.72], "equal": [0.61, 0.62]})
    )
    assert verdict.noise_df == 1
    assert {e.label: e.runs for e in verdict.estimates} == {"width alone": 2, "equal shares": 2, "depth alone": 1}
    assert "A confirmation run of depth alone (seed 102) is missing, failed: memory ran out." in verdict.notes


def test_one_seed_falls_back_on_the_replicates() -> None:
    """Two seeds of three candidates: differences .02, .01, .03 between the seeds, so sd^2 = .0001 on 2 df."""
    confirmed = runs({"baseline": [0.5], "depth": [0.6], "width": [0.7]})
    repeats = [
        trial(c, 0.6 + seed * gain, seed=seed, judge="select", phase="replicate" if seed else "search")
        for c, gain in zip(CORNERS, (0.02, 0.01, 0.03), strict=True)
        for seed in (0, 1)
    ]
    alone = trial(INNER, 0.9, seed=0, judge="select", phase="search")  # with one seed it says nothing about noise
    verdict = decided([*confirmed, *repeats, alone])
    assert (verdict.noise_source, verdict.noise_df) == ("replicates", 2)
    assert verdict.noise_sd == pytest.approx(0.01 / math.sqrt(2))
    assert "repeated with further seeds" in verdict.method
    assert any("replicates" in note for note in verdict.notes)


def test_no_repeats_at_all_tie_everyone() -> None:
    verdict = decided(runs({"baseline": [0.5], "depth": [0.6], "width": [0.7]}))
    assert verdict.noise_sd is None
    assert len(verdict.tied_set) == 2
    assert "no noise estimate" in verdict.sentence
    assert verdict.above_chance is None


def test_candidates_without_a_common_seed_are_not_compared() -> None:
    alone = [trial(CORNERS[0], 0.99, seed=999)]
    verdict = decided([*runs({"baseline": [0.5, 0.5], "width": [0.6, 0.61], "equal": [0.62, 0.63]}), *alone])
    assert verdict.winner == ALL[-2].key
    assert CORNERS[0].key in verdict.tied_set
    assert any("shares no seed" in note for note in verdict.notes)


def test_without_the_baseline_nothing_is_adjusted() -> None:
    verdict = decided(runs({"depth": [0.6, 0.61], "width": [0.7, 0.71], "equal": [0.7, 0.69]}))
    assert verdict.doubling is None
    assert verdict.slope is None
    assert "over the baseline" not in verdict.sentence


def test_nothing_confirmed_is_no_verdict_and_a_stranger_is_an_error() -> None:
    assert decide(ALL, []) is None
    assert decide(ALL, runs({"baseline": [0.5, 0.5]})) is None
    with pytest.raises(ScalenetError, match="no such candidate"):
        decide([BASE], runs({"depth": [0.5]}))


CLOSE = {"baseline": [0.5, 0.502], "depth": [0.55, 0.552], "resolution": [0.58, 0.577], "paper": [0.603, 0.6]}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (
            CLOSE | {"width": [0.648, 0.652], "lattice 2/1/2": [0.650, 0.652]},
            "No evidence here that compound scaling beats width alone: depth 0.4 / width 0.2 / resolution 0.4 "
            "(alpha 1.32, beta 1.07, gamma 1.15) came out best with top1 65.1 %, 15.0 points over the baseline, "
            "but it cannot be told apart from 1 of the 4 other confirmed candidates: width alone.",
        ),
        (
            CLOSE | {"width": [0.60, 0.602], "lattice 2/1/2": [0.650, 0.652]},
            "Compound scaling beats any one direction alone: depth 0.4 / width 0.2 / resolution 0.4 "
            "(alpha 1.32, beta 1.07, gamma 1.15) came out best with top1 65.1 %, 15.0 points over the baseline, "
            "and every other confirmed candidate is behind it by more than noise.",
        ),
        (
            CLOSE | {"width": [0.70, 0.702]},
            "Width alone (alpha 1, beta 1.41, gamma 1) came out best with top1 70.1 %, 20.0 points over the baseline, "
            "and every other confirmed candidate is behind it by more than noise.",
        ),
        (
            {"width": [0.70, 0.702], "baseline": [0.71, 0.712]},
            "Width alone (alpha 1, beta 1.41, gamma 1) is the only candidate with a finished confirmation run, "
            "top1 70.1 %, 1.0 points below the baseline: there is no comparison.",
        ),
        (
            {"baseline": [0.5, 0.51], "width": [0.60, 0.62], "equal": [0.63, 0.61]},
            "No evidence here that compound scaling beats width alone: equal shares (alpha 1.26, beta 1.12, "
            "gamma 1.12) came out best with top1 62.0 %, 11.5 points over the baseline, but it cannot be told apart "
            "from the one other confirmed candidate: width alone.",
        ),
        (
            {"width": [0.60, 0.62], "equal": [0.63, 0.61], "paper": [0.60, 0.63], "lattice 2/1/2": [0.61, 0.625]},
            "No evidence here that compound scaling beats width alone: equal shares (alpha 1.26, beta 1.12, "
            "gamma 1.12) came out best with top1 62.0 %, but it cannot be told apart from any of the 3 other confirmed "
            "candidates, among them the paper's 1.2/1.1/1.15 and width alone.",
        ),
        (
            {"width": [0.60], "equal": [0.63]},
            "Equal shares (alpha 1.26, beta 1.12, gamma 1.12) came out best with top1 63.0 %, but there is no noise "
            "estimate, so nothing tells it apart from the one other confirmed candidate.",
        ),
        (
            {"depth": [0.1], "width": [0.1], "baseline": [0.1]},
            "Nothing can be concluded: even the best candidate, width alone (alpha 1, beta 1.41, gamma 1), reaches "
            "only top1 10.0 %, 0.0 points over the baseline, which is not above chance (10.0 %).",
        ),
    ],
)
def test_sentences(scores: dict[str, list[float | None]], expected: str) -> None:
    assert decided(runs(scores)).sentence == expected


def test_a_best_that_is_so_at_equal_cost_only_says_it() -> None:
    """Half a doubling more for +0.5 points, where a doubling buys 10: behind, with the higher top1."""
    dear = candidate("depth", ratio=2 * math.sqrt(2))
    of = [BASE, dear, CORNERS[1], ALL[-2]]
    verdict = decided(
        runs({"baseline": [0.5, 0.501], "depth": [0.625, 0.624], "equal": [0.62, 0.621], "width": [0.6, 0.6]}, of), of
    )
    assert verdict.winner == ALL[-2].key
    assert "came out best at equal cost, with top1 62.1 %" in verdict.sentence


def test_one_network_that_is_two_landmarks_is_named_as_both() -> None:
    both = candidate("equal", "paper")
    verdict = decided(runs({"width": [0.7, 0.71], "equal": [0.703, 0.708]}, [CORNERS[1], both]), [CORNERS[1], both])
    assert "equal shares = the paper's 1.2/1.1/1.15" in verdict.sentence


def test_a_run_that_failed_twice_is_noted_once() -> None:
    scores: dict[str, list[float | None]] = {"baseline": [0.5, 0.5], "depth": [0.6, None], "width": [0.7, 0.72]}
    trials = runs(scores)
    again = next(t for t in trials if t.state == "failed")
    assert sum("is missing" in note for note in decided([*trials, again]).notes) == 1


def test_chance_level() -> None:
    scores: dict[str, list[float | None]] = {"baseline": [0.1, 0.1], "depth": [0.11, 0.12], "width": [0.12, 0.11]}
    verdict = decided(runs(scores))
    assert verdict.above_chance is False
    assert verdict.sentence.startswith("Nothing can be concluded")
    assert "chance (10.0 %)" in verdict.sentence
    assert decided(runs(scores), classes=1000).above_chance is True
    assert decided(runs(scores), classes=None).above_chance is None


GRID = design(m=4)
GROWTH = {c.key: math.log2(c.ratio) for c in GRID if c.shares != NOTHING}
SHARES = {c.key: c.realised for c in GRID if c.shares != NOTHING}


def guided_runs(seed: int = 0, noise: float = 0.006, spread: float = 0.12, seeds: int = 2) -> list[TrialRecord]:
    """As a guided search would leave them; who gets further seeds is told by the truth."""
    rng = np.random.default_rng(seed)
    order = sorted(GRID[1:], key=lambda c: -truth(c, spread))
    trials = []
    for number, size in enumerate(guided_trainings(len(order), seeds)):
        trials += [
            trial(c, truth(c, spread) + 0.01 * number + rng.normal(0, noise), seed=101 + number)
            for c in [GRID[0], *order[:size]]
        ]
    return trials


def of_a_guided_run(trials: list[TrialRecord]) -> Verdict:
    space = SearchSpace(sampler="guided", confirm=Confirm(3, 2))
    verdict = decide_for(space, GRID, trials, num_classes=10)
    assert verdict is not None
    return verdict


def test_a_guided_run_is_compared_through_the_surface() -> None:
    """The means, the noise and the tied set are those that say who gets further seeds (`racing.estimated`)."""
    trials = guided_runs()
    verdict = of_a_guided_run(trials)
    scores = {(t.key, t.seed): t.top1 for t in trials if t.top1 is not None}
    layout = estimated(scores, GROWTH, baseline=GRID[0].key, shares=SHARES)
    adjusted = {e.key: e.adjusted for e in verdict.estimates}
    assert adjusted == pytest.approx(dict(zip(layout.keys, layout.means.tolist(), strict=True)))
    assert verdict.noise_sd == pytest.approx(math.sqrt(layout.residual / layout.df))
    assert (verdict.noise_df, verdict.noise_source) == (layout.df, "surface")
    assert verdict.tied_set == tied(scores, GROWTH, baseline=GRID[0].key, shares=SHARES)
    pairwise = decide(GRID, trials)
    assert pairwise is not None
    assert 1 < len(verdict.tied_set) < len(pairwise.tied_set)
    assert verdict.seeds == (101, 102)
    assert "came out best by a surface through all runs" in verdict.sentence
    assert "every run speaks for all candidates" in verdict.method
    assert "what the surface below misses" in verdict.method
    assert "one alone far off the surface may be missed" in verdict.method
    assert "what doubling bought is of the first seed" in verdict.method
    assert "family level 5 %" in verdict.method
    dear = next(e for e in verdict.estimates if e.label == "depth alone")  # 2.27 x the baseline's cost
    assert verdict.slope is not None
    assert dear.mean - dear.adjusted == pytest.approx(verdict.slope.value * math.log2(2.27 / 2))


def test_the_landscape_of_a_guided_run_is_of_the_runs_that_decide() -> None:
    trials, by_key = guided_runs(), {c.key: c for c in GRID}
    space = SearchSpace(sampler="guided")
    found = landscape_of(trials, by_key, space.target, space.mapped)
    assert not isinstance(found, NoSurface)
    assert set(found.surface.polynomial.residuals) == set(GROWTH)
    assert "surface over all runs" in found.says
    assert isinstance(landscape_of(trials, by_key, space.target), NoSurface)


def test_the_winner_of_a_guided_run_is_held_against_the_named_points_whoever_had_won() -> None:
    """Each named point is the control of a comparison with all; the five of them share 5 %."""
    trials = guided_runs()
    verdict = of_a_guided_run(trials)
    assert verdict.pick is None
    scores = {(t.key, t.seed): t.top1 for t in trials if t.top1 is not None}
    layout = estimated(scores, GROWTH, baseline=GRID[0].key, shares=SHARES)
    assert len(verdict.rivals) == 5  # the corners, equal shares, the paper's
    for rival in verdict.rivals:
        control = layout.keys.index(rival.key)
        compared = with_a_control(
            layout.means, layout.covariance, layout.residual / layout.df, layout.df, control, 0.99
        )[layout.keys.index(verdict.winner)]
        assert (rival.behind, rival.margin) == pytest.approx((-compared.value, compared.margin))
        assert rival.told_apart == (rival.behind > rival.margin)
    assert any(rival.told_apart for rival in verdict.rivals)


def test_the_interval_against_named_points_covers_that_the_winner_was_picked() -> None:
    """All alike: the true difference is 0 whoever won, inside all five intervals in 95 of 100 searches or more."""
    rng, covered = np.random.default_rng(5), 0
    for _ in range(60):
        shaken = [replace(t, top1=0.5 + float(rng.normal(0, 0.006))) for t in guided_runs()]
        covered += not any(rival.told_apart for rival in of_a_guided_run(shaken).rivals)
    assert covered >= 54  # 95 % of 60 less two standard errors


def test_what_doubling_bought_is_from_the_seed_that_everybody_had() -> None:
    """Who goes on was lucky and comes out lower: seeds apart, that would be laid on the seed and lift the baseline."""
    trials = guided_runs(seeds=3)
    sunk = [replace(t, top1=(t.top1 or 0) - 0.02 * (t.seed > 101 and t.key != GRID[0].key)) for t in trials]
    first = {t.key: t.top1 or 0 for t in trials if t.seed == 101}
    bought = np.mean([first[c.key] for c in GRID[1:]]) - first[GRID[0].key]
    for of in (trials, sunk):
        verdict = of_a_guided_run(of)
        assert verdict.doubling is not None
        assert verdict.noise_sd is not None
        error = verdict.noise_sd * math.sqrt(1 + 1 / (len(GRID) - 1))
        assert verdict.doubling.value == pytest.approx(bought)
        assert verdict.doubling.margin == pytest.approx(error * stats.t.ppf(0.975, verdict.noise_df))
    without = [replace(t, state="failed") if t is trials[0] else t for t in trials]  # the baseline's first
    assert of_a_guided_run(without).doubling is not None


def test_two_networks_at_one_point_of_the_surface_are_decided_on() -> None:
    """As rounding leaves them: where no departure shows nothing tells them apart, and the comparison stands."""
    twin = replace(GRID[6], key="twin", names=("lattice twin",))
    made = guided_runs(seed=2)  # no departure shows
    copies = [replace(t, key=twin.key, names=twin.names) for t in made if t.key == GRID[6].key]
    trials = [replace(t, top1=(t.top1 or 0) + 0.001) for t in copies]
    space = SearchSpace(sampler="guided", confirm=Confirm(3, 2))
    verdict = decide_for(space, [*GRID, twin], [*made, *trials], num_classes=10)
    assert verdict is not None
    first, second = (next(e for e in verdict.estimates if e.key == key) for key in (GRID[6].key, twin.key))
    assert first.adjusted == pytest.approx(second.adjusted)
    assert first.tied == second.tied


def test_errors_of_what_a_surface_predicts_are_the_predictions() -> None:
    """One run on a surface that fits is known better than by itself, and the errors are free of the seeds."""
    trials = guided_runs()
    verdict = of_a_guided_run(trials)
    scores = {(t.key, t.seed): t.top1 for t in trials if t.top1 is not None}
    layout = estimated(scores, GROWTH, baseline=GRID[0].key, shares=SHARES)
    number = len(layout.keys)
    for estimate in verdict.estimates:
        contrast = np.array([float(key == estimate.key) for key in layout.keys]) - 1 / number
        variance = layout.residual / layout.df * (contrast @ layout.covariance @ contrast)
        assert estimate.error == pytest.approx(math.sqrt(variance))
    inner = next(e for e in verdict.estimates if e.runs == 1)
    assert inner.error is not None
    assert verdict.noise_sd is not None
    assert inner.error < 0.9 * verdict.noise_sd
    assert verdict.baseline is not None
    assert verdict.baseline.error == pytest.approx(verdict.noise_sd / math.sqrt(2))


def test_without_a_repeat_a_guided_run_tells_nobody_apart() -> None:
    """What a surface misses may then be the candidates' own."""
    verdict = of_a_guided_run(guided_runs(seeds=1))
    assert verdict.noise_source == "none"
    assert len(verdict.tied_set) == len(GRID) - 1
    assert verdict.rivals == ()


def test_too_few_for_a_surface_are_compared_as_they_are() -> None:
    few = [c for c in GRID if {"depth", "width", "resolution", "baseline"} & set(c.names)]
    trials = [t for t in guided_runs(seeds=2) if t.key in {c.key for c in few}]
    trials += [replace(t, seed=103, top1=(t.top1 or 0) + 0.002 * i) for i, t in enumerate(trials) if t.seed == 101]
    guided = decide_for(SearchSpace(sampler="guided"), few, trials, num_classes=10)
    grid = decide(few, trials, num_classes=10)
    assert guided is not None
    assert grid is not None
    assert guided.noise_source == "confirmation"
    assert guided.estimates == grid.estimates


def test_a_race_has_spent_a_part_of_the_verdicts_error() -> None:
    rows: dict[str, list[float | None]] = {"depth": [0.6, 0.602, 0.6], "width": [0.611, 0.612, 0.61]}
    rows |= {"equal": [0.606, 0.611, 0.607], "baseline": [0.5, 0.5, 0.5]}
    of_three = {
        racing: decide_for(SearchSpace(racing=racing, confirm=Confirm(3, 3)), ALL, runs(rows), num_classes=10)
        for racing in (False, True)
    }
    margins = {racing: [e.margin for e in found.estimates[1:]] for racing, found in of_three.items() if found}
    assert all((wide or 0) > 1.1 * (narrow or 1) for narrow, wide in zip(margins[False], margins[True], strict=True))
    said = {racing: found.method for racing, found in of_three.items() if found}
    assert "at family level 5 %, with" in said[False]
    assert "at family level 2.5 %, the race having spent the rest of 5 %, with" in said[True]
    two = decide_for(SearchSpace(racing=True, confirm=Confirm(3, 2)), ALL, runs(rows), num_classes=10)
    assert two is not None
    assert "at family level 5 %, with" in two.method
