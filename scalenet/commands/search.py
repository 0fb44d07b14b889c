"""`scalenet search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalenet import show
from scalenet.allocator import keep_freed_memory
from scalenet.blas import one_thread
from scalenet.commands.options import (
    PathType,
    data_options,
    device_option,
    driver_options,
    json_option,
    print_json,
    say,
)
from scalenet.console import bar, duration, table

if TYPE_CHECKING:
    from scalenet.budget import Budget
    from scalenet.experiment import Outcome, Plan
    from scalenet.runs import RunDirectory


@dataclass(frozen=True)
class Means:
    """With what a search is carried out."""

    workers: int | None  # trials at a time; None: as is best here
    device: str
    address: str | None
    storage: str | None
    fresh: bool = False  # train anew what earlier searches have trained


@click.command()
@click.option("--plugin", "-p", metavar="NAME", help="An architecture's name; `scalenet plugins` lists them.")
@click.option("--variant", metavar="NAME", help="The baseline to grow; default: micro, for trying.")
@data_options
@click.option("--resolution", type=click.IntRange(min=16), metavar="PX", help="The baseline's input side.")
@click.option("--epochs", type=click.IntRange(min=1), help="Of every trial.")
@click.option("--budget", metavar="4m|2h|200epochs",
              help="Time, or epochs over all trials; sets lattice, seeds, epochs and subset unless given.")  # fmt: skip
@click.option("--target", type=float, metavar="X", help="A candidate's cost over the baseline's.  [default: 2]")
@click.option("--cost", type=click.Choice(["flops", "activations", "latency"]),
              help="What that is of; latency is predicted for this device.  [default: flops]")  # fmt: skip
@click.option(
    "--sampler", type=click.Choice(["grid", "guided", "tpe", "gp", "random", "named"]),
    help="How the simplex is searched; guided spends least.",
)  # fmt: skip
@click.option("--lattice", type=click.IntRange(min=1), metavar="M", help="The grid's steps; 5 gives 21 points.")
@click.option("--trials", type=click.IntRange(min=1), metavar="N", help="Points drawn by tpe, gp or random.")
@click.option("--law", type=click.Choice(["measured", "paper"]), help="Meet the measured cost, or the literal powers.")
@click.option("--scheduler", type=click.Choice(["none", "asha"]), help="asha stops the worse trials early.")
@click.option("--seeds", type=click.IntRange(min=1), metavar="N", help="With which every candidate is searched.")
@click.option("--racing", is_flag=True, default=None, help="Give no further seeds to who falls behind the best.")
@click.option("--adaptive", type=click.IntRange(min=0), metavar="N", help="Points added near the surface's optimum.")
@click.option("--seed", type=click.IntRange(min=0), help="Settles everything a seed can.")
@click.option("--space", "file", type=PathType, metavar="FILE", help="YAML with what differs from the default.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One key of the space: recipe.lr=0.01.")
@driver_options
@device_option
@click.option("--runs", type=PathType, default=Path("runs"), show_default=True, help="Where run directories go.")
@click.option("--resume", type=PathType, metavar="RUN", help="Finish a search that was broken off.")
@click.option("--plan", "plan_only", is_flag=True, help="Print candidates, costs, time and power; train nothing.")
@json_option
def search(
    plugin: str | None, variant: str | None, data: str | None, root: str | None, subset: int | None,
    clean: bool | None, resolution: int | None, epochs: int | None, budget: str | None, target: float | None,
    cost: str | None, sampler: str | None, lattice: int | None, trials: int | None, law: str | None,
    scheduler: str | None, seeds: int | None, racing: bool | None, adaptive: int | None, seed: int | None,
    file: Path | None, settings: tuple[str, ...], workers: int | None, address: str | None, storage: str | None,
    fresh: bool, device: str, runs: Path, resume: Path | None, plan_only: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find the direction (alpha, beta, gamma) in which more compute pays best.

    With nothing but --plugin it searches the architecture's micro variant on pictures it brings along: a
    demonstration in minutes. For an answer about yours name --data, --variant and --epochs.
    """
    one_thread()
    from scalenet import experiment
    from scalenet.budget import fitted, parse, price, richest
    from scalenet.runs import RunDirectory
    from scalenet.space import given_keys, resolve

    flags = {
        "variant": variant, "data.source": data, "data.root": root, "data.subset": subset, "data.clean": clean,
        "resolution": resolution,
        "recipe.epochs": epochs, "target": target, "cost": cost, "sampler": sampler, "lattice": lattice,
        "trials": trials, "law": law, "scheduler": scheduler, "seeds": seeds, "racing": racing, "adaptive": adaptive,
        "seed": seed,
    }  # fmt: skip
    limit = parse(budget) if budget is not None else None
    if resume is not None:
        told = {"plugin": plugin, "space": file, "budget": budget, **flags}
        given = [name for name, value in told.items() if value is not None]
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
        fixed = given_keys(file, settings, flags)
        space = resolve(plugin, file, settings, flags)
        with bar("measuring candidates") as report:
            planned = experiment.plan(plugin, richest(space, fixed) if limit else space, report, device)
    planned, means, of_one = priced(planned, run, Means(workers, device, address, storage, fresh))
    if limit is not None:
        with bar("fitting the budget") as report:
            planned = fitted(
                planned, limit, fixed, partial(price, unit=limit.unit, workers=means.workers or 0, of_one=of_one),
                partial(experiment.replan, report=report),
            )  # fmt: skip
    if show_plan(planned, means, of_one, plan_only, as_json, limit):
        return
    run = run or experiment.start(planned, runs, means.device)
    outcome = carried_out(planned, run, means, as_json)
    _print(run, outcome, as_json)


def priced(planned: Plan, run: RunDirectory | None, means: Means) -> tuple[Plan, Means, float]:
    """The plan and the means with nothing left open, and a worker's seconds per picture of the baseline's training.

    What `run` settled stays.
    """
    from scalenet.device import pick_device
    from scalenet.settle import settled
    from scalenet.timing import baseline_seconds

    device, workers = means.device, means.workers
    if run is not None and device == "auto":  # what a device computes is part of the result
        device = run.env().device or device
    found = None
    if means.address is None:  # a cluster's workers each pick their own, and this machine's timings are not theirs
        device = str(pick_device(device))
    if means.address is None and run is None:  # a run that was begun stays as it was settled then
        with bar("timing this machine") as report:
            planned, found = settled(planned, device, report, workers)
    if workers is None:
        workers = found.arrangement.workers if found else _usual_workers(planned, run, device)
    of_one = found.seconds_per_image if found else baseline_seconds(planned, device)
    return planned, replace(means, workers=workers, device=device), of_one


def show_plan(
    planned: Plan, means: Means, of_one: float, plan_only: bool, as_json: bool, limit: Budget | None = None
) -> bool:
    """Prints what will be trained, for what price and what it can tell apart; returns whether that was all."""
    from scalenet import experiment
    from scalenet.power import foreseen
    from scalenet.timing import estimate

    seconds, power = estimate(planned, means.workers or 0, of_one), foreseen(planned)
    if plan_only and as_json:
        print_json(experiment.describe(planned, seconds, power, limit))
        return True
    show.plan(planned, seconds, means.workers or 0, power, to_stderr=as_json)
    if plan_only or limit is not None:
        click.echo(err=as_json)
        show.power(power, to_stderr=as_json)
        click.echo(err=as_json)
    if plan_only:
        show.candidates(planned)
    return plan_only


def carried_out(planned: Plan, run: RunDirectory, means: Means, as_json: bool, again: Sequence[str] = ()) -> Outcome:
    """Trains in `run` what is planned, progress on stderr; `again` is what goes on with it after Ctrl-C."""
    from scalenet import experiment
    from scalenet.live import Live
    from scalenet.search import SearchInterrupted

    workers = means.workers or 0
    if workers == 0:
        keep_freed_memory()
    say(f"run       {run.path}", as_json)
    try:
        with bar("decoding pictures") as report:
            data = experiment.decode(planned, report, lambda text: say(f"          {text}", as_json))
        with Live(planned.space.recipe.epochs) as live:
            return experiment.execute(
                planned, data, run, workers=workers, address=means.address, storage=means.storage,
                device=means.device, observer=live, fresh=means.fresh,
            )  # fmt: skip
    except KeyboardInterrupt:
        raise SearchInterrupted(run.path, means.storage, again) from None


def took(outcome: Outcome) -> str:
    """How long it took, how much of that was not training, and what earlier searches had trained."""
    timing, result = outcome.result.timing, outcome.result
    told = (
        f"took      {duration(timing.wall)}, {100 * timing.overhead:.0f} % of it not training "
        f"({timing.workers} trial{'s' if timing.workers > 1 else ''} at a time)"
    )
    if result.reused:
        told += f"\nreused    {result.reused} of {len(result.records)} trainings, which earlier searches had done"
    return told


def _print(run: RunDirectory, outcome: Outcome, as_json: bool) -> None:
    from scalenet.landscape import Landscape
    from scalenet.ranking import ranked, read
    from scalenet.report import COLUMNS, SPARE, as_plain, cells

    findings = read(run)
    if as_json:
        print_json({"run": str(run.path), **as_plain(findings)})
        return
    click.echo()
    table(COLUMNS, [cells(row) for row in ranked(findings)], text_columns=3, spare=SPARE)
    click.echo(f"\n{outcome.verdict.sentence if outcome.verdict else 'No verdict: no candidate could be confirmed.'}")
    if isinstance(findings.landscape, Landscape):
        click.echo(f"\n{findings.landscape.says}")
    click.echo(f"\n{took(outcome)}")
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
