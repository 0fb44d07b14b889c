from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from scalenet.recipe import Recipe
from scalenet.search import plan, time_baseline
from scalenet.shares import Shares
from scalenet.space import Confirm
from tests.search import fakes
from tests.toy import Toy, ToySpec

COUNTS: Any = SimpleNamespace(counts={"fit": 600, "select": 300, "held": 150})


def test_trials_and_time_by_hand() -> None:
    space = fakes.space(replicates=2, confirm=Confirm(best=1, seeds=2))  # 4 epochs
    found = plan(space, fakes.candidates(), COUNTS, seconds_per_image=0.001, workers=0)
    assert found.trials == {"baseline": 1, "search": 8, "replicate": 2, "confirm": 2 * 7}
    assert found.total == 25
    assert found.epochs == 100
    # judged: a third of a step. select: baseline, 8 + 2 candidates at 2 x; held: baseline, 6 at 2 x, two seeds.
    images = 4 * (600 + 100) * (1 + 10 * 2) + 4 * (600 + 50) * (1 + 6 * 2) * 2
    assert found.images == pytest.approx(images)
    assert found.seconds == pytest.approx(images * 0.001)


def test_workers_share_the_time_in_whole_trials() -> None:
    space = fakes.space(replicates=2, confirm=Confirm(best=1, seeds=2))
    alone, four = (
        plan(space, fakes.candidates(), COUNTS, seconds_per_image=0.001, workers=workers) for workers in (1, 4)
    )
    assert four.seconds == pytest.approx(alone.seconds / 4 * 28 / 25)  # 25 trials are seven rounds of four


def test_rejected_candidates_cost_nothing_and_samples_count() -> None:
    given = [*fakes.named_candidates(), fakes.candidate(Shares(0.9, 0.1, 0.0), "x", rejected="too dear")]
    space = fakes.space(sampler="tpe", trials=10, confirm=Confirm(best=1, seeds=1))
    assert plan(space, given, COUNTS, seconds_per_image=1.0, workers=1).trials["search"] == 15


def test_timing_the_baseline() -> None:
    seen: list[int] = []
    space = fakes.space(recipe=Recipe(epochs=1, batch_size=4))
    found = time_baseline(
        Toy(),
        ToySpec((1, 1), (4, 8), 16),
        space,
        num_classes=3,
        device="cpu",
        seconds=0.01,
        progress=lambda done, total, what: seen.append(done),
    )
    assert found > 0
    assert seen[-1] == 100
