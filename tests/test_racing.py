from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.mixture import lattice
from scalenet.racing import Race, estimated, race, tied
from scalenet.runs import RunDirectory
from scalenet.shares import EQUAL, Shares
from scalenet.verdict import decide
from tests import synthetic

POINTS = {f"k{i}": shares for i, shares in enumerate([*lattice(4), EQUAL, Shares(0.28, 0.29, 0.43)])}
KEYS = tuple("abcdef")
GROWTH = dict.fromkeys(KEYS, 1.0)
SEEDS = (3, 4, 5, 6)


def surface(shares: Shares) -> float:
    d, w, r = shares.depth, shares.width, shares.resolution
    return 0.5 * d + 0.6 * w + 0.55 * r + 0.2 * d * w - 0.1 * d * r + 0.15 * w * r


def scored(means: dict[str, float], seeds: tuple[int, ...] = SEEDS, sd: float = 0.1) -> dict[tuple[str, int], float]:
    rng = np.random.default_rng(0)
    return {(key, seed): mean + seed + rng.normal(0, sd) for seed in seeds for key, mean in means.items()}


MEANS = dict(zip(KEYS, (0.0, 0.1, 0.2, -5.0, 0.0, 0.1), strict=True))


@pytest.mark.parametrize("spread", [0.02, 0.08, 0.3])
def test_tied_is_the_verdicts_tied_set(tmp_path: Path, spread: float) -> None:
    run: RunDirectory = synthetic.make_run(tmp_path, spread=spread)
    candidates, trials = run.candidates(), run.trials()
    verdict = decide(candidates, trials)
    assert verdict is not None
    scores = {(t.key, t.seed): t.top1 for t in trials if t.judge == "held" and t.top1 is not None}
    baseline = next(c.key for c in candidates if "baseline" in c.names)
    confirmed = {c.key: float(np.log2(c.ratio)) for c in candidates if (c.key, 101) in scores and c.key != baseline}
    assert tied(scores, confirmed, baseline=baseline) == verdict.tied_set


def test_one_seed_without_an_idea_of_the_noise_drops_nobody() -> None:
    stands = race(scored(MEANS, SEEDS[:1]), GROWTH, seeds=SEEDS)
    assert stands == Race(KEYS, SEEDS[1], {})


def test_replicates_or_a_surface_let_the_first_seed_drop() -> None:
    scores = scored(MEANS, SEEDS[:1])
    again = scored({key: MEANS[key] for key in "abc"}, (11, 12, 13))
    assert race(scores | again, GROWTH, seeds=SEEDS).dropped == {"d": SEEDS[0]}
    rng = np.random.default_rng(1)
    flat = {(key, 0): float(rng.normal(0, 0.01) - 3 * POINTS[key].depth) for key in POINTS}
    growth = dict.fromkeys(POINTS, 1.0)
    stands = race(flat, growth, seeds=(0, 1), shares=POINTS)
    assert "k0" in stands.dropped
    assert race(flat, growth, seeds=(0, 1)).dropped == {}


def test_who_is_dropped_stays_so_and_the_race_goes_on_without() -> None:
    scores = scored(MEANS, SEEDS[:2])
    stands = race(scores, GROWTH, seeds=SEEDS)
    assert stands.seed == SEEDS[2]
    assert stands.dropped == {"d": SEEDS[1]}
    late = scores | {(key, SEEDS[2]): 0.01 * i for i, key in enumerate("abcef")} | {("d", SEEDS[2]): 99.0}
    assert race(late, GROWTH, seeds=SEEDS).racing == tuple("abcef")


@given(st.sets(st.sampled_from(KEYS), max_size=5), st.randoms(use_true_random=False))
def test_a_block_counts_only_when_whole_and_in_no_order(arrived: set[str], rng: object) -> None:
    scores = scored(MEANS, SEEDS[:2])
    part = {(key, SEEDS[2]): -50.0 for key in sorted(arrived - {"d"}) if key != "a"}
    cells = [*scores, *part]
    rng.shuffle(cells)  # type: ignore[attr-defined]
    assert race({c: (scores | part)[c] for c in cells}, GROWTH, seeds=SEEDS) == race(scores, GROWTH, seeds=SEEDS)


def test_the_baseline_is_waited_for() -> None:
    scores = scored(MEANS | {"base": -1.0}, SEEDS[:2])
    del scores["base", SEEDS[1]]
    assert race(scores, GROWTH, seeds=SEEDS, baseline="base") == Race(KEYS, SEEDS[1], {})


def test_a_failed_candidate_races_no_more() -> None:
    scores: dict[tuple[str, int], float | None] = {**scored(MEANS, SEEDS[:2]), ("b", SEEDS[0]): None}
    stands = race(scores, GROWTH, seeds=SEEDS)
    assert stands.dropped == {"b": SEEDS[0], "d": SEEDS[1]}
    assert stands.racing == tuple("acef")


def test_a_race_ends_when_one_is_left_or_no_seed() -> None:
    far = {key: float(i == 2) * 50 for i, key in enumerate(KEYS)}
    assert race(scored(far, SEEDS[:2]), GROWTH, seeds=SEEDS) == Race(("c",), None, dict.fromkeys("abdef", SEEDS[1]))
    level = dict.fromkeys(KEYS, 0.0)
    assert race(scored(level), GROWTH, seeds=SEEDS) == Race(KEYS, None, {})


def test_the_last_seed_is_the_verdicts_to_judge() -> None:
    scores = scored(MEANS, SEEDS[:2])
    assert "d" not in tied(scores, GROWTH)
    assert race(scores, GROWTH, seeds=SEEDS[:2]) == Race(KEYS, None, {})


def test_the_baselines_ups_and_downs_are_not_the_candidates_noise() -> None:
    scores = scored(MEANS) | {("base", seed): (-1) ** seed * 20.0 - 2 for seed in SEEDS}
    assert "d" not in tied(scores, GROWTH, baseline="base")


def test_candidates_race_at_equal_cost() -> None:
    """Top1 rises by 1 per doubling over the baseline: c at four times its cost has 1 more by cost alone."""
    means = dict(zip(KEYS, (1.0, 1.0, 1.6, 1.0, 1.0, 1.0), strict=True))
    growth = GROWTH | {"c": 2.0}
    scores = scored(means | {"base": 0.0}, SEEDS, sd=0.02)
    assert tied(scores, growth)[0] == "c"
    assert "c" not in tied(scores, growth, baseline="base")  # 1.6 - 1.1 / (7 / 6) < 1


def test_a_candidate_of_which_nothing_is_known_is_told_apart_from_nothing() -> None:
    scores = {cell: score for cell, score in scored(MEANS).items() if cell[0] != "e"}
    assert tied(scores, GROWTH)[-1] == "e"


def test_a_surface_also_tells_what_was_not_trained() -> None:
    trained = [key for key in POINTS if key not in ("k4", "k7", "k16")]
    scores = {(key, s): surface(POINTS[key]) + s for key in trained for s in (0, 1)}
    growth = dict.fromkeys(POINTS, 1.0)
    layout = estimated(scores, growth, shares=POINTS)
    assert layout.keys == tuple(POINTS)
    assert layout.means == pytest.approx([surface(s) + 0.5 for s in POINTS.values()])
    assert estimated(scores, growth).keys == tuple(trained)
    assert estimated({}, growth, shares=POINTS).keys == ()


def lost_and_shortened(draws: int, means: list[float], seeds: int, level: float = 0.95) -> tuple[float, float]:
    """How often the first, and how many of the others, are dropped before the last seed."""
    rng = np.random.default_rng(1)
    lost, others = 0, 0.0
    for _ in range(draws):
        table = np.array(means)[:, None] + rng.normal(size=(len(means), seeds)) + rng.normal(size=seeds)
        scores = {(key, s): table[i, s] for s in range(seeds) for i, key in enumerate(KEYS)}
        dropped = race(scores, GROWTH, seeds=range(seeds), level=level).dropped
        lost += "a" in dropped
        others += len(dropped.keys() - {"a"}) / (len(means) - 1)
    return lost / draws, others / draws


def test_the_truly_best_is_lost_in_5_percent_of_races_at_most() -> None:
    """All alike is the hardest case; six looks, each of which could lose it. Two standard errors of 1,000 draws."""
    assert lost_and_shortened(1000, [0.0] * 6, seeds=7)[0] <= 0.05 + 0.014


def test_a_race_is_worth_running() -> None:
    """Five noise sd behind: told apart by the third seed nearly always."""
    lost, others = lost_and_shortened(100, [0.0, *[-5.0] * 5], seeds=4)
    assert lost == 0
    assert others >= 0.95


def test_what_could_not_be_trained_drops_nobody() -> None:
    """The surface rises towards depth alone, where trainings fail; the best of the others goes on."""
    rng = np.random.default_rng(1)
    scores = {
        (key, 0): None if shares.depth > 0.7 else float(rng.normal(0, 0.001) + 3 * shares.depth)
        for key, shares in POINTS.items()
    }
    stands = race(scores, dict.fromkeys(POINTS, 1.0), seeds=(0, 1), shares=POINTS)
    best = max((score, key) for (key, _), score in scores.items() if score is not None)[1]
    assert best in stands.racing
    assert {key for (key, _), score in scores.items() if score is None} < set(stands.dropped)


def test_who_shares_no_seed_with_the_others_drops_nobody() -> None:
    """c failed with the race's first seed and did well with two of its own."""
    others = {key: mean for key, mean in MEANS.items() if key != "c"}
    alone = {("c", 11): 99.0, ("c", 12): 99.1, ("c", SEEDS[0]): None}
    stands = race(scored(others, SEEDS[:2]) | alone, GROWTH, seeds=SEEDS)
    assert stands == Race(tuple("abef"), SEEDS[2], {"c": SEEDS[0], "d": SEEDS[1]})
