"""What the commands print: a plan, its candidates, a family of models, a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from scalenet.console import duration, si, table
from scalenet.cost import label

if TYPE_CHECKING:
    from scalenet.experiment import Plan
    from scalenet.family import Direction, Member
    from scalenet.power import Power


def plan(planned: Plan, seconds: float, workers: int, foreseen: Power, to_stderr: bool) -> None:
    """What is searched, on which data, at which side, for what price and with what power; how to do the real thing."""
    space, base = planned.space, planned.baseline
    sides = f"{base.size.resolution} px" + (
        f" (candidates up to {planned.largest_side} px)" if planned.largest_side > base.size.resolution else ""
    )
    counts = planned.data.counts
    lines = (
        f"search    {planned.plugin} {space.variant}: {si(base.cost.flops)} FLOPs, {si(base.cost.params)} params, "
        f"at {sides}",
        f"data      {planned.data.name}: {planned.data.pictures:,} pictures of {planned.data.native_size} px, "
        f"{len(planned.data.classes)} classes ({counts['fit']:,} to fit, {counts['select']:,} to select, "
        f"{counts['held']:,} held out)",
        f"design    {_design(planned)}",
        f"price     {planned.trials} trainings of {space.recipe.epochs} epochs, about {duration(seconds)} with "
        f"{workers or 1} at a time",
        f"compute   {space.recipe.precision}, {space.recipe.memory_format.replace('_', ' ')}, "
        f"{space.threads or 1} CPU thread{'s' if (space.threads or 1) > 1 else ''} a trial"
        + (", steps replayed as CUDA graphs" if space.recipe.execution == "cuda_graphs" else ""),
    )
    for line in [*lines, f"power     {_resolves(foreseen)}"]:
        _say(line, to_stderr)
    if planned.calibration is not None:
        price = planned.calibration.text(planned.meter.price(planned.meter.baseline))
        _say(f"latency   baseline {price}: {planned.calibration.summary}", to_stderr)
    if planned.data.demonstration:
        _say(
            "note      a demonstration on embedded pictures. For an answer about yours: "
            f"scalenet search --plugin {planned.plugin} --data DIR --variant {planned.meter.arch.baseline} --epochs 30",
            to_stderr,
        )
    for warning in planned.warnings:
        click.echo(f"Warning: {warning}", err=True)


def power(foreseen: Power, to_stderr: bool) -> None:
    """The power table: what is told apart how often, and the assumption under which."""
    lines, often = [], f"{100 * foreseen.power:.0f} %"
    if (found := foreseen.comparison) is not None:
        shown = [*found.chances, (found.resolved, foreseen.power)]
        chances = "".join(f"{100 * chance:6.0f} %" for _, chance in shown)
        behind = f"who comes out less than {100 * found.margin:.1f} points behind is called tied."
        what = f"That is for {found.candidates} candidates confirmed with {_seeds(found.seeds)}"
        lines += [
            "behind the best by " + "".join(f"{100 * difference:8.1f}" for difference, _ in shown) + "  points",
            f"told apart in      {chances}  of searches, at least",
            *(
                [f"{what}: {behind}"]
                if found.fewest == found.seeds
                else [f"{what}, the best against one with {_seeds(found.fewest)} only:", behind]
            ),
        ]
    if (surface := foreseen.surface) is not None:
        if surface.resolved < 1:  # top1 ranges over no more
            least = f"{100 * surface.resolved:.1f} points"
            told = f"is told from a flat one in {often} of searches if it ranges over {least}"
        else:
            told = "will hardly be told from a flat one, whatever its shape"
        lines.append(f"A surface over {surface.points} candidates ({surface.runs} runs) {told}.")
    if found is not None:
        noise = found.noise
        lines += [
            f"Assumed: one run varies by {100 * noise.sd:.1f} points (sd), {100 * noise.judging:.1f} by judging "
            f"{noise.pictures:,} pictures at {100 * noise.accuracy:.0f} % right and",
            f"{100 * noise.training:.1f} by training. Candidates judged on the same pictures share part of the former: "
            "differences may vary less.",
        ]
    for line in lines:
        _say(line, to_stderr)


def _design(planned: Plan) -> str:
    space = planned.space
    cost = f"about {space.target:.3g} x the {label(space.cost)}"
    if space.sampler == "named":
        return f"{planned.confirmed} named candidates of {cost}, {_seeds(space.confirm.seeds)} each"
    if space.sampler == "guided":
        first, *further = planned.confirmed_with
        if all(number == first for number in further):  # too few for a surface to choose among
            who = f"{first} candidate{'' if first == 1 else 's'}"
            return f"{who} of {cost}, {_seeds(len(planned.confirmed_with))} each, held out"
        return (
            f"{first} candidates of {cost} with one seed each, held out; with every further seed the "
            f"better half by a surface ({', '.join(map(str, further))})"
        )
    return (
        f"{len(planned.contestants) + planned.drawn} candidates of {cost}, {_seeds(space.seeds)} each; "
        f"up to {planned.confirmed} of them again with {_seeds(space.confirm.seeds)}, held out"
    )


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
    ratio = "x baseline" if planned.space.cost == "flops" else f"x {label(planned.space.cost)}"
    table(
        ("candidate", "shares d / w / r", "alpha", "beta", "gamma", "depth", "width", "px", "FLOPs", "params",
         ratio, ""), rows, text_columns=2,
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
    if base.metric.name != "flops":
        price = base.metric.text(base.price(base.baseline))
        click.echo(f"phi and x baseline are of {label(base.metric.name)}, as in the search; the baseline's is {price}")
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


def _resolves(found: Power) -> str:
    if found.comparison is None:
        return "resolves nothing: no run is repeated, so the noise stays unknown (confirm.seeds, replicates)"
    return (
        f"resolves differences of about {100 * found.comparison.resolved:.1f} points between two confirmed candidates, "
        f"{100 * found.power:.0f} % of the time"
    )


def _seeds(number: int) -> str:
    return f"{number} seed{'s' if number > 1 else ''}"


def _say(text: str, to_stderr: bool) -> None:
    click.echo(text, err=to_stderr)
