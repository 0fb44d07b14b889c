from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scalenet import environment as env
from scalenet import report
from scalenet.data import DataRequest
from scalenet.errors import ScalenetError
from scalenet.plain import to_plain
from scalenet.recipe import Recipe
from scalenet.runs import RunDirectory, Session
from scalenet.space import SearchSpace
from tests.synthetic import candidate, make_run, survey, trial


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path, "toy")


def test_two_runs_of_one_second_get_two_directories(tmp_path: Path) -> None:
    runs = [RunDirectory.create(tmp_path, "toy") for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    assert all(run.path.parent == tmp_path / "toy" for run in runs)


def test_everything_written_reads_back(run: RunDirectory) -> None:
    space = SearchSpace(lattice=4, recipe=Recipe(epochs=3))
    run.write_space(space)
    tried = [candidate("baseline"), candidate("depth", ratio=2.3), candidate("lattice 1/1/1", rejected="too dear")]
    run.append_candidates(tried[:1])
    run.append_candidates(tried[1:])
    records = [trial(tried[0], 0.5), trial(tried[1], None, seed=3)]
    for record in records:
        run.append_trial(record)
    run.append_session(Session("2026-01-01T00:00:00+00:00", 12.5, 2, ("careful",)))
    again = RunDirectory.open(run.path)
    assert again.space() == space
    assert again.candidates() == tuple(tried)
    assert again.trials() == tuple(records)
    assert again.sessions() == (Session("2026-01-01T00:00:00+00:00", 12.5, 2, ("careful",)),)
    assert again.env() == run.env()
    assert again.data() is None
    again.write_data(survey("pets"))
    assert again.data() == survey("pets")
    assert again.coefficients() is None


def test_a_candidate_recorded_again_replaces_the_first(run: RunDirectory) -> None:
    old, new = candidate("equal"), candidate("equal", ratio=2.1)
    run.append_candidates([old, candidate("depth")])
    run.append_candidates([new])
    assert run.candidates() == (new, candidate("depth"))


def test_coefficients_read_back_and_another_schema_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, m=2)
    answer = run.coefficients()
    assert answer is not None
    winner = next(c for c in run.candidates() if c.key == answer.tied_set[0].key)
    assert (answer.alpha, answer.beta, answer.gamma) == (
        winner.scale.depth,
        winner.scale.width,
        winner.scale.resolution,
    )
    assert answer.baseline == run.candidates()[0].spec
    file = run.path / "coefficients.json"
    assert to_plain(answer) == json.loads(file.read_text())
    file.write_text(file.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    with pytest.raises(ScalenetError, match="schema_version is 9; this scalenet reads 1"):
        run.coefficients()


def test_a_torn_last_line_is_not_read_and_the_next_append_cuts_it_off(run: RunDirectory) -> None:
    of = candidate("depth")
    first, second = trial(of, 0.5), trial(of, 0.6, seed=102)
    run.append_trial(first)
    file = run.path / "trials.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    assert run.trials() == (first,)
    run.append_trial(second)
    assert run.trials() == (first, second)
    file.write_bytes(whole[:-1])  # torn in the first line: nothing is left
    run.append_trial(second)
    assert run.trials() == (second,)


def test_a_torn_line_longer_than_a_block_is_cut_off(run: RunDirectory) -> None:
    run.append_session(Session("a", 1.0, 1))
    with (run.path / "sessions.jsonl").open("ab") as stream:
        stream.write(b"x" * 200_000)
    run.append_session(Session("b", 1.0, 1))
    assert [session.started for session in run.sessions()] == ["a", "b"]


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(run: RunDirectory) -> None:
    run.append_trial(trial(candidate("depth"), 0.5))
    file = run.path / "trials.jsonl"
    file.write_bytes(b"{\n" + file.read_bytes())
    with pytest.raises(ScalenetError, match=r"trials\.jsonl: line 1 is not valid JSON"):
        run.trials()
    file.write_bytes(file.read_bytes().split(b"\n")[1].replace(b'"seed"', b'"sead"') + b"\n")
    with pytest.raises(ScalenetError, match=r"trials\.jsonl line 1.*sead"):
        run.trials()


def test_a_mapping_is_a_trial_record_if_its_keys_are(run: RunDirectory) -> None:
    plain = to_plain(trial(candidate("depth"), 0.5, epochs=2))
    plain["epochs"][1]["loss"] = float("nan")
    plain["reason"] = f"{run.path.resolve()}/checkpoints/x is gone, {Path.home()}/y too"
    run.append_trial(plain)
    (found,) = run.trials()
    assert found.epochs[1]["loss"] is None
    assert found.reason == "./checkpoints/x is gone, ~/y too"
    assert "NaN" not in (run.path / "trials.jsonl").read_text()
    with pytest.raises(ScalenetError, match="colour"):
        run.append_trial(plain | {"colour": "red"})
    assert len(run.trials()) == 1


@pytest.mark.parametrize(
    ("home", "reason", "kept"),
    [
        ("/", "no file /data/x", "no file /data/x"),
        ("/home/ann", "no file /home/ann/x, nor '/home/ann'", "no file ~/x, nor '~'"),
        ("/home/ann", "no file /home/anna/x", "no file /home/anna/x"),
    ],
)
def test_only_a_home_is_shortened(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, home: str, reason: str, kept: str
) -> None:
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: cls(home)))
    run.append_trial(replace(trial(candidate("depth"), None), reason=reason))
    assert run.trials()[0].reason == kept


def test_a_space_says_home_for_the_home_folder(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: cls("/home/ann")))
    run.write_space(SearchSpace(data=DataRequest(source="/home/ann/pets", root="/home/ann/sets")))
    assert run.space().data == DataRequest(source="~/pets", root="~/sets")
    run.write_space(SearchSpace(data=DataRequest(source="pets", root="/mnt/sets")))
    assert run.space().data == DataRequest(source="pets", root="/mnt/sets")


def test_names_that_are_no_valid_text_are_written_and_read_back(run: RunDirectory) -> None:
    odd = os.fsdecode(b"\xff\xe9")  # a file name as Linux allows it
    run.append_trial(replace(trial(candidate("depth"), None), reason=odd))
    run.write_space(SearchSpace(data=DataRequest(source=f"./{odd}")))
    run.write_data(replace(survey("pets"), unreadable=(odd,)))
    found = run.data()
    assert found is not None
    assert (run.trials()[0].reason, run.space().data.source, found.unreadable) == (odd, f"./{odd}", (odd,))
    run.append_candidates([candidate("depth")])
    assert report.html(run).is_file()


def test_opening_what_is_no_run(tmp_path: Path, run: RunDirectory) -> None:
    with pytest.raises(ScalenetError, match="is not there"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(ScalenetError, match=f"has no env.json. The last one below it is .*{run.path.name}"):
        RunDirectory.open(tmp_path)
    with pytest.raises(ScalenetError, match="is a file"):
        RunDirectory.open(run.path / "env.json")


def test_opening_another_versions_run(run: RunDirectory) -> None:
    file = run.path / "env.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 7, "new": 1}))
    with pytest.raises(ScalenetError, match="run directory from version 7 of the format; this scalenet reads 1"):
        RunDirectory.open(run.path)


def test_a_root_that_is_a_file_or_a_name_that_leads_away(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScalenetError, match=r"file/toy.*cannot be created"):
        RunDirectory.create(tmp_path / "file", "toy")
    with pytest.raises(ScalenetError, match="cannot name a file"):
        RunDirectory.create(tmp_path, "../toy")


def test_a_read_only_directory_is_found_out(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # the permission bits do not bind root, which may run the tests
    with pytest.raises(ScalenetError, match=r"cannot be written to \(Permission denied\)"):
        run.check_writable()


def test_a_nearly_full_disk_is_found_out(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(run.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 * 2**20))
    with pytest.raises(ScalenetError, match="5 MiB are free"):
        run.check_writable()


def test_a_write_that_fails_leaves_the_old_file(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write_report("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ScalenetError, match="No space left"):
        run.write_report("new")
    assert run.report.read_text() == "old"
    assert sorted(path.name for path in run.path.iterdir()) == ["env.json", "report.html"]


def test_environment_says_what_it_runs_on(tmp_path: Path) -> None:
    found = env.environment("toy", device="cpu")
    assert found.device == "cpu"
    assert found.cpus >= 1
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.versions["numpy"] is not None
    assert env._git_state(tmp_path / "x.py") is None  # outside any checkout


def test_git_state_is_that_of_a_tracked_file_only(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    for name in ("tracked.py", "installed.py"):
        (tmp_path / name).write_text("1")
    git("init")
    git("add", "tracked.py")
    git("commit", "-m", "x")
    state = env._git_state(tmp_path / "tracked.py")
    assert state is not None
    assert (len(state.commit), state.dirty) == (40, False)
    assert env._git_state(tmp_path / "installed.py") is None
    (tmp_path / "tracked.py").write_text("2")
    assert env._git_state(tmp_path / "tracked.py") == env.GitState(state.commit, True)


def test_reading_a_run_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, scalenet.runs, scalenet.report; print(sorted({'torch', 'ray', 'optuna'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
