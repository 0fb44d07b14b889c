"""The trials of a search in the order in which the study gives them out, and what has become of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from scalenet.search.entries import Entry, attributes, candidate_in
from scalenet.search.study import Ledger, Row
from scalenet.search.values import Trial

if TYPE_CHECKING:
    from scalenet.projection import Candidate


class Queue:
    """The two lists of a study. What enters one is enqueued in the study at once; numbers are places in both.

    Args:
        ledger: the study.
        candidates: by key, those given; grows by what the study holds of others.
    """

    def __init__(self, ledger: Ledger, candidates: dict[str, Candidate]) -> None:
        self._ledger, self._candidates = ledger, candidates
        self._given = frozenset(candidates)
        self.search: list[Entry] = []
        self.repeats: list[Entry] = []

    def entries(self) -> list[Entry]:
        """All, the search phase's first seed before everything else."""
        return [*self.search, *self.repeats]

    def entry(self, trial: Trial) -> Entry:
        """What is known of `trial`."""
        return (self.search if trial.study == "search" else self.repeats)[trial.number]

    def contestants(self) -> list[Candidate]:
        """Who has been given the search phase's first seed."""
        return [e.trial.candidate for e in self.search if e.trial]

    def first(self) -> Entry | None:
        """The one to be given out next."""
        queued = [e for e in self.entries() if e.status == "queued"]
        # First what was begun; then the baseline, whose failure says most; then candidates before repeats.
        if begun := [e for e in queued if e.started]:
            return begun[0]
        # A study gives out what it was given first. An older version's began with other repeats than the baseline's.
        repeats = [e for e in queued if e.which == "repeats"][:1]
        first = [e for e in repeats if e.trial and e.trial.phase == "baseline"]
        return next(iter(first or queued), None)

    def take_up_search(self, wanted: Sequence[Trial], *, sampled: bool) -> list[Row]:
        """Enqueues what the study does not know of the first seed's `wanted` trials and takes up what it does.

        Further rows hold points that a sampler drew, which are returned, or adaptive ones, which are taken up.
        """
        by_key = {trial.candidate.key: trial for trial in wanted}
        known = {row.attrs["key"] for row in self._ledger.rows("search")[: len(by_key)]}
        for trial in wanted:
            if trial.candidate.key not in known:
                self._ledger.enqueue("search", attributes(trial), trial.candidate.shares)
        rows = self._ledger.rows("search")
        for row in rows[: len(by_key)]:
            self._take_up(row, replace(by_key[row.attrs["key"]], number=row.number))
        if sampled:
            return rows[len(by_key) :]
        for row in rows[len(by_key) :]:
            self._take_up(row, self._trial(row, "search"))
        return []

    def take_up_repeats(self) -> None:
        """Takes up what the study holds beside the first seed."""
        for row in self._ledger.rows("repeats"):
            self._take_up(row, self._trial(row, "repeats"))

    def add(self, wanted: Sequence[Trial]) -> None:
        """Puts those in that are not in yet."""
        known = {identity(e.trial) for e in self.entries() if e.trial}
        for trial in wanted:
            if identity(trial) not in known:
                known.add(identity(trial))
                first = trial.study == "search"
                shares = trial.candidate.shares if first else None
                whole = trial.candidate.key not in self._given
                number = self._ledger.enqueue(trial.study, attributes(trial, whole=whole), shares)
                entries = self.search if first else self.repeats
                entries.append(Entry(trial.study, number, replace(trial, number=number)))

    def _trial(self, row: Row, study: Literal["search", "repeats"]) -> Trial:
        if candidate := candidate_in(row):
            self._candidates.setdefault(candidate.key, candidate)
        attrs = row.attrs
        return Trial(study, row.number, self._candidates[attrs["key"]], attrs["phase"], attrs["seed"], attrs["judge"])

    def _take_up(self, row: Row, trial: Trial) -> None:
        entry = Entry(trial.study, row.number, trial)
        entry.take_up(row)
        (self.search if trial.study == "search" else self.repeats).append(entry)


def identity(trial: Trial) -> tuple[str, str, int]:
    """What tells a trial from all others of its search."""
    return trial.phase, trial.candidate.key, trial.seed
