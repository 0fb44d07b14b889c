"""A search from what was asked for to its answer: survey, plan, train, decide, write down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalenet import plugins
from scalenet.coefficients import CoefficientsFile, DataUsed, conclude
from scalenet.data import Prepared, Survey, prepare, resolution_warning, survey
from scalenet.environment import environment
from scalenet.errors import ScalenetError
from scalenet.meter import Meter
from scalenet.mixture import lattice, lattice_name
from scalenet.plain import from_plain, to_plain
from scalenet.projection import Candidate, baseline_candidate, candidates, named_points, project
from scalenet.runs import RunDirectory, TrialRecord
from scalenet.shares import Exponents, Law, Shares
from scalenet.space import SearchSpace
from scalenet.verdict import Verdict, decide

if TYPE_CHECKING:
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
        return max(c.size.resolution for c in self.candidates if c.rejected is None)

    @property
    def trials(self) -> int:
        """Trainings of the whole search: an upper bound, as the best few may be among those confirmed anyway."""
        usable = [c for c in self.candidates if c.rejected is None]
        named = {c.key for c in usable if set(c.names) & {"depth", "width", "resolution", "equal", "paper"}}
        drawn = 0 if self.space.sampler == "grid" else self.space.trials
        replicates = self.space.replicates if len(usable) > 1 else 0
        confirmed = min(len(named) + self.space.confirm.best, len(usable) - 1 + drawn) + 1
        return len(usable) + drawn + replicates + confirmed * self.space.confirm.seeds

    @property
    def growth(self) -> float:
        """Mean FLOPs of what is trained over the baseline's."""
        usable = [c.ratio for c in self.candidates if c.rejected is None]
        return sum(usable) / len(usable)


@dataclass(frozen=True)
class Outcome:
    """A finished search."""

    run: RunDirectory
    result: SearchResult
    verdict: Verdict | None  # None where no candidate could be confirmed
    coefficients: CoefficientsFile | None
    report: Path


def plan(plugin: str, space: SearchSpace, report: Report | None = None) -> Plan:
    """Looks at the pictures, measures the candidates, trains nothing.

    Raises:
        ScalenetError: unknown plugin, variant or data; a data set that cannot be used.
    """
    arch = plugins.architecture(plugin)
    variant = arch.variant(space.variant)
    found = survey(space.data, report)
    spec = at_side(arch, variant.spec, space.resolution)
    meter = Meter(arch, spec, num_classes=len(found.classes))
    proposed = [baseline_candidate(meter), *candidates(meter, _points(meter, space), space.target, law(space), report)]
    planned = Plan(plugin, space, found, meter, meter.exponents, tuple(proposed), ())
    return replace(planned, warnings=tuple(_warnings(planned)))


def start(planned: Plan, root: Path, device: str) -> RunDirectory:
    """A new run directory under `root`, with what is known before the first training."""
    run = RunDirectory.create(root, planned.plugin)
    run.write_env(environment(planned.plugin, origin=plugins.registry().origins[planned.plugin], device=device))
    run.write_space(planned.space)
    run.write_data(planned.data)
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
    meter = Meter(arch, spec, num_classes=len(found.classes))
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
    data = prepare(planned.space.data, planned.largest_side, report, announce)
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
) -> Outcome:
    """Trains, confirms, decides, and writes coefficients.json and report.html.

    Raises:
        ScalenetError: as `search` does, and where every training failed.
    """
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

    result = search(
        space, planned.candidates, run, job, propose=propose, workers=workers, address=address, storage=storage,
        observer=observer, warnings=[*planned.warnings, *(w for w in data.warnings if w not in planned.warnings)],
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


def describe(planned: Plan, seconds: float) -> dict[str, Any]:
    """The plan as JSON data, with the time it is estimated to take."""
    return {
        "plugin": planned.plugin,
        "space": to_plain(planned.space),
        "data": to_plain(planned.data),
        "exponents": to_plain(planned.exponents),
        "baseline": to_plain(planned.baseline),
        "candidates": to_plain(planned.candidates[1:]),
        "trials": planned.trials,
        "seconds": seconds,
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


def _points(meter: Meter, space: SearchSpace) -> list[tuple[str, Shares]]:
    """What is proposed before anything is trained: the named points, and the lattice where it is the sampler."""
    points = named_points(meter, law(space))
    if space.sampler == "grid":
        points += [(lattice_name(shares, space.lattice), shares) for shares in lattice(space.lattice)]
    return points


def _warnings(planned: Plan) -> list[str]:
    from scalenet.lastmap import map_warning  # torch

    told = [*planned.data.warnings]
    if above := resolution_warning(planned.data, planned.largest_side):
        told.append(above)
    if small := map_warning(planned.meter.arch, planned.meter.baseline, num_classes=planned.meter.num_classes):
        told.append(small)
    return told


def _answer(
    planned: Plan, tried: Sequence[Candidate], records: Sequence[TrialRecord]
) -> tuple[Verdict | None, CoefficientsFile | None]:
    classes = len(planned.data.classes)
    verdict = decide(tried, records, num_classes=classes, target=planned.space.target)
    if verdict is None:
        return None, None
    answer = conclude(
        verdict,
        tried,
        plugin=planned.plugin,
        space=planned.space,
        exponents=planned.exponents,
        data=DataUsed(planned.data.name, planned.data.fingerprint, planned.data.native_size),
        num_classes=classes,
        demonstration=planned.data.demonstration,
    )
    return verdict, answer
