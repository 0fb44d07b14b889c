"""A search comes out the same for any number of workers, whoever fails, and at whatever write its driver dies."""

from __future__ import annotations

import contextlib
import hashlib
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from scalenet.plain import to_plain
from scalenet.projection import Candidate
from scalenet.search import Silent
from scalenet.search.campaign import Campaign
from scalenet.search.entries import attributes
from scalenet.search.finalists import always_confirmed, centre_of
from scalenet.search.values import Progress, Trial
from scalenet.shares import Shares
from scalenet.space import Confirm, SearchSpace
from tests.search import fakes
from tests.search.simulated import Killed, Memory, Simulation, whole

BASELINE = fakes.key_of("baseline")
Fails = Callable[[str, int, str], bool]


def nothing(key: str, seed: int, judge: str) -> bool:
    return False


def some(key: str, seed: int, judge: str) -> bool:
    """One training in six, whatever else happens."""
    return hashlib.sha256(f"{key} {seed} {judge}".encode()).digest()[0] < 43


def baseline_and_some(key: str, seed: int, judge: str) -> bool:
    return key == BASELINE or some(key, seed, judge)


def baseline_with_odd_seeds(key: str, seed: int, judge: str) -> bool:
    return key == BASELINE and seed % 2 == 1


SPACES = {
    "race": fakes.space(seeds=3, replicates=1, racing=True, confirm=Confirm(2, 3)),
    "race without replicates": fakes.space(seeds=2, replicates=0, racing=True, confirm=Confirm(1, 3)),
    "adaptive points": fakes.space(seeds=2, adaptive=3, racing=True, confirm=Confirm(2, 2)),
    "early stopping": fakes.space(seeds=2, adaptive=2, scheduler="asha", racing=True, confirm=Confirm(2, 2)),
    "all seeds for all": fakes.space(seeds=3, adaptive=2, replicates=1, confirm=Confirm(2, 1)),
    "a sampler": fakes.space(sampler="random", trials=6, seeds=2, scheduler="asha", racing=True, confirm=Confirm(2, 3)),
    "named points": fakes.space(sampler="named", racing=True, confirm=Confirm(1, 3)),
    "guided by a surface": fakes.space(sampler="guided", confirm=Confirm(1, 4)),
}


def through_mishaps(space: SearchSpace, fails: Fails, seed: int) -> tuple[Simulation, Campaign]:
    """One driver after the other, each with its number of workers, until one lives long enough."""
    draw = random.Random(seed)
    search = Simulation(space, given(space), fails=fails)
    for _ in range(40):
        try:
            return search, search.drive(draw.choice((1, 2, 5, 40)), seed=draw.random(), writes=draw.randrange(1, 40))
        except Killed:
            pass
    return search, search.drive(3, seed=0)


def given(space: SearchSpace) -> list[Any]:
    return fakes.candidates() if space.has_lattice else fakes.named_candidates()


@pytest.mark.parametrize("fails", [nothing, some, baseline_and_some, baseline_with_odd_seeds])
@pytest.mark.parametrize("kind", SPACES)
def test_neither_deaths_nor_workers_change_what_is_found(kind: str, fails: Fails) -> None:
    space = SPACES[kind]
    expected = whole(space, given=given(space), fails=fails)
    for seed in range(4):
        search, found = through_mishaps(space, fails, seed)
        assert fakes.essence(found.records()) == fakes.essence(expected.records())
        assert list(found.candidates) == list(expected.candidates)
        assert len(search.told) == len(found.records())


@pytest.mark.parametrize("kind", [kind for kind in SPACES if kind not in ("named points", "guided by a surface")])
def test_drivers_that_see_other_optima_leave_no_two_candidates_of_one_name(kind: str) -> None:
    """As versions do that differ in their surface, and machines in its last digits; one dies at each proposal."""
    space = SPACES[kind]
    whole = Simulation(space, given(space))
    whole.drive()
    for death in {written + later for written in whole.proposed for later in (0, 1, 20)}:
        search = Simulation(space, given(space))
        with contextlib.suppress(Killed):
            search.drive(writes=death)
        search.propose = elsewhere(0.2)
        search.drive()
        names = [name for c in search.known.values() for name in c.names]
        assert len(names) == len(set(names))
        assert {r.key for r in search.told.values()} <= search.known.keys()
        assert sum(name.startswith("adaptive") for name in names) <= space.adaptive


def elsewhere(by: float) -> Callable[[Shares], Candidate]:
    """Proposes what lies so much of the way towards depth alone."""
    return lambda s: fakes.propose(Shares(s.depth + by * (1 - s.depth), s.width * (1 - by), s.resolution * (1 - by)))


@pytest.mark.parametrize("kind", SPACES)
def test_the_total_is_never_exceeded(kind: str) -> None:
    space = SPACES[kind]
    search = Simulation(space, given(space))
    search.drive(3)
    assert max(p.done for p in search.listener.seen) == len(search.told)
    # Two draws of a sampler may build one candidate, so that its total may fall, too.
    assert min(p.total for p in search.listener.seen) >= len(search.told)


@pytest.mark.parametrize("usable", [0, 1, 2])
def test_a_lattice_of_which_hardly_anything_is_left(usable: int) -> None:
    left = [c if i <= usable else replace(c, rejected="too dear") for i, c in enumerate(fakes.candidates())]
    for kind in ("race", "adaptive points", "early stopping", "all seeds for all"):
        found = whole(SPACES[kind], given=left)
        assert {r.key for r in found.records()} == {c.key for c in left[: usable + 1]}
        assert {r.judge for r in found.records()} == {"select", "held"}


def test_a_run_of_a_version_that_repeated_only_the_centre_is_finished() -> None:
    """Its candidates are in the lattice's order, its baseline has one seed, and confirmations wait before the rest."""
    space, made = fakes.space(replicates=2), fakes.candidates()
    memory = Memory()
    memory.remember({"space": to_plain(space), "candidates": [c.key for c in made]})
    for number, of in enumerate(made[1:]):
        memory.enqueue("search", attributes(Trial("search", number, of, "search", 0, "select")), of.shares)
    centre = centre_of(made[1:])
    assert centre is not None
    begun = [Trial("repeats", 0, made[0], "baseline", 0, "select")]
    begun += [Trial("repeats", 0, centre, "replicate", seed, "select") for seed in (1, 2)]
    begun += [Trial("repeats", 0, c, "confirm", seed, "held") for seed in (3, 4) for c in always_confirmed(made)]
    for trial in begun:
        memory.enqueue("repeats", attributes(trial))
    found = Simulation(space, made, memory=memory).drive(2)
    assert [r.key for r in found.records()[: len(made) - 1]] == [c.key for c in made[1:]]
    expected = whole(space, given=made)
    assert sorted(map(str, fakes.essence(found.records()))) == sorted(map(str, fakes.essence(expected.records())))


def test_a_score_that_is_none_stops_nobody() -> None:
    """The first to reach the rung (epoch 2 of 4) does so with NaN, which is no score to be behind."""
    keys: list[str] = []

    def score(job: Mapping[str, Any], epoch: int) -> float:
        keys.extend([job["key"]] * (job["judge"] == "select" and job["key"] not in [BASELINE, *keys]))
        return math.nan if job["key"] == keys[:1][0] and epoch == 2 else fakes.score(job, epoch)

    space = fakes.space(scheduler="asha", replicates=0, confirm=Confirm(1, 1))
    found = Simulation(space, score=lambda job, epoch: 0.1 if job["key"] == BASELINE else score(job, epoch)).drive()
    first, second = [r for r in found.records() if r.phase == "search"][:2]
    assert (first.state, first.reason) == ("failed", "top1 is nan in epoch 2")
    assert second.state == "complete"


def test_what_is_said_again_tells_nothing_of_the_time_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two trainings the first is taken from the store in no time; an epoch of the second takes 8 seconds."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    space = fakes.space(sampler="named", confirm=Confirm(1, 1), replicates=0)
    made = fakes.candidates()[:2]
    seen: list[Progress] = []
    campaign = Campaign(
        space, made, Memory(), observer=Silent(), recorded=lambda _: None, proposed=lambda _: None  # type: ignore[arg-type]
    )  # fmt: skip
    first = campaign.next()
    assert isinstance(first, Trial)
    for epoch in range(1, 5):
        campaign.report(first, {"epoch": epoch, "top1": 0.5, "seconds": 8.0, "reused": 1.0}, 0.0)
        seen.append(campaign.progress())
    campaign.finish(first)
    assert {p.seconds_left for p in seen} == {None}
    second = campaign.next()
    assert isinstance(second, Trial)
    clock[0] += 8.0
    campaign.report(second, {"epoch": 1, "top1": 0.5, "seconds": 8.0}, 8.0)
    assert campaign.progress().seconds_left == pytest.approx(3 * 8.0)
    assert campaign.training_seconds == 8.0
