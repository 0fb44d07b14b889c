"""What runs next, and what its outcome means: the one state machine behind every executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scalenet.errors import ScalenetError
from scalenet.landscape import best_of
from scalenet.plain import from_plain, to_plain
from scalenet.runs import TrialRecord
from scalenet.search import agenda
from scalenet.search.entries import Entry, seconds
from scalenet.search.failures import common_cause, disk_is_full, not_finite
from scalenet.search.finalists import has_optimum
from scalenet.search.heats import at_optimum, going_on, near_the_optimum
from scalenet.search.queue import Queue
from scalenet.search.rungs import Ladder, rung_epochs
from scalenet.search.sampling import GUIDED_DRAWS, Samples
from scalenet.search.study import Ended, Ledger
from scalenet.search.values import Idle, Observer, Progress, Trial

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.runs import Judge
    from scalenet.shares import Shares
    from scalenet.space import SearchSpace

ALIKE = 3  # networks that failed for one reason, with nothing that worked, after which the search gives up
LOSSES = 1  # times that a trial may lose its worker and go on from its checkpoint


class Campaign:
    """The trials of one search: baseline, candidates and replicates, then the confirmation of the best.

    An executor asks `next()` for a trial, gives every epoch to `report()` and stops when it returns False; a trial
    that comes to its own end is given to `finish()`, one that raised to `fail()`, one whose worker died to `lost()`.
    A trial may be given out again: it was held back at a rung, or lost its worker; it continues from its checkpoint.

    Every candidate that was not rejected is trained with each of the search's seeds, one block of trials after the
    other, without those that failed or were stopped early; then the finalists with fresh seeds, judged on "held" (see
    `agenda`). Confirmations that are certain anyway fill the gaps while the last candidates are running. The samplers
    "named" and "guided" have no search phase: the one trains only what is certain to be confirmed, the other everybody
    as finalists are, with fewer of them from seed to seed.

    Args:
        space: the search.
        candidates: all that were proposed, the baseline (named "baseline") and the rejected ones included. For a
            sampler these are its first points.
        ledger: the study; what it knows of an earlier driver's trials is taken up.
        propose: shares -> candidate, for the points that a sampler draws and for the surface's optimum.
        recorded: is given every trial's record once the study has it, an earlier driver's included.
        proposed: is given every candidate that was not among the given ones once the study has it, at times again.
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
        self._recorded, self._proposed, self._propose = recorded, proposed, propose
        self._given = self._settle(candidates)
        self._baseline = _baseline(self._given)
        usable = [c for c in self._given if c.rejected is None and c is not self._baseline]
        self._contestants = usable if space.has_search_phase else []  # of the search phase
        self.candidates = {candidate.key: candidate for candidate in self._given}
        self.training_seconds = 0.0  # in this session
        self._epochs = 0  # trained in this session
        self._since: float | None = None  # the first trial was given out
        self._withheld: list[Entry] = []  # failures that the study has not been told yet
        self._withholds = True
        self._finalists_known = False
        self._adapted = space.adaptive == 0
        # Seeds whose block has been queued, by this driver: one that died may have queued a part of a block.
        self._blocks = {space.seed, *agenda.first_confirmed(space)}
        self._queue = Queue(ledger, self.candidates)
        ledger.guided = len(self._contestants) + GUIDED_DRAWS * space.trials
        first = agenda.first_block(space, self._contestants)
        drawn = self._queue.take_up_search(first, sampled=space.draws > 0)
        self._samples = self._sampler(propose)
        if self._samples:
            self._samples.take_up(drawn)
        self._ladder = Ladder(rung_epochs(space.recipe.epochs) if space.scheduler == "asha" else (), self._queue.search)
        self._queue.take_up_repeats()
        self._tell_proposed()
        self._queue.add(agenda.certain(space, self._given, self._baseline))
        for record in self.records():
            self._recorded(record)

    # What an executor calls

    def next(self) -> Trial | Idle:
        """The trial to run now; WAIT while one that runs must end first; DONE when all have ended."""
        self._since = self._since or time.monotonic()
        while self._settled() and self._goes_further():
            pass
        entry = self._queue.first()
        if entry is None:
            if any(e.status == "active" for e in self._queue.entries()):
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
        if self._samples and self._samples.size:
            return False
        while self._settled() and self._goes_further():
            pass
        return self._settled() and all(e.status == "ended" for e in self._queue.entries())

    def report(self, trial: Trial, metrics: Mapping[str, Any], took: float) -> bool:
        """Takes an epoch's metrics, and the seconds it took to come; returns whether the trial is to go on.

        Epochs that are said again after a resume change nothing. A trial that is not to go on has been dealt with: no
        `finish` or `fail` follows.
        """
        entry = self._queue.entry(trial)
        if int(metrics["epoch"]) <= len(entry.history):
            return True
        entry.history.append(dict(metrics))
        # An epoch out of a checkpoint comes at once, whatever it took when it was trained.
        self.training_seconds += min(seconds(metrics), took)
        self._epochs += not metrics.get("reused")  # said again in no time, it tells nothing of the time that is left
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
        entry = self._queue.entry(trial)
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
        self._end(self._queue.entry(trial), "failed", reason)

    def lost(self, trial: Trial, reason: str) -> None:
        """The worker of `trial` died; the trial goes back to the queue, or fails when that happens again."""
        entry = self._queue.entry(trial)
        entry.losses += 1
        if entry.losses > LOSSES:
            self._end(entry, "failed", reason)
        else:
            entry.status = "queued"
            self._observer.note(f"{trial.label} lost its worker ({reason}); it continues from its checkpoint.")

    # What the driver reads

    def progress(self) -> Progress:
        """Where the search stands."""
        entries = [e for e in self._queue.entries() if e.trial is not None]
        confirmed = {e.key for e in self._queue.repeats if e.trial and e.trial.phase == "confirm"}
        # Trials that are not in the queue yet.
        unknown = agenda.further_confirmations(self._space, len(confirmed), self._blocks)
        if not self._finalists_known:
            new = self._samples.missing if self._samples else 0 if self._adapted else self._space.adaptive
            contestants = sum(e.trial is not None for e in self._queue.search) + new
            open_ = sum(e.trial is not None and e.key not in confirmed for e in self._queue.search) + new
            unknown += new + contestants * len(self._open_seeds())
            finalists = min(self._space.confirm.best, open_) + has_optimum(contestants)
            unknown += finalists * self._space.confirm.seeds
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
        return tuple(e.record for e in self._queue.entries() if e.record is not None)

    # The queue

    def _settled(self) -> bool:
        """Whether all that finds the finalists and has been queued so far has ended."""
        return all(e.status == "ended" for e in self._queue.entries() if e.trial is None or e.trial.phase != "confirm")

    def _goes_further(self) -> bool:
        """Queues what comes after what has been settled; False when there is nothing more to queue."""
        if self._draw():
            return True
        if not self._adapted:
            self._adapt()
            return True
        if open_ := self._open_seeds():
            entrants = self._racing(self._queue.contestants(), "select")
            self._queue.add(agenda.further_block(entrants, open_[0]))
            self._blocks.add(open_[0])
            return True
        if not self._finalists_known:
            self._add_finalists()
            return True
        return self._confirm_further()

    def _racing(self, entrants: Sequence[Candidate], judge: Judge) -> list[Candidate]:
        of = agenda.search_seeds if judge == "select" else agenda.confirm_seeds
        return going_on(self.records(), entrants, self._baseline, self._space, seeds=of(self._space), judge=judge)

    def _adapt(self) -> None:
        """Queues the adaptive points; which they are follows from the given candidates' first seed alone."""
        self._adapted = True
        given = {c.key: c for c in self._given}
        first = [r for r in self.records() if r.key in given and r.seed not in agenda.search_seeds(self._space)[1:]]
        known = {e.key for e in self._queue.search}
        for shares in near_the_optimum(first, given, self._space) if self._propose else ():
            found, place = self._propose(shares) if self._propose else None, len(known) - len(self._contestants) + 1
            # An earlier driver whose surface was another one (an older version's) may have added its own.
            if found is None or found.rejected or found.key in known | given.keys() or place > self._space.adaptive:
                continue
            known.add(found.key)
            self.candidates[found.key] = found = replace(found, names=(*found.names, f"adaptive {place}"))
            self._queue.add([Trial("search", 0, found, "search", self._space.seed, "select")])
        self._tell_proposed()

    def _confirm_further(self) -> bool:
        """In a race, or guided, queues those who go on with their next seed; False when there is none."""
        confirming = [e for e in self._queue.repeats if e.trial and e.trial.phase == "confirm"]
        open_ = [seed for seed in agenda.confirm_seeds(self._space) if seed not in self._blocks]
        if not open_ or any(e.status != "ended" for e in confirming):
            return False
        entrants = {e.trial.candidate.key: e.trial.candidate for e in confirming if e.trial}
        entrants.pop(self._baseline.key, None)
        racing = self._racing(list(entrants.values()), "held")
        if not racing:
            self._blocks.update(open_)
            return False
        self._queue.add(agenda.confirmations([self._baseline, *racing], open_[:1]))
        self._blocks.add(open_[0])
        return True

    def _open_seeds(self) -> list[int]:
        """The search's seeds whose block has not been queued."""
        return [seed for seed in agenda.search_seeds(self._space) if seed not in self._blocks]

    def _draw(self) -> bool:
        if self._samples is None:
            return False
        self._tell_withheld()
        return self._samples.draw()

    def _sampler(self, propose: Callable[[Shares], Candidate] | None) -> Samples | None:
        space = self._space
        if not space.draws:
            return None
        if propose is None:
            raise ScalenetError(f"The sampler {space.sampler} needs a way from shares to candidates (`propose`).")
        return Samples(
            self._ledger,
            propose,
            self.candidates,
            self._queue.search,
            baseline=self._baseline.key,
            seed=space.seed,
            wanted=space.trials,
            proposed=self._proposed,
        )

    def _add_finalists(self) -> None:
        space = self._space
        if self._samples and self._samples.missing:
            found = space.trials - self._samples.missing
            self._observer.note(
                f"The sampler {space.sampler} found {found} of {space.trials} candidates: its other points were "
                "rejected, or built what had been built."
            )
        finalists = best_of(self.records(), self.candidates, space.confirm.best, space.target)
        optimum = at_optimum(self.records(), self.candidates, space, self._propose, among=self._queue.contestants())
        if optimum is not None:
            finalists.append(self.candidates.setdefault(optimum.key, optimum))
        self._queue.add(agenda.confirmations(finalists, agenda.first_confirmed(space)))
        self._tell_proposed()
        self._finalists_known = True

    def _tell_proposed(self) -> None:
        for candidate in self.candidates.values():
            if candidate not in self._given:
                self._proposed(candidate)

    # Ends

    def _end(self, entry: Entry, state: Ended, reason: str | None) -> None:
        entry.end(state, reason)
        self._withheld.append(entry)
        if any(r.state != "failed" for r in self.records()):
            self._withholds = False
        elif self._withholds and len({e.key for e in self._withheld}) >= ALIKE and self._baseline_has_ended():
            # Not before the baseline: three large candidates may fail at once while it is still training.
            reasons = [e.record.reason or "" for e in self._withheld if e.record]
            if common_cause(reasons):
                # The study has not been told: once what is wrong has been mended, a resumed run tries them again.
                raise ScalenetError(f"The first {len(reasons)} trials failed and nothing has worked: {reasons[0]}")
            self._withholds = False
        if not self._withholds:
            self._tell_withheld()
        self._release_parked()

    def _baseline_has_ended(self) -> bool:
        mine = (e for e in self._queue.repeats if e.trial and e.trial.candidate.key == self._baseline.key)
        return any(e.status == "ended" for e in mine)

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
        for entry in self._queue.search:
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
        # Through the dataclass: a study that is older than a key was begun with the key's default.
        begun = to_plain(from_plain(type(self._space), before["space"], "the run's study"))
        changed = [key for key, value in space.items() if begun[key] != value]
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
