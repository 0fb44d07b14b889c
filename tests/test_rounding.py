from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.rounding import allot_depths, ceil_depths, make_divisible, nearest_multiple

STAGES = st.lists(st.integers(1, 12), min_size=1, max_size=7)


@pytest.mark.parametrize(
    ("value", "divisor", "expected"),
    # 32, 16, 24 x 1.1 and 40 x 1.4 as in EfficientNet B2 and B4; 10.4 rounds to 8, which is below 90 % of it
    [(35.2, 8, 32), (17.6, 8, 16), (26.4, 8, 24), (56.0, 8, 56), (10.4, 8, 16), (1.0, 8, 8), (22.4, 8, 24)],
)
def test_channels_follow_the_released_code(value: float, divisor: int, expected: int) -> None:
    assert make_divisible(value, divisor) == expected


@given(st.floats(1, 5000), st.integers(1, 64))
def test_channels_are_never_below_nine_tenths(value: float, divisor: int) -> None:
    rounded = make_divisible(value, divisor)
    assert rounded % divisor == 0
    assert rounded >= 0.9 * value
    assert abs(rounded - value) <= divisor


@given(st.floats(0, 5000), st.integers(1, 64), st.integers(1, 100))
def test_the_nearest_multiple_is_within_half_a_step_of_what_is_allowed(value: float, step: int, minimum: int) -> None:
    rounded = nearest_multiple(value, step, minimum)
    assert rounded % step == 0
    assert rounded >= minimum
    assert rounded - minimum < step or abs(rounded - value) <= step / 2


def test_b1_has_one_more_block_in_every_stage_but_the_fifth() -> None:
    assert ceil_depths((1, 2, 2, 3, 3, 4, 1), 1.1) == (2, 3, 3, 4, 4, 5, 2)
    assert ceil_depths((10,), 1.1) == (11,)  # 10 * 1.1 is a hair above 11 in binary


@given(STAGES)
def test_a_factor_of_one_changes_no_depth(blocks: list[int]) -> None:
    assert allot_depths(blocks, 1.0) == ceil_depths(blocks, 1.0) == tuple(blocks)


@given(STAGES, st.floats(0.01, 6))
def test_the_total_is_rounded_and_no_stage_vanishes(blocks: list[int], factor: float) -> None:
    depths = allot_depths(blocks, factor)
    assert sum(depths) == nearest_multiple(sum(blocks) * factor, 1, minimum=len(blocks))
    assert min(depths) >= 1
    assert len(depths) == len(blocks)


@given(STAGES, st.integers(0, 60))
def test_every_total_is_within_reach(blocks: list[int], more: int) -> None:
    total = sum(blocks) + more
    assert sum(allot_depths(blocks, total / sum(blocks))) == total
