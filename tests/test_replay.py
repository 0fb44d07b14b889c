from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet.data import DataRequest
from scalenet.errors import ScalenetError
from scalenet.racing import guided_trainings
from scalenet.replay import GridLog, Replay, Strategy, read_grid, replay
from scalenet.runs import RunDirectory, TrialRecord
from scalenet.shares import NOTHING, Shares
from scalenet.space import SearchSpace
from scalenet.strategies import adaptive, best_few, coarse, every_seed, guided, not_told_apart, raced
from scalenet.verdict import decide
from tests import synthetic
from tests.test_racing import POINTS, surface

SELECT, HELD, EPOCHS = (0, 1, 2), (3, 4, 5), 6
CANDIDATES = synthetic.design(m=4)


def trials(noise: float = 0.006, seed: int = 0) -> list[TrialRecord]:
    rng = np.random.default_rng(seed)
    made = []
    for of in CANDIDATES:
        for s in (*SELECT, *HELD):
            score = synthetic.truth(of, 0.08) + 0.01 * s + rng.normal(0, noise)
            judge, phase = ("select", "search") if s in SELECT else ("held", "confirm")
            phase = "baseline" if of.shares == NOTHING and s in SELECT else phase
            made.append(synthetic.trial(of, score, seed=s, judge=judge, phase=phase, epochs=EPOCHS))  # type: ignore[arg-type]
    return made


def run(root: Path, records: list[TrialRecord]) -> RunDirectory:
    made = RunDirectory.create(root, "toy")
    made.write_space(SearchSpace(data=DataRequest(source="shapes")))
    made.append_candidates([*CANDIDATES, synthetic.candidate("lattice 9/9/9", rejected="costs too much")])
    for record in records:
        made.append_trial(record)
    return made


def log(noise: float = 1.0, seed: int = 0, epochs: int = 4) -> GridLog:
    """A grid over a known quadratic, ten units from best to worst; odd epochs before the last say nothing."""
    rng = np.random.default_rng(seed)
    curves = {
        (key, s): (
            *rng.normal(size=epochs - 1),
            50.0 * (surface(POINTS[key]) if key in POINTS else 0.0) + s + rng.normal(0, noise),
        )
        for key in (*POINTS, "base")
        for s in (*SELECT, *HELD)
    }
    growth = dict.fromkeys(POINTS, 1.0)
    return GridLog("made up", POINTS, growth, "base", ("k0", "k4", "k14", "k15"), SELECT, HELD, curves)


BEST = max(POINTS, key=lambda key: surface(POINTS[key]))
STRATEGIES = (
    Strategy("every seed", lambda r: every_seed(r, r.log.held)),
    Strategy("best few", lambda r: best_few(r, best=3, seeds=2)),
    Strategy("stopped", lambda r: best_few(r, best=3, seeds=2, stops=True)),
    Strategy("raced", lambda r: raced(r, r.log.held)),
    Strategy("raced on a surface", lambda r: raced(r, r.log.held, surface=True)),
    Strategy("guided", lambda r: guided(r, r.log.held[:2])),
    Strategy("adaptive", lambda r: adaptive(r, r.log.held, budget=0.25)),
)


def test_a_run_is_read_and_its_verdict_is_the_reference(tmp_path: Path) -> None:
    records = trials()
    again = [synthetic.trial(CANDIDATES[1], 0.6, seed=9, judge="select", phase="replicate", epochs=EPOCHS)]
    optimum = synthetic.candidate("optimum", shares=Shares(0.4, 0.2, 0.4))
    late = [synthetic.trial(optimum, 0.9, seed=seed, epochs=EPOCHS) for seed in HELD]
    made = run(tmp_path, records + again + late)
    made.append_candidates([optimum])
    grid = read_grid(made)
    assert (grid.select, grid.held, grid.epochs) == (SELECT, HELD, EPOCHS)
    assert grid.cost == len(CANDIDATES) * 6 * EPOCHS
    assert grid.baseline == CANDIDATES[0].key
    assert len(grid.named) == 5  # three corners, equal shares, the paper's point
    assert grid.growth[CANDIDATES[1].key] == pytest.approx(math.log2(2.27))
    assert grid.name == "shapes toy"
    verdict = decide(CANDIDATES, records)
    assert verdict is not None
    assert every_seed(Replay(grid), grid.held) == verdict.tied_set
    assert 1 < len(verdict.tied_set) < len(grid.keys)  # else this would say little


def test_a_candidate_that_failed_is_left_out(tmp_path: Path) -> None:
    records = trials()
    records[8] = replace(records[8], state="failed", top1=None, epochs=())
    grid = read_grid(run(tmp_path, records))
    assert records[8].key not in grid.shares
    assert len(grid.keys) == len(CANDIDATES) - 2
    assert grid.cost == (len(CANDIDATES) - 1) * 6 * EPOCHS


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda t: t[:8] + t[9:], "was not trained with seed 2"),
        (lambda t: [*t[:8], replace(t[8], state="pruned"), *t[9:]], "was stopped early with seed 2"),
        (lambda t: [replace(t[0], state="failed"), *t[1:]], "the baseline has no finished training"),
        (lambda t: [r for r in t if r.judge == "select"], "this run 3 and 0"),
    ],
)
def test_what_is_no_full_grid_is_refused(tmp_path: Path, spoil: object, complaint: str) -> None:
    with pytest.raises(ScalenetError, match=complaint):
        read_grid(run(tmp_path, spoil(trials())))  # type: ignore[operator]


def test_epochs_are_paid_once_and_a_stopped_training_goes_on() -> None:
    grid = log()
    session = Replay(grid)
    curve = grid.curves["k3", 1]
    assert [session.train("k3", 1, e) for e in (2, 3, 1)] == [curve[1], curve[2], curve[0]]
    assert session.spent == 3
    assert session.train("k3", 1) == curve[-1]
    assert session.block(["k3", "k5"], 1) == {("k3", 1): curve[-1], ("k5", 1): grid.curves["k5", 1][-1]}
    assert session.spent == 8
    for key, seed, epochs in (("k3", 1, 5), ("k3", 1, 0), ("k3", 9, 1), ("other", 1, 1)):
        with pytest.raises(ScalenetError, match="made up: has"):
            session.train(key, seed, epochs)


def test_what_a_strategy_costs() -> None:
    """18 networks with the baseline, 4 epochs each, 6 seeds: 432 epochs."""
    grid = log()
    spent = {s.name: round(replay(s, grid, ["k0"]).spent * 432) for s in STRATEGIES}
    assert grid.cost == 432
    assert spent["every seed"] == 18 * 3 * 4
    assert spent["guided"] == (18 + 8 + 1) * 4 == 432 / 4  # all, then half of the 17 and the baseline
    few = best_few(Replay(grid), best=3, seeds=2)
    assert set(few) <= {*grid.named, *POINTS}
    assert spent["best few"] in {18 * 4 + (n + 1) * 2 * 4 for n in range(4, 8)}  # 4 named, the best 3 may be of them
    # The rung is after 2 epochs of 4; the baseline is not on the ladder.
    stopped = {18 * 4 - 2 * losers + (n + 1) * 2 * 4 for n in range(4, 8) for losers in range(8, 17)}
    assert spent["stopped"] in stopped
    assert 18 * 4 < spent["raced on a surface"] < spent["raced"] < 18 * 3 * 4


@settings(max_examples=10, deadline=None)
@given(st.floats(0.17, 0.6), st.integers(0, 99))
def test_a_budget_is_kept(budget: float, seed: int) -> None:
    grid = log(seed=seed)
    session = Replay(grid)
    found = adaptive(session, (0, *HELD), budget=budget)
    assert session.spent <= budget * grid.cost
    assert found


class Watched(Replay):
    """Knows who was trained how far."""

    def __init__(self, grid: GridLog) -> None:
        super().__init__(grid)
        self.seen: dict[tuple[str, int], int] = {}

    def train(self, key: str, seed: int, epochs: int | None = None) -> float:
        self.seen[key, seed] = max(self.seen.get((key, seed), 0), epochs or 4)
        return super().train(key, seed, epochs)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda s: s.name)
def test_a_strategy_knows_only_what_it_paid_for(strategy: Strategy) -> None:
    grid = log()
    watched = Watched(grid)
    found = strategy.run(watched)
    assert sum(watched.seen.values()) == watched.spent
    blank = {
        cell: tuple(score if e < watched.seen.get(cell, 0) else math.nan for e, score in enumerate(curve))
        for cell, curve in grid.curves.items()
    }
    assert strategy.run(Replay(replace(grid, curves=blank))) == found


def test_who_is_dropped_from_a_race_does_not_come_back() -> None:
    """The last seed is so noisy that with it hardly anybody is told apart."""
    grid, rng = log(noise=0.5), np.random.default_rng(4)
    noisy = {cell: (*c[:-1], c[-1] + rng.normal(0, 20)) for cell, c in grid.curves.items() if cell[1] == HELD[-1]}
    watched = Watched(replace(grid, curves={**grid.curves, **noisy}))
    found = raced(watched, HELD)
    last = {key for key, seed in watched.seen if seed == HELD[-1]}
    everybody = not_told_apart(watched.log, {cell: watched.log.curves[cell][-1] for cell in watched.seen})
    assert set(found) <= last
    assert len(everybody) > len(last)


def test_further_seeds_go_to_whom_the_surface_predicts_to_be_best() -> None:
    watched = Watched(log(noise=0.01))
    guided(watched, HELD)
    best = sorted(POINTS, key=lambda key: -surface(POINTS[key]))
    all_, half, quarter = ({key for key, seed in watched.seen if seed == held} for held in HELD)
    assert all_ == {*POINTS, "base"}
    assert half == {*best[:8], "base"}
    assert {"base", best[0]} < quarter < {*best[:6], "base"}  # several are nearly as good as the fourth
    assert [len(block) - 1 for block in (all_, half, quarter)] == list(guided_trainings(17, 3))


def test_adaptive_points_are_where_the_best_may_be() -> None:
    grid = log(noise=0.3, seed=1)
    watched = Watched(grid)
    adaptive(watched, HELD, budget=0.25)
    first = {key for key, seed in watched.seen if seed == HELD[0]}
    assert BEST not in coarse(grid)
    assert BEST in first
    assert min(POINTS.keys() - set(coarse(grid)), key=lambda key: surface(POINTS[key])) not in first


@pytest.mark.parametrize(
    "strategy", [s for s in STRATEGIES if s.name not in ("stopped", "adaptive")], ids=lambda s: s.name
)
def test_little_noise_leaves_the_best_alone(strategy: Strategy) -> None:
    """But for early stopping: what these curves say before their end is chance. And `adaptive` repeats hardly anything.

    With one degree of freedom for the noise it may leave out none of several.
    """
    found = replay(strategy, log(noise=0.02), [BEST])
    assert found.tied == (BEST,)
    assert (found.kept, found.shared, found.overlap, found.winner) == (1, 1, 1, True)


def test_agreement_by_hand() -> None:
    grid = log()
    found = replay(Strategy("told", lambda r: ("k1", "k2", "k3", "k4")), grid, ["k2", "k3", "k9"])
    assert (found.kept, found.shared, found.overlap) == pytest.approx((2 / 3, 2 / 4, 2 / 5))
    assert not found.winner
    assert found.spent == 0
    assert replay(Strategy("told", lambda r: ("k1",)), grid, ["k2"]).overlap == 0


def test_the_coarse_design_settles_a_quadratic() -> None:
    chosen = coarse(log())
    assert {"k0", "k4", "k14", "k15"} <= set(chosen)
    assert len(chosen) < len(POINTS) * 2 / 3
    rows = [[s.depth, s.width, s.resolution] for s in (POINTS[k] for k in chosen)]
    products = [[*r, r[0] * r[1], r[0] * r[2], r[1] * r[2]] for r in rows]
    assert np.linalg.matrix_rank(products) == 6
