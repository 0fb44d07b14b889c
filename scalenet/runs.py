"""A run directory: create, append, read back, resume. Every file in it can be read by a person and diffed."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import yaml

from scalenet import coefficients
from scalenet.coefficients import CoefficientsFile
from scalenet.cost import CostName
from scalenet.data.values import Survey
from scalenet.environment import FORMAT, Environment, environment
from scalenet.errors import ScalenetError
from scalenet.latency import Calibration
from scalenet.metric import ACTIVATIONS, FLOPS, Metric
from scalenet.plain import from_plain, read_yaml, to_plain
from scalenet.projection import Candidate
from scalenet.space import SearchSpace

if TYPE_CHECKING:
    from scalenet.verify import Verification

# File names need not be valid text; what is not becomes \\udcXX, which JSON reads back as it was.
ESCAPED = "backslashreplace"
LEAST_FREE = 64 * 2**20  # bytes; a run's records take a few MiB, its checkpoints more

Phase = Literal["search", "baseline", "replicate", "confirm"]
Judge = Literal["select", "held"]
State = Literal["complete", "pruned", "failed"]
T = TypeVar("T")


@dataclass(frozen=True)
class TrialRecord:
    """One training of one candidate with one seed: a line of trials.jsonl."""

    key: str  # the candidate's
    names: tuple[str, ...]  # the candidate's
    phase: Phase
    seed: int
    judge: Judge  # the part that top1 was measured on
    state: State
    reason: str | None = None  # why not complete
    top1: float | None = None  # in [0, 1]; None where no epoch was judged
    epochs: tuple[dict[str, float | None], ...] = ()  # metrics of each epoch; None for what was not finite
    seconds: float = 0.0
    params: int | None = None
    flops: int | None = None

    @property
    def reused(self) -> bool:
        """Whether an earlier search had trained it (see `scalenet.reuse`)."""
        return bool(self.epochs) and bool(self.epochs[0].get("reused"))


@dataclass(frozen=True)
class Session:
    """One stretch of a driver at work: a line of sessions.jsonl. A resumed run has several."""

    started: str  # local time, ISO 8601
    seconds: float  # wall time
    workers: int  # trials at once
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunDirectory:
    """A run's files. Whole ones are replaced atomically; the `.jsonl` ones grow line by line, by one process at a time.

    A line counts once its newline is there: what a killed process left of a line is not read, and is cut off by the
    next append.
    """

    path: Path

    @classmethod
    def create(cls, root: Path, plugin: str, folder: str | None = None) -> RunDirectory:
        """A new `root/<folder>/<stamp>`, proven writable, with env.json in it; the folder is the plugin's by default.

        Raises:
            ScalenetError: it cannot be made or written, or the disk is nearly full.
        """
        family = Path(root) / _safe(folder or plugin)
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        for attempt in range(1, 1000):
            path = family / (stamp if attempt == 1 else f"{stamp}-{attempt}")
            try:
                family.mkdir(parents=True, exist_ok=True)
                path.mkdir()
            except FileExistsError:
                if path.is_dir():
                    continue  # another run of this very second
                raise ScalenetError(f"{family}: is a file; a run needs a directory there.") from None
            except OSError as error:
                raise ScalenetError(f"{path}: cannot be created ({error.strerror or error}).") from error
            run = cls(path)
            run.check_writable()
            run.write_env(environment(plugin))
            return run
        raise ScalenetError(f"{family}: a thousand runs are named {stamp}; wait a second.")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The run in `path`, for reading; `check_writable()` comes before appending to it.

        Raises:
            ScalenetError: not a run directory, or one of another version of the format.
        """
        run = cls(Path(path))
        if not (run.path / "env.json").is_file():
            below = sorted(run.path.glob("*/env.json")) or sorted(run.path.glob("*/*/env.json"))
            hint = f" The last one below it is {below[-1].parent}." if below else ""
            lack = "has no env.json" if run.path.is_dir() else "is a file" if run.path.exists() else "is not there"
            raise ScalenetError(f"{path}: not a run directory (runs/<plugin>/<stamp>), it {lack}.{hint}")
        plain = _read_json(run.path / "env.json")
        found = plain.get("schema_version") if isinstance(plain, dict) else None
        if found != FORMAT:
            raise ScalenetError(
                f"{path}: run directory from version {found} of the format; this scalenet reads {FORMAT}."
            )
        return run

    def check_writable(self) -> None:
        """Finds out before the first trial, not after it, that nothing can be recorded.

        Raises:
            ScalenetError: the directory is read-only or the disk nearly full.
        """
        try:
            _replace(self.path / ".probe", b"\0" * 65536)
            (self.path / ".probe").unlink()
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise ScalenetError(f"{self.path}: cannot be written to ({error.strerror or error}).") from error
        if free < LEAST_FREE:
            raise ScalenetError(
                f"{self.path}: {free / 2**20:.0f} MiB are free on its disk; a run needs {LEAST_FREE // 2**20} or more."
            )

    @property
    def study(self) -> Path:
        """Where the search keeps its Optuna storage."""
        return self.path / "study.db"

    @property
    def report(self) -> Path:
        """Where the page goes."""
        return self.path / "report.html"

    def write_env(self, env: Environment) -> None:
        """Replaces env.json."""
        self._write_json("env.json", env)

    def env(self) -> Environment:
        """What the run was made with."""
        return from_plain(Environment, _read_json(self.path / "env.json"), str(self.path / "env.json"))

    def write_space(self, space: SearchSpace) -> None:
        """Writes space.yaml: the search, resolved, every key; paths as given, the home folder as "~"."""
        data = replace(
            space.data, source=_homely(space.data.source), root=_homely(space.data.root) if space.data.root else None
        )
        self._write_yaml("space.yaml", replace(space, data=data))

    def space(self) -> SearchSpace:
        """The search as it was resolved."""
        file = self.path / "space.yaml"
        return from_plain(SearchSpace, read_yaml(file), str(file))

    def write_data(self, data: Survey) -> None:
        """Writes data.json: the pictures as they were found."""
        self._write_json("data.json", data)

    def data(self) -> Survey | None:
        """The pictures as they were found; None where the search was broken off before it looked."""
        file = self.path / "data.json"
        return from_plain(Survey, _read_json(file), str(file)) if file.is_file() else None

    def write_latency(self, calibration: Calibration) -> None:
        """Writes latency.json: the device as it was timed, and the prediction that candidates were priced with."""
        self._write_json("latency.json", calibration)

    def latency(self) -> Calibration | None:
        """The prediction that candidates were priced with; None where they were priced by counts."""
        file = self.path / "latency.json"
        return from_plain(Calibration, _read_json(file), str(file)) if file.is_file() else None

    def metric(self, cost: CostName) -> Metric:
        """What `cost` meant in this run.

        Raises:
            ScalenetError: it was latency, and latency.json is not there.
        """
        if cost != "latency":
            return FLOPS if cost == "flops" else ACTIVATIONS
        if (found := self.latency()) is None:
            raise ScalenetError(f"{self.path}: has no latency.json, without which its latencies cannot be told again.")
        return found

    def append_candidates(self, candidates: Iterable[Candidate]) -> None:
        """Records what was proposed; a candidate recorded again replaces its earlier line when read."""
        self._append("candidates.jsonl", candidates)

    def candidates(self) -> tuple[Candidate, ...]:
        """What was proposed, one per key, in the order of first appearance."""
        return tuple({found.key: found for found in self._lines("candidates.jsonl", Candidate)}.values())

    def append_trial(self, record: TrialRecord | Mapping[str, Any]) -> None:
        """Records a finished training. Metrics that are not finite are written as null: JSON has no NaN.

        Raises:
            ScalenetError: a mapping with an unknown key, a missing one or a wrong type.
        """
        plain = _finite(to_plain(record) if isinstance(record, TrialRecord) else dict(record))
        trial = from_plain(TrialRecord, plain, "trial record")
        if trial.reason:
            trial = replace(trial, reason=_homely(trial.reason.replace(str(self.path.resolve()), ".")))
        self._append("trials.jsonl", [trial])

    def trials(self) -> tuple[TrialRecord, ...]:
        """What was trained, in the order of its ending."""
        return tuple(self._lines("trials.jsonl", TrialRecord))

    def append_session(self, session: Session) -> None:
        """Records a driver's stretch of work, at its end."""
        self._append("sessions.jsonl", [session])

    def sessions(self) -> tuple[Session, ...]:
        """The driver's stretches of work; one that was killed has left none."""
        return tuple(self._lines("sessions.jsonl", Session))

    def write_coefficients(self, answer: CoefficientsFile) -> Path:
        """Writes coefficients.json; returns its path."""
        return self._write_json("coefficients.json", answer)

    def coefficients(self) -> CoefficientsFile | None:
        """The answer; None while the search has not come to one."""
        file = self.path / "coefficients.json"
        return coefficients.parse(_read_json(file), str(file)) if file.is_file() else None

    def write_verification(self, found: Verification) -> Path:
        """Writes verify.json, in a run that verifies another one; returns its path."""
        return self._write_json("verify.json", found)

    def model_file(self, name: str) -> Path:
        """Where the scaled model of that name goes."""
        return self.path / f"model_{_safe(name)}.yaml"

    def write_report(self, page: str) -> Path:
        """Writes report.html; returns its path."""
        _guarded(self.report, page.encode(errors="replace"))
        return self.report

    def checkpoint_dir(self, name: str) -> Path:
        """A directory, made if need be, for one trial's checkpoints."""
        path = self.path / "checkpoints" / _safe(name)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _write_json(self, name: str, value: Any) -> Path:
        text = json.dumps(_finite(to_plain(value)), indent=2, ensure_ascii=False, allow_nan=False)
        return _guarded(self.path / name, f"{text}\n".encode(errors=ESCAPED))

    def _write_yaml(self, name: str, value: Any) -> Path:
        text = yaml.safe_dump(to_plain(value), sort_keys=False, allow_unicode=True, width=120)
        return _guarded(self.path / name, text.encode(errors=ESCAPED))

    def _append(self, name: str, values: Iterable[Any]) -> None:
        lines = "".join(f"{json.dumps(_finite(to_plain(v)), ensure_ascii=False, allow_nan=False)}\n" for v in values)
        file = self.path / name
        try:
            with file.open("a+b") as stream:
                _cut_torn_line(stream.fileno())
                stream.write(lines.encode(errors=ESCAPED))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise ScalenetError(f"{file}: cannot be appended to ({error.strerror or error}).") from error

    def _lines(self, name: str, kind: type[T]) -> list[T]:
        file = self.path / name
        try:
            raw = file.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ScalenetError(f"{file}: cannot be read ({error.strerror or error}).") from error
        values = []
        for number, line in enumerate(raw.split(b"\n")[:-1], 1):  # after the last newline: nothing, or a torn line
            try:
                plain = json.loads(line)
            except ValueError as error:
                raise ScalenetError(f"{file}: line {number} is not valid JSON.") from error
            values.append(from_plain(kind, plain, f"{file} line {number}"))
        return values


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScalenetError(f"{file}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise ScalenetError(f"{file}: is not valid JSON.") from error


def _finite(value: Any) -> Any:
    """Plain data with None for every number that JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _homely(text: str) -> str:
    """`text` with "~" for the home folder: runs are kept and shown, and data paths may begin with it."""
    home = str(Path.home())
    if home == Path.home().anchor:  # accounts without a home of their own
        return text
    return re.sub(rf"(?<![\w.~-]){re.escape(home)}(?![\w.-])", "~", text)


def _safe(name: str) -> str:
    """`name`, if it can be a file's on every system and leads nowhere else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise ScalenetError(f"{name!r} cannot name a file: use letters, digits and . _ + -, first a letter or digit.")
    return name


def _guarded(file: Path, content: bytes) -> Path:
    try:
        _replace(file, content)
    except OSError as error:
        raise ScalenetError(f"{file}: cannot be written ({error.strerror or error}).") from error
    return file


def _replace(file: Path, content: bytes) -> None:
    """Writes `file` so that a reader or a crash finds the old content or the new, never a part."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _cut_torn_line(descriptor: int) -> None:
    """Truncates an open file after its last newline."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        os.lseek(descriptor, start, os.SEEK_SET)
        newline = os.read(descriptor, end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.truncate(descriptor, end)
