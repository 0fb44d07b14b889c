"""`scalenet verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalenet.blas import one_thread
from scalenet.commands.options import PathType, device_option, driver_options, json_option, print_json, say
from scalenet.commands.search import Means, carried_out, priced, show_plan, took
from scalenet.console import bar, table

if TYPE_CHECKING:
    from scalenet.verify import Place, Verification


@click.command()
@click.argument("run", type=PathType)
@click.option("--phi", type=click.FloatRange(0, 12, min_open=True), help="Cost of 2^phi x the baseline's. [default: 2]")
@click.option("--epochs", type=click.IntRange(min=1), help="Of every training; default: twice the run's.")
@click.option("--seeds", type=click.IntRange(min=2), help="Fresh ones; default: as many as the run's, at least 3.")
@driver_options
@device_option
@click.option("--resume", is_flag=True, help="Finish the verification of RUN that was broken off.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would be trained and the time; train nothing.")
@json_option
def verify(
    run: Path, phi: float | None, epochs: int | None, seeds: int | None, workers: int | None, address: str | None,
    storage: str | None, fresh: bool, device: str, resume: bool, plan_only: bool, as_json: bool,
) -> None:  # fmt: skip
    """Check whether a search's ranking holds at another phi and a longer schedule.

    RUN's winner, the corners, equal shares, the paper's 1.2/1.1/1.15 and the baseline are trained with fresh seeds in
    RUN/verify/. To tell the two changes apart, make one at a time: --phi 2 with RUN's epochs, or RUN's phi with more.
    """
    one_thread()
    from scalenet import experiment
    from scalenet import verify as verification
    from scalenet.plain import to_plain
    from scalenet.report import html
    from scalenet.runs import RunDirectory

    first = RunDirectory.open(run)
    if resume:
        given = [name for name, value in {"phi": phi, "epochs": epochs, "seeds": seeds}.items() if value is not None]
        if given:
            raise click.UsageError(f"--resume takes the verification as it was; leave out {', '.join(given)}.")
        second: RunDirectory | None = verification.unfinished(first)
        assert second is not None
        with bar("measuring candidates") as report:
            planned = experiment.reopen(second, report)
    else:
        second = None
        with bar("measuring candidates") as report:
            planned = verification.propose(
                first, phi=2.0 if phi is None else phi, epochs=epochs, seeds=seeds, report=report
            )
    planned, means, of_one = priced(planned, second or first, Means(workers, device, address, storage, fresh))
    if not (plan_only and as_json):
        say(f"verify    {run} at {verification.changes(first.space(), planned.space)}", as_json)
    if show_plan(planned, means, of_one, plan_only, as_json):
        return
    second = second or experiment.start(planned, first.path, means.device, folder=verification.FOLDER)
    outcome = carried_out(planned, second, means, as_json, ("verify", str(run), "--resume"))
    found = verification.judge(first, second)
    file = second.write_verification(found)
    html(first)  # says now what was found here
    if as_json:
        print_json({"run": str(second.path), **to_plain(found)})
        return
    click.echo()
    _table(found)
    click.echo("top1 in percent, moved to equal cost along what the baseline shows")
    for text in (found.ranking, found.winner, f"By itself the verification says: {found.verdict}"):
        click.echo(f"\n{text}")
    click.echo(f"\n{took(outcome)}\nanswer    {file}\nreport    {outcome.report}")


def _table(found: Verification) -> None:
    """The directions in both runs: top1 at equal cost, rank among those compared, and where that leaves them."""
    columns = ["direction"]
    for regime in (found.before, found.after):
        columns += [f"{regime.target:.3g} x, {regime.epochs} epoch{'s' if regime.epochs > 1 else ''}", "rank", ""]
    table(columns, [(row.label, *_cells(row.before), *_cells(row.after)) for row in found.directions])


def _cells(place: Place | None) -> tuple[str, str, str]:
    if place is None:
        return "", "", ""
    return f"{100 * place.top1:.1f}", "" if place.rank is None else str(place.rank), place.standing
