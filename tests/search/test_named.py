"""Points that are named are confirmed, with or without a search phase."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalenet.errors import ScalenetError
from scalenet.mixture import point_name
from scalenet.search import SearchInterrupted, Silent
from scalenet.search.campaign import Campaign
from scalenet.search.study import Ledger
from scalenet.search.values import Progress, Trial
from scalenet.shares import Shares
from scalenet.space import Confirm
from tests.search import fakes

POINT = Shares(0.2, 0.3, 0.5)


def with_point() -> list[Any]:
    return [*fakes.named_candidates(), fakes.candidate(POINT, point_name(POINT))]


def test_named_points_alone_are_only_confirmed(place: Path) -> None:
    space = fakes.space(sampler="named", points=(POINT,), seed=7, replicates=0, confirm=Confirm(2, 3))
    seen: list[Progress] = []

    class Listener(Silent):
        def started(self, progress: Progress) -> None:
            seen.append(progress)

    records = fakes.searched(place / "a", space=space, given=with_point(), observer=Listener()).records
    assert {(r.phase, r.judge) for r in records} == {("confirm", "held")}
    seeds: dict[str, list[int]] = {}
    for record in records:
        seeds.setdefault(record.names[0], []).append(record.seed)
    assert seeds == {c.names[0]: [8, 9, 10] for c in with_point()}
    assert seen[0].total == len(records)

    run = fakes.run_directory(place / "b")
    behaviour = {fakes.key_of("width"): {"interrupt_once": 2}}
    with pytest.raises(SearchInterrupted):
        fakes.searched(place / "b", run, space=space, given=with_point(), behaviour=behaviour)
    resumed = fakes.searched(place / "b", run, space=space, given=with_point(), behaviour=behaviour)
    assert fakes.essence(resumed.records) == fakes.essence(records)
    assert max(Counter(fakes.epochs_trained(place / "b")).values()) == 1


def test_points_that_were_asked_for_are_always_confirmed(place: Path) -> None:
    far = Shares(0.9, 0.1, 0.0)  # from where the truth is best: never among the best of the search phase
    given = [*fakes.candidates(), fakes.candidate(far, point_name(far))]
    result = fakes.searched(place, space=fakes.space(points=(far,), confirm=Confirm(1, 2)), given=given)
    mine = Counter(r.phase for r in result.records if r.names == (point_name(far),))
    assert mine == {"search": 1, "confirm": 2}
    rejected = fakes.candidate(far, point_name(far), rejected="too dear")
    given = [*fakes.candidates(), rejected]
    result = fakes.searched(place / "b", space=fakes.space(points=(far,), confirm=Confirm(1, 2)), given=given)
    assert rejected.key not in {r.key for r in result.records}


def test_named_points_that_fail_end_it_only_when_the_baseline_fails_too(place: Path) -> None:
    ledger = Ledger(f"sqlite:///{place}/b.db")
    campaign = Campaign(
        fakes.space(sampler="named", replicates=0),
        fakes.named_candidates(),
        ledger,
        observer=Silent(),
        recorded=lambda _: None,
        proposed=lambda _: None,
    )
    given = [campaign.next() for _ in range(6)]
    trials = {trial.candidate.names[0]: trial for trial in given if isinstance(trial, Trial)}
    for name in ("depth", "width", "equal"):
        campaign.fail(trials[name], "out of memory")
    with pytest.raises(ScalenetError, match=r"first \d trials failed"):
        campaign.fail(trials["baseline"], "out of memory")
    ledger.close()
