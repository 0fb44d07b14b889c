"""What the parts of the driver hand to each other and to the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.runs import Judge, Phase, TrialRecord


class Idle(Enum):
    """What `Campaign.next` says when it has no trial to give."""

    WAIT = "something that runs must end first"
    DONE = "nothing is left"


@dataclass(frozen=True)
class Trial:
    """One training to be done: a candidate, a seed and the part that it is judged on."""

    study: Literal["search", "repeats"]
    number: int  # in that study
    candidate: Candidate
    phase: Phase
    seed: int
    judge: Judge

    @property
    def label(self) -> str:
        """Its candidate's first name, or its key."""
        return self.candidate.names[0] if self.candidate.names else self.candidate.key


@dataclass(frozen=True)
class Progress:
    """Where a search stands."""

    done: int  # trials ended, earlier sessions' included
    total: int  # as far as can be known: an upper bound until the best few have been chosen
    running: int
    best: TrialRecord | None  # of the search phase
    seconds_left: float | None  # None until an epoch has been timed


class Observer(Protocol):
    """Who is told how a search goes; every call comes from the driver's own thread."""

    def started(self, progress: Progress) -> None:
        """The search begins, or goes on."""
        ...

    def trial_started(self, trial: Trial, progress: Progress) -> None:
        """A worker has taken `trial`."""
        ...

    def epoch(self, trial: Trial, metrics: Mapping[str, Any], progress: Progress) -> None:
        """`trial` has finished an epoch."""
        ...

    def ended(self, record: TrialRecord, progress: Progress) -> None:
        """A trial has ended, well or not."""
        ...

    def note(self, text: str) -> None:
        """One sentence that the user should see."""
        ...


class Silent:
    """An observer that says nothing."""

    def started(self, progress: Progress) -> None:
        """Nothing."""

    def trial_started(self, trial: Trial, progress: Progress) -> None:
        """Nothing."""

    def epoch(self, trial: Trial, metrics: Mapping[str, Any], progress: Progress) -> None:
        """Nothing."""

    def ended(self, record: TrialRecord, progress: Progress) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Timing:
    """Where one session's time went."""

    wall: float  # seconds from the first request for a trial to the last answer, Ray's start included
    training: float  # seconds of epochs, judging included, all workers together
    workers: int  # trials at once; in process that is 1

    @property
    def overhead(self) -> float:
        """The share of the workers' time that was not spent training, in [0, 1]."""
        return max(0.0, 1.0 - self.training / (self.wall * self.workers)) if self.wall > 0 else 0.0


@dataclass(frozen=True)
class SearchResult:
    """All that a search trained, earlier sessions included, in an order that does not depend on the workers."""

    records: tuple[TrialRecord, ...]
    candidates: tuple[Candidate, ...]  # what was given and what was sampled, rejected ones included
    timing: Timing  # of this session
    epochs_trained: int
    epochs_full: int  # had nothing been stopped early or failed

    @property
    def reused(self) -> int:
        """Trainings that earlier searches had done."""
        return sum(record.reused for record in self.records)
