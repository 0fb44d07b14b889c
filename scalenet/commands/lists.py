"""`scalenet data split` and `scalenet data convert`: lists of pictures, divided, and copied in one form."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalenet.commands.options import PathType, json_option, print_json, say
from scalenet.console import bar, table
from scalenet.errors import ScalenetError

if TYPE_CHECKING:
    from scalenet.cleaning.form import Format, Mode
    from scalenet.cleaning.manifest import Manifest

LISTED = 30  # classes in the terminal


@click.command()
@click.argument("source", type=PathType, metavar="FOLDER|LIST")
@click.option("--fit", type=float, metavar="X", help="Fraction to train on.  [default: what the others leave]")
@click.option("--select", type=float, metavar="X", help="Fraction by which a search chooses.  [default: 0.15]")
@click.option("--held", type=float, metavar="X", help="Fraction that decides; alone it makes two parts.  "
              "[default: 0.15]")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Settles who goes where.")
@click.option("--out", type=PathType, metavar="FILE", help="The list.  [default: FOLDER.scalenet/split.json]")
@json_option
def split(
    source: Path, fit: float | None, select: float | None, held: float | None, seed: int, out: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Divide the clean pictures of a folder: by class, copies together, as a list that --data takes.

    Nothing is copied or moved. Parts that the folder brings (train, val, test) are kept. The pictures are those of the
    clean list that `scalenet data clean` wrote, or of one made now with the usual limits.
    """
    from scalenet.cleaning.manifest import write
    from scalenet.cleaning.page import printable
    from scalenet.cleaning.partition import counted, fractions, partition
    from scalenet.data.values import PARTS

    shares = fractions(fit, select, held)
    pictures, file = _list_of(source)
    divided = partition(pictures, *shares, seed)
    file = out or file.with_name("split.json")
    write(divided, file)
    counts = counted(divided)
    if as_json:
        print_json({"list": str(file), "pictures": len(divided.pictures), "left_out": len(divided.left_out),
                    "classes": counts})  # fmt: skip
        return
    rows = [(label, *(f"{parts[part]:,}" for part in PARTS)) for label, parts in counts.items()]
    table(("class", *PARTS), rows[:LISTED])
    if len(rows) > LISTED:
        click.echo(f"... and {len(rows) - LISTED} more classes")
    for part in PARTS:
        without = [label for label, parts in counts.items() if not parts[part]]
        if len(without) < len(counts) and without:
            say(f"Warning: no picture in the part {part!r} for: {', '.join(map(printable, without))}.", to_stderr=True)
    click.echo()
    if divided.told:
        click.echo(f"clean     {divided.told}")
    click.echo(f"list      {file}")
    click.echo(f"next      scalenet search --plugin mobilevit --data {file}")


@click.command()
@click.argument("source", type=PathType, metavar="FOLDER|LIST")
@click.argument("out", type=PathType, metavar="NEW")
@click.option("--format", "kind", type=click.Choice(["jpeg", "png", "webp"]), default="jpeg", show_default=True)
@click.option("--mode", type=click.Choice(["RGB", "L"]), default="RGB", show_default=True, help="Colour or grey.")
@click.option("--side", type=click.IntRange(min=1), metavar="PX", help="Reduce the shorter side to it.")
@click.option("--quality", type=click.IntRange(1, 100), help="Of JPEG and WebP.  [default: 92]")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: one per CPU]")
@json_option
def convert(
    source: Path, out: Path, kind: Format, mode: Mode, side: int | None, quality: int | None, workers: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Write the clean pictures of a folder into a new one: one format, upright, sRGB, eight bits, on white.

    The originals stay as they are. Of animations the first frame is taken. A list that was divided is written as
    train, val and test.
    """
    from scalenet.cleaning.convert import convert as converted
    from scalenet.cleaning.form import Form
    from scalenet.cleaning.page import printable
    from scalenet.plain import to_plain

    form = Form(kind, mode, side, quality)
    pictures, _ = _list_of(source)
    with bar("converting") as report:
        done = converted(pictures, out, form, report, workers)
    for failed in done.failed[:LISTED]:
        say(f"Warning: {printable(failed.path)} could not be converted: {failed.why}.", to_stderr=True)
    if as_json:
        print_json({**to_plain({"pictures": done.pictures, "before": done.before, "renamed": done.renamed}),
                    "folder": str(done.folder), "record": str(done.record), "failed": to_plain(done.failed),
                    "unprofiled": list(done.unprofiled)})  # fmt: skip
        return
    told = (
        (done.before, "from a conversion that was broken off"),
        (done.renamed, "under another name, as theirs was taken"),
        (len(done.unprofiled), "with a colour profile that could not be used"),
        (len(done.failed), "could not be converted"),
    )
    extra = "".join(f"; {count:,} {what}" for count, what in told if count)
    click.echo(f"wrote     {done.pictures:,} pictures to {done.folder}{extra}")
    click.echo(f"record    {done.record}")


def _list_of(source: Path) -> tuple[Manifest, Path]:
    """The list in a file, or the clean list of a folder; and where the latter is or would be kept."""
    from scalenet.cleaning.cleaned import clean_list
    from scalenet.cleaning.manifest import read

    source = source.expanduser()
    if source.is_file() and source.suffix == ".json":
        return read(source), source
    if not source.is_dir():
        raise ScalenetError(f"{source} is neither a folder of pictures nor a list (.json) of them.")
    with bar("looking at pictures") as report:
        return clean_list(source, report)
