"""What a command prints: tables, bars, numbers. Data goes to stdout, progress and warnings to stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

Report = Callable[[int, int, str], None]  # (done, total, what)

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}


class Count(click.ParamType[int]):
    """A positive number with an optional unit: 350M, 2G, 1.5e9."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """'2G' -> 2000000000."""
        if isinstance(value, int):
            return value
        text = str(value).strip().upper()
        unit = text[-1:] if text[-1:] in UNITS else ""
        try:
            number = float(text[: len(text) - len(unit)]) * UNITS[unit]
        except ValueError:
            number = 0.0
        if not 1 <= number < 1e18:
            self.fail(f"{value!r} is not a number above 0 with an optional unit K, M, G or T (350M, 2G).", param, ctx)
        return round(number)


class Phis(click.ParamType[tuple[float, ...]]):
    """One phi, a list or a whole-number range: 2, 0.5, -1, 0,1,3, 0..7."""

    name = "phi"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """'0..2' -> (0.0, 1.0, 2.0)."""
        if isinstance(value, tuple):
            return value
        try:
            first, dots, last = str(value).partition("..")
            if dots:
                phis = tuple(float(phi) for phi in range(int(first), int(last) + 1))
            else:
                phis = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            phis = ()
        if not phis or not all(-20 <= phi <= 20 for phi in phis):
            self.fail(
                f"{value!r} is not a phi from -20 to 20 (2, 0.5, -1), a list (0,1,3) or a range (0..7).", param, ctx
            )
        return phis


def si(number: float, digits: int = 4) -> str:
    """1234567 -> '1.235 M', 5000000 -> '5.000 M': as many digits everywhere, so that columns line up."""
    for unit in ("T", "G", "M", "K"):
        if abs(number) >= UNITS[unit]:
            return f"{number / UNITS[unit]:#.{digits}g}".rstrip(".") + f" {unit}"
    return f"{number:.{digits}g}"


def duration(seconds: float) -> str:
    """3725 -> '1 h 02 min'; 75 -> '1 min 15 s'; 4.2 -> '4 s'."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def stderr() -> Console:
    """A console on stderr; it draws nothing live where stderr is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1, spare: Sequence[str] = ()
) -> None:
    """Prints aligned columns on stdout; all but the first `text_columns` to the right, at full width on a pipe.

    On a terminal that is too narrow for all, columns named in `spare` are left out, the first ones first, and said so.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = [max(map(len, column)) + 2 for column in zip(columns, *rows, strict=True)]
    width = Console().width if sys.stdout.isatty() else max(80, sum(widths))
    out: list[str] = []
    for name in spare:
        if sum(w for w, column in zip(widths, columns, strict=True) if column not in out) - 2 > width:
            out.append(name)
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        if column not in out:
            drawn.add_column(column, justify="left" if i < text_columns else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(cell) for column, cell in zip(columns, row, strict=True) if column not in out))
    console = Console(highlight=False, width=width)
    with console.capture() as capture:
        console.print(drawn)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))
    if out:
        click.echo(f"(No room for {', '.join(out)}: a wider terminal or a pipe has all columns.)")


@contextmanager
def bar(description: str) -> Iterator[Report]:
    """A progress bar on stderr for as long as the block lasts; on a pipe it stays silent."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total, what: progress.update(
            task, completed=done, total=total, description=what or description
        )


def show_warnings_plainly() -> None:
    """Python's warnings as one line each, without the file and line of our own code."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning):
            click.echo(f"Warning: {message}", err=True)

    warnings.showwarning = show
