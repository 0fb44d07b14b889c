"""Early stopping by successive halving (ASHA, arXiv:1810.05934), with decisions that no clock can change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scalenet.search.entries import Entry

REDUCTION = 3  # one in three goes on from a rung


def rung_epochs(epochs: int, reduction: int = REDUCTION) -> tuple[int, ...]:
    """The epochs after which a trial may be stopped: a third of them, then times `reduction` while it is not the end.

    The first rung is late on purpose: with 27 epochs, stopping from epoch 9 on found the best candidate as often as
    full training did (55 %), at 60 % of its epochs; from epoch 3 on, in 38 % (simulated).
    """
    rungs = []
    rung = math.ceil(epochs / 3)
    while rung < epochs:
        rungs.append(rung)
        rung *= reduction
    return tuple(rungs)


def goes_on(value: float, earlier: Sequence[float], reduction: int = REDUCTION) -> bool:
    """Whether a trial that reached a rung with `value` is among the best 1/`reduction` there (at least one is).

    Deviation from the paper, whose decision depends on who happens to have arrived: `earlier` are the values of all
    trials with a lower number that reached this rung, so it is the same for every number of workers. Nor does a
    stopped trial come back when a later one turns out worse.

    Optuna's SuccessiveHalvingPruner is the same rule and could be asked in the same order, but it writes the rung into
    the study before the outcome: a driver killed between the two would let a stopped trial go on when resumed.
    """
    field = sorted([*earlier, value], reverse=True)
    return value >= field[max(1, len(field) // reduction) - 1]


class Ladder:
    """The rungs of one search, and who has passed them.

    Args:
        rungs: epochs, rising; empty where nothing is stopped early.
        entries: of the search phase, by number; may grow.
    """

    def __init__(self, rungs: Sequence[int], entries: Sequence[Entry]) -> None:
        self._rungs, self._entries = tuple(rungs), entries

    def reached(self, entry: Entry) -> bool:
        """Whether the epoch that `entry` has just ended is one to be decided at."""
        return len(entry.history) in self._rungs[entry.passed :]

    def decidable(self, entry: Entry) -> bool:
        """Whether every trial with a lower number has passed the rung that `entry` waits at, or has ended."""
        lower = self._entries[: entry.number]
        return all(e.status == "ended" or e.passed > entry.passed for e in lower)

    def passes(self, entry: Entry) -> bool:
        """The decision; counts the rung as passed if so."""
        epoch = self._rungs[entry.passed]
        # Whoever reached the rung counts, whatever became of it afterwards: how far that has come depends on the clock.
        # But not with a NaN, of which nothing is better or worse.
        earlier = [e.history[epoch - 1]["top1"] for e in self._entries[: entry.number] if len(e.history) >= epoch]
        passed = goes_on(entry.history[epoch - 1]["top1"], [value for value in earlier if math.isfinite(value)])
        entry.passed += passed
        return passed
