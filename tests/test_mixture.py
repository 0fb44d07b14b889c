from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.errors import ScalenetError
from scalenet.mixture import centre, lattice, lattice_name, nearby
from scalenet.shares import Shares


@given(st.integers(1, 30))
def test_a_lattice_is_complete_and_on_the_simplex(m: int) -> None:
    points = lattice(m)
    assert len(points) == len(set(points)) == (m + 1) * (m + 2) // 2
    for point in points:
        parts = (point.depth, point.width, point.resolution)
        assert sum(parts) == pytest.approx(1, abs=1e-12)
        assert all(abs(part * m - round(part * m)) < 1e-9 for part in parts)


def test_the_default_lattice_runs_from_all_depth_to_all_resolution() -> None:
    names = [lattice_name(point, 5) for point in lattice(5)]
    assert len(names) == 21
    assert names[:4] == ["lattice 5/0/0", "lattice 4/1/0", "lattice 4/0/1", "lattice 3/2/0"]
    assert names[-1] == "lattice 0/0/5"


def test_the_centre_is_on_lattices_that_three_divides() -> None:
    assert centre() not in lattice(5)
    assert centre() in lattice(3)


def test_a_lattice_without_parts_is_refused() -> None:
    with pytest.raises(ScalenetError, match="at least 1"):
        lattice(0)


def test_nearby_points_surround_the_best_one_and_are_new() -> None:
    def hill(s: Shares) -> float:
        return -((s.depth - 0.5) ** 2) - 2 * (s.width - 0.26) ** 2 - 3 * (s.resolution - 0.24) ** 2

    found = nearby(lattice(4), hill, m=8, count=9)
    assert found[0] in (Shares(0.5, 0.375, 0.125), Shares(0.625, 0.25, 0.125), Shares(0.375, 0.375, 0.25))
    assert len(found) == 6  # 4/2/2 is of the first lattice; the six around it are not
    assert all(abs(p.depth - 0.5) < 0.13 and abs(p.width - 0.25) < 0.13 for p in found)
    assert [hill(p) for p in found] == sorted(map(hill, found), reverse=True)
    assert nearby(lattice(4), hill, m=8, count=2) == found[:2]


@given(st.integers(1, 8), st.integers(1, 8), st.tuples(*[st.floats(-1, 1)] * 3))
def test_nearby_asks_for_nothing_twice(first: int, m: int, slopes: tuple[float, float, float]) -> None:
    def plane(s: Shares) -> float:
        return slopes[0] * s.depth + slopes[1] * s.width + slopes[2] * s.resolution

    tried = lattice(first)
    found = nearby(tried, plane, m, count=7)
    assert not set(found) & set(tried)
    assert nearby([*tried, *found], plane, m, count=7) == []
