"""The command line: parse, call, print. No logic, and no torch until a command needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scalenet import show
from scalenet.console import Count, Phis, bar, duration, show_warnings_plainly, table
from scalenet.errors import ScalenetError, unknown

if TYPE_CHECKING:
    from scalenet.architecture import Architecture
    from scalenet.experiment import Plan
    from scalenet.runs import RunDirectory

F = TypeVar("F", bound=Callable[..., Any])
PathType = click.Path(path_type=Path)


class Commands(click.Group):
    """A group whose unknown commands get a did-you-mean."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that `args` begin with."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise unknown("command", args[0], self.list_commands(ctx), listed_as="Commands")
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="scalenet")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Where should the next unit of compute go: layers, channels or pixels?

    \b
    scalenet search --plugin mobilevit --data ./pets     finds the direction that pays on your pictures
    scalenet scale runs/mobilevit/<stamp> --flops 2G     builds the model for a budget along it
    scalenet train runs/mobilevit/<stamp>/model_2G.yaml --data ./pets
    """


def main() -> None:
    """The console script: one sentence and exit code 2 for bad input, 130 for Ctrl-C."""
    show_warnings_plainly()
    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]  # anywhere on the line, as one adds it afterwards
    try:
        sys.exit(cli.main(arguments, prog_name="scalenet", standalone_mode=False))
    except ScalenetError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except click.exceptions.Exit as finished:
        sys.exit(finished.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns the one into the other; a search's own says how to go on
        told = str(error.__cause__ or error) or "interrupted"
        click.echo(f"{told[0].upper()}{told[1:]}.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `scalenet ... | head`: whoever read has gone, and the flush at exit would complain again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def data_options(command: F) -> F:
    """The flags of every command that reads pictures."""
    for option in (
        click.option("--subset", type=Count(), help="Use only this many pictures, every class in proportion."),
        click.option("--root", metavar="DIR", help="Where a named data set's files are, or go."),
        click.option("--data", metavar="DIR|NAME", help="A folder of class folders (or train/ and val/ or test/), "
                     "or a data set's name: shapes, cifar10, cifar100, mnist, food101."),
    ):  # fmt: skip
        command = option(command)
    return command


plugin_option = click.option("--plugin", "-p", metavar="NAME", required=True, help="An architecture's name.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
device_option = click.option("--device", metavar="cpu|cuda|mps", default="auto", help="Default: the fastest there is.")


@cli.command()
@json_option
def plugins(as_json: bool) -> None:
    """List the installed architectures: variants, package and version, paper."""
    from scalenet.plugins import registry

    found = registry()
    rows = [
        {
            "name": name,
            "variants": list(arch.variants),
            "baseline": arch.baseline,
            "package": found.origins[name].package,
            "version": found.origins[name].version,
            "module": found.origins[name].module,
            "paper": arch.paper,
        }
        for name, arch in found.architectures.items()
    ]
    if as_json:
        _print_json(rows)
        return
    shown = [
        (str(r["name"]), " ".join(map(str, r["variants"])), f"{r['package']} {r['version']}", str(r["paper"]))
        for r in rows
    ]
    table(("name", "variants", "package", "paper"), shown, text_columns=4)


@cli.command()
@plugin_option
@click.option("--variant", metavar="NAME", help="Default: the published baseline.")
@click.option("--resolution", type=click.IntRange(min=16), metavar="PX", help="Another input side.")
@click.option("--classes", type=click.IntRange(min=1), help="Default: the variant's published class count.")
@click.option("--depth", "level", type=click.IntRange(min=1), default=2, show_default=True,
              help="How many levels of modules the table opens.")  # fmt: skip
@click.option("--fvcore", is_flag=True, help="Add fvcore's independent count, on real weights.")
@json_option
def info(
    plugin: str,
    variant: str | None,
    resolution: int | None,
    classes: int | None,
    level: int,
    fvcore: bool,
    as_json: bool,
) -> None:
    """Print an architecture's spec and what it costs, in all and by module."""
    from scalenet.complexity import measure
    from scalenet.complexity import table as by_module
    from scalenet.experiment import at_side
    from scalenet.plain import to_plain

    arch, name, chosen = _variant(plugin, variant)
    spec = at_side(arch, chosen.spec, resolution)
    classes = classes or chosen.num_classes
    cost = measure(arch, spec, num_classes=classes)
    rows = by_module(arch, spec, num_classes=classes, level=level)
    facts: dict[str, Any] = {
        "architecture": plugin,
        "variant": name,
        "resolution": spec.resolution,
        "num_classes": classes,
        "params": cost.params,
        "flops": cost.flops,
        "activations": cost.activations,
        "source": chosen.source,
        "spec": to_plain(spec),
        "modules": to_plain(rows),
    }
    if fvcore:
        from scalenet.crosscheck import fvcore_check

        check = fvcore_check(arch, spec, num_classes=classes)
        facts["fvcore"] = to_plain(check)
    if as_json:
        _print_json(facts)
        return
    click.echo(f"{plugin} {name}: {spec.resolution} px, {classes} classes ({chosen.source})")
    click.echo(f"params      {cost.params:>16,}\nFLOPs       {cost.flops:>16,}  (multiply-adds, one image)")
    click.echo(f"activations {cost.activations:>16,}\n\nspec")
    show.spec(facts["spec"])
    click.echo()
    shown = [(r.name or "(itself)", r.type, f"{r.params:,}", f"{r.flops:,}", f"{r.activations:,}",
              "x".join(map(str, r.output or ()))) for r in rows]  # fmt: skip
    total = ("total", "", f"{cost.params:,}", f"{cost.flops:,}", f"{cost.activations:,}", "")
    table(("module", "type", "params", "FLOPs", "activations", "output"), [*shown, total], text_columns=2)
    if fvcore:
        click.echo(f"\n{check.text()}")


@cli.command()
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
    from scalenet.search import SearchInterrupted, default_workers
    from scalenet.timing import estimate

    if run is not None and device == "auto":  # what a device computes is part of the result
        device = run.env().device or device
    if address is None:  # a cluster's workers each pick their own
        device = str(pick_device(device))
    if workers is None:
        workers = default_workers(planned.space.threads)
    seconds = estimate(planned, workers, device)
    if plan_only and as_json:
        _print_json(experiment.describe(planned, seconds))
        return
    show.plan(planned, seconds, workers, to_stderr=as_json)
    if plan_only:
        click.echo()
        show.candidates(planned)
        return
    run = run or experiment.start(planned, runs, device)
    _say(f"run       {run.path}", as_json)
    try:
        with bar("decoding pictures") as report:
            data = experiment.decode(planned, report, lambda text: _say(f"          {text}", as_json))
        with Live(planned.space.recipe.epochs) as live:
            outcome = experiment.execute(
                planned, data, run, workers=workers, address=address, storage=storage, device=device, observer=live
            )
    except KeyboardInterrupt:
        raise SearchInterrupted(run.path, storage) from None
    findings = read(run)
    if as_json:
        _print_json({"run": str(run.path), **as_plain(findings)})
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


def _say(text: str, to_stderr: bool) -> None:
    click.echo(text, err=to_stderr)


@cli.command()
@click.argument("run", type=PathType)
@json_option
def report(run: Path, as_json: bool) -> None:
    """Print a run's ranked table and write its report.html."""
    from scalenet.ranking import ranked, read
    from scalenet.report import COLUMNS, NO_VERDICT, as_plain, cells, html, unfinished
    from scalenet.runs import RunDirectory

    opened = RunDirectory.open(run)
    findings = read(opened)
    if as_json:
        _print_json(as_plain(findings))
        return
    table(COLUMNS, [cells(row) for row in ranked(findings)], text_columns=3)
    click.echo(f"\n{findings.verdict.sentence if findings.verdict else NO_VERDICT}")
    for note in (unfinished(findings), *(findings.verdict.notes if findings.verdict else ())):
        if note:
            click.echo(note)
    click.echo(f"\nreport    {html(opened)}")


@cli.command()
@click.argument("run", type=PathType, required=False)
@click.option("--plugin", "-p", metavar="NAME", help="Instead of RUN: an architecture, with --alpha, --beta, --gamma.")
@click.option("--variant", metavar="NAME", help="With --plugin; default: the published baseline.")
@click.option("--resolution", type=click.IntRange(min=16), metavar="PX", help="With --plugin: another input side.")
@click.option("--classes", type=click.IntRange(min=1), help="With --plugin; default: the variant's own class count.")
@click.option("--alpha", type=float, help="Depth multiplier of one unit of phi; default 1.")
@click.option("--beta", type=float, help="Width multiplier; default 1.")
@click.option("--gamma", type=float, help="Resolution multiplier; default 1.")
@click.option("--phi", "phis", type=Phis(), multiple=True, help="FLOPs of 2^phi x the baseline: 2, -1, 0,1,3 or 0..7.")
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
        direction = family.from_answer(answer, run, Law(law) if law else None)
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
        _print_json([row | {"file": str(p)} for row, p in zip(rows, paths, strict=True)] if paths else rows)
        return
    if direction.demonstration:
        click.echo("Note: these coefficients come from the embedded pictures; they are for trying the tool.", err=True)
    show.scaled(direction, members)
    click.echo()
    for path in paths:
        click.echo(f"model     {path}")
    if not paths:
        click.echo("No file was written; --out DIR writes model_*.yaml there.")


@cli.command()
@click.argument("model", type=PathType)
@data_options
@click.option("--epochs", type=click.IntRange(min=1), help="Default: the recipe's.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One key of the recipe: lr=0.01.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all.")
@device_option
@click.option("--init-from", type=PathType, metavar="FILE", help="Start from these weights (.safetensors).")
@click.option("--out", type=PathType, metavar="DIR", help="Default: a folder named as the model file, beside it.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out.")
@json_option
def train(
    model: Path, data: str | None, root: str | None, subset: int | None, epochs: int | None,
    settings: tuple[str, ...], seed: int, threads: int | None, device: str, init_from: Path | None,
    out: Path | None, resume: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a model file on pictures; leaves weights.safetensors and metrics.jsonl.

    MODEL is a model_*.yaml from `scalenet scale`. Pictures and recipe default to those of the search beside it.
    """
    from scalenet.modelfile import read_model_file
    from scalenet.run_training import train_model
    from scalenet.space import for_training

    told = read_model_file(model)
    request, recipe = for_training(
        model.parent, told.plugin, settings,
        {"data.source": data, "data.root": root, "data.subset": subset, "recipe.epochs": epochs},
    )  # fmt: skip
    out = out or model.with_suffix("")
    with bar("decoding pictures") as report:
        epochs_done = train_model(
            told, request, recipe, out=out, seed=seed, device=device, threads=threads, resume=resume,
            init_from=init_from, progress=report, announce=lambda text: _say(text, as_json),
        )  # fmt: skip
        for metrics in epochs_done:
            if as_json:
                click.echo(json.dumps(metrics))
            else:
                click.echo(
                    f"epoch {metrics['epoch']:>3} of {recipe.epochs}  loss {metrics['loss']:.4f}  "
                    f"top1 {100 * metrics['top1']:.2f} %  {metrics['images_per_second']:.0f} images/s"
                )
            report(int(metrics["epoch"]), recipe.epochs, "epochs")
    _say(f"weights   {out / 'weights.safetensors'}\nmetrics   {out / 'metrics.jsonl'}", as_json)


def _variant(plugin: str, variant: str | None) -> tuple[Architecture[Any], str, Any]:
    from scalenet.plugins import architecture

    arch = architecture(plugin)
    name = variant or arch.baseline
    return arch, name, arch.variant(name)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
