"""A search as one watches it: trials done, best so far, time left."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from scalenet.console import duration, stderr

if TYPE_CHECKING:
    from scalenet.runs import TrialRecord
    from scalenet.search.values import Progress as Standing
    from scalenet.search.values import Trial


class Live:
    """An `Observer` that draws one line per search and one per running trial on stderr, if that is a terminal.

    Failures and notes are printed as lines of their own either way.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
        self.progress = Progress(
            *columns,
            TextColumn("{task.fields[told]}"),
            console=stderr(),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self.total = self.progress.add_task("trials", total=None, told="starting workers")
        self.running: dict[tuple[str, int, str], TaskID] = {}  # by candidate, seed and part

    def __enter__(self) -> Live:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def started(self, progress: Standing) -> None:
        """The search begins, or goes on."""
        self._stand(progress)

    def trial_started(self, trial: Trial, progress: Standing) -> None:
        """A bar for the trial's epochs."""
        identity = (trial.candidate.key, trial.seed, trial.judge)
        if identity not in self.running:
            name = f"  {trial.phase} {trial.label}"
            self.running[identity] = self.progress.add_task(f"{name:<28.28}", total=self.epochs, told="")
        self._stand(progress)

    def epoch(self, trial: Trial, metrics: Mapping[str, Any], progress: Standing) -> None:
        """The bar moves on."""
        task = self.running.get((trial.candidate.key, trial.seed, trial.judge))
        if task is not None:
            top1 = metrics.get("top1")
            told = "" if top1 is None else f"top1 {100 * top1:.1f} %"
            self.progress.update(task, completed=int(metrics["epoch"]), told=told)
        self._stand(progress)

    def ended(self, record: TrialRecord, progress: Standing) -> None:
        """The trial's bar goes; a failure stays to be read."""
        task = self.running.pop((record.key, record.seed, record.judge), None)
        if task is not None:
            self.progress.remove_task(task)
        if record.state == "failed":
            self.note(f"Failed: {', '.join(record.names) or record.key} (seed {record.seed}): {record.reason}")
        self._stand(progress)

    def note(self, text: str) -> None:
        """One line above the bars."""
        if self.progress.disable:
            click.echo(text, err=True)
        else:
            self.progress.console.print(text, markup=False)

    def _stand(self, progress: Standing) -> None:
        told = []
        if progress.best is not None and progress.best.top1 is not None:
            told.append(f"best {100 * progress.best.top1:.1f} % ({progress.best.names[0]})")
        if progress.seconds_left is not None:
            told.append(f"{duration(progress.seconds_left)} left")
        self.progress.update(self.total, completed=progress.done, total=progress.total, told="  ".join(told))
