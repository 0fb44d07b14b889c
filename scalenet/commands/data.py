"""`scalenet data`: from a raw folder of pictures to a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scalenet.cleaning.limits import RULES, Limits, Rule
from scalenet.commands import datasets, lists
from scalenet.commands.options import PathType, json_option, print_json, say
from scalenet.console import bar, table
from scalenet.errors import ScalenetError

if TYPE_CHECKING:
    from scalenet.cleaning.page import Files
    from scalenet.cleaning.quarantine import Left
    from scalenet.cleaning.summary import Summary
    from scalenet.cleaning.values import Judgement

F = TypeVar("F", bound=Callable[..., Any])
LISTED = 30  # lines of a list in the terminal; files have the rest
FolderType = click.Path(path_type=Path, file_okay=True)


@click.group()
def data() -> None:
    """From a raw folder of pictures to a data set: inspect, clean, split, convert; data sets by name.

    \b
    scalenet data inspect ./pets           what is in it
    scalenet data clean ./pets             what is wrong with it, on a page; moves nothing
    scalenet data clean ./pets --apply     moves it aside; --undo brings all of it back
    scalenet data split ./pets             fit, select and held, as a list; copies nothing
    """


for command in (lists.split, lists.convert, datasets.list_, datasets.fetch):
    data.add_command(command)


def folder_options(command: F) -> F:
    """What every command that looks at a folder takes."""
    for option in (
        click.option("--fresh", is_flag=True, help="Look at every file anew, instead of at what has changed."),
        click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: one per CPU]"),
        click.option("--out", type=PathType, metavar="DIR", help="Where reports and lists go.  [default: beside the "
                     "folder, as FOLDER.scalenet]"),
    ):  # fmt: skip
        command = option(command)
    return command


def limit_options(command: F) -> F:
    """The thresholds and the switches of the rules."""
    usual = Limits()
    for name, kind, text in (
        ("aspect", float, "Longer over shorter side above which a picture is extreme."),
        ("side", int, "Shorter side in pixels below which it is small."),
        ("contrast", float, "Standard deviation of grey below which contrast is low."),
        ("bright", float, "Mean grey above which it is over-exposed."),
        ("dark", float, "Mean grey below which it is dark."),
        ("blur", float, "Variance of the Laplacian below which it is blurry."),
    ):
        command = click.option(f"--{name}", type=kind, default=getattr(usual, name), show_default=True, help=text)(
            command
        )
    names = [text.rule for text in RULES if text.movable]
    usually = [text.rule for text in RULES if text.removes]
    for flag, text in (
        ("--also", f"Remove for RULE too; by itself for all but {', '.join(sorted(set(names) - set(usually)))}."),
        ("--skip", "Do not remove for RULE."),
        ("--only", f"Remove for RULE alone, or for several so named: {', '.join(names)}."),
    ):
        command = click.option(flag, type=click.Choice(names), multiple=True, metavar="RULE", help=text)(command)
    return command


@data.command()
@click.argument("folder", type=FolderType)
@folder_options
@json_option
def inspect(folder: Path, out: Path | None, workers: int | None, fresh: bool, as_json: bool) -> None:
    """What a folder of pictures holds: counts, classes, sizes, formats, and a contact sheet per class."""
    aside = _place(folder, out)
    judged, summary = _looked_at(folder, Limits(), None, workers, fresh)
    files = _written(judged, summary, aside, sheets=True)
    if as_json:
        from scalenet.plain import to_plain

        print_json({**to_plain(summary), "report": str(files.html)})
        return
    from scalenet.cleaning import page

    for name, value in page.facts(judged, summary):
        click.echo(f"{name:<25} {value}")
    click.echo()
    _classes(summary)
    if summary.findings:
        click.echo(f"\n{page.verdict(summary)}")
        click.echo(f"{'found':<25} {page.listed(summary.findings)}")
    click.echo(f"\nreport    {files.html}")
    click.echo(f"next      scalenet data clean {folder}{f' --out {out}' if out else ''}")


@data.command()
@click.argument("folder", type=FolderType)
@click.option("--apply", "applies", is_flag=True, help="Move what would go to the quarantine; --undo brings it back.")
@click.option("--undo", is_flag=True, help="Bring back everything that was moved, bit for bit.")
@limit_options
@folder_options
@json_option
def clean(
    folder: Path, applies: bool, undo: bool, only: tuple[Rule, ...], skip: tuple[Rule, ...], also: tuple[Rule, ...],
    blur: float, dark: float, bright: float, contrast: float, side: int, aspect: float, out: Path | None,
    workers: int | None, fresh: bool, as_json: bool,
) -> None:  # fmt: skip
    """What is wrong with a folder of pictures: a page with a thumbnail of every finding. Moves nothing by itself.

    With --apply files go to FOLDER.scalenet/quarantine with the reason on record; nothing is ever deleted.
    """
    from scalenet.cleaning import page, quarantine
    from scalenet.cleaning.cleaned import CLEAN
    from scalenet.cleaning.manifest import listed, write
    from scalenet.cleaning.rules import doubts

    aside = _place(folder, out)
    again = f"scalenet data clean {folder}" + (f" --out {out}" if out else "")
    if undo:
        if applies:
            raise click.UsageError("--apply moves files aside and --undo brings them back; give one.")
        _brought_back(folder, aside, as_json)
        return
    limits = Limits(blur=blur, dark=dark, bright=bright, contrast=contrast, side=side, aspect=aspect)
    judged, summary = _looked_at(folder, limits, removing(only, skip, also), workers, fresh)
    files = _written(judged, summary, aside, sheets=False)
    write(listed(judged), aside / CLEAN)
    say(page.verdict(summary), as_json)
    for doubt in doubts(judged):
        click.echo(f"Warning: {page.printable(doubt)}", err=True)
    if not as_json:
        _would_go(judged, summary)
    if not applies:
        if as_json:
            print_json({**page.as_plain(judged, summary), "report": str(files.html)})
            return
        click.echo(f"\nreport    {files.html}")
        click.echo(f"list      {aside / CLEAN}")
        if summary.removed:
            click.echo(f"next      {again} --apply     moves them to {aside / 'quarantine'}")
        return
    with bar("moving aside") as report:
        done = quarantine.apply(judged, aside, report)
    # What is left, as a list; its looks are all known.
    write(listed(_looked_at(folder, limits, judged.removing, workers, False)[0]), aside / CLEAN)
    if as_json:
        from scalenet.plain import to_plain

        print_json({
            "moved": [to_plain(move) for move in done.moved], "before": done.before,
            "left": [to_plain(left) for left in done.left], "quarantine": str(done.folder), "report": str(files.html),
        })  # fmt: skip
    else:
        earlier = f", {done.before:,} were there already" if done.before else ""
        click.echo(f"\nmoved     {len(done.moved):,} files to {done.folder}{earlier}")
        click.echo(f"report    {files.html}")
        click.echo(f"next      {again} --undo     brings all of them back")
    _left(done.left, "stays where it is")


def _place(folder: Path, out: Path | None) -> Path:
    """Where reports, lists and what is moved go: never among the pictures, where they would count as more of them."""
    from scalenet.cleaning.cleaned import sidecar
    from scalenet.cleaning.moving import Folder

    aside = out or sidecar(folder)
    if Folder(str(folder.expanduser())).covers(str(aside.absolute())):
        raise ScalenetError(f"{aside} lies in {folder}, among the pictures; name a place outside with --out.")
    return aside


def _brought_back(folder: Path, aside: Path, as_json: bool) -> None:
    """Undoes, and exits with 1 where something had to stay aside."""
    from scalenet.cleaning import quarantine

    with bar("bringing back") as report:
        done = quarantine.undo(aside, report, folder.expanduser())
    if as_json:
        from scalenet.plain import to_plain

        print_json({"restored": done.restored, "left": [to_plain(left) for left in done.left]})
    else:
        click.echo(f"restored  {done.restored:,} files to {done.root}")
    _left(done.left, "was not brought back")
    if done.left:
        raise SystemExit(1)


def _left(left: Sequence[Left], what: str) -> None:
    from scalenet.cleaning.page import printable

    for one in left[:LISTED]:
        click.echo(f"Warning: {printable(one.path)} {what}: {one.why}.", err=True)
    if len(left) > LISTED:
        click.echo(f"Warning: and {len(left) - LISTED} more; --json lists them.", err=True)


def _would_go(judged: Judgement, summary: Summary) -> None:
    """What each rule found and would remove, and how many of each class."""
    from scalenet.cleaning.page import printable

    told = [text for text in RULES if summary.findings.get(text.rule)]
    if told:
        click.echo()
        table(
            ("rule", "what", "found", "would go"),
            [
                (t.rule, t.what, f"{summary.findings[t.rule]:,}",
                 f"{sum(summary.removed.get(t.rule, {}).values()):,}" if t.rule in judged.removing else "told only")
                for t in told
            ],
            text_columns=2,
        )  # fmt: skip
    if not summary.removed:
        return
    going = {label: sum(rule.get(label, 0) for rule in summary.removed.values()) for label in _labels(summary)}
    worst = sorted((label for label in going if going[label]), key=lambda label: (-going[label], label))
    stay = {found.name: found.kept for found in summary.classes}
    click.echo()
    table(
        ("class", "stay", "go", *summary.removed),
        [
            (printable(label), f"{stay.get(label, 0):,}", f"{going[label]:,}",
             *(f"{rule.get(label, 0):,}" for rule in summary.removed.values()))
            for label in worst[:LISTED]
        ],
    )  # fmt: skip
    if len(worst) > LISTED:
        click.echo(f"... and {len(worst) - LISTED} more classes; the report has all of them")


def _labels(summary: Summary) -> list[str]:
    return sorted({*(c.name for c in summary.classes), *(label for rule in summary.removed.values() for label in rule)})


def removing(only: Sequence[Rule], skip: Sequence[Rule], also: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules that remove, by the switches, in the order of RULES.

    Raises:
        ScalenetError: a rule that is asked for and left out at once.
    """
    if contradicted := sorted({*only, *also} & set(skip)):
        raise ScalenetError(f"--skip {contradicted[0]} contradicts --only or --also {contradicted[0]}; give one.")
    chosen = set(only) if only else {text.rule for text in RULES if text.removes}
    return tuple(text.rule for text in RULES if text.rule in (chosen | set(also)) - set(skip))


def _looked_at(
    folder: Path, limits: Limits, rules: Sequence[Rule] | None, workers: int | None, fresh: bool
) -> tuple[Judgement, Summary]:
    from scalenet.cleaning.rules import judge
    from scalenet.cleaning.scan import scan
    from scalenet.cleaning.summary import summarise

    with bar("looking at pictures") as report:
        seen = scan(folder.expanduser(), limits, report, workers, fresh)
    with bar("comparing pictures"):
        judged = judge(seen, limits, rules)
    return judged, summarise(judged)


def _written(judged: Judgement, summary: Summary, out: Path, *, sheets: bool) -> Files:
    from scalenet.cleaning.page import write

    try:
        with bar("drawing thumbnails") as report:
            return write(judged, summary, out, sheets=sheets, progress=report)
    except OSError as error:
        raise ScalenetError(
            f"The report cannot be written into {out} ({error.strerror}); name another place with --out."
        ) from error


def _classes(summary: Summary) -> None:
    from scalenet.cleaning.page import printable
    from scalenet.data.values import PARTS

    parts = [part for part in PARTS if any(part in found.parts for found in summary.classes)]
    table(
        ("class", "pictures", "would stay", *parts),
        [
            (printable(c.name), f"{c.pictures:,}", f"{c.kept:,}", *(f"{c.parts.get(part, 0):,}" for part in parts))
            for c in summary.classes
        ],
    )
