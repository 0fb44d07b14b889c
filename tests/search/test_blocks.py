"""Seeds are blocks: every candidate with each of the search's seeds, in an order that is drawn."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scalenet.epochs import RunTrial
from scalenet.runs import TrialRecord
from scalenet.search import SearchInterrupted, SearchResult, search
from scalenet.space import Confirm, SearchSpace
from tests.search import fakes


def searched(place: Path, space: SearchSpace, **behaviour: object) -> SearchResult:
    run = fakes.run_directory(place)
    place.mkdir(parents=True, exist_ok=True)
    job = fakes.job(place, **behaviour)
    return search(space, fakes.candidates(), run, job, propose=fakes.propose, run_trial=fakes.run_trial)


def of(result: SearchResult, phase: str) -> list[TrialRecord]:
    return [record for record in result.records if record.phase == phase]


def test_every_candidate_is_trained_with_every_seed_of_the_search(place: Path) -> None:
    result = searched(place, fakes.space(seeds=3, replicates=0, confirm=Confirm(1, 1)))
    seeds: dict[str, set[int]] = {}
    for record in of(result, "search"):
        seeds.setdefault(record.key, set()).add(record.seed)
    assert len(seeds) == 8
    assert set(map(frozenset, seeds.values())) == {frozenset({0, 1, 2})}
    assert {record.seed for record in of(result, "baseline")} == {0, 1, 2}
    assert {record.seed for record in of(result, "confirm")} == {3}


def test_a_block_begins_when_the_one_before_has_ended(place: Path) -> None:
    searched(place, fakes.space(seeds=2, replicates=0, confirm=Confirm(1, 1)))
    order = [line.split(" ")[0] for line in fakes.epochs_trained(place) if line.endswith(" 4") and "select" in line]
    baseline = next(c.key for c in fakes.candidates() if "baseline" in c.names)
    seeds = [trained.split("-")[1] for trained in order if not trained.startswith(baseline)]
    assert seeds == ["0"] * 8 + ["1"] * 8


def test_what_failed_is_not_trained_with_further_seeds(place: Path) -> None:
    broken = next(c.key for c in fakes.candidates() if "width" in c.names)
    result = searched(
        place, fakes.space(seeds=3, replicates=0, confirm=Confirm(1, 1)), **{broken: {"raise": "too wide"}}
    )
    assert Counter(r.key for r in of(result, "search"))[broken] == 1
    assert len({r.key for r in of(result, "search")}) == 8


def test_the_order_is_drawn_and_differs_between_seeds(place: Path) -> None:
    result = searched(place, fakes.space(seeds=2, replicates=0, confirm=Confirm(1, 1)))
    given = [c.key for c in fakes.candidates() if "baseline" not in c.names]
    first, second = ([r.key for r in of(result, "search") if r.seed == seed] for seed in (0, 1))
    assert sorted(first) == sorted(second) == sorted(given)
    assert given != first != second


def test_the_surfaces_optimum_is_confirmed(place: Path) -> None:
    """The truth is highest at depth .2, width .3, resolution .5, which the lattice of six points does not hold."""
    result = searched(place, fakes.space(seeds=2, confirm=Confirm(1, 2)))
    known = {c.key for c in fakes.candidates()}
    (optimum,) = [c for c in result.candidates if c.key not in known]
    assert optimum.names == ("optimum",)
    distance = abs(optimum.shares.depth - 0.2) + abs(optimum.shares.width - 0.3) + abs(optimum.shares.resolution - 0.5)
    assert distance < 0.3
    assert Counter(r.key for r in of(result, "confirm"))[optimum.key] == 2


def test_a_race_gives_further_seeds_to_those_who_are_not_behind(place: Path) -> None:
    """The truth falls by a fifth from the best to the corners, and noise is at most one point: far ones must go."""
    plain = searched(place / "a", fakes.space(seeds=4, confirm=Confirm(2, 4)))
    race = searched(place / "b", fakes.space(seeds=4, confirm=Confirm(2, 4), racing=True))
    assert len(race.records) < len(plain.records)
    seeds = Counter(r.key for r in of(race, "search"))
    best = min(of(plain, "search"), key=lambda r: -(r.top1 or 0)).key
    assert seeds[best] == 4
    depth = next(c.key for c in fakes.candidates() if "depth" in c.names)  # the farthest
    assert seeds[depth] < 4
    confirmed = Counter(r.key for r in of(race, "confirm"))
    baseline = next(c.key for c in fakes.candidates() if "baseline" in c.names)
    assert confirmed[best] == confirmed[baseline] == 4
    assert confirmed[depth] < 4


def test_a_race_that_was_broken_off_ends_as_it_would_have(place: Path) -> None:
    space = fakes.space(seeds=3, confirm=Confirm(2, 3), racing=True, adaptive=2)
    whole = searched(place / "a", space)
    run = fakes.run_directory(place / "b")
    for number in (5, 9, 14, 20, 26, 33):
        with contextlib.suppress(SearchInterrupted):
            search(
                space, fakes.candidates(), run, fakes.job(place / "b"), propose=fakes.propose,
                run_trial=interrupted_after(number),
            )  # fmt: skip
    last = search(
        space, fakes.candidates(), run, fakes.job(place / "b"), propose=fakes.propose, run_trial=fakes.run_trial
    )
    assert fakes.essence(last.records) == fakes.essence(whole.records)
    assert max(Counter(fakes.epochs_trained(place / "b")).values()) == 1


def interrupted_after(trials: int) -> RunTrial:
    """Ctrl-C at the beginning of a later trial."""
    left = [trials]

    def run_trial(job: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return fakes.run_trial(job)

    return run_trial


def test_adaptive_points_lie_where_the_surface_is_high(place: Path) -> None:
    result = searched(place, fakes.space(seeds=2, replicates=1, adaptive=3, confirm=Confirm(1, 1)))
    added = [c for c in result.candidates if any(name.startswith("adaptive") for name in c.names)]
    assert 1 <= len(added) <= 3
    for candidate in added:
        shares = candidate.shares
        assert abs(shares.depth - 0.2) + abs(shares.width - 0.3) + abs(shares.resolution - 0.5) < 0.8
        assert Counter(r.key for r in of(result, "search"))[candidate.key] == 2
