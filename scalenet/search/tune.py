"""The Ray Tune executor: Tune starts workers and carries results; what runs, goes on or stops the campaign decides.

A trial of the campaign that is held back at a rung or loses its worker ends for Tune; given out again, it is a new
trial for Tune, which continues from the campaign's own checkpoint. So Tune needs no checkpoints, no pauses, no retries
and no restore (`Tuner.restore` starts over where its state is damaged, and unpickles what it finds).
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from scalenet.allocator import keep_freed_memory
from scalenet.epochs import LONGEST, RunTrial, close, reason_of
from scalenet.errors import ScalenetError
from scalenet.search.campaign import Campaign
from scalenet.search.values import Idle, Trial

ANSWERS_WITHIN = 10.0  # seconds, of a cluster's head
OBJECT_STORE = 128 * 2**20  # bytes; only jobs and metrics travel through it, pictures are mapped from files
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0: Tune prints nothing
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of trials that were still running when a search was given up
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay where the driver is: paths in jobs may be relative
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; without it Ray warns at every start
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # Tune's own state is never read again
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # reasons are in the records
}
# Undocumented: what listens (GCS, raylet, workers) then binds to the loopback interface. Read when Ray is imported.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def run_with_ray(
    campaign: Campaign,
    job_of: Callable[[Trial], Mapping[str, Any]],
    run_trial: RunTrial,
    *,
    workers: int,
    threads: int,
    device: str,
    scratch: Path,
    address: str | None = None,
) -> None:
    """Runs all trials of `campaign`, up to `workers` at a time.

    Args:
        campaign: what to run.
        job_of: the plain dict that a trial's worker is given.
        run_trial: what a worker does with it; pickled, so anything importable there.
        workers: trials at a time, at least 1.
        threads: CPUs that a trial asks for.
        device: of the jobs; what begins with "cuda" asks for a GPU, "auto" where there are any.
        scratch: a directory for what Tune cannot help writing; removed at the end. On a cluster all nodes must see it.
        address: of a running cluster; None starts Ray on this machine, reachable from this machine only.

    Raises:
        ScalenetError: no cluster answers, or it lacks the CPUs or GPUs.
    """
    # Unset, Tune starts the workers one after the other.
    settings = ENVIRONMENT | ({} if address else LOOPBACK) | {"TUNE_MAX_PENDING_TRIALS_PG": str(workers)}
    stdout = cast(IO[str], _WithoutRay(sys.stdout))
    with _environment(settings), redirect_stdout(stdout), _ray(workers * threads, address) as ray:
        resources = _resources(ray, workers, threads, device, address)
        _tune(_Bridge(campaign, job_of, workers), run_trial, resources, scratch)


def _tune(bridge: _Bridge, run_trial: RunTrial, resources: Mapping[str, float], scratch: Path) -> None:
    tune = importlib.import_module("ray.tune")
    shutil.rmtree(scratch, ignore_errors=True)  # of a driver that was killed
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # "Trials did not complete" and the like: the records say it
    try:
        tune.run(
            _trainable(run_trial),
            name="tune",
            storage_path=str(scratch.resolve()),
            search_alg=_searcher(bridge),
            scheduler=_scheduler(bridge),
            num_samples=-1,
            resources_per_trial=dict(resources),
            reuse_actors=True,
            max_failures=0,
            raise_on_failed_trial=False,
            verbose=0,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
        )
    finally:
        logger.setLevel(level)
        shutil.rmtree(scratch, ignore_errors=True)
    if bridge.error:
        raise bridge.error


@dataclass
class _Segment:
    """A campaign's trial while Tune has it."""

    trial: Trial
    accounted: bool = False  # the campaign knows how it ended


class _Bridge:
    """What Tune's searcher and scheduler share. Tune turns exceptions in them into log lines, so they are kept here."""

    def __init__(self, campaign: Campaign, job_of: Callable[[Trial], Mapping[str, Any]], workers: int) -> None:
        self.campaign, self.job_of, self.workers = campaign, job_of, workers
        self.segments: dict[str, _Segment] = {}
        self.error: Exception | None = None

    def suggest(self, trial_id: str) -> dict[str, str] | Idle:
        if self.error:
            raise self.error
        if len(self.segments) >= self.workers:
            return Idle.WAIT
        trial = self.campaign.next()
        if isinstance(trial, Idle):
            return trial
        self.segments[trial_id] = _Segment(trial)
        return {"job": json.dumps(dict(self.job_of(trial)))}

    def result(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        """Whether the trial goes on."""
        segment = self.segments[trial_id]
        if "failed" in result:
            segment.accounted = True
            self._guarded(lambda: self.campaign.fail(segment.trial, str(result["failed"])))
            return True  # its next step raises, which is how Tune discards a worker
        metrics, took = json.loads(result["metrics"]), float(result["took"])
        going = self._guarded(lambda: self.campaign.report(segment.trial, metrics, took))
        segment.accounted = segment.accounted or not going
        return bool(going) and self.error is None

    def completed(self, trial_id: str) -> None:
        segment = self.segments[trial_id]
        if not segment.accounted:
            self._guarded(lambda: self.campaign.finish(segment.trial))

    def died(self, trial_id: str, reason: str) -> None:
        segment = self.segments[trial_id]
        if not segment.accounted:
            self._guarded(lambda: self.campaign.lost(segment.trial, reason))

    def forget(self, trial_id: str) -> None:
        self.segments.pop(trial_id, None)

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            self.error = self.error or error
            return None


def _trainable(run_trial: RunTrial) -> type:
    """The class that Tune makes workers of. One worker runs many trials; an epoch is a step.

    What it names of ours every worker imports: nothing of this package, which is the driver's.
    """
    from ray.tune import Trainable

    class TrialWorker(Trainable):  # type: ignore[misc, unused-ignore]
        _epochs: Iterator[Mapping[str, Any]] | None
        _failed: bool

        def setup(self, config: dict[str, Any]) -> None:
            keep_freed_memory()
            self._job = json.loads(config["job"])
            self._epochs, self._failed = None, False

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            close(self._epochs)
            self.setup(new_config)
            return True

        def cleanup(self) -> None:
            close(self._epochs)

        def step(self) -> dict[str, Any]:
            if self._failed:
                # What is left in memory after a failure (fragments, a broken device) goes with the process.
                raise RuntimeError("this worker's trial has failed")
            start = time.perf_counter()
            try:
                if self._epochs is None:
                    self._epochs = run_trial(self._job)
                metrics = next(self._epochs, None)
            except Exception as error:
                self._failed = True
                return {"failed": reason_of(error)}
            if metrics is None:
                return {"done": True}
            return {"metrics": json.dumps(dict(metrics)), "took": time.perf_counter() - start}

    return TrialWorker


def _searcher(bridge: _Bridge) -> Any:
    from ray.tune.search import Searcher

    class Ask(Searcher):  # type: ignore[misc, unused-ignore]
        def suggest(self, trial_id: str) -> Any:
            suggestion = bridge.suggest(trial_id)
            if isinstance(suggestion, Idle):
                return Searcher.FINISHED if suggestion is Idle.DONE else None
            return suggestion

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            bridge.forget(trial_id)

        def save(self, checkpoint_path: str) -> None:
            pass  # the study remembers

    return Ask()


def _scheduler(bridge: _Bridge) -> Any:
    from ray.tune.schedulers import FIFOScheduler

    class Tell(FIFOScheduler):  # type: ignore[misc, unused-ignore]
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            return str(self.CONTINUE if bridge.result(trial.trial_id, result) else self.STOP)

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
            bridge.completed(trial.trial_id)

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            bridge.died(trial.trial_id, _death(trial))

    scheduler: Any = Tell  # untyped in Ray
    return scheduler()


def _death(trial: Any) -> str:
    """What Ray says about the end of a trial's worker, in one line."""
    try:
        lines = Path(trial.error_file).read_text(encoding="utf-8").splitlines()[1:]  # the first one counts failures
    except (OSError, TypeError):
        lines = []
    text = " ".join(" ".join(lines).split())
    if "low on memory" in text:
        return "out of memory: Ray ended the worker, as its machine was running low"
    if kind := re.search(r"Worker exit type: (\w+)", text):
        return f"the worker died ({kind[1]}): it crashed or was killed, which is most often for want of memory"
    return f"the worker died: {text or 'no reason given'}"[:LONGEST]


class _WithoutRay:
    """A stdout for everyone but Ray's own threads, which print a paragraph for every worker that died."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _ray(cpus: int, address: str | None) -> Iterator[Any]:
    """A connected `ray`: the one that is there already, the cluster at `address`, or a new one on this machine."""
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        yield ray
        return
    if address and "://" in address:
        raise ScalenetError(
            f"--address {address}: give host:port of the cluster's head, from a machine of the cluster."
        )
    if address:
        _knock(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            # "local" never joins a cluster that happens to run, and ignores what a dead one left behind.
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the cluster at {address}" if address else "Ray on this machine"
        # `ray start` asks for a token where its user has one, `ray.init(address)` sends it only if told to: not by us,
        # as trials die on a cluster that asks for none.
        hint = "; if it was started with a token, set RAY_AUTH_MODE=token" if address else ""
        raise ScalenetError(f"Could not reach {where}: {reason_of(error)}{hint}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Finds out in seconds that nobody answers at host:port; Ray takes minutes, and prints all the while."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        if address == "auto":
            return
        raise ScalenetError(f"--address {address}: give host:port of the cluster's head, such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise ScalenetError(f"Could not reach the cluster at {address}: {error}") from error


def _resources(ray: Any, workers: int, threads: int, device: str, address: str | None) -> dict[str, float]:
    """What one trial asks for. Tune would wait for ever, or end without an error, where it cannot be had."""
    where = f"The cluster at {address}" if address else "This machine"
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((float(node.get("CPU", 0)) for node in nodes), default=0.0)
    if most < threads:
        raise ScalenetError(
            f"{where} has no node with {threads} CPUs for a trial (threads: {threads}); the most is {most:g}."
        )
    gpus = float(ray.cluster_resources().get("GPU", 0))
    if device.startswith("cuda") and not gpus:
        raise ScalenetError(
            f"{where} has no GPU that Ray knows of, and the device is {device}; use --device cpu or auto."
        )
    resources = {"cpu": float(threads)}
    if gpus and (device.startswith("cuda") or device == "auto"):
        # Several workers may share a GPU; Ray counts in ten-thousandths.
        resources["gpu"] = min(1.0, int(10_000 * gpus / workers) / 10_000)
    return resources


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
