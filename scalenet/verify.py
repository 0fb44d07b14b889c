"""Whether a search's ranking holds further out: its named directions and its winner at another phi, trained longer.

A verification is a search of its own, in RUN/verify/<stamp>/, without a search phase; see the sampler "named".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scalenet.agreement import Agreement, Outcome, Scores, agreement
from scalenet.coefficients import CoefficientsFile
from scalenet.comparison import SAME
from scalenet.cost import label
from scalenet.errors import ScalenetError
from scalenet.experiment import Plan, Report, reopen, replan
from scalenet.mixture import point_name
from scalenet.racing import estimated
from scalenet.ranking import Findings, read
from scalenet.runs import RunDirectory
from scalenet.space import SearchSpace
from scalenet.verdict import Estimate, Verdict, is_decisive
from scalenet.wording import capital, direction, is_baseline, listed, shares_in_words

Standing = Literal["best", "tied", "behind", "baseline"]

SCHEMA_VERSION = 1
FOLDER = "verify"
LEAST_SEEDS = 3  # two leave the noise to so few degrees of freedom that hardly a pair of directions is told apart
LONGER = 2  # times the run's epochs
BEYOND = 1.1  # times the FLOPs or activations of the largest timed network: what is larger is extrapolated

METHOD = (
    "Kendall's tau of the confirmed scores at equal cost, over the directions confirmed in both runs; the order of "
    "each pair tested in both runs by one-sided t tests with their own noise, the larger p-value taken; from all "
    "pairs' p-values, by Simes' test at 2.5 % each, lower bounds for the pairs that kept their order and for those "
    "that turned, which are tau's 95 % interval. Both runs are judged on the same held-out pictures and speak of these."
)


@dataclass(frozen=True)
class Regime:
    """Where a ranking was confirmed."""

    target: float  # cost over the baseline's
    epochs: int
    seeds: tuple[int, ...]  # of the confirmation runs
    noise_sd: float | None  # of one run's top1


@dataclass(frozen=True)
class Place:
    """A direction in one of the two runs."""

    key: str
    top1: float  # at equal cost, in [0, 1]; of the baseline as it is
    rank: int | None  # among the directions confirmed in both; None for the others, and for the baseline
    standing: Standing


@dataclass(frozen=True)
class Compared:
    """A direction, or the baseline, in the run and in its verification; None where it was not confirmed."""

    label: str
    winner: bool  # the run's
    before: Place | None
    after: Place | None


@dataclass(frozen=True)
class Verification:
    """What a verification found: the content of verify.json."""

    schema_version: int
    changed: str
    before: Regime
    after: Regime
    directions: tuple[Compared, ...]  # the best of the verification first, the baseline last
    agreement: Agreement
    outcome: Outcome
    ranking: str  # whether it held, in a sentence
    winner: str  # whether it is still among the best, in a sentence
    winner_tied: bool | None  # None without a confirmation run that can be compared
    verdict: str  # of the verification by itself
    method: str


def propose(
    run: RunDirectory,
    *,
    phi: float = 2.0,
    epochs: int | None = None,
    seeds: int | None = None,
    report: Report | None = None,
) -> Plan:
    """The plan of a verification of `run`: what it would train, with what is not named here as in the run.

    Args:
        run: a finished search.
        phi: cost of 2^phi x the baseline's.
        epochs: of every training; twice the run's unless given.
        seeds: of every direction, none of them used in the run; as many as in the run, but at least 3, unless given.
        report: is told how the measuring goes.

    Raises:
        ScalenetError: the run has no answer, its pictures or its architecture have changed, or its winner cannot be
            built at that cost.
    """
    answer = _answer(run)
    _verdict(run, read(run))
    first = reopen(run, report)
    space = first.space
    planned = replan(
        first,
        replace(
            space,
            target=2.0**phi,
            sampler="named",
            points=(answer.shares,),
            seeds=1,
            adaptive=0,
            racing=False,
            replicates=0,
            scheduler="none",
            confirm=replace(space.confirm, seeds=seeds or max(LEAST_SEEDS, space.confirm.seeds)),
            recipe=replace(space.recipe, epochs=epochs or LONGER * space.recipe.epochs),
            seed=1 + max(trial.seed for trial in run.trials()),
        ),
        report,
    )
    lost = [c for c in planned.candidates if c.rejected]
    for candidate in lost:
        if point_name(answer.shares) in candidate.names:
            raise ScalenetError(
                f"{run.path}: its winner, {direction(candidate)}, {candidate.rejected}; choose another phi than {phi:g}"
            )
    if not any(point_name(answer.shares) in candidate.names for candidate in planned.contestants):
        raise ScalenetError(
            f"{run.path}: at phi {phi:g} its winner, {shares_in_words(answer.shares)}, is the baseline itself, as the "
            f"steps of {planned.plugin} allow nothing nearer; choose a larger phi."
        )
    told = [f"{capital(direction(c))} is left out: it {c.rejected}." for c in lost]
    return replace(planned, warnings=(*planned.warnings, *told, *_extrapolated(planned)))


def unfinished(run: RunDirectory) -> RunDirectory:
    """The latest verification of `run` that was broken off.

    Raises:
        ScalenetError: there is none.
    """
    for file in sorted((run.path / FOLDER).glob("*/env.json"), reverse=True):
        if not (file.parent / "verify.json").exists():
            found = RunDirectory.open(file.parent)
            if found.candidates():  # one that was broken off earlier has nothing to go on with
                return found
    raise ScalenetError(f"{run.path}: has no unfinished verification; `scalenet verify {run.path}` begins one.")


def changes(before: SearchSpace, after: SearchSpace) -> str:
    """In what a verification differs from the run, in words."""
    target = _against(f"{before.target:.3g} x", f"{after.target:.3g} x", f" the baseline's {label(after.cost)}")
    epochs = _against(
        f"{before.recipe.epochs}", f"{after.recipe.epochs}", f" epoch{'s' if after.recipe.epochs > 1 else ''}"
    )
    return f"{target}, {epochs}, {after.confirm.seeds} fresh seeds"


def judge(run: RunDirectory, verification: RunDirectory) -> Verification:
    """Compares the confirmed scores of `run` with those of its verification, from the records of both.

    Raises:
        ScalenetError: one of them has nothing that is confirmed.
    """
    answer = _answer(run)
    first, second = read(run), read(verification)
    before, after = _verdict(run, first), _verdict(verification, second)
    pairs = _pairs(answer, first, second, _estimates(before).keys())
    shared = [(old, new) for old, new in pairs if new in _estimates(after)]
    found = agreement(_scores(first, [old for old, _ in shared]), _scores(second, [new for _, new in shared]))
    winner = next(c for c in second.candidates if point_name(answer.shares) in c.names)
    names = {c.key: direction(c) for c in second.candidates}
    old_key = {new: old for old, new in pairs}
    places_before = _places(before, {old for old, _ in shared})
    places_after = _places(after, {new for _, new in shared})
    rows = [
        Compared(
            label=direction(c),
            winner=c.key == winner.key,
            before=places_before.get(old_key.get(c.key, "")),
            after=places_after.get(c.key),
        )
        for c in second.candidates
        if not c.rejected and not is_baseline(c)
    ]
    rows.sort(key=lambda row: -row.after.top1 if row.after else math.inf)
    baseline = Compared("the baseline", False, _baseline_place(before), _baseline_place(after))
    assert first.space is not None
    assert second.space is not None
    return Verification(
        schema_version=SCHEMA_VERSION,
        changed=changes(first.space, second.space),
        before=_regime(first.space, before),
        after=_regime(second.space, after),
        directions=(*rows, baseline),
        agreement=found,
        outcome=found.outcome,
        ranking=_ranking(found, before, after),
        winner=_winner(names, winner.key, after),
        winner_tied=winner.key in after.tied_set if winner.key in _estimates(after) else None,
        verdict=after.sentence,
        method=METHOD,
    )


def _extrapolated(planned: Plan) -> Iterator[str]:
    """Where latency is predicted for networks beyond those that the run's calibration had timed."""
    if (timed := planned.calibration) is None:
        return
    beyond = [c for c in planned.contestants if timed.beyond(c.cost) > BEYOND]
    if beyond:
        most = max(timed.beyond(c.cost) for c in beyond)
        yield (
            f"The latency of {listed([direction(c) for c in beyond])} is extrapolated: up to {most:.1f} x the cost of "
            "the largest network that the run timed, so costs may be less equal than they say."
        )


def _against(before: str, after: str, unit: str) -> str:
    return f"{after}{unit} ({'as' if before == after else before} in the run)"


def _answer(run: RunDirectory) -> CoefficientsFile:
    answer = run.coefficients()
    if answer is None:
        raise ScalenetError(
            f"{run.path}: has no coefficients.json yet, so there is no winner to verify; "
            f"`scalenet search --resume {run.path}` finishes it."
        )
    return answer


def _verdict(run: RunDirectory, findings: Findings) -> Verdict:
    if findings.verdict is None or findings.space is None:
        raise ScalenetError(f"{run.path}: no candidate has a finished confirmation run.")
    return findings.verdict


def _estimates(verdict: Verdict) -> dict[str, Estimate]:
    return {estimate.key: estimate for estimate in verdict.estimates}


def _pairs(
    answer: CoefficientsFile, first: Findings, second: Findings, confirmed: Collection[str]
) -> list[tuple[str, str]]:
    """(key in the run, key in the verification) of what was `confirmed` in the run, by name; each network once.

    Directions that built one network in one of the two and two in the other are compared by the first of them, the
    winner before all others.
    """
    point = point_name(answer.shares)
    known = {name: c.key for c in first.candidates if c.key in confirmed for name in c.names}
    if (winner := answer.tied_set[0].key) in confirmed:
        known[point] = winner
    pairs: dict[str, str] = {}
    for candidate in sorted(second.candidates, key=lambda c: point not in c.names):
        for name in sorted(candidate.names, key=lambda name: name != point):
            if name in known and known[name] not in pairs and not is_baseline(candidate):
                pairs[known[name]] = candidate.key
                break
    return list(pairs.items())


def _scores(findings: Findings, keys: Sequence[str]) -> Scores:
    """The confirmed scores at equal cost, and the standard errors of their differences, as the verdict has them."""
    verdict = findings.verdict
    assert verdict is not None
    assert findings.space is not None
    estimates = _estimates(verdict)
    means = np.array([estimates[key].adjusted for key in keys])
    if verdict.noise_sd is None or verdict.noise_df is None:
        return Scores(means, np.full((len(keys), len(keys)), np.inf), 1.0)
    confirmed = [c for c in findings.candidates if c.key in estimates]
    layout = estimated(
        {
            (t.key, t.seed): t.top1
            for t in findings.trials
            if is_decisive(t) and t.state == "complete" and t.top1 is not None
        },
        {c.key: math.log2(c.ratio) for c in confirmed},
        baseline=verdict.baseline.key if verdict.baseline else None,
        target=findings.space.target,
        shares={c.key: c.realised for c in confirmed} if verdict.noise_source == "surface" else None,
    )
    at = [layout.keys.index(key) for key in keys]
    spread = layout.covariance[np.ix_(at, at)]
    own = np.diag(spread)
    squares = own[:, None] + own[None, :] - 2 * spread
    # Two to which a surface gives one prediction: nothing tells which is ahead.
    squares = np.where(squares > SAME * own.max(initial=0.0), squares, np.inf)
    return Scores(means, verdict.noise_sd * np.sqrt(squares), float(verdict.noise_df))


def _places(verdict: Verdict, compared: Collection[str]) -> dict[str, Place]:
    order = [estimate.key for estimate in verdict.estimates if estimate.key in compared]

    def place(estimate: Estimate) -> Place:
        standing: Standing = "best" if estimate.key == verdict.winner else "tied" if estimate.tied else "behind"
        rank = order.index(estimate.key) + 1 if estimate.key in compared else None
        return Place(estimate.key, estimate.adjusted, rank, standing)

    return {estimate.key: place(estimate) for estimate in verdict.estimates}


def _baseline_place(verdict: Verdict) -> Place | None:
    return Place(verdict.baseline.key, verdict.baseline.mean, None, "baseline") if verdict.baseline else None


def _regime(space: SearchSpace, verdict: Verdict) -> Regime:
    return Regime(space.target, space.recipe.epochs, verdict.seeds, verdict.noise_sd)


def _ranking(found: Agreement, before: Verdict, after: Verdict) -> str:
    if not found.pairs:
        return "Whether the ranking held cannot be said: fewer than two directions were confirmed in both runs."
    tau = "is not defined, as all scores are equal" if found.tau is None else f"is {found.tau:.2f}"
    interval = f"{found.low:.2f} to {found.high:.2f}"
    if found.outcome == "open":
        unknown = [name for name, verdict in (("run", before), ("verification", after)) if verdict.noise_sd is None]
        why = f", as nothing shows the noise of the {' and the '.join(unknown)}" if unknown else ""
        return (
            f"Whether the ranking held cannot be said: Kendall's tau {tau}, but its 95 % interval runs from {interval}"
            f"{why}; {_counts(found)}."
        )
    held = "held" if found.outcome == "held" else "did not hold"
    return f"The ranking {held}: Kendall's tau {tau} (95 % interval {interval}); {_counts(found)}."


def _counts(found: Agreement) -> str:
    """For certain, how many pairs kept their order and how many turned."""
    if found.pairs == 1:
        only = "the only pair of directions"
        return (
            f"{only} kept its order"
            if found.kept
            else f"{only} turned"
            if found.turned
            else f"noise may have ordered {only}"
        )
    told = [f"{n} {what}" for n, what in ((found.kept, "kept their order"), (found.turned, "turned")) if n]
    of = f"of the {found.pairs} pairs of directions"
    return f"{of}, at least {' and at least '.join(told)}" if told else f"noise may have ordered each {of}"


def _winner(names: dict[str, str], winner: str, after: Verdict) -> str:
    who = f"The run's winner, {names[winner]},"
    if winner not in _estimates(after):
        return f"{who} has no confirmation run here that can be compared."
    best, others = names[after.winner], len(after.estimates) - 1
    if after.noise_sd is None:
        place = "is the best here too" if winner == after.winner else f"comes after {best} here"
        return f"{who} {place}, but nothing shows the noise."
    if winner == after.winner:
        tied = sum(estimate.tied for estimate in after.estimates) - 1  # without those that cannot be compared
        of = "the only other" if others == 1 else f"{tied} of the {others} others"
        return f"{who} is the best here too{f', though tied with {of}' if tied else ''}."
    if winner in after.tied_set:
        return f"{who} is still in the tied set: the best here, {best}, is not ahead of it by more than noise."
    return f"{who} is no longer in the tied set: the best here, {best}, is ahead of it by more than noise."
