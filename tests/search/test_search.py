"""The whole search, in process and without training."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalenet.errors import ScalenetError
from scalenet.runs import TrialRecord
from scalenet.search import SearchInterrupted, SearchResult, Silent, search
from scalenet.search.campaign import Campaign
from scalenet.search.study import Ledger
from scalenet.search.values import Idle, Progress, Trial
from scalenet.space import Confirm
from tests.search import fakes


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return fakes.searched(tmp_path_factory.mktemp("whole"))


def test_phases_seeds_and_parts(whole: SearchResult) -> None:
    by_phase: dict[str, list[TrialRecord]] = {}
    for record in whole.records:
        by_phase.setdefault(record.phase, []).append(record)
    assert len(by_phase["search"]) == 8  # six lattice points, equal shares, the paper's
    assert {(r.seed, r.judge) for r in by_phase["search"]} == {(0, "select")}
    assert sorted((r.seed, r.judge) for r in by_phase["baseline"]) == [(seed, "select") for seed in (0, 1, 2)]
    repeated = Counter((r.names[0], r.judge) for r in by_phase["replicate"])
    assert repeated == {(name, "select"): 2 for name in ("depth", "width", "resolution", "equal")}
    assert {r.seed for r in by_phase["replicate"]} == {1, 2}
    assert {(r.seed, r.judge) for r in by_phase["confirm"]} == {(3, "held"), (4, "held")}
    confirmed = Counter(r.names[0] for r in by_phase["confirm"])
    assert set(confirmed.values()) == {2}
    best = sorted(by_phase["search"], key=lambda r: -(r.top1 or 0))[:2]
    assert {"baseline", "depth", "width", "resolution", "equal", "paper"} <= set(confirmed)
    assert {r.names[0] for r in best} <= set(confirmed)
    assert all(r.state == "complete" and len(r.epochs) == 4 for r in whole.records)
    assert all(r.top1 == r.epochs[-1]["top1"] for r in whole.records)


def test_nothing_is_left_but_records(place: Path) -> None:
    run = fakes.run_directory(place)
    result = fakes.searched(place, run, space=fakes.space(confirm=Confirm(1, 1), replicates=0))
    assert not (run.path / "checkpoints").exists()
    assert not (run.path / ".tune").exists()
    assert fakes.essence(sorted(run.trials(), key=str)) == fakes.essence(sorted(result.records, key=str))
    assert run.sessions()[0].workers == 1
    assert result.epochs_trained == result.epochs_full == 4 * len(result.records)
    assert 0 < result.timing.overhead < 1


def test_in_process_imports_neither_ray_nor_torch() -> None:
    script = "import sys, tempfile; from pathlib import Path; from tests.search import fakes\n"
    script += "from scalenet.search import search\nplace = Path(tempfile.mkdtemp())\n"
    script += "search(fakes.space(replicates=0), fakes.candidates(1), fakes.run_directory(place), fakes.job(place), "
    script += "run_trial=fakes.run_trial)\nprint('ray' in sys.modules, 'torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout == "False False\n"


def test_a_finished_run_is_not_run_again(place: Path) -> None:
    run = fakes.run_directory(place)
    first = fakes.searched(place, run)
    trained = fakes.epochs_trained(place)
    ray = sys.modules.pop("ray", None)
    again = fakes.searched(place, run, workers=2)  # for which Ray would take seconds to start
    assert "ray" not in sys.modules
    if ray is not None:
        sys.modules["ray"] = ray
    assert fakes.epochs_trained(place) == trained
    assert fakes.essence(again.records) == fakes.essence(first.records)
    assert len(run.trials()) == len(first.records)


def test_interrupted_and_resumed(place: Path, whole: SearchResult) -> None:
    run = fakes.run_directory(place)
    interrupting = {fakes.key_of("lattice 1/1/0"): {"interrupt_once": 3}}
    with pytest.raises(SearchInterrupted) as interrupted:
        fakes.searched(place, run, behaviour=interrupting)
    assert interrupted.value.command == f"scalenet search --resume {run.path}"
    before = fakes.epochs_trained(place)
    assert before[-1].endswith(" 2")
    resumed = fakes.searched(place, run, behaviour=interrupting)
    after = fakes.epochs_trained(place)[len(before) :]
    assert after[0] == f"{fakes.key_of('lattice 1/1/0')}-0-select 3"  # it continues, and comes first
    assert max(Counter(before + after).values()) == 1
    assert fakes.essence(resumed.records) == fakes.essence(whole.records)
    assert len(run.trials()) == len(resumed.records)
    assert len(run.sessions()) == 2


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_another_process_is_stopped_and_resumed(place: Path, whole: SearchResult, sign: signal.Signals) -> None:
    run = fakes.run_directory(place)
    command = [sys.executable, "-m", "tests.search.driver_process", str(run.path), str(place), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        fakes.wait_for_epochs(place, 10, driver)
        with pytest.raises(ScalenetError, match=f"in use by process {driver.pid}"):
            fakes.searched(place, run)
        driver.send_signal(sign)
        printed, _ = driver.communicate(timeout=60)
    assert driver.returncode == (130 if sign == signal.SIGINT else -signal.SIGKILL)
    assert ("--resume" in printed) == (sign == signal.SIGINT)
    resumed = fakes.searched(place, run)
    assert fakes.essence(resumed.records) == fakes.essence(whole.records)
    # An epoch that was trained but not checkpointed when the signal came is trained again, no other.
    again = [epoch for epoch, times in Counter(fakes.epochs_trained(place)).items() if times > 1]
    assert len(again) <= 1
    assert len(run.trials()) == len(resumed.records)


def test_failures_have_their_reason_and_the_search_goes_on(place: Path) -> None:
    behaviour = {
        fakes.key_of("depth"): {"memory": True},
        fakes.key_of("width"): {"nan": 2},
        fakes.key_of("lattice 1/1/0"): {"raise": "CUDA error: out of luck"},
    }
    records = fakes.searched(place, behaviour=behaviour).records
    failed = {r.names[0]: r for r in records if r.state == "failed" and r.phase == "search"}
    assert (failed["depth"].reason or "").startswith("out of memory")
    assert failed["width"].reason == "top1 is nan in epoch 2"
    assert failed["lattice 1/1/0"].reason == "RuntimeError: CUDA error: out of luck"
    assert all(r.top1 is None for r in failed.values())
    # The corners' two replicates and two confirmations each fail too.
    assert sum(r.state == "complete" for r in records) == len(records) - 3 - 4 - 4


def test_one_cause_for_the_first_three_ends_the_search_and_can_be_mended(place: Path, whole: SearchResult) -> None:
    run = fakes.run_directory(place)
    wrong = {c.key: {"wrong": f"No file '{c.key}'."} for c in fakes.candidates()}
    with pytest.raises(ScalenetError, match=r"first \d trials failed and nothing has worked: No file"):
        fakes.searched(place, run, behaviour=wrong)
    assert run.trials() == ()
    assert fakes.essence(fakes.searched(place, run).records) == fakes.essence(whole.records)


def test_large_candidates_that_fail_while_the_baseline_trains_do_not_end_it(place: Path) -> None:
    ledger = Ledger(f"sqlite:///{place}/b.db")
    campaign = Campaign(
        fakes.space(replicates=0),
        fakes.candidates(),
        ledger,
        observer=Silent(),
        recorded=lambda _: None,
        proposed=lambda _: None,
    )
    given = [campaign.next() for _ in range(4)]
    baseline, *others = [trial for trial in given if isinstance(trial, Trial)]
    assert baseline.phase == "baseline"
    for trial in others:
        campaign.fail(trial, "out of memory")
    campaign.report(baseline, {"epoch": 1, "top1": 0.5}, 0.1)
    campaign.finish(baseline)
    assert [r.state for r in campaign.records()] == ["failed"] * 3 + ["complete"]
    ledger.close()


def test_a_full_disk_is_no_fault_of_the_trial(place: Path, whole: SearchResult) -> None:
    run = fakes.run_directory(place)
    behaviour = {fakes.key_of("width"): {"disk_once": True}}
    with pytest.raises(ScalenetError, match=r"width could not be trained: OSError.*No space left.*resume"):
        fakes.searched(place, run, behaviour=behaviour)
    assert fakes.essence(fakes.searched(place, run, behaviour=behaviour).records) == fakes.essence(whole.records)


def test_different_causes_do_not_end_it(place: Path) -> None:
    keys = [c.key for c in fakes.candidates()]
    behaviour = {key: {"raise": reason} for key, reason in zip(keys, ["one", "two", "three", "three"], strict=False)}
    records = fakes.searched(place, behaviour=behaviour).records
    assert {r.state for r in records} == {"complete", "failed"}


def test_asha_stops_some_and_says_what_it_saved(place: Path) -> None:
    result = fakes.searched(place, space=fakes.space(scheduler="asha"))
    pruned = [r for r in result.records if r.state == "pruned"]
    assert pruned
    assert all(r.phase == "search" and len(r.epochs) == 2 for r in pruned)
    assert result.epochs_trained == result.epochs_full - 2 * len(pruned)
    reached: list[float] = []
    for r in (r for r in result.records if r.phase == "search"):
        value = float(r.epochs[1]["top1"] or 0)
        reached.append(value)
        expected = value >= sorted(reached, reverse=True)[max(1, len(reached) // 3) - 1]
        assert (r.state == "complete") == expected


@pytest.mark.parametrize("order", ["forwards", "backwards", "by turns"])
def test_asha_decides_alike_whoever_comes_first(place: Path, order: str) -> None:
    space = fakes.space(scheduler="asha")
    # The best come first: decided as they come, the later ones would be let through.
    baseline, *others = fakes.candidates()
    given = [baseline, *reversed(others)]
    expected = fakes.essence(fakes.searched(place / "a", space=space, given=given).records)
    ledger = Ledger(f"sqlite:///{place}/b.db")
    campaign = Campaign(
        space,
        given,
        ledger,
        observer=Silent(),
        recorded=lambda _: None,
        proposed=lambda _: None,
        propose=fakes.propose,
    )
    simulate(campaign, place, order)
    assert fakes.essence(campaign.records()) == expected
    ledger.close()


def simulate(campaign: Campaign, place: Path, order: str) -> None:
    """Runs a campaign with four workers, of which the last, the first or each in turn has the next epoch."""
    running: list[tuple[Trial, Any]] = []
    turn = 0
    while True:
        while len(running) < 4 and isinstance(trial := campaign.next(), Trial):
            own = {"spec": trial.candidate.spec, "key": trial.candidate.key, "seed": trial.seed, "judge": trial.judge}
            file = place / f"{trial.candidate.key}-{trial.seed}-{trial.judge}"
            running.append((trial, fakes.run_trial({**fakes.job(place), **own, "checkpoint": str(file)})))
        if not running:
            assert campaign.next() is Idle.DONE
            return
        turn += 1
        place_in_line = {"forwards": 0, "backwards": -1, "by turns": turn % len(running)}[order]
        trial, epochs = running[place_in_line]
        metrics = next(epochs, None)
        if metrics is None:
            campaign.finish(trial)
        if metrics is None or not campaign.report(trial, metrics, 0.01):
            del running[place_in_line]


def test_a_lost_worker_is_forgiven_once(place: Path) -> None:
    ledger = Ledger(f"sqlite:///{place}/b.db")
    notes = []

    class Listener(Silent):
        def note(self, text: str) -> None:
            notes.append(text)

    campaign = Campaign(
        fakes.space(),
        fakes.candidates(),
        ledger,
        observer=Listener(),
        recorded=lambda _: None,
        proposed=lambda _: None,
    )
    trial = campaign.next()
    assert isinstance(trial, Trial)
    campaign.report(trial, {"epoch": 1, "top1": 0.5}, 0.1)
    campaign.lost(trial, "killed")
    assert campaign.next() == trial
    assert campaign.report(trial, {"epoch": 1, "top1": 0.5}, 0.1)
    campaign.lost(trial, "killed")
    assert campaign.records()[0].reason == "killed"
    assert len(campaign.records()[0].epochs) == 1
    assert len(notes) == 1
    ledger.close()


def test_other_settings_are_refused_on_resume(place: Path) -> None:
    run = fakes.run_directory(place)
    space = fakes.space(replicates=0, confirm=Confirm(1, 1))
    fakes.searched(place, run, space=space)
    with pytest.raises(ScalenetError, match=r"other settings \(seed\)"):
        fakes.searched(place, run, space=fakes.space(replicates=0, confirm=Confirm(1, 1), seed=5))


def test_a_study_that_is_older_than_a_key_is_resumed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fakes.run_directory(place)
    space = fakes.space(replicates=0, confirm=Confirm(1, 1))
    found = fakes.searched(place, run, space=space)
    settings = Ledger.settings

    def older(ledger: Ledger) -> dict[str, Any]:
        plain = json.loads(json.dumps(settings(ledger)))
        del plain["space"]["data"]["clean"], plain["space"]["adaptive"]
        return plain

    monkeypatch.setattr(Ledger, "settings", older)
    assert fakes.searched(place, run, space=space).records == found.records
    with pytest.raises(ScalenetError, match=r"other settings \(data\)"):
        fakes.searched(place, run, space=replace(space, data=replace(space.data, clean=True)))


def test_a_lost_study_is_noticed(place: Path) -> None:
    run = fakes.run_directory(place)
    space = fakes.space(replicates=0, confirm=Confirm(1, 1))
    fakes.searched(place, run, space=space)
    run.study.unlink()
    with pytest.raises(ScalenetError, match=r"records of \d+ trials, but the study in .* is empty; give the --storage"):
        fakes.searched(place, run, space=space)


def test_what_trials_jsonl_missed_is_added(place: Path) -> None:
    run = fakes.run_directory(place)
    space = fakes.space(replicates=0, confirm=Confirm(1, 1))
    result = fakes.searched(place, run, space=space)
    file = run.path / "trials.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed in the middle of a line
    fakes.searched(place, run, space=space)
    assert sorted(json.loads(line)["key"] for line in file.read_text().splitlines()) == sorted(
        r.key for r in result.records
    )


def test_progress_counts_to_its_total(place: Path) -> None:
    seen: list[Progress] = []

    class Listener(Silent):
        def started(self, progress: Progress) -> None:
            seen.append(progress)

        def ended(self, record: TrialRecord, progress: Progress) -> None:
            seen.append(progress)

    result = fakes.searched(place, observer=Listener())
    assert [p.done for p in seen] == list(range(len(result.records) + 1))
    assert seen[0].total >= seen[-1].total == len(result.records)
    only_named = fakes.searched(place, given=fakes.named_candidates(), observer=Listener())
    assert seen[-1].total == len(only_named.records)
    assert {p.total for p in seen[len(result.records) + 1 :]} == {seen[-1].total}  # all of them are confirmed anyway
    del seen[len(result.records) + 1 :]
    assert seen[0].seconds_left is None
    assert seen[-1].seconds_left == 0
    best = max((r for r in result.records if r.phase == "search"), key=lambda r: r.top1 or 0)
    assert seen[-1].best == best


def test_the_way_to_resume_can_be_typed_and_tells_no_password() -> None:
    told = SearchInterrupted(Path("my runs/a"), "postgresql://me:se:cret@host/db")
    assert told.command == "scalenet search --resume 'my runs/a' --storage 'postgresql://me:***@host/db'"
    again = SearchInterrupted(Path("a/verify/b"), "sqlite:///b.db", ("verify", "a", "--resume"))
    assert again.command == "scalenet verify a --resume --storage sqlite:///b.db"
    assert (
        SearchInterrupted(Path("a"), "sqlite:///b.db").command == "scalenet search --resume a --storage sqlite:///b.db"
    )


def test_wrong_calls(place: Path) -> None:
    with pytest.raises(ScalenetError, match="workers must be 0"):
        fakes.searched(place, workers=-1)
    with pytest.raises(ScalenetError, match="--workers 0"):
        fakes.searched(place, address="here:6379")
    with pytest.raises(ScalenetError, match="no baseline"):
        search(fakes.space(), fakes.candidates()[1:], fakes.run_directory(place), fakes.job(place))
    with pytest.raises(ScalenetError, match="sampler tpe needs"):
        fakes.searched(place, space=fakes.space(sampler="tpe"), propose=None)
