from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.cleaning.manifest import FORMAT, Manifest, Picture
from scalenet.cleaning.partition import counted, fractions, partition
from scalenet.cleaning.values import Limits
from scalenet.errors import ScalenetError


def listed(tmp_path, *pictures: Picture) -> Manifest:
    classes = tuple(sorted({p.label for p in pictures if p.label}))
    return Manifest(FORMAT, str(tmp_path), "f", "s", classes, Limits(), (), None, pictures, ())


def made(count: int, label: str, part=None, group=None, first: int = 0) -> list[Picture]:
    return [Picture(f"{label}/{part}{i}.jpg", label, part, f"{i:064x}", group) for i in range(first, first + count)]


def test_parts_in_proportion_by_class_and_seed(tmp_path):
    whole = listed(tmp_path, *made(100, "cat"), *made(20, "dog", first=1000))
    one, two, again = (partition(whole, 0.15, 0.15, seed) for seed in (1, 2, 1))
    assert counted(one) == {
        "cat": {"fit": 70, "select": 15, "held": 15}, "dog": {"fit": 14, "select": 3, "held": 3}
    }  # fmt: skip
    assert counted(one) == counted(two)
    assert one == again
    assert one.pictures != two.pictures
    assert (one.division.select, one.division.held, one.division.seed) == (0.15, 0.15, 1)


def test_held_alone_makes_two_parts(tmp_path):
    found = partition(listed(tmp_path, *made(50, "cat"), *made(50, "dog", first=99)), *fractions(None, None, 0.2), 0)
    assert counted(found)["cat"] == {"fit": 40, "select": 0, "held": 10}


def test_copies_stay_together(tmp_path):
    cats = [replace(p, group=f"g{int(p.sha256, 16) // 4}") for p in made(80, "cat")]
    for seed in range(5):
        found = partition(listed(tmp_path, *cats, *made(20, "dog", first=1000)), 0.2, 0.2, seed)
        parts = {}
        for picture in found.pictures:
            if picture.group:
                parts.setdefault(picture.group, set()).add(picture.part)
        assert all(len(of) == 1 for of in parts.values())
        assert Counter(len(of) for of in parts.values()) == {1: 20}
        assert counted(found)["cat"] == {"fit": 48, "select": 16, "held": 16}


def test_given_parts_are_kept_and_a_leaking_copy_is_left_out(tmp_path):
    fit = made(20, "cat", "fit") + made(20, "dog", "fit", first=100)
    held = made(5, "cat", "held", first=500) + made(5, "dog", "held", first=600)
    fit[0], held[0] = replace(fit[0], group="g"), replace(held[0], group="g")
    found = partition(listed(tmp_path, *fit, *held), 0.25, 0.2, 0)
    assert counted(found)["dog"] == {"fit": 15, "select": 5, "held": 5}
    assert {p.path for p in found.pictures if p.part == "held"} == {p.path for p in held}
    assert [(left.path, left.rule) for left in found.left_out] == [(fit[0].path, "leak")]


def test_what_lies_in_no_class_folder_is_left_out(tmp_path):
    stray = Picture("a.jpg", None, None, "f" * 64)
    found = partition(listed(tmp_path, stray, *made(9, "cat"), *made(9, "dog", first=50)), 0.2, 0.2, 0)
    assert [left.path for left in found.left_out] == ["a.jpg"]
    assert len(found.pictures) == 18


def test_what_cannot_be_divided(tmp_path):
    whole = listed(tmp_path, *made(9, "cat"), *made(9, "dog", first=50))
    with pytest.raises(ScalenetError, match="divided already, with seed 3"):
        partition(partition(whole, 0.2, 0.2, 3), 0.2, 0.2, 3)
    with pytest.raises(ScalenetError, match="of 1 classes"):
        partition(listed(tmp_path, *made(9, "cat")), 0.2, 0.2, 0)
    with pytest.raises(ScalenetError, match="too few"):
        partition(listed(tmp_path, *made(2, "cat"), *made(2, "dog", first=50)), 0.2, 0.2, 0)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ((None, None, None), (0.15, 0.15)),
        ((0.7, 0.15, 0.15), (0.15, 0.15)),
        ((None, None, 0.2), (0.0, 0.2)),
        ((None, 0.1, 0.3), (0.1, 0.3)),
        ((0.8, None, 0.2), (0.0, 0.2)),
        ((0.6, None, 0.2), (0.2, 0.2)),
        ((0.6, 0.3, None), (0.3, 0.1)),
        ((None, 0.1, None), (0.1, 0.15)),
    ],
)
def test_fractions(named, expected):
    assert fractions(*named) == pytest.approx(expected)


@pytest.mark.parametrize(
    "named",
    [(0.7, 0.2, 0.2), (0.7, None, None), (None, 0.5, 0.5), (None, None, 1.0), (0.9, None, 0.2), (0.5, 0.5, None)],
)
def test_fractions_that_do_not_add_up(named):
    with pytest.raises(ScalenetError, match=r"fraction|add up|fit is"):
        fractions(*named)


part = st.floats(0.01, 0.97)


@given(part, part)
def test_any_two_fractions_leave_the_third(select, held):
    if select + held < 0.99:
        assert fractions(1 - select - held, select, held) == pytest.approx((select, held))
    elif select + held > 1:
        with pytest.raises(ScalenetError, match="add up"):
            fractions(None, select, held)
