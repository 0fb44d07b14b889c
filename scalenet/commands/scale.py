"""`scalenet scale`."""

from __future__ import annotations

from pathlib import Path

import click

from scalenet import show
from scalenet.commands.options import PathType, json_option, print_json
from scalenet.console import Count, Phis, bar
from scalenet.errors import ScalenetError


@click.command()
@click.argument("run", type=PathType, required=False)
@click.option("--plugin", "-p", metavar="NAME", help="Instead of RUN: an architecture, with --alpha, --beta, --gamma.")
@click.option("--variant", metavar="NAME", help="With --plugin; default: the published baseline.")
@click.option("--resolution", type=click.IntRange(min=16), metavar="PX", help="With --plugin: another input side.")
@click.option("--classes", type=click.IntRange(min=1), help="With --plugin; default: the variant's own class count.")
@click.option("--alpha", type=float, help="Depth multiplier of one unit of phi; default 1.")
@click.option("--beta", type=float, help="Width multiplier; default 1.")
@click.option("--gamma", type=float, help="Resolution multiplier; default 1.")
@click.option(
    "--phi",
    "phis",
    type=Phis(),
    multiple=True,
    help="2^phi x the baseline's FLOPs (or what the search called cost): 2, -1, 0,1,3 or 0..7.",
)
@click.option("--flops", type=Count(), multiple=True, help="A budget of multiply-adds, met from below: 2G.")
@click.option("--params", type=Count(), multiple=True, help="A budget of parameters, met from below: 10M.")
@click.option("--law", type=click.Choice(["measured", "paper"]), help="paper: literal powers, the paper's rounding.")
@click.option("--out", type=PathType, metavar="DIR", help="Where model_*.yaml go; default: the run directory.")
@json_option
def scale(
    run: Path | None, plugin: str | None, variant: str | None, resolution: int | None, classes: int | None,
    alpha: float | None, beta: float | None, gamma: float | None, phis: tuple[tuple[float, ...], ...],
    flops: tuple[int, ...], params: tuple[int, ...], law: str | None, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Build bigger (or smaller) models along a direction, by phi or to a budget.

    The direction is a finished search's (RUN), or that of --plugin with --alpha, --beta and --gamma.
    """
    from scalenet import family
    from scalenet.architecture import Scale
    from scalenet.lastmap import map_warning
    from scalenet.runs import RunDirectory
    from scalenet.shares import Law

    own = {"--variant": variant, "--resolution": resolution, "--classes": classes, "--alpha": alpha, "--beta": beta,
           "--gamma": gamma}  # fmt: skip
    if (run is None) == (plugin is None):
        raise click.UsageError(
            "Give a run directory, or --plugin NAME with --alpha, --beta and --gamma; one of the two."
        )
    if run is not None:
        if given := [name for name, value in own.items() if value is not None]:
            raise click.UsageError(f"{', '.join(given)} go with --plugin; the run has its own.")
        opened = RunDirectory.open(run)
        answer = opened.coefficients()
        if answer is None:
            raise ScalenetError(f"{run}: has no coefficients.json yet; `scalenet search --resume {run}` finishes it.")
        direction = family.from_answer(answer, run, Law(law) if law else None, opened.metric(answer.cost_metric))
    else:
        assert plugin is not None
        by = Scale(*(1.0 if value is None else value for value in (alpha, beta, gamma)))
        direction = family.from_multipliers(
            plugin, by, variant=variant, resolution=resolution, num_classes=classes, law=Law(law or "measured")
        )
    with bar("measuring") as report:
        report(0, 1, "measuring")
        wanted = tuple(phi for group in phis for phi in group)
        members = family.family(direction, phis=wanted, flops=flops, params=params)
    folder = out or run
    paths = family.write(members, direction, folder) if folder else []
    if as_json:
        rows = [family.describe(member, direction) for member in members]
        print_json([row | {"file": str(p)} for row, p in zip(rows, paths, strict=True)] if paths else rows)
        return
    if direction.demonstration:
        click.echo("Note: these coefficients come from the embedded pictures; they are for trying the tool.", err=True)
    show.scaled(direction, members)
    meter = direction.meter
    for member in members:
        if small := map_warning(meter.arch, member.model.spec, num_classes=meter.num_classes):
            click.echo(f"Warning: {small}", err=True)
    click.echo()
    for path in paths:
        click.echo(f"model     {path}")
    if not paths:
        click.echo("No file was written; --out DIR writes model_*.yaml there.")
