"""Searches whose points a sampler draws, in process and without training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalenet.search import SearchInterrupted, Silent
from scalenet.search.study import Ledger
from scalenet.shares import Shares
from scalenet.space import Confirm
from tests.search import fakes


def test_a_sampler_that_is_stuck_is_helped_out(place: Path) -> None:
    # gp does not see failures: it draws a rejected point again and again.
    space = fakes.space(sampler="gp", trials=6, confirm=Confirm(1, 1), replicates=0)

    def propose(shares: Shares) -> Any:
        return fakes.candidate(shares, rejected="too dear" if min(shares.depth, shares.width) < 0.12 else None)

    result = fakes.searched(place, space=space, propose=propose)
    assert sum(r.phase == "search" for r in result.records) == 5 + 6


def test_a_sampler_that_finds_too_few_says_so(place: Path) -> None:
    notes = []

    class Listener(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    space = fakes.space(sampler="random", trials=3, confirm=Confirm(1, 1), replicates=0)
    dear = fakes.searched(
        place, space=space, propose=lambda shares: fakes.candidate(shares, rejected="too dear"), observer=Listener()
    )
    assert sum(r.phase == "search" for r in dear.records) == 5
    assert len(notes) == 1
    assert notes[0].startswith("The sampler random found 0 of 3 candidates")


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_sampler_draws_the_same_when_interrupted(place: Path, sampler: str) -> None:
    space = fakes.space(sampler=sampler, trials=8, confirm=Confirm(1, 1), replicates=0)
    result = fakes.searched(place / "a", space=space)
    searching = [r for r in result.records if r.phase == "search"]
    assert len(searching) == 5 + 8
    assert len({r.key for r in searching}) == 13
    broken = place / "b"
    run = fakes.run_directory(broken)
    with pytest.raises(SearchInterrupted):
        fakes.searched(broken, run, space=space, behaviour={searching[9].key: {"interrupt_once": 2}})
    # The records of a run hold its sampled candidates too: they may be given again.
    known = [*fakes.named_candidates(), *run.candidates()]
    resumed = fakes.searched(broken, run, space=space, behaviour={searching[9].key: {"interrupt_once": 2}}, given=known)
    assert fakes.essence(resumed.records) == fakes.essence(result.records)
    assert max(Counter(fakes.epochs_trained(broken)).values()) == 1
    assert {c.key for c in run.candidates()} == {c.key for c in resumed.candidates} - {
        c.key for c in fakes.named_candidates()
    }


def test_a_batch_that_was_broken_off_is_completed(place: Path) -> None:
    space = fakes.space(sampler="tpe", trials=10, confirm=Confirm(1, 1), replicates=0)
    expected = fakes.essence(fakes.searched(place / "a", space=space).records)
    calls = iter(range(100))

    def propose(shares: Shares) -> Any:
        if next(calls) == 6:  # the third point of the second batch
            raise KeyboardInterrupt
        return fakes.propose(shares)

    run = fakes.run_directory(place / "b")
    with pytest.raises(SearchInterrupted):
        fakes.searched(place / "b", run, space=space, propose=propose)
    assert fakes.essence(fakes.searched(place / "b", run, space=space).records) == expected


def test_a_point_that_builds_a_known_candidate_is_told_but_not_trained(place: Path) -> None:
    corner = next(c for c in fakes.candidates() if "width" in c.names)
    drawn = iter(range(100))

    def propose(shares: Shares) -> Any:
        number = next(drawn)
        if number < 2:
            return corner
        return fakes.candidate(shares, rejected="too dear" if number == 2 else None)

    run = fakes.run_directory(place)
    space = fakes.space(sampler="random", trials=3, confirm=Confirm(1, 1), replicates=0)
    result = fakes.searched(place, run, space=space, propose=propose)
    assert max(Counter(fakes.epochs_trained(place)).values()) == 1
    assert sum(r.phase == "search" for r in result.records) == 5 + 3
    ledger = Ledger(f"sqlite:///{run.path}/study.db")
    rows = ledger.rows("search")
    ledger.close()
    known = next(row.number for row in rows if row.attrs["key"] == corner.key)
    assert [row.attrs.get("same_as") for row in rows[5:7]] == [known, known]
    assert rows[7].state == "failed"
    assert rows[7].attrs["reason"] == "too dear"
    assert any(c.rejected == "too dear" for c in run.candidates())
