"""`scalenet info`."""

from __future__ import annotations

from typing import Any

import click

from scalenet import show
from scalenet.commands.options import json_option, pick_variant, plugin_option, print_json
from scalenet.console import table


@click.command()
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

    arch, name, chosen = pick_variant(plugin, variant)
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
        print_json(facts)
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
