"""`scalenet data list` and `scalenet data fetch`: data sets by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalenet.commands.options import json_option, print_json
from scalenet.console import bar, si, table
from scalenet.errors import ScalenetError

if TYPE_CHECKING:
    from scalenet.data.source import Dataset


@click.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the data sets that --data takes by name, and which of them are here."""
    from scalenet.plugins import datasets

    rows = [_row(dataset) for dataset in datasets().values()]
    if as_json:
        print_json(rows)
        return
    columns = ("name", "terms", "pictures", "classes", "px", "download", "here")
    table(columns, [_shown(row) for row in rows], text_columns=2)


@click.command()
@click.argument("name")
@click.option("--root", metavar="DIR", help="Where its files go; give the same to --root later.  [default: the cache]")
@json_option
def fetch(name: str, root: str | None, as_json: bool) -> None:
    """Download, check and unpack the data set NAME now; a broken download goes on where it ended."""
    from scalenet.plugins import dataset

    wanted = dataset(name)
    folder = Path(os.path.expanduser(root)) if root else wanted.usual_root
    if wanted.fetch is None:
        raise ScalenetError(f"The data set {name!r} has nothing to be fetched beforehand; just use it: --data {name}.")
    with bar(f"fetching {name}") as report:
        wanted.fetch(folder, report)
    if as_json:
        print_json({"name": name, "root": os.fspath(folder)})
        return
    again = f" --root {root}" if root else ""
    click.echo(f"{name} is in {folder}\nnext      --data {name}{again}")


def _row(dataset: Dataset) -> dict[str, Any]:
    """What is known of the set; None for what a third party's set does not tell."""
    told = dataset.published
    return {
        "name": dataset.name,
        "description": dataset.description,
        "pictures": told.pictures if told else None,
        "classes": told.classes if told else None,
        "side": told.side if told else None,
        "download_bytes": told.download if told else None,
        "terms": told.terms if told else None,
        "page": told.page if told else None,
        "here": dataset.stamp(dataset.usual_root) is not None if dataset.stamp else None,
        "root": os.fspath(dataset.usual_root),
    }


def _shown(row: dict[str, Any]) -> tuple[str, ...]:
    size = row["download_bytes"]
    return (
        row["name"],
        row["terms"] or "-",
        "-" if row["pictures"] is None else f"{row['pictures']:,}",
        "-" if row["classes"] is None else str(row["classes"]),
        row["side"] or "-",
        "-" if not size else f"{si(size, 3)}B",
        "-" if row["here"] is None else "yes" if row["here"] else "no",
    )
