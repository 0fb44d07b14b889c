"""What a search leaves open: timed once, by processes of its own, kept, written into the space."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scalenet import settle
from scalenet.device import Numerics, numerics
from scalenet.experiment import Plan, plan
from scalenet.settle import Arrangement, Settled, arrangements, open_ways, quickest, settled
from scalenet.space import resolve
from tests.pictures import png_folder

CPU = torch.device("cpu")
RULE = Numerics(channels_last=True, bf16=False)
OTHER = Numerics(channels_last=False, bf16=False)
WAYS = {Numerics(*way) for way in itertools.product((True, False), repeat=3)}


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    flags = {"data.source": str(png_folder(tmp_path / "pictures"))}
    return plan("mobilenet", resolve("mobilenet", None, ["lattice=1"], flags))


def times(
    monkeypatch: pytest.MonkeyPatch, seconds: Any, begun: list[int] | None = None
) -> list[tuple[Numerics, Arrangement]]:
    """Instead of a stopwatch, `seconds(how, shape)`; returns what it is asked for.

    `begun` gets, whenever processes are started, what had been asked for until then.
    """
    begun = [] if begun is None else begun
    asked: list[tuple[Numerics, Arrangement]] = []
    running: list[Nothing] = []

    class Nothing:
        def __enter__(self) -> list[None]:
            assert not running  # two sets of processes would not fit on a GPU
            running.append(self)
            begun.append(len(asked))
            return []

        def __exit__(self, *_: object) -> None:
            running.remove(self)

    def timed(children: object, how: Numerics, shape: Arrangement, hopeless: float = 0.0) -> float:
        asked.append((how, shape))
        return float(seconds(how, shape))

    monkeypatch.setattr(settle, "_processes", lambda *_: Nothing())
    monkeypatch.setattr(settle, "_timed", timed)
    monkeypatch.setattr(settle, "cpus", lambda: 4)
    return asked


@pytest.mark.slow
def test_a_real_stopwatch_settles_everything_and_is_remembered(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    done, found = settled(planned, "cpu")
    assert found is not None
    assert 0 < found.seconds_per_image < 1
    recipe = done.space.recipe
    assert recipe.precision in ("fp32", "bf16")
    assert recipe.memory_format in ("channels_last", "contiguous")
    assert done.space.threads == found.arrangement.threads >= 1
    monkeypatch.setattr(settle, "_processes", None)  # a second timing would fail
    again, same = settled(planned, "cpu")
    assert (again.space, same) == (done.space, found)


def test_a_clear_winner_is_taken_and_noise_is_not(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, lambda how, _: 1.0 if how == RULE else 0.97 if how == OTHER else 3.0)
    done, _ = settled(planned, "cpu")
    assert done.space.recipe.memory_format == "channels_last"
    times(monkeypatch, lambda how, _: 1.0 if how == RULE else 0.5 if how == OTHER else 3.0)
    other = replace(planned, space=replace(planned.space, recipe=replace(planned.space.recipe, batch_size=31)))
    done, found = settled(other, "cpu")
    assert done.space.recipe.memory_format == "contiguous"
    assert done.space.recipe.precision == "fp32"
    assert found is not None
    assert found.how == OTHER


def test_only_what_is_left_open_is_timed(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = times(monkeypatch, lambda *_: 1.0)
    recipe = replace(planned.space.recipe, precision="bf16")
    done, _ = settled(replace(planned, space=replace(planned.space, recipe=recipe, threads=2)), "cpu")
    assert {how for how, _ in asked} == {Numerics(True, True), Numerics(False, True)}
    assert {shape for _, shape in asked} == {Arrangement(2, 2)}
    assert (done.space.recipe.precision, done.space.threads) == ("bf16", 2)
    settled_already = replace(planned, space=replace(done.space))
    del asked[:]
    again, nothing = settled(settled_already, "cpu")
    assert (again.space, nothing) == (done.space, None)
    assert asked == []


def test_a_stopwatch_that_fails_leaves_the_rules(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_job", lambda *_: {"plugin": "nowhere"})  # the process ends at once
    done, found = settled(planned, "cpu")
    assert found is None
    assert (done.space.recipe.precision, done.space.recipe.memory_format) == ("fp32", "channels_last")
    assert done.space.threads == 1


def test_damaged_memories_are_measured_anew(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = times(monkeypatch, lambda *_: 1.0)
    _, found = settled(planned, "cpu")
    for file in (settle.cache_root() / "timings").iterdir():
        file.write_text('{"how": 3}')
    del asked[:]
    assert settled(planned, "cpu")[1] == found
    assert asked


def test_every_cpu_is_given_out_and_no_trial_too_many(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "cpus", lambda: 6)
    assert arrangements(planned, CPU, planned.trials) == [Arrangement(6, 1), Arrangement(3, 2), Arrangement(1, 4)]
    monkeypatch.setattr(settle, "cpus", lambda: 64)
    most = planned.trials
    assert 16 < most < 32
    assert arrangements(planned, CPU, most)[:3] == [Arrangement(most, 1), Arrangement(most, 2), Arrangement(16, 4)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [a.workers for a in arrangements(planned, torch.device("cuda"), most)] == [2, 4, 8, 16]
    assert [a.workers for a in arrangements(planned, torch.device("cuda", 1), most)] == [1, 2, 4, 8]
    monkeypatch.setattr(settle, "cpus", lambda: 2)
    assert [a.workers for a in arrangements(planned, torch.device("cuda"), most)] == [2]
    assert arrangements(planned, torch.device("mps"), most) == [Arrangement(1, 1)]


def test_whole_rounds_of_trials_count() -> None:
    one, two = Arrangement(4, 1), Arrangement(2, 2)
    assert quickest({one: 1.0, two: 0.55}, trials=8) == one  # 2 rounds against 4 of 0.55
    assert quickest({one: 1.0, two: 0.55}, trials=5) == two  # 2 rounds against 3 of 0.55
    assert quickest({one: 1.0, two: 0.49}, trials=8) == one  # within noise: the first
    assert quickest({one: 1.0, two: 0.40}, trials=8) == two


def test_ways_left_open_begin_with_the_rule(planned: Plan) -> None:
    assert open_ways(planned, RULE, CPU)[0] == RULE
    assert len(set(open_ways(planned, RULE, CPU))) == 4
    assert open_ways(planned, OTHER, torch.device("mps")) == [OTHER]


@pytest.mark.parametrize(
    ("execution", "recorded"), [("auto", {True, False}), ("eager", {False}), ("cuda_graphs", {True})]
)
def test_recording_steps_is_tried_on_cuda_where_nobody_decided(
    planned: Plan, execution: Any, recorded: set[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    recipe, cuda = replace(planned.space.recipe, execution=execution), torch.device("cuda", 0)
    planned = replace(planned, space=replace(planned.space, recipe=recipe))
    ways = open_ways(planned, numerics(recipe, cuda), cuda)
    assert {way.recorded for way in ways} == recorded
    assert len(ways) == len(set(ways)) == 4 * len(recorded)
    assert not any(way.recorded for way in open_ways(planned, numerics(recipe, CPU), CPU))


def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "pick_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")


@pytest.mark.parametrize(("gain", "execution"), [(1.2, "cuda_graphs"), (1.02, "eager")])
def test_recorded_steps_are_taken_for_a_clear_gain(
    planned: Plan, gain: float, execution: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch)
    times(monkeypatch, lambda how, _: 1.0 if how != Numerics(True, True, recorded=True) else 1.0 / gain)
    done, _ = settled(planned, "cuda")
    recipe = done.space.recipe
    assert (recipe.execution, recipe.precision, recipe.memory_format) == (execution, "bf16", "channels_last")
    assert settled(done, "cuda") == (done, None)  # nothing is left open


def test_eager_steps_are_timed_where_recorded_ones_leave_a_question(
    planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu(monkeypatch)
    recorded, best = {way for way in WAYS if way.recorded}, Numerics(False, True, recorded=True)
    asked = times(monkeypatch, lambda how, _: 0.5 if how == best else 1.0)
    done, _ = settled(planned, "cuda", workers=1)
    assert {how for how, _ in asked} == recorded | {Numerics(True, True), Numerics(False, True)}
    assert (done.space.recipe.execution, done.space.recipe.memory_format) == ("cuda_graphs", "contiguous")
    other = replace(planned, space=replace(planned.space, recipe=replace(planned.space.recipe, batch_size=31)))
    begun: list[int] = []  # a model that cannot be recorded: once is enough, and nothing is timed in those processes
    asked = times(monkeypatch, lambda how, _: math.inf if how.recorded else 1.0, begun)
    done, _ = settled(other, "cuda", workers=1)
    assert begun == [0, 1]
    assert [how for how, _ in asked if how.recorded] == [Numerics(True, True, recorded=True)]  # nor in another layout
    assert {how for how, _ in asked if not how.recorded} == {way for way in WAYS if not way.recorded}
    assert done.space.recipe.execution == "eager"


def test_a_gpu_is_not_timed_with_more_trials_than_are_asked_for(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch)
    for workers, counts in ((0, {1}), (2, {1, 2}), (None, {1, 2, 4})):
        asked = times(monkeypatch, lambda *_: 1.0)
        settled(planned, "cuda", workers=workers)
        assert {shape.workers for _, shape in asked} == counts


def test_threads_do_not_depend_on_the_workers_asked_for(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    for workers in (None, 0, 1):
        times(monkeypatch, lambda _, shape: 1.0 if shape.threads == 1 else 0.2)
        assert settled(planned, "cpu", workers=workers)[0].space.threads == 2


def test_what_a_recording_costs_is_spread_over_a_gpu_training(planned: Plan) -> None:
    fit = planned.data.counts["fit"]

    def spread(device: torch.device, **changes: Any) -> dict[str, int]:
        space = replace(planned.space, recipe=replace(planned.space.recipe, **changes))
        found: dict[str, int] = settle._job(replace(planned, space=space), device)["spread"]
        return found

    cuda = torch.device("cuda")
    assert spread(cuda, epochs=7, batch_size=fit) == {"images": 7 * fit, "shapes": 1}
    assert spread(cuda, epochs=7, batch_size=fit - 2)["shapes"] == 2
    assert spread(cuda, epochs=7, batch_size=fit - 1)["shapes"] == 1  # one of a single picture is left out
    assert spread(cuda, epochs=7, batch_size=2 * fit)["shapes"] == 1
    assert spread(CPU, epochs=7) == spread(CPU, epochs=8)  # there a longer training is no reason to time anew


def test_what_was_settled_is_plain(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    times(monkeypatch, lambda *_: 0.25)
    _, found = settled(planned, "cpu")
    assert found == Settled(RULE, Arrangement(4, 1), 0.25)
