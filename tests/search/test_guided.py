"""A guided search: everybody once, then the better half by a surface, all judged as confirmation is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from scalenet.racing import estimated, guided_trainings
from scalenet.runs import Judge, TrialRecord
from scalenet.search.agenda import confirm_seeds
from scalenet.search.heats import going_on
from scalenet.space import Confirm, SearchSpace
from tests.search import fakes
from tests.search.simulated import Simulation, whole
from tests.synthetic import trial

BASELINE = fakes.key_of("baseline")
GIVEN = fakes.candidates(4)  # the baseline and 17 others, of which one is built twice


def space(seeds: int = 3) -> SearchSpace:
    return fakes.space(sampler="guided", confirm=Confirm(1, seeds))


def trained(records: tuple[TrialRecord, ...]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for record in records:
        found.setdefault(record.seed, set()).add(record.key)
    return found


def test_all_have_the_first_fresh_seed_and_each_further_one_the_better_half() -> None:
    records = whole(space(), given=GIVEN).records()
    assert {(r.phase, r.judge) for r in records} == {("confirm", "held")}
    first, second, third = confirm_seeds(space())
    blocks = trained(records)
    usable = {c.key for c in GIVEN}
    assert list(blocks) == [first, second, third]
    assert blocks[first] == usable
    assert [len(blocks[seed]) - 1 for seed in blocks] == list(guided_trainings(len(usable) - 1, 3))
    assert all(BASELINE in block for block in blocks.values())
    by_key = {c.key: c for c in GIVEN}
    growth = {key: math.log2(by_key[key].ratio) for key in usable - {BASELINE}}
    shares = {key: by_key[key].realised for key in growth}
    for seen, block in (((first,), blocks[second]), ((first, second), blocks[third])):
        scores = {(r.key, r.seed): r.top1 or 0.0 for r in records if r.seed in seen}
        layout = estimated(scores, growth, baseline=BASELINE, shares=shares)
        before = blocks[seen[-1]]
        order = sorted((i for i, key in enumerate(layout.keys) if key in before), key=lambda i: -layout.means[i])
        assert block - {BASELINE} == {layout.keys[i] for i in order[: len(before - {BASELINE}) // 2]}


def test_what_is_rejected_is_not_trained_and_what_is_named_has_no_privilege() -> None:
    given = [replace(c, rejected="too dear") if "width" in c.names else c for c in GIVEN]
    blocks = trained(whole(space(), given=given).records())
    assert fakes.key_of("width") not in set.union(*blocks.values())
    last = blocks[max(blocks)]
    assert fakes.key_of("depth") not in last  # the truth is best elsewhere


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_total_is_known_from_the_start(seeds: int) -> None:
    search = Simulation(space(seeds), GIVEN)
    search.drive(2)
    number = len({c.key for c in GIVEN}) - 1
    expected = sum(1 + size for size in guided_trainings(number, seeds))
    assert {p.total for p in search.listener.seen} == {expected}
    assert len(search.told) == expected


def test_no_further_block_begins_before_all_of_one_has_ended() -> None:
    search = Simulation(space(2), GIVEN)
    search.drive(7, seed=5)
    seeds = [cell[1] for cell, epoch in search.trained if epoch == 1]
    assert seeds == sorted(seeds)
    assert len(Counter(seeds)) == 2


def test_a_baseline_that_fails_holds_nobody_up() -> None:
    found = whole(space(2), given=GIVEN, fails=lambda key, *_: key == BASELINE)
    states = Counter((r.key == BASELINE, r.state) for r in found.records())
    number = len({c.key for c in GIVEN}) - 1
    assert states == {(True, "failed"): 2, (False, "complete"): number + number // 2}


def test_who_fails_has_no_further_part() -> None:
    best = max((c.key for c in GIVEN[1:]), key=_final)
    blocks = trained(whole(space(3), given=GIVEN).records())
    assert all(best in block for block in blocks.values())
    first, second, _ = confirm_seeds(space())
    found = whole(space(3), given=GIVEN, fails=lambda key, seed, judge: key == best and seed == second)
    assert [seed for seed, block in trained(found.records()).items() if best in block] == [first, second]


def test_the_real_study_says_the_same(place: Path) -> None:
    records = fakes.searched(place, space=space(2), given=GIVEN).records
    simulated = whole(space(2), given=GIVEN).records()
    assert [(r.key, r.seed, r.top1) for r in records] == [(r.key, r.seed, r.top1) for r in simulated]


def _final(key: str) -> float:
    of = next(c for c in GIVEN if c.key == key)
    return -math.dist((of.shares.depth, of.shares.width, of.shares.resolution), (0.2, 0.3, 0.5))


def test_a_race_for_the_verdict_drops_at_the_level_that_both_share() -> None:
    """A candidate that 5 % alone would drop goes on where the verdict needs half of them; on select it does not."""
    entrants = [c for c in fakes.candidates() if {"depth", "width", "resolution"} & set(c.names)]
    at = {"depth": (0.500, 0.501), "width": (0.502, 0.500), "resolution": (0.501, 0.502)}
    raced = fakes.space(racing=True, confirm=Confirm(1, 3))

    def dropped(gap: float, judge: Judge) -> bool:
        records = [
            trial(c, top1 - gap * (name == "depth"), seed=seed, judge=judge)
            for c in entrants
            for name, scores in at.items()
            for seed, top1 in enumerate(scores)
            if name in c.names
        ]
        found = going_on(records, entrants, GIVEN[0], raced, seeds=(0, 1, 2), judge=judge)
        return len(found) < len(entrants)

    gaps = [0.0005 * step for step in range(40)]
    judges: tuple[Judge, ...] = ("held", "select")
    shared, alone = (next(gap for gap in gaps if dropped(gap, judge)) for judge in judges)
    assert shared > alone * 1.2
