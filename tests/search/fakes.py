"""A search without training: candidates out of thin air, and trials whose metrics are a formula.

`run_trial` behaves as `scalenet.trial.run` does: it keeps its history in the job's checkpoint and says it again when
resumed. The recipe's `lr` is unused by it; extra keys of a job steer it (`behaviour`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scalenet.architecture import Scale, Size
from scalenet.cost import Cost
from scalenet.errors import ScalenetError
from scalenet.mixture import lattice, lattice_name
from scalenet.projection import Candidate
from scalenet.recipe import Recipe
from scalenet.runs import RunDirectory, TrialRecord
from scalenet.search import SearchResult, search
from scalenet.shares import EQUAL, NOTHING, Shares
from scalenet.space import Confirm, SearchSpace

CORNERS = {(1.0, 0.0, 0.0): "depth", (0.0, 1.0, 0.0): "width", (0.0, 0.0, 1.0): "resolution"}


def candidate(shares: Shares, *names: str, ratio: float = 2.0, rejected: str | None = None) -> Candidate:
    """The candidate of a space with steps of a twentieth."""
    rounded = [round(share * 20) for share in (shares.depth, shares.width, shares.resolution)]
    key = hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:12]
    spec = {"steps": rounded}
    cost = Cost(1000, round(10_000 * ratio), 100)
    scale = Scale(1 + shares.depth, 1 + shares.width, 1 + shares.resolution)
    return Candidate(key, names, shares, scale, spec, Size(4, 8.0, 16), cost, ratio, shares, rejected=rejected)


def propose(shares: Shares) -> Candidate:
    """What a sampler's point becomes; a strip along depth = 0.85 is rejected."""
    return candidate(shares, rejected="too dear" if 0.82 < shares.depth < 0.88 else None)


def candidates(m: int = 2) -> list[Candidate]:
    """Baseline, the lattice with its corners, equal shares and a paper's point."""
    points = [candidate(s, *CORNERS_OF(s), lattice_name(s, m)) for s in lattice(m)]
    named = [candidate(EQUAL, "equal"), candidate(Shares(0.3, 0.3, 0.4), "paper")]
    return [candidate(NOTHING, "baseline", ratio=1.0), *points, *named]


def named_candidates() -> list[Candidate]:
    """A sampler's first points."""
    return [c for c in candidates() if not all(name.startswith("lattice") for name in c.names)]


def CORNERS_OF(shares: Shares) -> list[str]:  # noqa: N802
    name = CORNERS.get((shares.depth, shares.width, shares.resolution))
    return [name] if name else []


def key_of(name: str) -> str:
    """The key of the candidate that has this name, among `candidates()`."""
    return next(c.key for c in candidates() if name in c.names)


def space(**changes: Any) -> SearchSpace:
    values: dict[str, Any] = {"recipe": Recipe(epochs=4, warmup_epochs=0), "replicates": 2, "confirm": Confirm(2, 2)}
    return SearchSpace(**{**values, **changes})


def job(directory: Path, **behaviour: Any) -> dict[str, Any]:
    """The common part of the jobs; every epoch of every trial is noted in `directory`/epochs.log."""
    return {"device": "cpu", "log": str(directory / "epochs.log"), "epochs": 4, "behaviour": behaviour}


def run_trial(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    behaviour = job["behaviour"]
    key = job["key"]
    checkpoint = Path(job["checkpoint"])
    history = json.loads(checkpoint.read_text()) if checkpoint.exists() else []
    yield from history
    for epoch in range(len(history) + 1, job["epochs"] + 1):
        if behaviour.get("seconds"):
            time.sleep(behaviour["seconds"] * (1 + int(key, 16) % 3))  # so that trials overtake each other
        _misbehave(behaviour.get(key, {}), epoch, Path(job["log"]).parent / f"once-{key}")
        with Path(job["log"]).open("a") as log:
            log.write(f"{key}-{job['seed']}-{job['judge']} {epoch} {os.getpid()}\n")
        top1 = score(job, epoch)
        if behaviour.get(key, {}).get("nan") == epoch:
            top1 = math.nan
        history.append({"epoch": epoch, "loss": 1.0 / epoch, "top1": top1, "seconds": 0.01})
        checkpoint.write_text(json.dumps(history))
        yield dict(history[-1])


def score(job: Mapping[str, Any], epoch: int) -> float:
    """Best around depth .2, width .3, resolution .5, with noise that seed and judge fix."""
    depth, width, resolution = (step / 20 for step in job["spec"]["steps"])
    digest = hashlib.sha256(f"{job['key']} {job['seed']} {job['judge']}".encode()).digest()
    noise = (digest[0] / 255 - 0.5) * 0.02
    distance = (depth - 0.2) ** 2 + (width - 0.3) ** 2 + (resolution - 0.5) ** 2
    final: float = 0.8 - 0.2 * distance + noise
    return final * (1 - 0.5**epoch)


def _misbehave(behaviour: Mapping[str, Any], epoch: int, marker: Path) -> None:
    if behaviour.get("raise"):
        raise RuntimeError(behaviour["raise"])
    if behaviour.get("wrong"):
        raise ScalenetError(behaviour["wrong"])
    if behaviour.get("disk_once") and not marker.exists():
        marker.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if behaviour.get("memory"):
        raise MemoryError("tried to allocate 20 GiB")
    if behaviour.get("die") == epoch:
        os.kill(os.getpid(), 9)
    if behaviour.get("die_once") == epoch and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    if behaviour.get("interrupt_once") == epoch and not marker.exists():
        marker.touch()
        raise KeyboardInterrupt


def epochs_trained(directory: Path) -> list[str]:
    """ "key-seed-judge epoch", one for every epoch that was really trained, in order."""
    file = directory / "epochs.log"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.rpartition(" ")[0] for line in lines]


def run_directory(root: Path) -> RunDirectory:
    return RunDirectory.create(root, "toy")


def wait_for_epochs(place: Path, count: int, driver: subprocess.Popen[str]) -> None:
    """Returns when so many epochs were trained by `driver`, a process."""
    deadline = time.monotonic() + 120
    while len(epochs_trained(place)) < count:
        assert driver.poll() is None, "the driver ended by itself"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def searched(place: Path, run: RunDirectory | None = None, *, behaviour: Any = None, **options: Any) -> SearchResult:
    """A search by the formula in the run directory, or a new one in `place`; options as those of `search`."""
    told = options.pop("space", None) or space()
    given = options.pop("given", candidates() if told.sampler == "grid" else named_candidates())
    return search(
        told,
        given,
        run or run_directory(place),
        job(place, **(behaviour or {})),
        **{"run_trial": run_trial, "propose": propose, **options},
    )


def essence(records: Sequence[TrialRecord]) -> list[tuple[Any, ...]]:
    """What must be equal between two ways of running a search."""
    return [(r.phase, r.key, r.names, r.seed, r.judge, r.state, r.reason, r.top1, r.epochs) for r in records]
