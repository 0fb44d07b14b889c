"""A trial as the driver knows it, and what the study is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from scalenet.plain import from_plain, to_plain
from scalenet.projection import Candidate
from scalenet.runs import TrialRecord

if TYPE_CHECKING:
    from scalenet.search.study import Ended, Ledger, Row, Which
    from scalenet.search.values import Trial

Status = Literal["queued", "active", "parked", "ended"]


@dataclass(eq=False)
class Entry:
    """One trial of a study, from the queue to its end."""

    which: Which
    number: int  # in the study, and in the campaign's list of it
    trial: Trial | None  # None: a sampled point that needs no training (rejected, or built already)
    status: Status = "queued"
    started: bool = False  # RUNNING in the study
    told: bool = False  # ended in the study
    history: list[dict[str, Any]] = field(default_factory=list)  # metrics by epoch
    passed: int = 0  # rungs that it was let through
    losses: int = 0  # workers that died under it
    record: TrialRecord | None = None  # once it has ended
    followers: list[int] = field(default_factory=list)  # numbers of sampled points that built this candidate again

    @property
    def key(self) -> str | None:
        """Its candidate's."""
        return self.trial.candidate.key if self.trial else None

    def end(self, state: Ended, reason: str | None) -> None:
        """Makes its record. A failed trial has no score: the last epoch's would not be what others are judged by."""
        last = self.history[-1] if self.history else {}
        self.status = "ended"
        self.record = self._record(
            state,
            reason=reason,
            top1=last.get("top1") if state != "failed" else None,
            seconds=sum(seconds(metrics) for metrics in self.history),
        )

    def tell(self, ledger: Ledger) -> None:
        """Gives the study the record, and the same outcome to the points that built the same candidate."""
        record = self.record
        assert record is not None
        outcome = {"reason": record.reason, "top1": record.top1, "seconds": record.seconds, "epochs": record.epochs}
        epoch = len(self.history)
        ledger.end(self.which, self.number, record.state, value=record.top1, epoch=epoch, attrs={"outcome": outcome})
        self.told = True
        for number in self.followers:
            self.tell_follower(ledger, number)

    def tell_follower(self, ledger: Ledger, number: int) -> None:
        """Gives the study this outcome for the sampled point `number`, which was not trained again."""
        assert self.record is not None
        state, value, epoch = self.record.state, self.record.top1, len(self.history)
        ledger.end("search", number, state, value=value, epoch=epoch, attrs={"same_as": self.number})

    def take_up(self, row: Row) -> None:
        """Brings it to where an earlier driver left it: waiting, broken off, or ended with its record."""
        self.started = row.state != "waiting"
        if row.state in ("complete", "pruned", "failed"):
            outcome = row.attrs["outcome"]
            self.history = [dict(metrics) for metrics in outcome["epochs"]]
            self.status, self.told = "ended", True
            self.record = self._record(
                row.state, reason=outcome["reason"], top1=outcome["top1"], seconds=outcome["seconds"]
            )

    def _record(self, state: Ended, *, reason: str | None, top1: float | None, seconds: float) -> TrialRecord:
        assert self.trial is not None
        candidate = self.trial.candidate
        return TrialRecord(
            key=candidate.key,
            names=candidate.names,
            phase=self.trial.phase,
            seed=self.trial.seed,
            judge=self.trial.judge,
            state=state,
            reason=reason,
            top1=top1,
            epochs=tuple({k: v for k, v in m.items() if isinstance(v, (int, float))} for m in self.history),
            seconds=seconds,
            params=candidate.cost.params,
            flops=candidate.cost.flops,
        )


def attributes(trial: Trial, *, whole: bool = False) -> dict[str, Any]:
    """What the study keeps of a trial that has not run; with `whole` the candidate itself, for `candidate_in`."""
    candidate = trial.candidate
    realised, scale = candidate.realised, candidate.scale
    attrs = {
        "key": candidate.key,
        "names": list(candidate.names),
        "phase": trial.phase,
        "seed": trial.seed,
        "judge": trial.judge,
        "realised_shares": [realised.depth, realised.width, realised.resolution],
        "multipliers": [scale.depth, scale.width, scale.resolution],
        "flops": candidate.cost.flops,
        "params": candidate.cost.params,
        "ratio": candidate.ratio,
    }
    return attrs | ({"candidate": to_plain(candidate)} if whole else {})


def candidate_in(row: Row) -> Candidate | None:
    """The candidate that a row holds whole."""
    plain = row.attrs.get("candidate")
    return None if plain is None else from_plain(Candidate, plain, f"study, trial {row.number}")


def seconds(metrics: Mapping[str, Any]) -> float:
    """What an epoch took, training and judging."""
    return float(metrics.get("seconds", 0.0)) + float(metrics.get("eval_seconds", 0.0))
