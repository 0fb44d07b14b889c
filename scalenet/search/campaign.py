"""What runs next, and what its outcome means: the one state machine behind every executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scalenet.errors import ScalenetError
from scalenet.plain import to_plain
from scalenet.runs import TrialRecord
from scalenet.search.entries import Entry, attributes, candidate_in, seconds
from scalenet.search.failures import common_cause, disk_is_full, not_finite
from scalenet.search.finalists import always_confirmed, best_of, centre_of
from scalenet.search.rungs import Ladder, rung_epochs
from scalenet.search.sampling import GUIDED_DRAWS, Samples
from scalenet.search.study import Ended, Ledger, Row
from scalenet.search.values import Idle, Observer, Progress, Trial

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.shares import Shares
    from scalenet.space import SearchSpace

ALIKE = 3  # failures of one kind, with nothing that worked, after which the search gives up
LOSSES = 1  # times that a trial may lose its worker and go on from its checkpoint


class Campaign:
    """The trials of one search: baseline, candidates and replicates, then the confirmation of the best.

    An executor asks `next()` for a trial, gives every epoch to `report()` and stops when it returns False; a trial
    that comes to its own end is given to `finish()`, one that raised to `fail()`, one whose worker died to `lost()`.
    A trial may be given out again: it was held back at a rung, or lost its worker; it continues from its checkpoint.

    Every candidate that was not rejected is trained once with the search's seed s; the centre (equal shares) again with
    s+1 ... s+replicates; the finalists with the next `confirm.seeds`, judged on "held". Confirmations that are certain
    anyway fill the gaps while the last candidates are running.

    Args:
        space: the search.
        candidates: all that were proposed, the baseline (named "baseline") and the rejected ones included. For a
            sampler these are its first points.
        ledger: the study; what it knows of an earlier driver's trials is taken up.
        propose: shares -> candidate, for the points that a sampler draws.
        recorded: is given every trial's record once the study has it, an earlier driver's included.
        proposed: is given every candidate that was not among the given ones.
        observer: is told.

    Raises:
        ScalenetError: the ledger holds another search, no baseline is among the candidates, or `propose` is missing.
    """

    def __init__(
        self,
        space: SearchSpace,
        candidates: Sequence[Candidate],
        ledger: Ledger,
        *,
        observer: Observer,
        recorded: Callable[[TrialRecord], None],
        proposed: Callable[[Candidate], None],
        propose: Callable[[Shares], Candidate] | None = None,
    ) -> None:
        self._space, self._ledger, self._observer = space, ledger, observer
        self._recorded, self._proposed = recorded, proposed
        self._given = self._settle(candidates)
        self._baseline = _baseline(self._given)
        self._contestants = [c for c in self._given if c.rejected is None and c is not self._baseline]
        self.candidates = {candidate.key: candidate for candidate in self._given}
        self.training_seconds = 0.0  # in this session
        self._epochs = 0  # in this session
        self._since: float | None = None  # the first trial was given out
        self._withheld: list[Entry] = []  # failures that the study has not been told yet
        self._withholds = True
        self._finalists_known = False
        self._search: list[Entry] = []
        ledger.guided = len(self._contestants) + GUIDED_DRAWS * space.trials
        rows = self._take_up_search()
        self._samples = self._sampler(propose)
        if self._samples:
            self._samples.take_up(rows[len(self._contestants) :])
        self._ladder = Ladder(rung_epochs(space.recipe.epochs) if space.scheduler == "asha" else (), self._search)
        self._repeats: list[Entry] = []
        self._take_up_repeats()
        for record in self.records():
            self._recorded(record)

    # What an executor calls

    def next(self) -> Trial | Idle:
        """The trial to run now; WAIT while one that runs must end first; DONE when all have ended."""
        self._since = self._since or time.monotonic()
        while self._settled() and self._draw():
            pass
        if self._settled() and not self._finalists_known:
            self._add_finalists()
        entry = self._first_queued()
        if entry is None:
            if any(e.status == "active" for e in self._entries()):
                return Idle.WAIT
            self._tell_withheld()
            return Idle.DONE
        assert entry.trial is not None
        if not entry.started:
            number = self._ledger.start(entry.which)
            if number != entry.number:
                raise RuntimeError(f"trial {number} was first in the queue of {entry.which}, not {entry.number}")
            entry.started = True
        entry.status = "active"
        self._observer.trial_started(entry.trial, self.progress())
        return entry.trial

    def finished(self) -> bool:
        """Whether nothing is left to run, so that no worker need be started; asked before the first `next`."""
        if not self._settled() or (self._samples and self._samples.size):
            return False
        self._add_finalists()
        return all(e.status == "ended" for e in self._entries())

    def report(self, trial: Trial, metrics: Mapping[str, Any], took: float) -> bool:
        """Takes an epoch's metrics, and the seconds it took to come; returns whether the trial is to go on.

        Epochs that are said again after a resume change nothing. A trial that is not to go on has been dealt with: no
        `finish` or `fail` follows.
        """
        entry = self._entry(trial)
        if int(metrics["epoch"]) <= len(entry.history):
            return True
        entry.history.append(dict(metrics))
        # An epoch out of a checkpoint comes at once, whatever it took when it was trained.
        self.training_seconds += min(seconds(metrics), took)
        self._epochs += 1
        if complaint := not_finite(metrics):
            self._end(entry, "failed", complaint)
            return False
        self._observer.epoch(trial, metrics, self.progress())
        if entry.which == "repeats" or not self._ladder.reached(entry):
            return True
        if not self._ladder.decidable(entry):
            entry.status = "parked"
            return False
        if not self._ladder.passes(entry):
            self._prune(entry)
            return False
        self._release_parked()
        return True

    def finish(self, trial: Trial) -> None:
        """`trial` has trained all its epochs."""
        entry = self._entry(trial)
        if entry.history:
            self._end(entry, "complete", None)
        else:
            self._end(entry, "failed", "ended without a single epoch")

    def fail(self, trial: Trial, reason: str) -> None:
        """`trial` raised.

        Raises:
            ScalenetError: so did the first ones, all for the same reason: it is the search that is wrong. Or the disk
                is full, which is no candidate's fault: the study is not told, and a resumed run tries it again.
        """
        if disk_is_full(reason):
            raise ScalenetError(f"{trial.label} could not be trained: {reason}. Make room, then resume the run.")
        self._end(self._entry(trial), "failed", reason)

    def lost(self, trial: Trial, reason: str) -> None:
        """The worker of `trial` died; the trial goes back to the queue, or fails when that happens again."""
        entry = self._entry(trial)
        entry.losses += 1
        if entry.losses > LOSSES:
            self._end(entry, "failed", reason)
        else:
            entry.status = "queued"
            self._observer.note(f"{trial.label} lost its worker ({reason}); it continues from its checkpoint.")

    # What the driver reads

    def progress(self) -> Progress:
        """Where the search stands."""
        entries = [e for e in self._entries() if e.trial is not None]
        unknown = 0  # trials that are not in the queue yet
        if not self._finalists_known:
            unknown = self._samples.missing if self._samples else 0
            certain = {e.trial.candidate.key for e in self._repeats if e.trial and e.trial.phase == "confirm"}
            open_ = sum(e.trial is not None and e.trial.candidate.key not in certain for e in self._search) + unknown
            unknown += min(self._space.confirm.best, open_) * self._space.confirm.seeds
        epochs = self._space.recipe.epochs
        to_train = sum(epochs - len(e.history) for e in entries if e.status != "ended") + unknown * epochs
        scored = [r for r in self.records() if r.phase == "search" and r.state == "complete"]
        since = time.monotonic() - self._since if self._since and self._epochs else None
        return Progress(
            done=sum(e.status == "ended" for e in entries),
            total=len(entries) + unknown,
            running=sum(e.status == "active" for e in entries),
            best=max(scored, key=lambda r: r.top1 or 0.0, default=None),
            seconds_left=to_train * since / self._epochs if since is not None else None,
        )

    def records(self) -> tuple[TrialRecord, ...]:
        """All trials that have ended, in the order of their numbers."""
        return tuple(e.record for e in self._entries() if e.record is not None)

    # The queue

    def _entries(self) -> list[Entry]:
        return [*self._search, *self._repeats]

    def _entry(self, trial: Trial) -> Entry:
        return (self._search if trial.study == "search" else self._repeats)[trial.number]

    def _settled(self) -> bool:
        return all(e.status == "ended" for e in self._search)

    def _first_queued(self) -> Entry | None:
        queued = [e for e in self._entries() if e.status == "queued"]
        # First what was begun; then the baseline, whose failure says most; then candidates before repeats.
        first = [e for e in queued if e.started] or [e for e in queued if e.trial and e.trial.phase == "baseline"]
        return next(iter(first or queued), None)

    def _draw(self) -> bool:
        if self._samples is None:
            return False
        self._tell_withheld()
        return self._samples.draw()

    def _take_up_search(self) -> list[Row]:
        """Enqueues the candidates that the study does not know and takes up those it does; returns all its rows."""
        trials = [Trial("search", i, c, "search", self._space.seed, "select") for i, c in enumerate(self._contestants)]
        for trial in trials[len(self._ledger.rows("search")) :]:
            self._ledger.enqueue("search", attributes(trial), trial.candidate.shares)
        rows = self._ledger.rows("search")
        for trial, row in zip(trials, rows, strict=False):
            entry = Entry("search", row.number, trial)
            entry.take_up(row)
            self._search.append(entry)
        return rows

    def _sampler(self, propose: Callable[[Shares], Candidate] | None) -> Samples | None:
        space = self._space
        if space.sampler == "grid":
            return None
        if propose is None:
            raise ScalenetError(f"The sampler {space.sampler} needs a way from shares to candidates (`propose`).")
        return Samples(
            self._ledger,
            propose,
            self.candidates,
            self._search,
            baseline=self._baseline.key,
            seed=space.seed,
            wanted=space.trials,
            proposed=self._proposed,
        )

    def _take_up_repeats(self) -> None:
        for row in self._ledger.rows("repeats"):
            if candidate := candidate_in(row):
                self.candidates.setdefault(candidate.key, candidate)
            attrs = row.attrs
            candidate = self.candidates[attrs["key"]]
            trial = Trial("repeats", row.number, candidate, attrs["phase"], attrs["seed"], attrs["judge"])
            entry = Entry("repeats", row.number, trial)
            entry.take_up(row)
            self._repeats.append(entry)
        wanted = [Trial("repeats", 0, self._baseline, "baseline", self._space.seed, "select")]
        if centre := centre_of(self._contestants):
            seeds = range(self._space.seed + 1, self._space.seed + 1 + self._space.replicates)
            wanted += [Trial("repeats", 0, centre, "replicate", seed, "select") for seed in seeds]
        self._add_repeats([*wanted, *self._confirmations(always_confirmed(self._given))])

    def _add_finalists(self) -> None:
        space = self._space
        if self._samples and self._samples.missing:
            found = space.trials - self._samples.missing
            self._observer.note(
                f"The sampler {space.sampler} found {found} of {space.trials} candidates: its other points were "
                "rejected, or built what had been built."
            )
        finalists = best_of(self.records(), self.candidates, space.confirm.best, space.target)
        self._add_repeats(self._confirmations(finalists))
        self._finalists_known = True

    def _confirmations(self, finalists: Sequence[Candidate]) -> list[Trial]:
        first = self._space.seed + 1 + self._space.replicates
        seeds = range(first, first + self._space.confirm.seeds)
        return [Trial("repeats", 0, c, "confirm", seed, "held") for seed in seeds for c in finalists]

    def _add_repeats(self, wanted: Sequence[Trial]) -> None:
        """Puts those into the queue that are not in it yet."""
        known = {_identity(e.trial) for e in self._repeats if e.trial}
        given = {c.key for c in self._given}
        for trial in wanted:
            if _identity(trial) not in known:
                known.add(_identity(trial))
                number = self._ledger.enqueue("repeats", attributes(trial, whole=trial.candidate.key not in given))
                self._repeats.append(Entry("repeats", number, replace(trial, number=number)))

    # Ends

    def _end(self, entry: Entry, state: Ended, reason: str | None) -> None:
        entry.end(state, reason)
        self._withheld.append(entry)
        if any(r.state != "failed" for r in self.records()):
            self._withholds = False
        elif self._withholds and len(self._withheld) >= ALIKE and self._baseline_has_ended():
            # Not before the baseline: three large candidates may fail at once while it is still training.
            reasons = [e.record.reason or "" for e in self._withheld if e.record]
            if common_cause(reasons):
                # The study has not been told: once what is wrong has been mended, a resumed run tries them again.
                raise ScalenetError(f"The first {ALIKE} trials failed and nothing has worked: {reasons[0]}")
            self._withholds = False
        if not self._withholds:
            self._tell_withheld()
        self._release_parked()

    def _baseline_has_ended(self) -> bool:
        return all(e.status == "ended" for e in self._repeats if e.trial and e.trial.phase == "baseline")

    def _tell_withheld(self) -> None:
        withheld, self._withheld = self._withheld, []
        for entry in withheld:
            assert entry.record is not None
            entry.tell(self._ledger)
            self._recorded(entry.record)
            self._observer.ended(entry.record, self.progress())

    def _prune(self, entry: Entry) -> None:
        self._end(entry, "pruned", f"not among the best third after epoch {len(entry.history)}")

    def _release_parked(self) -> None:
        """Decides on those that a decision or an end has made decidable, in the order of their numbers."""
        for entry in self._search:
            if entry.status == "parked" and self._ladder.decidable(entry):
                if self._ladder.passes(entry):
                    entry.status = "queued"
                else:
                    self._prune(entry)

    def _settle(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Those that the search was begun with, in their order; sampled ones may have joined them in its records.

        Raises:
            ScalenetError: the study was begun with something else.
        """
        space, before = to_plain(self._space), self._ledger.settings()
        if not before:
            self._ledger.remember({"space": space, "candidates": [c.key for c in candidates]})
            return tuple(candidates)
        by_key = {c.key: c for c in candidates}
        changed = [key for key in space if before["space"].get(key) != space[key]]
        if not by_key.keys() >= set(before["candidates"]):
            changed.append("candidates")
        if changed:
            raise ScalenetError(
                f"The run's study was begun with other settings ({', '.join(changed)}); resume it as it was, "
                "or start a new run."
            )
        return tuple(by_key[key] for key in before["candidates"])


def _baseline(candidates: Sequence[Candidate]) -> Candidate:
    for candidate in candidates:
        if "baseline" in candidate.names:
            return candidate
    raise ScalenetError("The candidates hold no baseline; it is what their gain is measured against.")


def _identity(trial: Trial) -> tuple[str, str, int]:
    return trial.phase, trial.candidate.key, trial.seed
