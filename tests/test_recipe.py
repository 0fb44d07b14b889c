from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, to_plain
from scalenet.recipe import Recipe, learning_rate


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("batch_size", 1),
        ("optimizer", "adam"),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("momentum", 1.0),
        ("weight_decay", -0.1),
        ("warmup_epochs", 21.0),
        ("warmup_epochs", -1.0),
        ("clip_norm", math.nan),
        ("label_smoothing", 1.0),
        ("mixup", -0.2),
        ("randaugment", 31),
        ("drop_path", 1.0),
        ("ema_decay", 1.0),
        ("precision", "fp16"),
        ("memory_format", "nhwc"),
        ("execution", "graph"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_key(key: str, value: Any) -> None:
    with pytest.raises(
        ScalenetError, match=rf"^{key} must be .*, got {value!r}$|^{key} must be at most epochs"
    ) as caught:
        Recipe(**{key: value})
    assert repr(value) in str(caught.value)


def test_plain_round_trip_keeps_every_field() -> None:
    recipe = Recipe(epochs=7, optimizer="sgd", lr=0.1, mixup=0.2, randaugment=9, precision="fp32")
    assert from_plain(Recipe, to_plain(recipe), "recipe") == recipe
    assert set(to_plain(recipe)) == {field.name for field in fields(Recipe)}


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, scalenet.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_learning_rate_by_hand() -> None:
    recipe = Recipe(epochs=3, lr=1.0, warmup_epochs=1.0)
    rates = [learning_rate(recipe, step, 4) for step in range(12)]
    cosine = [(1 + math.cos(math.pi * t / 8)) / 2 for t in range(8)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, *cosine])
    assert learning_rate(recipe, 12, 4) == pytest.approx(0.0)


@given(st.integers(1, 30), st.integers(1, 50), st.floats(0, 1))
def test_learning_rate_rises_to_the_peak_and_falls(epochs: int, steps: int, share: float) -> None:
    recipe = Recipe(epochs=epochs, lr=0.3, warmup_epochs=share * epochs)
    rates = [learning_rate(recipe, step, steps) for step in range(epochs * steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 0.3 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
