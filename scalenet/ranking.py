"""A run read back and its candidates ranked: what the table, the JSON and the page show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Literal, get_args

from scalenet.comparison import connected, fit
from scalenet.cost import CostName
from scalenet.landscape import Landscape, landscape_of, searched
from scalenet.scheffe import NoSurface
from scalenet.shares import Shares
from scalenet.space import SearchSpace
from scalenet.verdict import Verdict, decide_for, is_decisive
from scalenet.wording import direction, is_baseline, is_landmark

if TYPE_CHECKING:
    from scalenet.coefficients import CoefficientsFile
    from scalenet.data.values import Survey
    from scalenet.environment import Environment
    from scalenet.latency import Calibration
    from scalenet.projection import Candidate
    from scalenet.runs import RunDirectory, Session, TrialRecord

Role = Literal["winner", "tied", "confirmed", "searched", "baseline"]
Progress = Literal["complete", "confirmed", "pruned", "failed", "waiting"]  # confirmed: without a search run
STATES: tuple[Progress, ...] = get_args(Progress)


@dataclass(frozen=True)
class Findings:
    """A run's records, finished or not; `verdict` is computed from them, and None before any confirmation run."""

    env: Environment
    space: SearchSpace | None
    data: Survey | None
    candidates: tuple[Candidate, ...]
    trials: tuple[TrialRecord, ...]
    sessions: tuple[Session, ...]
    coefficients: CoefficientsFile | None
    verdict: Verdict | None
    landscape: Landscape | NoSurface  # of the search phase; without one, of all runs
    latency: Calibration | None  # where that is the cost

    @property
    def metric(self) -> CostName:
        """What candidates' costs and their ratios are of."""
        return self.space.cost if self.space else "flops"


@dataclass(frozen=True)
class Row:
    """A candidate in the ranked table; top1 in [0, 1]."""

    rank: int | None  # None: the baseline, which is no candidate for the answer
    key: str
    label: str
    marked: bool  # the baseline, a corner, equal shares or the paper's point
    names: tuple[str, ...]
    shares: Shares
    realised: Shares
    alpha: float
    beta: float
    gamma: float
    depth: int  # blocks
    width: float  # channels, the mean over blocks
    resolution: int  # pixels
    params: int
    flops: int
    ratio: float  # cost over the baseline's
    metric: CostName  # what `ratio` is of
    off_target: bool
    state: Progress  # of its search run
    search_top1: float | None  # the mean of its finished search runs; of one that was stopped, where it had come to
    confirmed_top1: float | None
    confirmed_sd: float | None  # between its own runs, seeds' common ups and downs included
    error: float | None  # standard error of confirmed_top1, from the pooled noise
    runs: int  # confirmation runs finished
    role: Role

    @property
    def short(self) -> str:
        """For tables that have a column for the shares: what sets it apart, else its first name."""
        return self.label if self.marked else self.names[0]

    @property
    def extra_names(self) -> tuple[str, ...]:
        """The names that `short` does not say."""
        return tuple(name for name in self.names if name not in self.short)


def read(run: RunDirectory) -> Findings:
    """Everything in a run directory, and the verdict that follows from it."""
    candidates, trials, data = run.candidates(), run.trials(), run.data()
    space = run.space() if (run.path / "space.yaml").is_file() else None
    known = space or SearchSpace()  # of a run that has none
    verdict = decide_for(known, candidates, trials, num_classes=len(data.classes) if data else None)
    landscape = landscape_of(trials, {c.key: c for c in candidates}, known.target, known.mapped)
    return Findings(
        run.env(),
        space,
        data,
        candidates,
        trials,
        run.sessions(),
        run.coefficients(),
        verdict,
        landscape,
        run.latency(),
    )


def ranked(findings: Findings) -> list[Row]:
    """The candidates that were not rejected, best first: confirmed, searched, stopped or failed; the baseline last."""
    verdict = findings.verdict
    places = {e.key: i for i, e in enumerate(verdict.estimates)} if verdict else {}
    rows = [_row(c, findings) for c in findings.candidates if c.rejected is None or is_baseline(c)]
    means = _over_all_seeds(findings.trials)

    def order(row: Row) -> tuple[float, ...]:
        found = means.get(row.key, row.search_top1)
        return (
            row.role == "baseline",
            places.get(row.key, math.inf),
            -row.runs,
            STATES.index(row.state),
            -found if found is not None else 1.0,
        )

    rows.sort(key=order)
    return [replace(row, rank=place) if row.role != "baseline" else row for place, row in enumerate(rows, 1)]


def _over_all_seeds(trials: Sequence[TrialRecord]) -> dict[str, float]:
    """Mean top1 of the search phase as over all of its seeds alike: some may be easier, and a race gives some fewer."""
    scores = searched(trials)
    linked = next(iter(connected(list(scores))), frozenset())
    if not linked:
        return {}
    layout = fit({cell: score for cell, score in scores.items() if cell[0] in linked})
    return dict(zip(layout.keys, layout.means.tolist(), strict=True))


def _row(candidate: Candidate, findings: Findings) -> Row:
    mine = [trial for trial in findings.trials if trial.key == candidate.key]
    scores = [t.top1 for t in mine if is_decisive(t) and t.state == "complete" and t.top1 is not None]
    last = next((t for t in reversed(mine) if t.phase in ("search", "baseline") and not is_decisive(t)), None)
    found = [score for (key, _), score in searched(mine).items() if key == candidate.key]
    verdict = findings.verdict
    known = (*verdict.estimates, *([verdict.baseline] if verdict.baseline else [])) if verdict else ()
    estimate = next((e for e in known if e.key == candidate.key), None)
    return Row(
        rank=None,
        key=candidate.key,
        label=direction(candidate),
        marked=is_landmark(candidate) or is_baseline(candidate),
        names=candidate.names,
        shares=candidate.shares,
        realised=candidate.realised,
        alpha=candidate.scale.depth,
        beta=candidate.scale.width,
        gamma=candidate.scale.resolution,
        depth=candidate.size.depth,
        width=candidate.size.width,
        resolution=candidate.size.resolution,
        params=candidate.cost.params,
        flops=candidate.cost.flops,
        ratio=candidate.ratio,
        metric=findings.metric,
        off_target=candidate.off_target,
        state=last.state if last else "confirmed" if scores else "failed" if mine else "waiting",
        search_top1=fmean(found) if found else last.top1 if last else None,
        confirmed_top1=estimate.mean if estimate else fmean(scores) if scores else None,
        confirmed_sd=stdev(scores) if len(scores) > 1 else None,
        error=estimate.error if estimate else None,
        runs=len(scores),
        role=_role(candidate, verdict, bool(scores)),
    )


def _role(candidate: Candidate, verdict: Verdict | None, confirmed: bool) -> Role:
    if is_baseline(candidate):
        return "baseline"
    if verdict and candidate.key == verdict.winner:
        return "winner"
    if verdict and candidate.key in verdict.tied_set:
        return "tied"
    return "confirmed" if confirmed else "searched"
