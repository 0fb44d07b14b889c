"""A search from its first trial to its last, and again from wherever it was broken off."""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import sqlalchemy

from scalenet.environment import cpus
from scalenet.epochs import RunTrial
from scalenet.errors import ScalenetError
from scalenet.runs import RunDirectory, Session, TrialRecord
from scalenet.search.campaign import Campaign
from scalenet.search.local import run_here
from scalenet.search.lock import exclusive
from scalenet.search.study import Ledger
from scalenet.search.values import Observer, SearchResult, Silent, Timing, Trial

if TYPE_CHECKING:
    from scalenet.projection import Candidate
    from scalenet.shares import Shares
    from scalenet.space import SearchSpace


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C. What has ended is recorded; `command` finishes the rest. A password in the storage's URL is left out.

    Args:
        run: what was interrupted.
        storage: the URL that was given.
        again: what goes on with it, the words after `scalenet`; `search --resume RUN` unless given.
    """

    def __init__(self, run: Path, storage: str | None = None, again: Sequence[str] = ()) -> None:
        words = ["scalenet", *(again or ("search", "--resume", str(run)))]
        if storage is not None:
            words += ["--storage", re.sub(r"(://[^:/@]*):[^/]*@", r"\1:***@", storage)]
        self.command = shlex.join(words)
        super().__init__(f"interrupted; `{self.command}` finishes it")


def default_workers(threads: int = 1) -> int:
    """As many trials at a time as this process may use CPUs, `threads` for each; at least 1."""
    return max(1, cpus() // threads)


def search(
    space: SearchSpace,
    candidates: Sequence[Candidate],
    run: RunDirectory,
    job: Mapping[str, Any],
    *,
    propose: Callable[[Shares], Candidate] | None = None,
    warnings: Sequence[str] = (),
    workers: int = 0,
    address: str | None = None,
    storage: str | None = None,
    observer: Observer | None = None,
    run_trial: RunTrial | None = None,
) -> SearchResult:
    """Trains what `space` asks for and `run` does not have yet. Called again on the same run, it resumes.

    The results are the same for every number of workers, and whether or not it was interrupted. Records go into the
    study first, then into the run's trials.jsonl; checkpoints lie in the run until their trial ends.

    Args:
        space: what to search.
        candidates: measured, the baseline among them; see `Campaign`. The caller records them in `run`.
        run: where everything is kept; it is locked meanwhile.
        job: what is the same in all trials: the fields of `trial.Job` without spec, seed, key, judge, checkpoint and
            threads, as plain data.
        propose: shares -> candidate, for a sampler's points.
        warnings: what was said of the search before it began; kept in the run's record of this session.
        workers: trials at a time under Ray; 0 runs them one by one in this process, without Ray.
        address: of a running Ray cluster; None means this machine.
        storage: SQLAlchemy URL of the study; None means study.db in the run.
        observer: is told how it goes.
        run_trial: what is done with a job; `scalenet.trial.run` unless given.

    Raises:
        ScalenetError: the run is in use, cannot be written, belongs to another search or has lost its study; the
            cluster lacks what is needed; the first trials all failed for one reason.
        SearchInterrupted: Ctrl-C.
    """
    if workers < 0:
        raise ScalenetError(f"workers must be 0 (in this process) or more, got {workers}.")
    if address is not None and workers == 0:
        raise ScalenetError("--workers 0 runs in this process; with --address give the number of trials at a time.")
    run.check_writable()
    observer = observer or Silent()
    started, start = datetime.now().astimezone().isoformat(timespec="seconds"), time.monotonic()
    with exclusive(run.path):
        ledger = _open_ledger(run, storage, space)
        try:
            campaign = _campaign(space, candidates, run, ledger, observer=observer, propose=propose)
            observer.started(campaign.progress())
            try:
                if not campaign.finished():
                    _execute(campaign, run, space, job, run_trial or _run_trial(), workers=workers, address=address)
            except KeyboardInterrupt:
                raise SearchInterrupted(run.path, storage) from None
            finally:
                seconds = time.monotonic() - start
                run.append_session(Session(started, seconds, max(1, workers), tuple(warnings)))
            shutil.rmtree(run.path / "checkpoints", ignore_errors=True)
            return _result(campaign, space, Timing(seconds, campaign.training_seconds, max(1, workers)))
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            text = str(error.__cause__ or error).strip().splitlines()[0]
            raise ScalenetError(
                f"The study in {ledger.url} could not be written ({text}); the run can be resumed."
            ) from error
        finally:
            ledger.close()


def _execute(
    campaign: Campaign,
    run: RunDirectory,
    space: SearchSpace,
    job: Mapping[str, Any],
    run_trial: RunTrial,
    *,
    workers: int,
    address: str | None,
) -> None:
    def job_of(trial: Trial) -> Mapping[str, Any]:
        own = {
            "spec": trial.candidate.spec,
            "key": trial.candidate.key,
            "seed": trial.seed,
            "judge": trial.judge,
            "threads": space.threads or 1,
            "checkpoint": str(run.checkpoint_dir(_checkpoint_name(trial)).resolve() / "state.safetensors"),
        }
        return {**job, **own}

    if workers == 0:
        run_here(campaign, job_of, run_trial)
        return
    from scalenet.search.tune import run_with_ray

    run_with_ray(
        campaign,
        job_of,
        run_trial,
        workers=workers,
        threads=space.threads or 1,
        device=str(job.get("device", "auto")),
        scratch=run.path / ".tune",
        address=address,
    )


def _campaign(
    space: SearchSpace,
    candidates: Sequence[Candidate],
    run: RunDirectory,
    ledger: Ledger,
    *,
    observer: Observer,
    propose: Callable[[Shares], Candidate] | None,
) -> Campaign:
    written = {_identity(record) for record in run.trials()}
    if written and not ledger.settings():
        raise ScalenetError(
            f"{run.path} has records of {len(written)} trials, but the study in {ledger.url} is empty; "
            "give the --storage that it was begun with."
        )
    recorded_candidates = {candidate.key for candidate in run.candidates()}

    def recorded(record: TrialRecord) -> None:
        if _identity(record) not in written:  # a driver killed in between has told the study, but not this file
            run.append_trial(record)
            written.add(_identity(record))
        shutil.rmtree(run.path / "checkpoints" / _checkpoint_name(record), ignore_errors=True)

    def proposed(candidate: Candidate) -> None:
        if candidate.key not in recorded_candidates:
            run.append_candidates([candidate])
            recorded_candidates.add(candidate.key)

    return Campaign(
        space,
        candidates,
        ledger,
        observer=observer,
        recorded=recorded,
        proposed=proposed,
        propose=propose,
    )


def _open_ledger(run: RunDirectory, storage: str | None, space: SearchSpace) -> Ledger:
    # In a storage of its own a study needs no more than its name; in a shared one, the run's as well.
    url, prefix = storage, f"{run.path.resolve().parent.name}/{run.path.resolve().name} "
    if url is None:
        url, prefix = f"sqlite:///{run.study.resolve()}", ""
    return Ledger(url, prefix=prefix, sampler=space.sampler, seed=space.seed)


def _result(campaign: Campaign, space: SearchSpace, timing: Timing) -> SearchResult:
    records = campaign.records()
    return SearchResult(
        records=records,
        candidates=tuple(campaign.candidates.values()),
        timing=timing,
        epochs_trained=sum(len(record.epochs) for record in records),
        epochs_full=len(records) * space.recipe.epochs,
    )


def _run_trial() -> RunTrial:
    from scalenet.trial import run

    return run


def _identity(record: TrialRecord) -> tuple[str, str, int, str]:
    return record.phase, record.key, record.seed, record.judge


def _checkpoint_name(trial: Trial | TrialRecord) -> str:
    key = trial.candidate.key if isinstance(trial, Trial) else trial.key
    return f"{key}-{trial.seed}-{trial.judge}"
