from __future__ import annotations

import math

import pytest

from scalenet.search.failures import common_cause, not_finite


@pytest.mark.parametrize(
    ("reasons", "alike"),
    [
        (["tried to allocate 20.5 MiB"] * 2 + ["tried to allocate 7 MiB"], True),
        (["no file '/a'", "no file '/b'"], True),
        (["no file '/a'", "KeyError: 'b'"], False),
    ],
)
def test_common_cause(reasons: list[str], alike: bool) -> None:
    assert common_cause(reasons) == alike


def test_not_finite() -> None:
    assert not_finite({"epoch": 2, "loss": 1.0, "top1": 0.5}) is None
    assert not_finite({"epoch": 2, "loss": math.nan}) == "loss is nan in epoch 2"
    assert not_finite({"epoch": 2, "top1": -math.inf}) == "top1 is -inf in epoch 2"
