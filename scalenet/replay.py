"""Replaying a search over the log of a full grid: any strategy, without training, and what it would have cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalenet.errors import ScalenetError
from scalenet.wording import direction, is_baseline, is_landmark

if TYPE_CHECKING:
    from scalenet.runs import Judge, RunDirectory
    from scalenet.shares import Shares

JUDGES: tuple[Judge, Judge] = ("select", "held")


@dataclass(frozen=True)
class GridLog:
    """A full grid: every candidate and the baseline, trained to the end with every seed."""

    name: str
    shares: Mapping[str, Shares]  # realised, by candidate
    growth: Mapping[str, float]  # log2 of cost over the baseline's, by candidate
    baseline: str  # key
    named: tuple[str, ...]  # candidates that every search confirms
    select: tuple[int, ...]  # seeds of the search phase
    held: tuple[int, ...]  # seeds of the confirmation, none of them in `select`
    curves: Mapping[tuple[str, int], tuple[float, ...]]  # top1 after every epoch, by key and seed
    target: float = 2.0

    @property
    def keys(self) -> tuple[str, ...]:
        """All candidates."""
        return tuple(self.shares)

    @property
    def epochs(self) -> int:
        """Of one training."""
        return len(next(iter(self.curves.values())))

    @property
    def cost(self) -> int:
        """Training epochs of the whole grid."""
        return sum(len(curve) for curve in self.curves.values())


class Replay:
    """A strategy's view of a log: it sees what it asks for, and pays for it in epochs.

    A training that is stopped early is the beginning of its curve, at the learning rates of the full schedule, as it is
    in a real search; asked for more of it, it goes on from there and only the rest is paid for.
    """

    def __init__(self, log: GridLog) -> None:
        self.log = log
        self._trained: dict[tuple[str, int], int] = {}

    @property
    def spent(self) -> int:
        """Epochs trained so far."""
        return sum(self._trained.values())

    def train(self, key: str, seed: int, epochs: int | None = None) -> float:
        """top1 of `key` with `seed` after that many epochs (None: all).

        Raises:
            ScalenetError: the log does not go so far.
        """
        curve = self.log.curves.get((key, seed), ())
        wanted = self.log.epochs if epochs is None else epochs
        if not 1 <= wanted <= len(curve):
            raise ScalenetError(f"{self.log.name}: has {len(curve)} epochs of {key} with seed {seed}, not {wanted}.")
        self._trained[key, seed] = max(wanted, self._trained.get((key, seed), 0))
        return curve[wanted - 1]

    def block(self, keys: Sequence[str], seed: int) -> dict[tuple[str, int], float]:
        """top1 of full trainings with one seed, as scores by (key, seed)."""
        return {(key, seed): self.train(key, seed) for key in keys}


@dataclass(frozen=True)
class Strategy:
    """A way to search: trains what it wants and returns the candidates not told apart from the best, the best first."""

    name: str
    run: Callable[[Replay], Sequence[str]]


@dataclass(frozen=True)
class Agreement:
    """A strategy's tied set against the full grid's; shares in [0, 1].

    Neither is the truth: two full grids with other seeds do not agree either. `kept` without `shared` is no merit, as
    whoever tells nothing apart keeps everybody.
    """

    strategy: str
    spent: float  # of the full grid's epochs
    tied: tuple[str, ...]  # the strategy's, its winner first
    kept: float  # of the full grid's tied set, the share that the strategy's holds
    shared: float  # of the strategy's tied set, the share that the full grid's holds
    winner: bool  # the strategy's winner is in the full grid's tied set

    @property
    def overlap(self) -> float:
        """Jaccard: candidates in both over candidates in either; 1 where the sets are the same."""
        return 1 / (1 / self.kept + 1 / self.shared - 1) if self.kept else 0.0


def replay(strategy: Strategy, log: GridLog, reference: Sequence[str]) -> Agreement:
    """Runs `strategy` over `log` and compares its tied set with `reference`, a full grid's (not empty)."""
    session = Replay(log)
    found = tuple(strategy.run(session))
    both = len(set(found) & set(reference))
    return Agreement(
        strategy=strategy.name,
        spent=session.spent / log.cost,
        tied=found,
        kept=both / len(reference),
        shared=both / len(found),
        winner=found[0] in reference,
    )


def read_grid(run: RunDirectory) -> GridLog:
    """The full grid in a run directory.

    Left out are candidates of which a training failed, and those that joined for the confirmation only (the surface's
    optimum).

    Raises:
        ScalenetError: the run is no full grid: a candidate was not trained to the end with a seed that others were, a
            phase has too few seeds, or the baseline failed.
    """
    space = run.space()
    candidates = [c for c in run.candidates() if c.rejected is None or is_baseline(c)]
    records = {(t.key, t.seed): t for t in run.trials() if t.phase != "replicate"}
    select, held = (tuple(sorted({seed for (_, seed), t in records.items() if t.judge == j})) for j in JUDGES)
    if len(select) < 1 or len(held) < 2:
        raise ScalenetError(
            f"{run.path}: no full grid, which has at least one seed judged on select and two on held, "
            f"this run {len(select)} and {len(held)}."
        )
    late = {key for key, _ in records} - {key for key, seed in records if seed in select}
    candidates = [c for c in candidates if c.key not in late]
    curves = {}
    for candidate in candidates:
        for seed in (*select, *held):
            trial = records.get((candidate.key, seed))
            if trial is None or trial.state == "pruned":
                ended = "not trained" if trial is None else "stopped early"
                raise ScalenetError(f"{run.path}: no full grid, {direction(candidate)} was {ended} with seed {seed}.")
            if trial.state == "complete":
                curves[candidate.key, seed] = tuple(float(epoch["top1"] or 0.0) for epoch in trial.epochs)
    whole = [c for c in candidates if all((c.key, seed) in curves for seed in (*select, *held))]
    baseline = next((c.key for c in whole if is_baseline(c)), None)
    if baseline is None:
        raise ScalenetError(f"{run.path}: no full grid, the baseline has no finished training with some seed.")
    kept = [c for c in whole if c.key != baseline]
    keys = {c.key for c in whole}
    return GridLog(
        name=f"{space.data.source} {run.path.parent.name}",
        shares={c.key: c.realised for c in kept},
        growth={c.key: math.log2(c.ratio) for c in kept},
        baseline=baseline,
        named=tuple(c.key for c in kept if is_landmark(c)),
        select=select,
        held=held,
        curves={cell: curve for cell, curve in curves.items() if cell[0] in keys},
        target=space.target,
    )
