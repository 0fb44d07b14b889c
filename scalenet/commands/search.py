"""`scalenet search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalenet import show
from scalenet.allocator import keep_freed_memory
from scalenet.commands.options import PathType, data_options, device_option, json_option, print_json, say
from scalenet.console import bar, duration, table

if TYPE_CHECKING:
    from scalenet.experiment import Plan
    from scalenet.runs import RunDirectory


@click.command()
@click.option("--plugin", "-p", metavar="NAME", help="An architecture's name; `scalenet plugins` lists them.")
@click.option("--variant", metavar="NAME", help="The baseline to grow; default: micro, for trying.")
@data_options
@click.option("--resolution", type=click.IntRange(min=16), metavar="PX", help="The baseline's input side.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of every trial.")
@click.option("--target", type=float, metavar="X", help="FLOPs of a candidate over the baseline's.  [default: 2]")
@click.option("--sampler", type=click.Choice(["grid", "tpe", "gp", "random"]), help="How the simplex is searched.")
@click.option("--lattice", type=click.IntRange(min=1), metavar="M", help="The grid's steps; 5 gives 21 points.")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Points drawn by tpe, gp or random.")
@click.option("--law", type=click.Choice(["measured", "paper"]), help="Meet measured FLOPs, or the literal powers.")
@click.option("--scheduler", type=click.Choice(["none", "asha"]), help="asha stops the worse trials early.")
@click.option("--seed", type=click.IntRange(min=0), help="Settles everything a seed can.")
@click.option("--space", "file", type=PathType, metavar="FILE", help="YAML with what differs from the default.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One key of the space: recipe.lr=0.01.")
@click.option("--workers", type=click.IntRange(min=0), metavar="N",
              help="Trials at a time, by Ray; 0: one by one in this process. Default: one per CPU.")  # fmt: skip
@click.option("--address", metavar="HOST:PORT", help="A running Ray cluster; default: this machine.")
@click.option("--storage", metavar="URL", help="Optuna's storage (SQLAlchemy URL); default: study.db in the run.")
@device_option
@click.option("--runs", type=PathType, default=Path("runs"), show_default=True, help="Where run directories go.")
@click.option("--resume", type=PathType, metavar="RUN", help="Finish a search that was broken off.")
@click.option("--plan", "plan_only", is_flag=True, help="Print candidates, costs and the time; train nothing.")
@json_option
def search(
    plugin: str | None, variant: str | None, data: str | None, root: str | None, subset: int | None,
    resolution: int | None, epochs: int | None, target: float | None, sampler: str | None, lattice: int | None,
    trials: int | None, law: str | None, scheduler: str | None, seed: int | None, file: Path | None,
    settings: tuple[str, ...], workers: int | None, address: str | None, storage: str | None, device: str,
    runs: Path, resume: Path | None, plan_only: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find the direction (alpha, beta, gamma) in which more compute pays best.

    With nothing but --plugin it searches the architecture's micro variant on pictures it brings along: a
    demonstration in minutes. For an answer about yours name --data, --variant and --epochs.
    """
    from scalenet import experiment
    from scalenet.runs import RunDirectory
    from scalenet.space import resolve

    flags = {
        "variant": variant, "data.source": data, "data.root": root, "data.subset": subset, "resolution": resolution,
        "recipe.epochs": epochs, "target": target, "sampler": sampler, "lattice": lattice, "trials": trials,
        "law": law, "scheduler": scheduler, "seed": seed,
    }  # fmt: skip
    if resume is not None:
        given = [name for name, value in {"plugin": plugin, "space": file, **flags}.items() if value is not None]
        if given or settings:
            raise click.UsageError(f"--resume takes the search as it was; leave out {', '.join([*given, *settings])}.")
        run: RunDirectory | None = RunDirectory.open(resume)
        assert run is not None
        with bar("measuring candidates") as report:
            planned = experiment.reopen(run, report)
    elif plugin is None:
        raise click.UsageError("Give --plugin NAME (`scalenet plugins` lists them), or --resume RUN.")
    else:
        run = None
        space = resolve(plugin, file, settings, flags)
        with bar("measuring candidates") as report:
            planned = experiment.plan(plugin, space, report)
    _search(planned, run, runs, workers, address, storage, device, plan_only, as_json)


def _search(
    planned: Plan, run: RunDirectory | None, runs: Path, workers: int | None, address: str | None,
    storage: str | None, device: str, plan_only: bool, as_json: bool,
) -> None:  # fmt: skip
    from scalenet import experiment
    from scalenet.device import pick_device
    from scalenet.live import Live
    from scalenet.ranking import ranked, read
    from scalenet.report import COLUMNS, as_plain, cells
    from scalenet.search import SearchInterrupted
    from scalenet.settle import settled
    from scalenet.timing import baseline_seconds, estimate

    if run is not None and device == "auto":  # what a device computes is part of the result
        device = run.env().device or device
    found = None
    if address is None:  # a cluster's workers each pick their own, and this machine's timings are not theirs
        device = str(pick_device(device))
    if address is None and run is None:  # a run that was begun stays as it was settled then
        with bar("timing this machine") as report:
            planned, found = settled(planned, device, report)
    if workers is None:
        workers = found.arrangement.workers if found else _usual_workers(planned, run, device)
    seconds = estimate(planned, workers, found.seconds_per_image if found else baseline_seconds(planned, device))
    if plan_only and as_json:
        print_json(experiment.describe(planned, seconds))
        return
    show.plan(planned, seconds, workers, to_stderr=as_json)
    if plan_only:
        click.echo()
        show.candidates(planned)
        return
    if workers == 0:
        keep_freed_memory()
    run = run or experiment.start(planned, runs, device)
    say(f"run       {run.path}", as_json)
    try:
        with bar("decoding pictures") as report:
            data = experiment.decode(planned, report, lambda text: say(f"          {text}", as_json))
        with Live(planned.space.recipe.epochs) as live:
            outcome = experiment.execute(
                planned, data, run, workers=workers, address=address, storage=storage, device=device, observer=live
            )
    except KeyboardInterrupt:
        raise SearchInterrupted(run.path, storage) from None
    findings = read(run)
    if as_json:
        print_json({"run": str(run.path), **as_plain(findings)})
        return
    click.echo()
    table(COLUMNS, [cells(row) for row in ranked(findings)], text_columns=3)
    timing = outcome.result.timing
    click.echo(f"\n{outcome.verdict.sentence if outcome.verdict else 'No verdict: no candidate could be confirmed.'}")
    click.echo(
        f"\ntook      {duration(timing.wall)}, {100 * timing.overhead:.0f} % of it not training "
        f"({timing.workers} trial{'s' if timing.workers > 1 else ''} at a time)"
    )
    if outcome.coefficients is not None:
        click.echo(f"answer    {run.path / 'coefficients.json'}")
    click.echo(f"report    {outcome.report}")
    if outcome.coefficients is not None:
        click.echo(f"next      scalenet scale {run.path} --phi 1..3")


def _usual_workers(planned: Plan, run: RunDirectory | None, device: str) -> int:
    """Trials at a time where no stopwatch has said: those before in a run that goes on, one per GPU, all CPUs."""
    from torch.cuda import device_count

    from scalenet.search import default_workers

    if run is not None and (sessions := run.sessions()):
        return sessions[-1].workers
    return max(1, device_count()) if device.startswith("cuda") else default_workers(planned.space.threads or 1)
