"""`scalenet plugins`."""

from __future__ import annotations

import click

from scalenet.commands.options import json_option, print_json
from scalenet.console import table


@click.command()
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
        print_json(rows)
        return
    shown = [
        (str(r["name"]), " ".join(map(str, r["variants"])), f"{r['package']} {r['version']}", str(r["paper"]))
        for r in rows
    ]
    table(("name", "variants", "package", "paper"), shown, text_columns=4)
