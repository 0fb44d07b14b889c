"""A search from what was asked for to its answer: survey, plan, train, decide, write down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet import plugins
from scalenet.coefficients import CoefficientsFile, DataUsed, FamilyMember, conclude
from scalenet.data import Prepared, Survey, prepare, resolution_warning, survey
from scalenet.environment import environment
from scalenet.errors import ScalenetError
from scalenet.landscape import landscape_of
from scalenet.latency import Calibration
from scalenet.meter import Meter
from scalenet.metric import ACTIVATIONS, FLOPS, Metric
from scalenet.mixture import lattice, lattice_name, point_name
from scalenet.plain import from_plain, to_plain
from scalenet.power import Power
from scalenet.projection import Candidate, baseline_candidate, candidates, named_points, project
from scalenet.racing import guided_trainings
from scalenet.runs import RunDirectory, TrialRecord
from scalenet.scaling import at_phi
from scalenet.scheffe import NoSurface
from scalenet.shares import FACTORS, Exponents, Law, Shares
from scalenet.space import SearchSpace
from scalenet.verdict import Verdict, decide_for
from scalenet.wording import capital, direction

if TYPE_CHECKING:
    from scalenet.budget import Budget
    from scalenet.search.values import Observer, SearchResult

Report = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Plan:
    """A search before its first training: what would be tried, on what, and for what price."""

    plugin: str
    space: SearchSpace
    data: Survey
    meter: Meter
    exponents: Exponents
    candidates: tuple[Candidate, ...]  # the baseline first, rejected ones included
    warnings: tuple[str, ...]

    @property
    def baseline(self) -> Candidate:
        """The spec that phi = 0 means."""
        return self.candidates[0]

    @property
    def largest_side(self) -> int:
        """The largest input side of what is trained, pixels."""
        return max(c.size.resolution for c in (self.baseline, *self.contestants))

    @property
    def contestants(self) -> tuple[Candidate, ...]:
        """The candidates that are trained, without the baseline and the rejected ones."""
        return tuple(c for c in self.candidates[1:] if c.rejected is None)

    @property
    def drawn(self) -> int:
        """Further candidates that the sampler is to draw."""
        return self.space.draws

    @property
    def repeated(self) -> tuple[Candidate, ...]:
        """What is trained with `replicates` further seeds in the search phase: baseline, corners and centre."""
        from scalenet.search.finalists import centre_of

        if not self.space.replicates or not self.space.has_search_phase:
            return ()
        corners = [c for c in self.contestants if set(c.names) & set(FACTORS)]
        centre = centre_of(self.contestants)
        return tuple({c.key: c for c in (self.baseline, *corners, *([centre] if centre else []))}.values())

    @property
    def confirmed(self) -> int:
        """Candidates that are confirmed beside the baseline: an upper bound, as the best few may be named ones."""
        from scalenet.search.finalists import always_confirmed, has_optimum

        if self.space.sampler == "guided":
            return len(self.contestants)
        named = sum(c is not self.baseline for c in always_confirmed(self.candidates, self.space.points))
        if self.space.sampler == "named":
            return named
        tried = len(self.contestants) + self.drawn + self.space.adaptive
        return min(named + self.space.confirm.best, tried) + has_optimum(tried)

    @property
    def confirmed_with(self) -> tuple[int, ...]:
        """How many of them are trained with each of the confirmation's seeds: an upper bound."""
        if self.space.sampler == "guided":
            return guided_trainings(self.confirmed, self.space.confirm.seeds)
        return (self.confirmed,) * self.space.confirm.seeds

    @property
    def trials(self) -> int:
        """Trainings of the whole search, confirmation included: an upper bound, as `confirmed` is."""
        space = self.space
        confirmed = sum(1 + candidates for candidates in self.confirmed_with)
        if not space.has_search_phase:
            return confirmed
        searched = (1 + len(self.contestants) + self.drawn + space.adaptive) * space.seeds
        return searched + len(self.repeated) * space.replicates + confirmed

    @property
    def growth(self) -> float:
        """Mean FLOPs of what is trained over the baseline's."""
        flops = [c.cost.flops / self.baseline.cost.flops for c in (self.baseline, *self.contestants)]
        return sum(flops) / len(flops)

    @property
    def calibration(self) -> Calibration | None:
        """How latency is predicted; None where it is not what candidates cost."""
        return self.meter.metric if isinstance(self.meter.metric, Calibration) else None


@dataclass(frozen=True)
class Outcome:
    """A finished search."""

    run: RunDirectory
    result: SearchResult
    verdict: Verdict | None  # None where no candidate could be confirmed
    coefficients: CoefficientsFile | None
    report: Path


def plan(plugin: str, space: SearchSpace, report: Report | None = None, device: str = "auto") -> Plan:
    """Looks at the pictures, measures the candidates, trains nothing.

    Args:
        report: called with (done, total, what).
        device: whose latency is predicted, where that is what candidates cost.

    Raises:
        ScalenetError: unknown plugin, variant or data; a data set that cannot be used.
    """
    arch = plugins.architecture(plugin)
    variant = arch.variant(space.variant)
    found = survey(space.data, report)
    meter = Meter(arch, at_side(arch, variant.spec, space.resolution), num_classes=len(found.classes))
    return _proposed(plugin, space, found, meter.priced(_metric(meter, space, device, report)), report)


def replan(planned: Plan, space: SearchSpace, report: Report | None = None) -> Plan:
    """The plan of another space for the same baseline on the same pictures or a part of them; nothing is counted twice.

    Raises:
        ScalenetError: a data set that cannot be used.
    """
    found = planned.data if space.data == planned.space.data else survey(space.data, report)
    return _proposed(planned.plugin, space, found, planned.meter, report)


def start(planned: Plan, root: Path, device: str, *, folder: str | None = None) -> RunDirectory:
    """A new run directory `root/<folder>/<stamp>`, with what is known before the first training.

    Args:
        planned: what is to be trained.
        root: where runs go.
        device: what it is trained on, for the record.
        folder: the plugin's name unless given.
    """
    run = RunDirectory.create(root, planned.plugin, folder)
    run.write_env(environment(planned.plugin, origin=plugins.registry().origins[planned.plugin], device=device))
    run.write_space(planned.space)
    run.write_data(planned.data)
    if planned.calibration is not None:
        run.write_latency(planned.calibration)
    run.append_candidates(planned.candidates)
    return run


def reopen(run: RunDirectory, report: Report | None = None) -> Plan:
    """The plan of a run that was broken off, from its own records.

    Raises:
        ScalenetError: the pictures or the architecture are not what they were.
    """
    plugin, space, before = run.env().plugin, run.space(), run.data()
    known = run.candidates()
    if before is None or not known:
        raise ScalenetError(f"{run.path}: was broken off before anything was trained; start the search anew.")
    arch = plugins.architecture(plugin)
    found = survey(space.data, report)
    if found.fingerprint != before.fingerprint:
        raise ScalenetError(
            f"{run.path}: the pictures of {space.data.source} have changed since ({before.fingerprint[:12]} then, "
            f"{found.fingerprint[:12]} now); its trials cannot be compared with new ones."
        )
    spec = from_plain(arch.spec_type(), known[0].spec, f"{run.path}: the baseline's spec")
    meter = Meter(arch, spec, num_classes=len(found.classes), metric=run.metric(space.cost))
    if meter.cost(spec) != known[0].cost:
        raise ScalenetError(
            f"{run.path}: {plugin} builds another network from the baseline's spec than it did "
            f"({meter.cost(spec).params:,} parameters now, {known[0].cost.params:,} then); start the search anew."
        )
    return Plan(plugin, space, found, meter, meter.exponents, known, ())


def decode(planned: Plan, report: Report | None = None, announce: Callable[[str], None] | None = None) -> Prepared:
    """The pictures as the trials read them, at the side of the largest candidate.

    Raises:
        ScalenetError: the disk is short, or nothing of a class can be decoded.
    """
    data = prepare(planned.space.data, planned.largest_side, report, announce, known=planned.data)
    if data.classes != planned.data.classes:
        lost = sorted(set(planned.data.classes) - set(data.classes))
        raise ScalenetError(f"No picture of {', '.join(lost)} could be decoded; remove the class or mend its files.")
    return data


def execute(
    planned: Plan,
    data: Prepared,
    run: RunDirectory,
    *,
    workers: int,
    address: str | None = None,
    storage: str | None = None,
    device: str = "auto",
    observer: Observer | None = None,
    fresh: bool = False,
) -> Outcome:
    """Trains, confirms, decides, and writes coefficients.json and report.html.

    What an earlier search has trained is taken from the store unless `fresh`.

    Raises:
        ScalenetError: as `search` does, and where every training failed.
    """
    from scalenet import reuse, trial
    from scalenet.search import search

    space = planned.space
    job = {
        "plugin": planned.plugin,
        "num_classes": len(data.classes),
        "data": to_plain(data),
        "recipe": to_plain(space.recipe),
        "device": device,
    }

    def propose(shares: Shares) -> Candidate:
        return project(planned.meter, shares, target=space.target, law=law(space))

    warnings = [*planned.warnings, *(w for w in data.warnings if w not in planned.warnings)]
    result = search(
        space, planned.candidates, run, job, propose=propose, workers=workers, address=address, storage=storage,
        observer=observer, run_trial=trial.run if fresh else reuse.run, warnings=warnings,
    )  # fmt: skip
    verdict, answer = _answer(planned, result.candidates, result.records)
    if answer is not None:
        run.write_coefficients(answer)
    from scalenet.report import html

    page = html(run)
    if all(record.state == "failed" for record in result.records):
        raise ScalenetError(
            f"None of the {len(result.records)} trainings came to an end; the first one failed with: "
            f"{result.records[0].reason} ({page} lists them all)"
        )
    return Outcome(run, result, verdict, answer, page)


def describe(planned: Plan, seconds: float, power: Power, budget: Budget | None = None) -> dict[str, Any]:
    """The plan as JSON data, with the time it is estimated to take and what it will be able to tell apart."""
    return {
        "plugin": planned.plugin,
        "space": to_plain(planned.space),
        "data": to_plain(planned.data),
        "exponents": to_plain(planned.exponents),
        "latency": to_plain(planned.calibration),
        "baseline": to_plain(planned.baseline),
        "candidates": to_plain(planned.candidates[1:]),
        "trials": planned.trials,
        "seconds": seconds,
        "budget": to_plain(budget),
        "power": to_plain(power),
        "warnings": list(planned.warnings),
    }


def at_side(arch: Any, spec: Any, side: int | None) -> Any:
    """The spec at another input side, with what follows the side (windows); `None` leaves it.

    Sides between an architecture's own steps (patches) are built too: the network pads.
    """
    from scalenet.architecture import Scale

    if side is None or side == spec.resolution:
        return spec
    return replace(arch.scale(spec, Scale(resolution=side / spec.resolution)), resolution=side)


def law(space: SearchSpace) -> Law:
    """The space's law as the engine's value."""
    return Law(space.law)


def _proposed(plugin: str, space: SearchSpace, data: Survey, meter: Meter, report: Report | None) -> Plan:
    baseline = baseline_candidate(meter)
    found = candidates(meter, _points(meter, space), space.target, law(space), report)
    proposed = (baseline, *(c for c in found if c.key != baseline.key))
    planned = Plan(plugin, space, data, meter, meter.exponents, proposed, ())
    still = (
        f"{capital(direction(c))} is left out: to grow the cost {space.target:g} times, the steps of {plugin} allow "
        "nothing nearer than the baseline itself."
        for c in found
        if c.key == baseline.key
    )
    return replace(planned, warnings=(*_warnings(planned), *still))


def _points(meter: Meter, space: SearchSpace) -> list[tuple[str, Shares]]:
    """What is proposed before anything is trained: the named points, the lattice where the sampler has it, `points`."""
    points = named_points(meter, law(space))
    if space.has_lattice:
        points += [(lattice_name(shares, space.lattice), shares) for shares in lattice(space.lattice)]
    return [*points, *((point_name(shares), shares) for shares in space.points)]


def _metric(meter: Meter, space: SearchSpace, device: str, report: Report | None) -> Metric:
    """What the space calls cost; for latency, the device is timed."""
    if space.cost != "latency":
        return FLOPS if space.cost == "flops" else ACTIVATIONS
    from scalenet.calibrate import calibrated  # torch

    return calibrated(meter, space, device, report)


def _warnings(planned: Plan) -> list[str]:
    from scalenet.lastmap import map_warning  # torch

    told = [*planned.data.warnings]
    if above := resolution_warning(planned.data, planned.largest_side):
        told.append(above)
    if small := map_warning(planned.meter.arch, planned.meter.baseline, num_classes=planned.meter.num_classes):
        told.append(small)
    if (timed := planned.calibration) is not None and not timed.good:
        told.append(
            f"Latency is predicted poorly (R2 {timed.r2:.2f}, median error {100 * timed.median_error:.0f} %), so costs "
            "are not equal as they should be; time the device again when nothing else runs on it."
        )
    return told


def _answer(
    planned: Plan, tried: Sequence[Candidate], records: Sequence[TrialRecord]
) -> tuple[Verdict | None, CoefficientsFile | None]:
    classes = len(planned.data.classes)
    verdict = decide_for(planned.space, tried, records, num_classes=classes)
    if verdict is None:
        return None, None
    landscape = landscape_of(records, {c.key: c for c in tried}, planned.space.target, planned.space.mapped)
    answer = conclude(
        verdict,
        tried,
        plugin=planned.plugin,
        space=planned.space,
        exponents=planned.exponents,
        data=DataUsed(planned.data.name, planned.data.fingerprint, planned.data.native_size),
        num_classes=classes,
        demonstration=planned.data.demonstration,
        landscape=None if isinstance(landscape, NoSurface) else landscape,
        family=_family(planned, next(c.shares for c in tried if c.key == verdict.winner)),
    )
    return verdict, answer


def _family(planned: Plan, shares: Shares) -> list[FamilyMember]:
    """The baseline and what it becomes at phi 1, 2 and 3, as far as the architecture goes."""
    meter, base = planned.meter, planned.baseline
    members = [FamilyMember(0.0, base.size, base.cost)]
    for phi in (1, 2, 3):
        with suppress(ScalenetError):  # out of reach along these shares
            found = at_phi(meter, shares, phi)
            members.append(FamilyMember(round(found.phi, 4), found.size, found.cost))
    return members
