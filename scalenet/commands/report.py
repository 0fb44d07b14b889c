"""`scalenet report`."""

from __future__ import annotations

from pathlib import Path

import click

from scalenet.blas import one_thread
from scalenet.commands.options import PathType, json_option, print_json
from scalenet.console import table


@click.command()
@click.argument("run", type=PathType)
@json_option
def report(run: Path, as_json: bool) -> None:
    """Print a run's ranked table and write its report.html."""
    one_thread()
    from scalenet.ranking import ranked, read
    from scalenet.report import COLUMNS, NO_VERDICT, SPARE, as_plain, cells, html, unfinished
    from scalenet.runs import RunDirectory

    opened = RunDirectory.open(run)
    findings = read(opened)
    if as_json:
        print_json(as_plain(findings))
        return
    table(COLUMNS, [cells(row) for row in ranked(findings)], text_columns=3, spare=SPARE)
    click.echo(f"\n{findings.verdict.sentence if findings.verdict else NO_VERDICT}")
    for note in (unfinished(findings), *(findings.verdict.notes if findings.verdict else ())):
        if note:
            click.echo(note)
    click.echo(f"\nreport    {html(opened)}")
