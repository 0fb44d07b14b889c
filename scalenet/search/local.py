"""The in-process executor: one trial after the other, in this very process, without Ray."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scalenet.epochs import RunTrial, close, reason_of
from scalenet.search.campaign import Campaign
from scalenet.search.values import Idle, Trial


def run_here(campaign: Campaign, job_of: Callable[[Trial], Mapping[str, Any]], run_trial: RunTrial) -> None:
    """Runs all trials of `campaign`. A trial that raises fails with its reason; an interrupt goes through."""
    while isinstance(trial := campaign.next(), Trial):
        _run(campaign, trial, job_of(trial), run_trial)
    if trial is Idle.WAIT:
        raise RuntimeError("the campaign waits for a trial that nobody runs")


def _run(campaign: Campaign, trial: Trial, job: Mapping[str, Any], run_trial: RunTrial) -> None:
    epochs: Iterator[Mapping[str, Any]] | None = None
    try:
        going = True
        while going:
            start = time.perf_counter()
            try:
                if epochs is None:
                    epochs = run_trial(job)
                metrics = next(epochs, None)
            except Exception as error:
                campaign.fail(trial, reason_of(error))
                return
            if metrics is None:
                campaign.finish(trial)
                return
            going = campaign.report(trial, metrics, time.perf_counter() - start)
    finally:
        close(epochs)
