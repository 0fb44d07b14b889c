"""What a strategy spends for the full grid's verdict: replayed over kept runs and over made-up grids, nothing trained.

    python benchmarks/replay.py [RUN ...] [--grids 100]

RUN: run directories of full grids (every candidate with the same seeds, on select and on held); without any, those
under runs/examples/ that are. For each, every strategy's epochs and how its tied set agrees with the reference, the
verdict of the full grid on its held seeds: as trained, and as the mean over all ways to deal out the seeds between the
two phases. Then the same over made-up grids, where the truth is known.

Strategies share trainings with the reference as far as they ask for held seeds; those "on other seeds" share none. How
a second full grid, on other seeds, agrees with the first is the bar; to train nothing and tell nobody apart is the
floor, which is high where the tied set is large.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from scalenet.comparison import FloatArray
from scalenet.errors import ScalenetError
from scalenet.mixture import lattice
from scalenet.replay import Agreement, GridLog, Replay, Strategy, read_grid
from scalenet.replay import replay as run_over
from scalenet.runs import RunDirectory
from scalenet.scheffe import QUADRATIC, as_array
from scalenet.shares import EQUAL, FACTORS, PAPER_EXPONENTS, PAPER_MULTIPLIERS, normalised, shares_of
from scalenet.strategies import adaptive, best_few, every_seed, guided, raced

QUARTER = 0.25
FULL, OTHER, RACE, RECOMMENDED = "full grid", "full grid, other seeds", "race", "guided"
STRATEGIES = (
    Strategy(FULL, lambda r: (every_seed(r, r.log.select), every_seed(r, r.log.held))[1]),
    Strategy("full grid, all seeds compared", lambda r: every_seed(r, (*r.log.select, *r.log.held))),
    Strategy(OTHER, lambda r: every_seed(r, r.log.select)),
    Strategy("nobody told apart", lambda r: r.log.keys),
    Strategy("two seeds each", lambda r: every_seed(r, r.log.held[:2])),
    Strategy("best few confirmed", lambda r: best_few(r, best=3, seeds=2)),
    Strategy("best few confirmed, ASHA", lambda r: best_few(r, best=3, seeds=2, stops=True)),
    Strategy(RACE, lambda r: raced(r, r.log.held)),
    Strategy("race on a surface", lambda r: raced(r, r.log.held, surface=True)),
    Strategy("surface, one seed", lambda r: guided(r, r.log.held[:1])),
    Strategy(RECOMMENDED, lambda r: guided(r, r.log.held[:2])),
    Strategy("guided, other seeds", lambda r: guided(r, r.log.select[:2])),
    Strategy("guided, three seeds", lambda r: guided(r, r.log.held)),
    Strategy("adaptive points", lambda r: adaptive(r, r.log.held, budget=QUARTER)),
    Strategy("adaptive points, an eighth", lambda r: adaptive(r, r.log.held, budget=QUARTER / 2)),
)
EPOCHS = 4
SEEDS = range(6)
PER_DOUBLING = 3.0  # of top1, in noise sd


@dataclass(frozen=True)
class Truth:
    """What made-up grids have in common; all in standard deviations of one run's noise after the last epoch.

    In the first kept searches that noise was 1 to 2.7 points of top1, and the candidates' means ranged over some 3 to 8
    sd; after the first of four epochs the noise was two to three times as large.
    """

    name: str
    height: float  # best less worst candidate of the smooth part
    departure: float = 0.0  # sd of what each candidate has of its own
    peaked: bool = False  # the smooth part is a cone around one point, not a quadratic


TRUTHS = (
    Truth("all alike", 0.0),
    Truth("quadratic, 4 sd", 4.0),
    Truth("quadratic, 8 sd", 8.0),
    Truth("quadratic, 4 sd, departures 0.7 sd", 4.0, 0.7),
    Truth("quadratic, 8 sd, departures 0.7 sd", 8.0, 0.7),
    Truth("quadratic, 4 sd, departures 1.4 sd", 4.0, 1.4),
    Truth("cone, 6 sd", 6.0, peaked=True),
)


def smooth(rng: np.random.Generator, points: FloatArray, peaked: bool) -> FloatArray:
    """Values at points (n, 3) of a random surface, best less worst 1."""
    while True:
        if peaked:
            values = -np.linalg.norm(points - rng.dirichlet(np.ones(3)), axis=1)
        else:
            values = QUADRATIC.values(points) @ rng.normal(0, [1, 1, 1, 3, 3, 3])
        if np.ptp(values) > 0.3:
            return np.asarray((values - values.mean()) / np.ptp(values))


def made_up(truth: Truth, rng: np.random.Generator) -> tuple[GridLog, dict[str, float]]:
    """A full grid on the {3, 4} lattice with equal shares and the paper's point, and the truth by candidate.

    Shares move a little, as by rounding, and the depth corner is 11 % too dear. A curve is noise of falling size,
    correlated over epochs, on a surface that comes to be the final one: early ranks are half those of the end.
    """
    nominal = [*lattice(4), EQUAL, shares_of(PAPER_MULTIPLIERS, PAPER_EXPONENTS)]
    moved = [[getattr(s, f) and max(0.0, getattr(s, f) + rng.normal(0, 0.03)) for f in FACTORS] for s in nominal]
    shares = {f"{i:02}": normalised(parts) for i, parts in enumerate(moved)}
    points = as_array(list(shares.values()))
    growth = 1 + rng.normal(0, 0.02, len(points))
    growth[0] = 1.15
    last = truth.height * smooth(rng, points, truth.peaked) + rng.normal(0, truth.departure, len(points))
    blocks = rng.normal(0, 1, (len(SEEDS), EPOCHS))
    expected = np.empty((EPOCHS, len(points) + 1))  # the baseline last
    for epoch, told in enumerate(np.linspace(0.5, 1.0, EPOCHS)):
        other = truth.height * smooth(rng, points, truth.peaked)
        expected[epoch, :-1] = told * last + np.sqrt(1 - told**2) * other + PER_DOUBLING * (growth - 1)
    expected[:, -1] = last.mean() - PER_DOUBLING
    curves: dict[tuple[str, int], tuple[float, ...]] = {}
    for block, seed in zip(blocks, SEEDS, strict=True):
        noise = rng.normal(size=expected.shape)
        for epoch in range(1, EPOCHS):
            noise[epoch] = 0.6 * noise[epoch - 1] + 0.8 * noise[epoch]
        scores = 0.5 + 0.015 * (expected + np.linspace(2.5, 1.0, EPOCHS)[:, None] * noise + block[:, None])
        curves |= {(key, seed): tuple(scores[:, i]) for i, key in enumerate((*shares, "baseline"))}
    log = GridLog(
        name=truth.name,
        shares=shares,
        growth=dict(zip(shares, growth.tolist(), strict=True)),
        baseline="baseline",
        named=("00", "04", "14", "15", "16"),
        select=tuple(SEEDS[:3]),
        held=tuple(SEEDS[3:]),
        curves=curves,
    )
    return log, dict(zip(shares, last.tolist(), strict=True))


def deals(log: GridLog) -> Iterator[GridLog]:
    """The log with its seeds dealt out to the two phases in every other way: who is the reference is arbitrary."""
    seeds = (*log.select, *log.held)
    for held in combinations(seeds, len(log.held)):
        yield replace(log, select=tuple(s for s in seeds if s not in held), held=held)


def over(log: GridLog) -> list[Agreement]:
    reference = every_seed(Replay(log), log.held)
    return [run_over(strategy, log, reference) for strategy in STRATEGIES]


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def row(name: str, *figures: str) -> None:
    print(f"| {name} | {' | '.join(figures)} |")


def heading(*names: str) -> None:
    row("strategy", *names)
    row("---", *["---:"] * len(names))


def shown(found: Sequence[Agreement]) -> list[str]:
    """Share of epochs, size, kept, shared, overlap and winner, as means."""
    return [
        f"{mean([a.spent for a in found]):.0%}",
        f"{mean([len(a.tied) for a in found]):.1f}",
        f"{mean([a.kept for a in found]):.0%}",
        f"{mean([a.shared for a in found]):.0%}",
        f"{mean([a.overlap for a in found]):.2f}",
        f"{mean([a.winner for a in found]):.0%}",
    ]


COLUMNS = ("epochs", "tied", "kept", "shared", "overlap", "winner in")


def real(logs: Sequence[GridLog]) -> list[tuple[str, bool]]:
    """A table per log and one over all; returns the bars."""
    everywhere: dict[str, list[Agreement]] = {strategy.name: [] for strategy in STRATEGIES}
    for log in logs:
        print(
            f"\n{log.name}: {len(log.keys)} candidates, {len(log.select)} + {len(log.held)} seeds, "
            f"{log.epochs} epochs each, {log.cost} in all. As trained, then the mean over all deals of the seeds.\n"
        )
        as_trained = over(log)
        dealt = list(zip(*(over(other) for other in deals(log)), strict=True))
        heading(*COLUMNS, *COLUMNS)
        for first, others in zip(as_trained, dealt, strict=True):
            row(first.strategy, *shown([first]), *shown(others))
            everywhere[first.strategy] += others
    if not logs:
        return []
    print(f"\nmean over {len(logs)} logs and all deals\n")
    heading(*COLUMNS)
    for name, found in everywhere.items():
        row(name, *shown(found))
    return bars("kept runs", everywhere)


def bars(where: str, found: dict[str, list[Agreement]]) -> list[tuple[str, bool]]:
    spent = max(a.spent for a in found[RECOMMENDED])
    ours, other = (mean([a.overlap for a in found[name]]) for name in (RECOMMENDED, OTHER))
    return [
        (
            f"{where}: {RECOMMENDED} spends {spent:.1%} of the full grid's epochs at most, bar {QUARTER:.0%}",
            spent <= QUARTER,
        ),
        (f"{where}: its overlap {ours:.2f}, bar {other:.2f} (a full grid with other seeds)", ours >= other - 0.005),
    ]


@dataclass(frozen=True)
class Known:
    """An agreement on a made-up grid, and how it stands to the truth."""

    agreement: Agreement
    best_in: bool  # the truly best is in the strategy's tied set
    behind: float  # of the truly best, its winner, in noise sd


def imagined(grids: int) -> list[tuple[str, bool]]:
    """A table per truth and one over all; returns the bars."""
    everywhere: dict[str, list[Known]] = {strategy.name: [] for strategy in STRATEGIES}
    for truth in TRUTHS:
        rng = np.random.default_rng(1)
        here: dict[str, list[Known]] = {strategy.name: [] for strategy in STRATEGIES}
        for _ in range(grids):
            log, means = made_up(truth, rng)
            best = max(means, key=means.__getitem__)
            for found in over(log):
                here[found.strategy].append(Known(found, best in found.tied, means[best] - means[found.tied[0]]))
        print(f"\n{truth.name}: {grids} grids\n")
        table(here)
        for name, known in here.items():
            everywhere[name] += known
    print(f"\nmean over all {len(TRUTHS)} truths\n")
    table(everywhere)
    best_in = {name: mean([k.best_in for k in everywhere[name]]) for name in (RECOMMENDED, RACE)}
    return [
        *bars("made-up grids", {name: [k.agreement for k in known] for name, known in everywhere.items()}),
        *(
            (f"made-up grids: {name} holds the truly best in {p:.1%}, bar 95 %", p >= 0.95)
            for name, p in best_in.items()
        ),
    ]


def table(found: dict[str, list[Known]]) -> None:
    heading(*COLUMNS, "truly best in", "winner behind")
    for name, known in found.items():
        best, behind = mean([k.best_in for k in known]), mean([k.behind for k in known])
        row(name, *shown([k.agreement for k in known]), f"{best:.0%}", f"{behind:.2f} sd")


def kept_grids() -> Iterator[GridLog]:
    for environment in sorted(Path("runs/examples").glob("*/*/*/env.json")):
        try:
            yield read_grid(RunDirectory.open(environment.parent))
        except ScalenetError as error:
            print(f"left out: {error}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--grids", type=int, default=100, help="made-up ones for each truth")
    told = parser.parse_args()
    logs = [read_grid(RunDirectory.open(run)) for run in told.runs] or list(kept_grids())
    results = real(logs) + (imagined(told.grids) if told.grids else [])
    print()
    for what, met in results:
        print(f"{what}: {'met' if met else 'MISSED'}")
    return int(not all(met for _, met in results))


if __name__ == "__main__":
    sys.exit(main())
