"""Whole searches in milliseconds: a study in memory, any number of workers, and a driver that dies at any write."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scalenet.projection import Candidate
from scalenet.runs import TrialRecord
from scalenet.search.campaign import Campaign
from scalenet.search.study import Row, to_params, to_shares
from scalenet.search.values import Idle, Progress, Silent, Trial
from scalenet.shares import Shares
from scalenet.space import SearchSpace
from tests.search import fakes

Cell = tuple[str, int, str]  # key, seed, judge


class Killed(BaseException):
    """The driver's death."""


class Memory:
    """What `Ledger` is to a campaign, with Optuna's ways: first in, first out, and waiting rows before drawn ones."""

    def __init__(self, seed: int = 0) -> None:
        self.guided: int | None = None
        self.left: int | None = None  # writes until the driver dies
        self.written = 0
        self._seed = seed
        self._settings: dict[str, Any] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {"search": [], "repeats": []}

    def settings(self) -> dict[str, Any]:
        return copy.deepcopy(self._settings)

    def remember(self, settings: Mapping[str, Any]) -> None:
        self._write()
        self._settings = copy.deepcopy(dict(settings))

    def rows(self, which: str) -> list[Row]:
        return [Row(i, **copy.deepcopy(row)) for i, row in enumerate(self._rows[which])]

    def enqueue(self, which: str, attrs: Mapping[str, Any], shares: Shares | None = None) -> int:
        self._write()
        params = to_params(shares) if shares else {}
        self._rows[which].append({"state": "waiting", "params": params, "attrs": copy.deepcopy(dict(attrs))})
        return len(self._rows[which]) - 1

    def start(self, which: str) -> int:
        self._write()
        number = next(i for i, row in enumerate(self._rows[which]) if row["state"] == "waiting")
        self._rows[which][number]["state"] = "running"
        return number

    def ask(self) -> tuple[int, Shares]:
        rows = self._rows["search"]
        assert all(row["state"] != "waiting" for row in rows), "Optuna would give out what waits"
        self._write()
        draw = np.random.default_rng([self._seed, len(rows)]).random(2)
        rows.append(
            {"state": "running", "params": dict(zip(("beyond_depth", "to_resolution"), draw, strict=True)), "attrs": {}}
        )
        return len(rows) - 1, to_shares(rows[-1]["params"])

    def note(self, which: str, number: int, **attrs: Any) -> None:
        self._write()
        self._rows[which][number]["attrs"] |= copy.deepcopy(attrs)

    def end(self, which: str, number: int, state: str, *, value: float | None, epoch: int, attrs: Any) -> None:
        self.note(which, number, **attrs)
        self._write()
        assert self._rows[which][number]["state"] == "running"
        self._rows[which][number]["state"] = state

    def _write(self) -> None:
        self.written += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class Listener(Silent):
    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self.ends: list[Progress] = []

    def started(self, progress: Progress) -> None:
        self.seen.append(progress)

    def trial_started(self, trial: Trial, progress: Progress) -> None:
        self.seen.append(progress)

    def epoch(self, trial: Trial, metrics: Mapping[str, Any], progress: Progress) -> None:
        self.seen.append(progress)

    def ended(self, record: TrialRecord, progress: Progress) -> None:
        self.seen.append(progress)
        self.ends.append(progress)


class Simulation:
    """A search and all that outlives its drivers.

    Args:
        fails: whether a training fails.
        score: of a training that does not, after an epoch; the fakes' unless given.
    """

    def __init__(
        self,
        space: SearchSpace,
        given: Sequence[Candidate] | None = None,
        *,
        fails: Callable[[str, int, str], bool] = lambda *_: False,
        score: Callable[[Mapping[str, Any], int], float] = fakes.score,
        propose: Callable[[Shares], Candidate] | None = fakes.propose,
        memory: Memory | None = None,
    ) -> None:
        self.space = space
        self.given = tuple(given if given is not None else fakes.candidates())
        self.fails, self.score, self.propose = fails, score, propose
        self.memory = memory or Memory(space.seed)
        self.known = {c.key: c for c in self.given}  # as candidates.jsonl
        self.proposed: list[int] = []  # writes to the study before each candidate that joined them
        self.checkpoints: dict[Cell, list[dict[str, Any]]] = {}
        self.trained: list[tuple[Cell, int]] = []
        self.listener = Listener()
        self.told: dict[Any, TrialRecord] = {}

    def drive(self, workers: int = 1, seed: int = 0, writes: int | None = None) -> Campaign:
        """A driver with so many workers whose order is drawn by `seed`; it dies after so many writes.

        Raises:
            Killed: it did.
        """
        draw = random.Random(seed)
        self.memory.left = writes
        campaign = Campaign(
            self.space,
            tuple(self.known.values()),
            self.memory,  # type: ignore[arg-type]
            observer=self.listener,
            recorded=lambda r: self.told.__setitem__((r.phase, r.key, r.seed, r.judge), r),
            proposed=self._join,
            propose=self.propose,
        )
        self.listener.started(campaign.progress())
        if campaign.finished():
            return campaign
        running: list[tuple[Trial, int]] = []
        while True:
            while len(running) < workers:
                trial = campaign.next()
                if not isinstance(trial, Trial):
                    break
                running.append((trial, 0))
            else:
                trial = None
            if not running:
                assert trial is Idle.DONE, "waits for a trial that nobody runs"
                return campaign
            place = draw.randrange(len(running))
            going = self._step(campaign, *running[place])
            if going is None:
                running.pop(place)
            else:
                running[place] = (running[place][0], going)

    def _join(self, candidate: Candidate) -> None:
        if candidate.key not in self.known:
            self.known[candidate.key] = candidate
            self.proposed.append(self.memory.written)

    def _step(self, campaign: Campaign, trial: Trial, done: int) -> int | None:
        cell = (trial.candidate.key, trial.seed, trial.judge)
        history = self.checkpoints.setdefault(cell, [])
        epochs = self.space.recipe.epochs
        if self.fails(*cell):
            campaign.fail(trial, f"broken {trial.candidate.names[0]} {['a', 'b', 'c'][trial.number % 3]}")
            return None
        if done == epochs:
            campaign.finish(trial)
            return None
        if done == len(history):
            job = {"key": cell[0], "seed": cell[1], "judge": cell[2], "spec": trial.candidate.spec}
            self.trained.append((cell, done + 1))
            history.append({"epoch": done + 1, "top1": self.score(job, done + 1), "seconds": 0.01})
        return done + 1 if campaign.report(trial, history[done], 0.01) else None


def whole(space: SearchSpace, **options: Any) -> Campaign:
    """One driver, one worker, no mishap."""
    return Simulation(space, **options).drive()
