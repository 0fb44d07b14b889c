"""What is printed and read at the command line: numbers, tables, bars."""

from __future__ import annotations

import sys
from typing import Any

import click
import pytest

from scalenet.console import Count, Phis, bar, duration, si, table


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2G", 2_000_000_000),
        ("350m", 350_000_000),
        ("1.5e9", 1_500_000_000),
        ("10 K", 10_000),
        ("7", 7),
        ("1.2T", 12 * 10**11),
    ],
)
def test_counts_take_units(text: str, number: int) -> None:
    assert Count().convert(text, None, None) == number


@pytest.mark.parametrize("text", ["", "G", "2X", "-3M", "0", "nan", "inf", "1e30", "2GG"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="350M, 2G"):
        Count().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "phis"),
    [
        ("2", (2.0,)),
        ("-1", (-1.0,)),
        ("0.5", (0.5,)),
        ("0,1,3", (0.0, 1.0, 3.0)),
        ("0..3", (0.0, 1.0, 2.0, 3.0)),
        ("-1..1", (-1.0, 0.0, 1.0)),
    ],
)
def test_phis_are_one_a_list_or_a_range(text: str, phis: tuple[float, ...]) -> None:
    assert Phis().convert(text, None, None) == phis


@pytest.mark.parametrize("text", ["", "x", "3..1", "0..x", "99", "nan", "1,,2"])
def test_what_is_no_phi_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a phi"):
        Phis().convert(text, None, None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.2, "4 s"), (75, "1 min 15 s"), (3725, "1 h 02 min"), (59.7, "1 min 00 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_with_units() -> None:
    assert si(385_814_752) == "385.8 M"
    assert si(999).strip() == "999"


def test_a_pipe_gets_whole_lines_and_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 150
    table(("name", "number"), [(long, "1"), ("[red]b", "22")])
    with bar("working") as report:
        report(1, 2, "halfway")
    written = capsys.readouterr()
    header, first, second = written.out.splitlines()
    assert first == f"{long}       1"  # to the right, under "number"
    assert second.startswith("[red]b ")  # a name is text, not markup
    assert header.split() == ["name", "number"]
    assert written.err == ""


@pytest.mark.parametrize(
    ("room", "header", "note"),
    [
        (40, "name first second third", ""),
        (25, "name first third", "(No room for second: a wider terminal or a pipe has all columns.)"),
        (18, "name third", "(No room for second, first: a wider terminal or a pipe has all columns.)"),
    ],
)
def test_a_narrow_terminal_gets_what_it_has_room_for(
    room: int, header: str, note: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    monkeypatch.setenv("TERM", "xterm")  # a dumb one is taken to have 80 columns
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    table(("name", "first", "second", "third"), [("abc", "1", "2", "333333")], spare=("second", "first"))
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert lines[0].split() == header.split()
    cells = {"name": "abc", "first": "1", "second": "2", "third": "333333"}
    assert lines[1].split() == [cells[name] for name in header.split()]
    assert lines[2:] == [note] * bool(note)


def test_types_pass_what_is_converted_already() -> None:
    done: Any = (1.0, 2.0)
    assert Phis().convert(done, None, None) == done
    assert Count().convert(5, None, None) == 5
