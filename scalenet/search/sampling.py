"""The points that a sampler draws, in batches that no number of workers changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from scalenet.search.entries import Entry, attributes, candidate_in
from scalenet.search.study import Ledger, Row, to_shares
from scalenet.search.values import Trial

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.shares import Shares

BATCH = 4  # points drawn at once; a constant, as what is drawn depends on what was known by then
DRAWS_PER_TRIAL = 4  # a search that keeps drawing what is known gives up after this many draws per wanted trial
GUIDED_DRAWS = (
    2  # of those the sampler's; the rest are uniform: gp, blind to failures, repeats a rejected point for ever
)


class Samples:
    """What has been drawn of a search, and the drawing of more.

    A point whose candidate was rejected is told to the study as FAIL with its reason; one that builds a candidate that
    is there already gets that one's outcome. Neither is trained, nor counted as a trial.

    Args:
        ledger: the study.
        propose: shares -> candidate.
        candidates: by key, those given to the search; grows by what is drawn.
        entries: of the search phase, those of the given candidates; grows by what is drawn.
        baseline: the key of the baseline.
        seed: of the search.
        wanted: trials to draw.
        proposed: is given every candidate that is new.
    """

    def __init__(
        self,
        ledger: Ledger,
        propose: Callable[[Shares], Candidate],
        candidates: dict[str, Candidate],
        entries: list[Entry],
        *,
        baseline: str,
        seed: int,
        wanted: int,
        proposed: Callable[[Candidate], None],
    ) -> None:
        self._ledger, self._propose, self._proposed = ledger, propose, proposed
        self._candidates, self._entries = candidates, entries
        self._baseline, self._seed, self._wanted = baseline, seed, wanted
        self._given = len(entries)

    def take_up(self, rows: list[Row]) -> None:
        """Takes up what an earlier driver drew, and completes the batch that it died in."""
        while rows:
            size = self.size
            batch, rows = rows[:size], rows[size:]
            for row in batch:
                self._add(row, candidate_in(row) or self._build(row.number, to_shares(row.params)))
            for _ in range(size - len(batch)):
                self._draw()

    def draw(self) -> bool:
        """Draws the next batch, all earlier points having been told; False when there is none."""
        size = self.size
        for _ in range(size):
            self._draw()
        return size > 0

    @property
    def missing(self) -> int:
        """Trials yet to be drawn."""
        return max(0, self._wanted - sum(e.trial is not None for e in self._entries[self._given :]))

    @property
    def size(self) -> int:
        """Points of the next batch."""
        drawn = len(self._entries) - self._given
        return max(0, min(BATCH, self.missing, DRAWS_PER_TRIAL * self._wanted - drawn))

    def _draw(self) -> None:
        number, shares = self._ledger.ask()
        self._add(Row(number, "running", {}, {}), self._build(number, shares))

    def _build(self, number: int, shares: Shares) -> Candidate:
        candidate = self._propose(shares)
        if not candidate.names:
            candidate = replace(candidate, names=(f"sample {number}",))
        self._ledger.note("search", number, **attributes(self._trial(number, candidate), whole=True))
        return candidate

    def _add(self, row: Row, candidate: Candidate) -> None:
        if candidate.key not in self._candidates:
            self._candidates[candidate.key] = candidate
            self._proposed(candidate)
        twin = next((e for e in self._entries if e.trial and e.trial.candidate.key == candidate.key), None)
        rejected = "builds the baseline itself" if candidate.key == self._baseline else candidate.rejected
        if rejected is None and twin is None:
            entry = Entry("search", row.number, self._trial(row.number, candidate))
            entry.take_up(row)
            self._entries.append(entry)
            return
        self._entries.append(Entry("search", row.number, None, status="ended", started=True, told=True))
        if row.state != "running":
            return
        if twin is None:
            self._ledger.end("search", row.number, "failed", value=None, epoch=0, attrs={"reason": rejected})
        elif twin.told:
            twin.tell_follower(self._ledger, row.number)
        else:
            twin.followers.append(row.number)

    def _trial(self, number: int, candidate: Candidate) -> Trial:
        return Trial("search", number, candidate, "search", self._seed, "select")
