from __future__ import annotations

import pytest

from scalenet import show
from scalenet.power import POWER, AssumedNoise, Flatness, Power, Resolution

NOISE = AssumedNoise(pictures=400, accuracy=0.55, judging=0.025, training=0.01, sd=0.027)


@pytest.mark.parametrize(
    ("resolved", "said"),
    [
        (0.301, "is told from a flat one in 80 % of searches if it ranges over 30.1 points."),
        (9.524, "will hardly be told from a flat one, whatever its shape."),  # no top1 ranges over 952 points
    ],
)
def test_a_surface_is_promised_only_what_top1_can_show(
    resolved: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show.power(Power(POWER, None, Flatness(points=7, runs=7, df=1, noise=NOISE, resolved=resolved)), to_stderr=False)
    assert capsys.readouterr().out == f"A surface over 7 candidates (7 runs) {said}\n"


@pytest.mark.parametrize(
    ("fewest", "said"),
    [
        (3, "3 seeds: who comes out less than 4.8"),
        (1, "3 seeds, the best against one with 1 seed only:\nwho comes out"),
    ],
)
def test_the_power_table_says_between_whom(fewest: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = Resolution(9, 3, fewest, 20, NOISE, margin=0.048, resolved=0.064, chances=((0.01, 0.1),))
    show.power(Power(POWER, found, None), to_stderr=False)
    assert f"That is for 9 candidates confirmed with {said}" in capsys.readouterr().out
