"""`scalenet train`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from scalenet.allocator import keep_freed_memory
from scalenet.commands.options import PathType, data_options, device_option, json_option, say
from scalenet.console import bar


@click.command()
@click.argument("model", type=PathType, required=False)
@click.option("--plugin", "-p", metavar="NAME", help="Instead of MODEL: an architecture, as it is published.")
@click.option("--variant", metavar="NAME", help="With --plugin; default: micro, for trying.")
@click.option("--resolution", type=click.IntRange(min=16), metavar="PX", help="With --plugin: another input side.")
@data_options
@click.option("--epochs", type=click.IntRange(min=1), help="Default: the recipe's.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One key of the recipe: lr=0.01.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all.")
@device_option
@click.option("--init-from", type=PathType, metavar="FILE", help="Start from these weights (.safetensors).")
@click.option("--out", type=PathType, metavar="DIR", help="Default: beside MODEL, or runs/NAME/train_VARIANT.")
@click.option("--resume", is_flag=True, help="Go on with the training in --out.")
@json_option
def train(
    model: Path | None, plugin: str | None, variant: str | None, resolution: int | None, data: str | None,
    root: str | None, subset: int | None, clean: bool | None, epochs: int | None, settings: tuple[str, ...], seed: int,
    threads: int | None, device: str, init_from: Path | None, out: Path | None, resume: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train a model on pictures; leaves weights.safetensors and metrics.jsonl.

    MODEL is a model_*.yaml from `scalenet scale`; pictures and recipe default to those of the search beside it. Or name
    an architecture: --plugin vit --variant s16 --data ./pets. What pretrains (simclr) leaves weights from which
    --init-from starts any training of the same encoder, and that encoder as a model file.
    """
    from scalenet.modelfile import read_model_file
    from scalenet.run_training import ENCODER, of_variant, train_model
    from scalenet.space import for_training

    if (model is None) == (plugin is None):
        raise click.UsageError("Give a model file, or --plugin NAME; one of the two.")
    if model is not None:
        if variant is not None or resolution is not None:
            raise click.UsageError("--variant and --resolution go with --plugin; the model file has its own.")
        told = read_model_file(model)
        out = out or model.with_suffix("")
        beside = model.parent
    else:
        assert plugin is not None
        told, name = of_variant(plugin, variant, resolution)
        out = out or Path("runs", plugin, f"train_{name.replace('/', '_')}")
        beside = out
    keep_freed_memory()
    request, recipe = for_training(
        beside, told.plugin, settings,
        {"data.source": data, "data.root": root, "data.subset": subset, "data.clean": clean,
         "recipe.epochs": epochs},
    )  # fmt: skip
    say(f"train     {told.plugin}: {told.source}\ndata      {request.source}, {recipe.epochs} epochs", as_json)
    with bar("decoding pictures") as report:
        epochs_done = train_model(
            told, request, recipe, out=out, seed=seed, device=device, threads=threads, resume=resume,
            init_from=init_from, progress=report, announce=lambda text: say(text, as_json),
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
    say(f"weights   {out / 'weights.safetensors'}\nmetrics   {out / 'metrics.jsonl'}", as_json)
    if (out / ENCODER).exists():
        say(f"encoder   {out / ENCODER} (fine-tune it: scalenet train MODEL --init-from WEIGHTS)", as_json)
