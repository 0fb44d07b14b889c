"""`scalenet check`."""

from __future__ import annotations

import os

import click

from scalenet.commands.options import json_option, print_json
from scalenet.console import bar, table


@click.command()
@click.option("--plugin", "-p", "names", metavar="NAME", multiple=True, help="Default: every installed architecture.")
@click.option("--check", "checks", metavar="NAME", multiple=True, help="Only this check; --list names them.")
@click.option("--all", "slow", is_flag=True, help="Also the slow one: torch.compile.")
@click.option("--workers", type=click.IntRange(min=1), help="Architectures at a time. Default: one per CPU.")
@click.option("--list", "listed", is_flag=True, help="Say what is checked; check nothing.")
@json_option
@click.pass_context
def check(
    ctx: click.Context, names: tuple[str, ...], checks: tuple[str, ...], slow: bool, workers: int | None, listed: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Hold architectures against their contract, plugins of your own included.

    Exit code 1 where one breaks it. The same checks for your own pytest: scalenet.conformance.CHECKS.
    """
    from scalenet import plugins
    from scalenet.conformance.run import check_installed, select
    from scalenet.plain import to_plain

    chosen = select(checks, slow)
    if listed:
        rows = [(each.__name__, (each.__doc__ or "").strip().splitlines()[0]) for each in chosen]
        if as_json:
            print_json([{"check": name, "what": what} for name, what in rows])
        else:
            table(("check", "what holds"), rows, text_columns=2)
        return
    wanted = [plugins.architecture(name).name for name in names] or list(plugins.architectures())
    found = []
    with bar("checking architectures") as report:
        report(0, len(wanted), "checking architectures")
        for results in check_installed(wanted, chosen, workers or os.cpu_count() or 1):
            found.append(results)
            report(len(found), len(wanted), "checking architectures")
    found.sort(key=lambda results: wanted.index(results[0].architecture))
    broken = [result for results in found for result in results if result.violation is not None]
    if as_json:
        print_json([to_plain(result) for results in found for result in results])
    else:
        summary = []
        for results in found:
            held = sum(result.violation is None for result in results)
            took = sum(result.seconds for result in results)
            summary.append((results[0].architecture, f"{held} of {len(results)}", f"{took:.1f}"))
        table(("architecture", "checks held", "seconds"), summary, text_columns=1)
        for result in broken:
            click.echo(f"{result.architecture}: {result.check}: {result.violation}.")
    ctx.exit(1 if broken else 0)
