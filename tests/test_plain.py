"""Plain data: a strict round trip, and complaints that name the key."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, parse_yaml, read_yaml, to_plain


@dataclass(frozen=True)
class Row:
    channels: int
    ratio: float = 0.5
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Whole:
    rows: tuple[Row, ...]
    name: str = "x"
    side: int | None = None
    extra: dict[str, float] | None = None
    flip: bool = True


rows = st.builds(
    Row,
    channels=st.integers(),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    kind=st.sampled_from(["a", "b"]),
)
wholes = st.builds(Whole, rows=st.lists(rows, max_size=3).map(tuple), side=st.none() | st.integers())


@given(wholes)
def test_round_trip(whole: Whole) -> None:
    assert from_plain(Whole, to_plain(whole), "here") == whole


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({"rows": [{"chanels": 3}]}, r"here: .*rows\.0.*No key 'chanels'\. Did you mean 'channels'\?"),
        ({"rows": [{"channels": "3"}]}, r"here: rows\.0\.channels must be a whole number, got '3'"),
        ({"rows": [{"channels": True}]}, r"channels must be a whole number, got True"),
        ({"rows": [{"channels": 1.5}]}, r"channels must be a whole number, got 1\.5"),
        ({"rows": [{"channels": 1, "kind": "c"}]}, r"rows\.0\.kind must be one of a, b, got 'c'"),
        ({"rows": [], "flip": 1}, r"flip must be true or false, got 1"),
        ({}, r"here: rows is missing"),
    ],
)
def test_complaints_name_place_value_and_what_was_allowed(data: Any, complaint: str) -> None:
    with pytest.raises(ScalenetError, match=complaint):
        from_plain(Whole, data, "here")


def test_integers_are_numbers_too() -> None:
    assert from_plain(Row, {"channels": 1, "ratio": 2}, "here").ratio == 2.0


def test_yaml_is_safe_and_its_errors_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("a: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(ScalenetError, match=r"x\.yaml: is not valid YAML"):
        read_yaml(file)
    with pytest.raises(ScalenetError, match=r"gone\.yaml: cannot be read \(No such file"):
        read_yaml(tmp_path / "gone.yaml")


def test_powers_of_ten_are_numbers() -> None:
    read = parse_yaml("[1e-3, 2E5, -1.5e+2, 1e, e3, 0x10, 12]")
    assert read == [0.001, 2e5, -150.0, "1e", "e3", 16, 12]
