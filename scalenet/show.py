"""What the commands print: a plan, its candidates, a family of models, a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from scalenet.console import duration, si, table

if TYPE_CHECKING:
    from scalenet.experiment import Plan
    from scalenet.family import Direction, Member


def plan(planned: Plan, seconds: float, workers: int, to_stderr: bool) -> None:
    """What is searched, on which data, at which side, for what price, and how to do the real thing."""
    space, base = planned.space, planned.baseline
    sides = f"{base.size.resolution} px" + (
        f" (candidates up to {planned.largest_side} px)" if planned.largest_side > base.size.resolution else ""
    )
    usable = sum(c.rejected is None for c in planned.candidates) - 1
    counts = planned.data.counts
    lines = (
        f"search    {planned.plugin} {space.variant}: {si(base.cost.flops)} FLOPs, {si(base.cost.params)} params, "
        f"at {sides}",
        f"data      {planned.data.name}: {planned.data.pictures:,} pictures of {planned.data.native_size} px, "
        f"{len(planned.data.classes)} classes ({counts['fit']:,} to fit, {counts['select']:,} to select, "
        f"{counts['held']:,} held out)",
        f"price     {usable} candidates of about {space.target:g} x the FLOPs; {planned.trials} trainings of "
        f"{space.recipe.epochs} epochs, about {duration(seconds)} with {workers or 1} at a time",
        f"compute   {space.recipe.precision}, {space.recipe.memory_format.replace('_', ' ')}, "
        f"{space.threads or 1} CPU thread{'s' if (space.threads or 1) > 1 else ''} a trial",
    )
    for line in lines:
        _say(line, to_stderr)
    if planned.data.demonstration:
        _say(
            "note      a demonstration on embedded pictures. For an answer about yours: "
            f"scalenet search --plugin {planned.plugin} --data DIR --variant {planned.meter.arch.baseline} --epochs 30",
            to_stderr,
        )
    for warning in planned.warnings:
        click.echo(f"Warning: {warning}", err=True)


def candidates(planned: Plan) -> None:
    """Every candidate with its nominal shares, what is built and what that costs."""
    from scalenet.report import shares_text

    rows = [
        (
            ", ".join(c.names), shares_text(c.shares), f"{c.scale.depth:.3f}", f"{c.scale.width:.3f}",
            f"{c.scale.resolution:.3f}", str(c.size.depth), f"{c.size.width:.4g}", str(c.size.resolution),
            si(c.cost.flops, 3), si(c.cost.params, 3), f"{c.ratio:.2f}",
            "rejected" if c.rejected else "off target" if c.off_target else "",
        )
        for c in planned.candidates
    ]  # fmt: skip
    table(
        ("candidate", "shares d / w / r", "alpha", "beta", "gamma", "depth", "width", "px", "FLOPs", "params",
         "x baseline", ""), rows, text_columns=2,
    )  # fmt: skip


def scaled(direction: Direction, members: Sequence[Member]) -> None:
    """Nominal, built and measured values side by side; what the steps allow, below."""
    base = direction.meter
    size, cost = base.size, base.cost(base.baseline)
    shares = direction.shares
    click.echo(
        f"{base.arch.name} from {direction.source}: shares of growth depth {shares.depth:.2f}, "
        f"width {shares.width:.2f}, resolution {shares.resolution:.2f}"
    )
    click.echo(
        f"baseline: {size.depth} blocks, {size.width:.4g} channels, {size.resolution} px, {si(cost.flops)} FLOPs, "
        f"{si(cost.params)} params, {base.num_classes} classes\n"
    )
    rows = []
    for member in members:
        m = member.model
        rows.append((
            member.name, f"{m.literal.depth:.3f} {m.literal.width:.3f} {m.literal.resolution:.3f}",
            f"{m.size.depth / size.depth:.3f} {m.size.width / size.width:.3f} "
            f"{m.size.resolution / size.resolution:.3f}",
            str(m.size.depth), f"{m.size.width:.4g}", str(m.size.resolution), si(m.cost.flops), si(m.cost.params),
            si(m.cost.activations), f"{m.ratio:.3f}", f"{m.phi:.3f}",
        ))  # fmt: skip
    columns = (
        *("model", "nominal d w r", "built d w r", "depth", "width", "px"),
        *("FLOPs", "params", "activations", "x baseline", "phi"),
    )
    table(columns, rows)
    notes = [f"{m.name}: {m.model.note}." for m in members if m.model.note]
    steps = [
        f"{m.name}: the next step up is {s.factor}, at {si(s.cost.flops)} FLOPs and {si(s.cost.params)} params."
        for m in members
        if (s := m.model.step) and not m.model.note
    ]
    if notes or steps:
        click.echo("\n" + "\n".join([*notes, *steps]))


def spec(plain: Mapping[str, Any], indent: str = "  ") -> None:
    """A spec as a person reads a paper's table: one field a line, rows of a table one under the other."""
    for key, value in plain.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"{indent}{key}")
            for row in value:
                click.echo(f"{indent}  " + "  ".join(f"{k} {v}" for k, v in row.items()))
        else:
            click.echo(f"{indent}{key:<18} {value}")


def _say(text: str, to_stderr: bool) -> None:
    click.echo(text, err=to_stderr)
