from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scalenet.data import DataRequest, prepare, survey
from scalenet.data.shapes import BRIGHT, CLASSES, SHAPES, Pose, _outline, draw


def area(points: list[tuple[float, float]]) -> float:
    """Of a polygon, by the shoelace formula."""
    following = [*points[1:], points[0]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2


def test_pictures_depend_on_their_number_alone():
    later = draw(123)
    assert later.shape == (64, 64, 3)
    assert later.dtype == np.uint8
    draw(5)
    assert np.array_equal(draw(123), later)
    assert not np.array_equal(draw(133), later)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("square", 2.0),  # of the unit circle
        ("triangle", 3 * 3**0.5 / 4),
        ("hexagon", 3 * 3**0.5 / 2),
        ("cross", 4 * (2 * 0.3 * 0.7) + 0.6**2),
    ],
)
def test_outlines_have_the_areas_of_their_figures(name, expected):
    assert area(_outline(name)) == pytest.approx(expected, rel=1e-9)


def test_stars_alternate_between_two_circles():
    for name, points in (("star5", 10), ("star6", 12)):
        radii = [round((u * u + v * v) ** 0.5, 9) for u, v in _outline(name)]
        assert radii == [1.0, 0.5] * (points // 2)


def test_a_pose_moves_turns_and_narrows():
    placed = Pose(10.0, 20.0, 5.0, turn=np.pi / 2, stretch=0.8).place([(1.0, 0.0), (0.0, 1.0)])
    assert placed == [pytest.approx((10.0, 24.0)), pytest.approx((5.0, 20.0))]


def test_figures_stand_out():
    # The figure covers a fair part of every picture and is brighter than nearly all of the ground.
    bright = [(draw(i).mean(axis=2) > BRIGHT[0]).mean() for i in range(40)]
    assert min(bright) > 0.02
    assert 0.1 < float(np.mean(bright)) < 0.4


def test_the_set_is_a_demonstration_and_balanced(monkeypatch):
    monkeypatch.setattr("scalenet.data.shapes.PER_CLASS", 10)
    prepared = prepare(DataRequest(), 32)
    assert prepared.demonstration
    assert prepared.flip
    assert (prepared.name, prepared.native_size, prepared.side) == ("shapes", 64, 37)
    assert prepared.classes == CLASSES
    assert prepared.counts == {"fit": 60, "select": 20, "held": 20}
    assert Counter(tuple(c.values()) for c in prepared.class_counts.values()) == {(6, 2, 2): 10}


def test_a_second_start_draws_nothing(monkeypatch):
    monkeypatch.setattr("scalenet.data.shapes.PER_CLASS", 10)
    first = survey(DataRequest())

    def refuse(number: int) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("scalenet.data.shapes.draw", refuse)
    assert survey(DataRequest()) == first
    assert SHAPES.name == "shapes"
