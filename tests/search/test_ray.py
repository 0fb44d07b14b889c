"""The same searches on Ray: one Ray for all tests but those that kill its driver."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from scalenet.errors import ScalenetError
from scalenet.search import SearchResult
from scalenet.search.tune import ENVIRONMENT, LOOPBACK, _environment, _knock, _ray, _trainable
from scalenet.space import Confirm
from tests.search import fakes

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    with _environment({**ENVIRONMENT, **LOOPBACK}), _ray(2, None) as ray:
        yield ray


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return fakes.searched(tmp_path_factory.mktemp("whole"))


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("workers", [1, 2])
def test_the_grid_is_the_same_for_every_number_of_workers(place: Path, whole: SearchResult, workers: int) -> None:
    run = fakes.run_directory(place)
    result = fakes.searched(place, run, workers=workers, behaviour={"seconds": 0.01})
    assert fakes.essence(result.records) == fakes.essence(whole.records)
    assert max(Counter(fakes.epochs_trained(place)).values()) == 1
    assert sorted(path.name for path in run.path.iterdir()) == [
        "candidates.jsonl",  # the surface's optimum
        "driver.lock",
        "env.json",
        "sessions.jsonl",
        "study.db",
        "trials.jsonl",
    ]


def test_a_worker_imports_nothing_of_the_driver() -> None:
    """Optuna and SciPy would take each of them a second and tens of megabytes."""
    from ray import cloudpickle

    pickled = cloudpickle.dumps(_trainable(iter)).hex()
    read = f"import pickle, sys; pickle.loads(bytes.fromhex({pickled!r})); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True).stdout.split()
    assert "scalenet.epochs" in modules
    assert not {"optuna", "sqlalchemy", "scipy", "torch", "scalenet.search"}.intersection(modules)


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize("changes", [{"scheduler": "asha"}, {"sampler": "tpe", "trials": 8, "scheduler": "asha"}])
def test_what_depends_on_results_is_the_same_too(place: Path, changes: dict[str, Any]) -> None:
    space = fakes.space(**changes)
    alone = fakes.searched(place / "a", space=space)
    together = fakes.searched(place / "b", space=space, workers=2, behaviour={"seconds": 0.03})
    assert fakes.essence(together.records) == fakes.essence(alone.records)
    assert any(r.state == "pruned" for r in together.records)


@pytest.mark.usefixtures("ray_here")
def test_a_worker_that_is_killed_and_trials_that_fail(
    place: Path, whole: SearchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour = {
        fakes.key_of("lattice 1/1/0"): {"die_once": 3},
        fakes.key_of("depth"): {"memory": True},
        fakes.key_of("width"): {"nan": 2},
        fakes.key_of("lattice 1/0/1"): {"die": 2},
    }
    space = fakes.space(confirm=Confirm(1, 1), replicates=0)
    records = fakes.searched(place, workers=2, space=space, behaviour=behaviour).records
    failed = {r.names[0]: r for r in records if r.state == "failed" and r.phase == "search"}
    assert (failed["depth"].reason or "").startswith("out of memory")
    assert failed["width"].reason == "top1 is nan in epoch 2"
    assert (failed["lattice 1/0/1"].reason or "").startswith("the worker died")
    assert len(failed["lattice 1/0/1"].epochs) == 1
    assert len(failed) == 3
    assert capsys.readouterr() == ("", "")
    # Killed once in its third epoch, it went on from its checkpoint.
    killed_once = next(r for r in records if r.key == fakes.key_of("lattice 1/1/0") and r.phase == "search")
    assert fakes.essence([killed_once])[0] in fakes.essence(whole.records)
    trained = Counter(fakes.epochs_trained(place))
    assert max(trained.values()) == 1


@pytest.mark.usefixtures("ray_here")
def test_one_cause_for_the_first_three_ends_it(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {c.key: {"wrong": "No such file."} for c in fakes.candidates()}
    with pytest.raises(ScalenetError, match=r"first \d trials failed"):
        fakes.searched(place, workers=2, behaviour=wrong)
    gc.collect()  # Ray logs the errors that nobody has looked at when they are forgotten
    time.sleep(1)
    assert caplog.text == ""


@pytest.mark.usefixtures("ray_here")
def test_what_the_machine_lacks_is_said(place: Path) -> None:
    run = fakes.run_directory(place)
    from scalenet.search import search

    job = {**fakes.job(place), "device": "cuda"}
    with pytest.raises(ScalenetError, match="has no GPU"):
        search(fakes.space(), fakes.candidates(), run, job, workers=1, run_trial=fakes.run_trial)
    with pytest.raises(ScalenetError, match="no node with 999 CPUs"):
        fakes.searched(place, space=fakes.space(threads=999), workers=1)


def test_a_cluster_that_is_not_there_is_found_out_at_once(place: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ScalenetError, match=f"Could not reach the cluster at {address}: .*refused"):
            _knock(address)
    with pytest.raises(ScalenetError, match="give host:port"):
        _knock("somewhere")


def test_only_this_machine_can_reach_it(ray_here: Any) -> None:
    assert ray_here.is_initialized()
    family = [p for p in psutil.process_iter(["cmdline"]) if "ray" in " ".join(p.info["cmdline"] or [])]
    session = ray_here._private.worker._global_node.get_session_dir_path()
    ours = [p for p in family if session in " ".join(p.info["cmdline"])]
    assert ours
    addresses = {
        connection.laddr.ip
        for process in [*ours, psutil.Process()]
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_a_killed_driver_is_resumed(place: Path, whole: SearchResult, ray_here: Any) -> None:
    run = fakes.run_directory(place)
    command = [sys.executable, "-m", "tests.search.driver_process", str(run.path), str(place), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        fakes.wait_for_epochs(place, 10, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait(timeout=60)
    finished = {(r.key, r.seed, r.judge) for r in run.trials()}
    assert finished
    before = len(fakes.epochs_trained(place))
    resumed = fakes.searched(place, run, workers=2)
    assert fakes.essence(resumed.records) == fakes.essence(whole.records)
    later = {line.rpartition(" ")[0] for line in fakes.epochs_trained(place)[before:]}
    assert not later & {f"{key}-{seed}-{judge}" for key, seed, judge in finished}
    assert len(run.trials()) == len(resumed.records)


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once(place: Path, whole: SearchResult, ray_here: Any) -> None:
    run = fakes.run_directory(place)
    command = [sys.executable, "-m", "tests.search.driver_process", str(run.path), str(place), "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        fakes.wait_for_epochs(place, 10, driver)
        driver.send_signal(signal.SIGINT)
        printed, complaints = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert printed == f"scalenet search --resume {run.path}\n"
    assert complaints == ""
    assert fakes.essence(fakes.searched(place, run).records) == fakes.essence(whole.records)
