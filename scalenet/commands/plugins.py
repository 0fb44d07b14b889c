"""`scalenet plugins` and `scalenet plugins new`."""

from __future__ import annotations

from pathlib import Path

import click

from scalenet.commands.options import PathType, json_option, print_json
from scalenet.console import table


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def plugins(ctx: click.Context, as_json: bool) -> None:
    """List the installed architectures; `plugins new NAME` begins one of your own."""
    if ctx.invoked_subcommand is not None:
        return
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
        print_json(rows)
        return
    shown = [
        (str(r["name"]), " ".join(map(str, r["variants"])), f"{r['package']} {r['version']}", str(r["paper"]))
        for r in rows
    ]
    table(("name", "variants", "package", "paper"), shown, text_columns=4)


@plugins.command()
@click.argument("name")
@click.option("--out", type=PathType, metavar="DIR", help="Default: a new folder scalenet-NAME.")
def new(name: str, out: Path | None) -> None:
    """Write an installable package with an architecture NAME, its test and its README."""
    from scalenet.newplugin import new_plugin

    folder = out or Path(f"scalenet-{name.replace('_', '-')}")
    for file in new_plugin(name, folder):
        click.echo(f"wrote     {file}")
    click.echo(f"next      pip install -e {folder} && scalenet check --plugin {name}")
