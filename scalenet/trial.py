"""One training of one candidate: plain dict in, plain metrics out. Knows nothing of who runs it, or where."""

from __future__ import annotations

import gc
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from scalenet import plugins
from scalenet.data import Prepared
from scalenet.device import is_out_of_memory, isolated, pick_device, seed_of
from scalenet.errors import ScalenetError, one_line
from scalenet.plain import from_plain
from scalenet.recipe import Recipe
from scalenet.train import NonFiniteLoss, train


@dataclass(frozen=True)
class Job:
    """All that a worker needs; plain, so that it can be sent to another process as `to_plain(job)`.

    The weights are initialised from (key, seed), order and augmentation follow from the seed alone. `judge` is the
    part that the score is measured on: "select" while searching, "held" for the runs that decide. Either way the
    score is the last epoch's top1. `threads` and `device` are part of the result, as sums depend on their order.
    """

    plugin: str
    spec: dict[str, Any]
    num_classes: int
    data: Prepared
    recipe: Recipe
    seed: int
    key: str  # the candidate's
    judge: Literal["select", "held"] = "select"
    checkpoint: str | None = None  # a file
    threads: int | None = None
    device: str = "auto"


class TrialFailed(RuntimeError):
    """A candidate that could not be trained, with the reason in one sentence; other candidates may well do."""


def run(job: Mapping[str, Any]) -> Generator[dict[str, Any], None, None]:
    """The metrics of every epoch, as `train` yields them; those of a resumed checkpoint come again first.

    Raises:
        TrialFailed: memory ran out, the loss was not finite, or the model raised something.
        ScalenetError: the job itself is wrong: an unknown plugin or device, a spec that is none, another job's
            checkpoint.
    """
    told = from_plain(Job, dict(job), "job")
    architecture = plugins.architecture(told.plugin)
    spec = from_plain(architecture.spec_type(), told.spec, f"spec of {told.plugin}")
    device = pick_device(told.device)
    model: nn.Module | None = None
    reason = ""
    try:
        with isolated(seed_of(told.key, told.seed), device, told.threads):
            model = architecture.build(spec, num_classes=told.num_classes, drop_path=told.recipe.drop_path)
        yield from train(
            model,
            architecture.objective(spec),
            told.data,
            told.recipe,
            side=spec.resolution,
            seed=told.seed,
            judge=told.judge,
            device=device,
            threads=told.threads,
            checkpoint=Path(told.checkpoint) if told.checkpoint else None,
            checkpoint_last=False,
            identity=told.key,
        )
    except ScalenetError:
        raise
    except NonFiniteLoss as error:
        raise TrialFailed(str(error)) from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise TrialFailed(one_line(error)) from error
        reason = f"Out of memory on {device} with batches of {told.recipe.batch_size} at {spec.resolution} px."
    if reason:
        # Outside of the handler: the exception held the frames, and with them the tensors, that must go now.
        model = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise TrialFailed(reason)
