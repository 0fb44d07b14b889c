from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.search.rungs import goes_on, rung_epochs


@pytest.mark.parametrize(("epochs", "rungs"), [(27, (9,)), (20, (7,)), (10, (4,)), (4, (2,)), (2, (1,)), (1, ())])
def test_the_first_rung_is_late(epochs: int, rungs: tuple[int, ...]) -> None:
    assert rung_epochs(epochs) == rungs


def test_a_smaller_reduction_has_more_rungs() -> None:
    assert rung_epochs(27, 2) == (9, 18)


def test_the_first_goes_on_and_then_only_the_best_until_there_are_six() -> None:
    # Of n at a rung the best n // 3 go on, at least one (arXiv:1810.05934, algorithm 2).
    assert goes_on(0.1, [])
    assert not goes_on(0.1, [0.2])
    assert not goes_on(0.25, [0.1, 0.2, 0.3, 0.15])  # five: one
    assert goes_on(0.25, [0.1, 0.2, 0.3, 0.15, 0.05])  # six: two


@given(st.lists(st.floats(0, 1), max_size=20), st.floats(0, 1), st.randoms())
def test_who_came_when_does_not_matter(earlier: list[float], value: float, rng: random.Random) -> None:
    shuffled = list(earlier)
    rng.shuffle(shuffled)
    assert goes_on(value, earlier) == goes_on(value, shuffled)
