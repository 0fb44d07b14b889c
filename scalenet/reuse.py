"""Trainings that were done before: no network is trained twice on the same pictures, by one recipe and one seed.

A finished training is kept in the cache under a hash of all that decides it: architecture, spec, classes, pictures and
their split, what decoded them and the side they are stored at, recipe, seed, part judged on, threads, device and its
arithmetic, and the code itself with torch's and numpy's version. So a search that shares candidates with an earlier
one only trains the rest, and a change of the code brings nothing stale back. Of scalenet the code is what a training
imports, directly or not: another report costs no training. Of a third party's architecture it is its whole package,
tables and compiled parts included, and the version of everything that is installed; an edit in a further package that
keeps its version is not seen. Every worker looks for its own job: one small file, however many there are. On a cluster
whose nodes share no cache, each node knows its own trainings.
"""

from __future__ import annotations

import ast
import hashlib
import math
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scalenet
from scalenet import plugins, trial
from scalenet.data.pixels import decoded_by
from scalenet.data.store import cache_root, hashed, read_json, remember
from scalenet.device import device_name, numerics, pick_device
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain
from scalenet.recipe import Recipe

MARK = "reused"  # in an epoch's metrics, 1.0 where it was taken from the store
DECISIVE = ("fingerprint", "side", "classes", "counts", "unreadable", "flip")  # of the pictures, wherever they lie

ARITHMETIC = ("precision", "memory_format", "execution")  # of the recipe: what "auto" means is told by what it comes to


def run(job: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
    """As `trial.run`; a training that is in the store is said again, marked, in no time."""
    try:
        file = place(job)
    except (OSError, ScalenetError):  # no store or no source here; what is wrong with the job itself, the trial says
        yield from trial.run(job)
        return
    epochs = int(job["recipe"]["epochs"])
    if kept := _kept(file, epochs):
        yield from ({**metrics, MARK: 1.0} for metrics in kept)
        return
    history: list[dict[str, Any]] = []
    whole = _ours(file, job["checkpoint"])
    for metrics in trial.run(job):
        history.append(dict(metrics))
        if len(history) == epochs and whole:
            remember(file, history)
        yield metrics


def place(job: Mapping[str, Any]) -> Path:
    """The file that keeps the training of a job (`trial.Job` as plain data).

    Raises:
        OSError: the architecture's code cannot be read.
        ScalenetError: the job is wrong, or the cache cannot be made.
    """
    data, device = job["data"], pick_device(job["device"])
    how = numerics(from_plain(Recipe, job["recipe"], "recipe"), device)
    decisive = {name: value for name, value in job.items() if name not in ("data", "checkpoint", "device")}
    decisive["recipe"] = {key: value for key, value in job["recipe"].items() if key not in ARITHMETIC}
    decisive |= {"pictures": {name: data[name] for name in DECISIVE}, "decoded by": decoded_by(), "how": asdict(how)}
    decisive |= {"device": [device.type, device_name(device)], "threads": job["threads"] or torch.get_num_threads()}
    name = hashed(decisive, code(job["plugin"]), torch.__version__, np.__version__)
    return cache_root() / "trials" / name[:2] / f"{name[2:26]}.json"


@lru_cache(maxsize=32)
def code(plugin: str) -> str:
    """A hash of what trains: scalenet's own modules that a training imports, and those of the architecture.

    Raises:
        OSError: there is no such file, as of a class that was typed in.
    """
    module = type(plugins.architecture(plugin)).__module__
    package = sys.modules[module.partition(".")[0]]
    if package.__name__ == "scalenet_plugins" or not hasattr(package, "__path__"):
        own = [Path(getattr(sys.modules[module], "__file__", None) or "")]
    else:
        own = sorted(file for folder in package.__path__ for file in Path(folder).rglob("*") if _is_code(file))
    ours = imported(Path(scalenet.__file__).parent, [Path(trial.__file__), *own])
    parts: list[object] = [_digest(ours), _digest(own)]
    if package.__name__ != "scalenet_plugins":
        parts.append(sorted(f"{found.metadata['Name']} {found.version}" for found in distributions()))
    return hashed(*parts)


def imported(package: Path, files: Iterable[Path]) -> list[Path]:
    """The files of a package that others import, directly or not, by the import statements in them; they too, if of it.

    What is imported for its types alone (under `TYPE_CHECKING`) runs nothing and is left out.
    """
    found: set[Path] = set()
    waiting = [file for file in files if file.suffix == ".py"]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _names(_parsed(file)):
            first, *rest = name.split(".")
            if first != package.name:
                continue
            steps = [package.joinpath(*rest[:i]) for i in range(len(rest) + 1)]  # a package runs before what is in it
            places = [place for step in steps for place in (step / "__init__.py", step.with_suffix(".py"))]
            waiting += [place for place in places if place.is_file() and package in place.parents]
    return sorted(file for file in found if package in file.parents)


def _parsed(file: Path) -> list[ast.stmt]:
    try:
        return ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):  # a template of code, in a stranger's package: nothing imports it
        return []


def _names(body: Iterable[ast.AST]) -> Iterator[str]:
    """The dotted names that statements import; of `from a import b`, a.b, which may be a module."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from _names(node.orelse)
        else:
            yield from _names(ast.iter_child_nodes(node))


def _is_code(file: Path) -> bool:
    return file.is_file() and file.suffix != ".pyc"


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode("utf-8", "backslashreplace"))
        digest.update(content)
    return digest.hexdigest()


def _ours(file: Path, checkpoint: str | None) -> bool:
    """Whether the training is begun now or was begun as it would be now, and not by other code or on another device.

    What a checkpoint was begun as lies beside it.
    """
    if checkpoint is None:
        return True
    note = Path(checkpoint).with_suffix(".begun")
    with suppress(OSError):
        if Path(checkpoint).exists():
            return note.read_text(encoding="ascii") == file.stem
        note.write_text(file.stem, encoding="ascii")
    return not Path(checkpoint).exists()


def _kept(file: Path, epochs: int) -> list[dict[str, Any]]:
    found = read_json(file)
    if not isinstance(found, list) or len(found) != epochs:
        return []
    return found if all(_is_epoch(metrics, number) for number, metrics in enumerate(found, 1)) else []


def _is_epoch(metrics: Any, number: int) -> bool:
    return (
        isinstance(metrics, dict)
        and metrics.get("epoch") == number
        and "top1" in metrics
        and all(isinstance(value, (int, float)) and math.isfinite(value) for value in metrics.values())
    )
