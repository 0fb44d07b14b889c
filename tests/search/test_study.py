from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from scalenet.errors import ScalenetError
from scalenet.mixture import lattice
from scalenet.search.study import Ledger, to_params, to_shares
from scalenet.shares import Shares

UNIT = st.floats(0, 1)


@pytest.fixture
def ledger(place: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{place}/study.db", sampler="tpe", seed=3)
    yield ledger
    ledger.close()


@given(UNIT, UNIT)
def test_every_point_of_the_square_is_on_the_simplex(u: float, v: float) -> None:
    shares = to_shares({"beyond_depth": u, "to_resolution": v})
    assert shares.depth + shares.width + shares.resolution == pytest.approx(1)
    back = to_params(shares)
    assert back["beyond_depth"] == pytest.approx(u, abs=1e-9)
    if u > 1e-6:
        assert back["to_resolution"] == pytest.approx(v, abs=1e-6)


def test_lattice_points_survive_the_way_there_and_back() -> None:
    for shares in lattice(5):
        back = to_shares(to_params(shares))
        assert (back.depth, back.width, back.resolution) == pytest.approx(
            (shares.depth, shares.width, shares.resolution), abs=1e-12
        )


def test_a_uniform_square_is_a_uniform_triangle() -> None:
    # Each corner triangle with a share above 1/2 is a quarter of the whole's area.
    n = 200
    points = [
        to_shares({"beyond_depth": (i + 0.5) / n, "to_resolution": (j + 0.5) / n}) for i in range(n) for j in range(n)
    ]
    for factor in ("depth", "width", "resolution"):
        assert sum(getattr(p, factor) > 0.5 for p in points) / n**2 == pytest.approx(0.25, abs=0.01)


def test_the_queue_is_first_in_first_out_and_remembers(ledger: Ledger, place: Path) -> None:
    for i in range(3):
        assert ledger.enqueue("search", {"key": str(i)}, Shares(0.2, 0.3, 0.5)) == i
    assert [ledger.start("search"), ledger.start("search")] == [0, 1]
    ledger.end("search", 0, "complete", value=0.5, epoch=2, attrs={"outcome": {"epochs": [{"top1": 0.5}]}})
    ledger.end("search", 1, "pruned", value=0.1, epoch=1, attrs={})
    again = Ledger(f"sqlite:///{place}/study.db")
    assert [row.state for row in again.rows("search")] == ["complete", "pruned", "waiting"]
    assert again.rows("search")[0].attrs["outcome"] == {"epochs": [{"top1": 0.5}]}
    again.close()


def test_no_two_draws_are_alike_though_the_driver_starts_again(place: Path) -> None:
    # A sampler with a fixed seed starts over when a run is resumed.
    drawn = []
    for _ in range(4):
        ledger = Ledger(f"sqlite:///{place}/study.db", sampler="random", seed=1)
        number, shares = ledger.ask()
        ledger.end("search", number, "complete", value=0.1, epoch=1, attrs={})
        ledger.close()
        drawn.append((shares.depth, shares.width))
    assert len(set(drawn)) == 4
    assert all(math.dist(a, b) > 1e-3 for a, b in pairwise(sorted(drawn)))


def test_points_beyond_the_guided_ones_are_uniform(place: Path) -> None:
    drawn = []
    for sampler in ("gp", "random"):
        ledger = Ledger(f"sqlite:///{place}/{sampler}.db", sampler=sampler, seed=1)
        ledger.guided = 11
        points = []
        for i in range(14):  # the first ten are random anyway
            number, shares = ledger.ask()
            points.append(shares)
            ledger.end("search", number, "complete", value=i / 14, epoch=1, attrs={})
        drawn.append(points)
        ledger.close()
    assert [a == b for a, b in zip(*drawn, strict=True)][10:] == [False, True, True, True]


def test_a_half_drawn_point_is_completed(ledger: Ledger) -> None:
    number = ledger._studies["search"].ask().number  # a driver that died before the first parameter
    row = ledger.rows("search")[number]
    assert set(row.params) == {"beyond_depth", "to_resolution"}


def test_a_storage_that_is_none() -> None:
    with pytest.raises(ScalenetError, match="cannot be opened"):
        Ledger("nonsense")


def test_a_password_is_not_shown() -> None:
    with pytest.raises(ScalenetError) as caught:
        Ledger("mysql+no://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_half_drawn_point_of_a_driver_that_died_is_completed(place: Path) -> None:
    url = f"sqlite:///{place}/study.db"
    dead = Ledger(url)
    dead.enqueue("search", {}, Shares(0.75, 0.25, 0.0))
    [waiting] = dead._frozen("search")
    dead._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)  # and killed before the first draw
    dead.close()
    resumed = Ledger(url)
    [row] = resumed.rows("search")
    resumed.close()
    assert to_shares(row.params).depth == pytest.approx(0.75)
