from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.errors import ScalenetError
from scalenet.mixture import centre, lattice, lattice_name


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
