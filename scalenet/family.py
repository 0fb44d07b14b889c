"""What `scalenet scale` does: a direction, from a run or from alpha, beta, gamma, made into models of several sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from scalenet import plugins
from scalenet.architecture import Scale
from scalenet.coefficients import CoefficientsFile
from scalenet.errors import ScalenetError
from scalenet.experiment import at_side
from scalenet.meter import Meter
from scalenet.metric import FLOPS, Metric
from scalenet.modelfile import ModelFile, write_model_file
from scalenet.plain import from_plain, to_plain
from scalenet.scaling import ScaledModel, at_budget, at_phi, paper_scale
from scalenet.shares import MEASURED, PAPER_EXPONENTS, Law, Shares, multipliers, shares_of


@dataclass(frozen=True, eq=False)
class Direction:
    """A baseline and the way it is to grow."""

    meter: Meter
    shares: Shares
    unit: Scale  # alpha, beta, gamma: what the paper's law raises to phi
    law: Law
    source: str  # in words, for the model file
    demonstration: bool = False


@dataclass(frozen=True)
class Member:
    """One model of a family, under the name of its file."""

    name: str
    model: ScaledModel


def from_answer(answer: CoefficientsFile, run: Path, law: Law | None = None, metric: Metric = FLOPS) -> Direction:
    """The direction that a search found; `metric` is what it called cost.

    Raises:
        ScalenetError: its architecture is not installed, or its baseline cannot be read.
    """
    arch = plugins.architecture(answer.plugin)
    spec = from_plain(arch.spec_type(), answer.baseline, f"{run}: baseline")
    meter = Meter(arch, spec, num_classes=answer.num_classes, metric=metric)
    law = law or Law(answer.law)
    unit = multipliers(answer.shares, PAPER_EXPONENTS if law is Law.PAPER else answer.exponents)
    return Direction(meter, answer.shares, unit, law, f"search {run.name}", answer.demonstration)


def from_multipliers(
    plugin: str,
    by: Scale,
    *,
    variant: str | None = None,
    resolution: int | None = None,
    num_classes: int | None = None,
    law: Law = MEASURED,
) -> Direction:
    """The direction that alpha, beta, gamma stand for, on a published variant (default: the baseline).

    Raises:
        ScalenetError: an unknown name, a multiplier below 1, or all of them 1.
    """
    arch = plugins.architecture(plugin)
    name = variant or arch.baseline
    chosen = arch.variant(name)
    spec = at_side(arch, chosen.spec, resolution)
    meter = Meter(arch, spec, num_classes=num_classes or chosen.num_classes)
    shares = shares_of(by, PAPER_EXPONENTS if law is Law.PAPER else meter.exponents)
    given = "/".join(f"{value:g}" for value in astuple(by))
    return Direction(meter, shares, by, law, f"{plugin} {name} along alpha/beta/gamma {given}")


def family(
    direction: Direction,
    *,
    phis: Sequence[float] = (),
    flops: Sequence[int] = (),
    params: Sequence[int] = (),
) -> list[Member]:
    """One model per phi and per budget, in that order.

    Raises:
        ScalenetError: nothing asked for, something out of reach, or a budget under the paper's law.
    """
    if not (phis or flops or params):
        raise ScalenetError("Say how big: --phi 1 (or 0..7), --flops 2G or --params 10M.")
    if direction.law is Law.PAPER and (flops or params):
        raise ScalenetError("--law paper takes the literal powers and meets no budget; give --phi, or --law measured.")
    meter, shares = direction.meter, direction.shares
    literal = direction.law is Law.PAPER
    return [
        *(Member(f"phi{phi:g}", _literal(direction, phi) if literal else at_phi(meter, shares, phi)) for phi in phis),
        *(Member(_short(budget), at_budget(meter, shares, flops=budget)) for budget in flops),
        *(Member(f"{_short(budget)}-params", at_budget(meter, shares, params=budget)) for budget in params),
    ]


def write(members: Sequence[Member], direction: Direction, folder: Path) -> list[Path]:
    """Writes model_<name>.yaml for every member; returns the paths."""
    paths = []
    for member in members:
        found = member.model
        content = ModelFile(
            plugin=direction.meter.arch.name,
            spec=to_plain(found.spec),
            cost=found.cost,
            phi=round(found.phi, 4),
            source=f"{direction.source}, {found.requested}",
        )
        paths.append(folder / f"model_{member.name}.yaml")
        try:
            write_model_file(paths[-1], content)
        except OSError as error:
            raise ScalenetError(f"{paths[-1]}: cannot be written ({error.strerror or error}).") from error
    return paths


def describe(member: Member, direction: Direction) -> dict[str, Any]:
    """A member as JSON data: nominal, built and measured values side by side."""
    found, base = member.model, direction.meter
    built = base.arch.size(base.baseline)
    return {
        "name": member.name,
        "requested": found.requested,
        "law": direction.law.value,
        "shares": to_plain(found.shares),
        "nominal": to_plain(found.literal),
        "built": {
            "depth": found.size.depth / built.depth,
            "width": found.size.width / built.width,
            "resolution": found.size.resolution / built.resolution,
        },
        "size": to_plain(found.size),
        "phi": found.phi,
        "cost_metric": base.metric.name,
        "ratio": found.ratio,
        **to_plain(found.cost),
        "next_step": to_plain(found.step),
        "note": found.note,
        "spec": to_plain(found.spec),
    }


def _literal(direction: Direction, phi: float) -> ScaledModel:
    """The paper's law: alpha^phi, beta^phi, gamma^phi as they are, the paper's rounding, whatever it costs."""
    meter, unit = direction.meter, direction.unit
    by = Scale(unit.depth**phi, unit.width**phi, unit.resolution**phi)
    spec = paper_scale(meter.arch, meter.baseline, unit.depth, unit.width, unit.resolution, phi)
    cost, ratio = meter.cost(spec), meter.ratio(spec)
    nominal = by.depth * by.width**2 * by.resolution**2
    note = None
    if abs(ratio / nominal - 1) > 0.02:
        note = f"costs {ratio:.2f} x the baseline where alpha beta^2 gamma^2 says {nominal:.2f}"
    size = meter.arch.size(spec)
    return ScaledModel(direction.shares, f"phi {phi:g}", math.log2(ratio), by, by, spec, size, cost, ratio, note=note)


def _short(number: int) -> str:
    """2000000000 -> '2G', as it was typed; 1234567 -> '1234567'."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size and round(number / size, 3) * size == number:
            return f"{number / size:g}{unit}"
    return str(number)
