"""What several commands share: their flags, and how they print."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scalenet.console import Count

if TYPE_CHECKING:
    from scalenet.architecture import Architecture

F = TypeVar("F", bound=Callable[..., Any])
PathType = click.Path(path_type=Path)


def data_options(command: F) -> F:
    """The flags of every command that reads pictures."""
    for option in (
        click.option("--clean", is_flag=True, default=None, help="Leave out what `scalenet data clean` would move "
                     "aside; moves nothing."),
        click.option("--subset", type=Count(), help="Use only this many pictures, every class in proportion."),
        click.option("--root", metavar="DIR", help="Where a named data set's files are, or go."),
        click.option("--data", metavar="DIR|NAME", help="A folder of class folders (or train/ and val/ or test/), "
                     "a list of pictures (.json) as `scalenet data split` writes it, or a data set's name: shapes, "
                     "mnist, cifar10, cifar100, food101, stanford_dogs, cats_vs_dogs, tf_flowers, flowers102."),
    ):  # fmt: skip
        command = option(command)
    return command


def driver_options(command: F) -> F:
    """The flags of the commands that train many networks."""
    for option in (
        click.option("--fresh", is_flag=True, help="Train anew what earlier searches have trained, instead of reusing "
                     "it."),
        click.option("--storage", metavar="URL", help="Optuna's storage (SQLAlchemy URL); default: study.db in the "
                     "run."),
        click.option("--address", metavar="HOST:PORT", help="A running Ray cluster; default: this machine."),
        click.option("--workers", type=click.IntRange(min=0), metavar="N", help="Trials at a time, by Ray; 0: one by "
                     "one in this process. Default: one per CPU."),
    ):  # fmt: skip
        command = option(command)
    return command


plugin_option = click.option("--plugin", "-p", metavar="NAME", required=True, help="An architecture's name.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
device_option = click.option("--device", metavar="cpu|cuda|mps", default="auto", help="Default: the fastest there is.")


def print_json(value: Any) -> None:
    """Indented, with letters as they are."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str, to_stderr: bool) -> None:
    """A line for people: beside the data where that is JSON."""
    click.echo(text, err=to_stderr)


def pick_variant(plugin: str, variant: str | None) -> tuple[Architecture[Any], str, Any]:
    """The architecture, the variant's name (default: the baseline's) and the variant."""
    from scalenet.plugins import architecture

    arch = architecture(plugin)
    name = variant or arch.baseline
    return arch, name, arch.variant(name)
