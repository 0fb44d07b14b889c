"""The one training loop, for the trials of a search and for `scalenet train` alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from scalenet import checkpoint as checkpoints
from scalenet.architecture import Objective
from scalenet.augment import augmented
from scalenet.checkpoint import State
from scalenet.convolutions import quick_convolutions
from scalenet.data import Part, Prepared
from scalenet.data.batches import Batches, evaluation_batches, normalise
from scalenet.device import Numerics, isolated, numerics, seed_of
from scalenet.optimise import Average, make_optimizer
from scalenet.plain import to_plain
from scalenet.recipe import Recipe, learning_rate
from scalenet.step import Replayed, Step

SAVING = 20  # times as long as the last checkpoint took to write, the next one is not written
JUDGED = 4  # times as many pictures at a time on CUDA as are trained on: a small batch is over before it is started
CHECK_EVERY = 50  # steps between two looks at the losses: each look waits for the device


class NonFiniteLoss(ArithmeticError):
    """The loss was NaN or infinite, or the weights were after an epoch's last step.

    At which step (counted from 1 over the whole training), epoch and learning rate.
    """

    def __init__(self, step: int, epoch: int, lr: float, what: str = "loss was") -> None:
        super().__init__(step, epoch, lr, what)  # as they are, so that it survives pickling between processes
        self.step, self.epoch, self.lr, self.what = step, epoch, lr, what

    def __str__(self) -> str:
        return f"The {self.what} not finite at step {self.step} (epoch {self.epoch}, learning rate {self.lr:.3g})."


def train(
    model: nn.Module,
    objective: Objective,
    data: Prepared,
    recipe: Recipe,
    *,
    side: int,
    seed: int,
    judge: Literal["select", "held"],
    device: torch.device,
    threads: int | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 15.0,
    checkpoint_last: bool = True,
    identity: str = "",
) -> Generator[dict[str, Any], None, None]:
    """Trains `model` on the part "fit" and yields one plain dict per epoch, judged on the part `judge`.

    Keys: epoch (from 1), loss (mean over the epoch's pictures), lr (of the last step), images (trained on in the
    epoch), seconds (training), images_per_second, eval_seconds, top1 and whatever else the objective measures. The
    score of a training is its *last* epoch's top1; no epoch is picked for being good. Exhausted, the generator leaves
    in `model` the weights that were judged: the averaged ones where the recipe averages.

    Order and augmentation depend on (seed, epoch) alone, and torch's generators are seeded anew for every epoch: on a
    CPU, a training that was interrupted and resumed equals an uninterrupted one bit for bit. The initial weights are
    the caller's affair. Between two yields nothing of the process's state (generators, thread count) is changed;
    `model` may be used there, though until the generator ends or is closed its convolutions are quick ones (see
    `quick_convolutions`).

    Args:
        side: input side in pixels.
        threads: CPU threads; part of the result, as sums depend on their order. None: torch's present number.
        checkpoint: a file to resume from where it exists (its epochs are yielded again first) and to write to: after
            an epoch when `checkpoint_seconds` have passed since the last time (more, where writing takes over a
            twentieth of the time), and when the generator is closed before its end. 0 seconds: after every epoch.
        checkpoint_last: write one after the last epoch too. A search's trials need none: of them only metrics are kept.
        identity: names the model and its initial weights, so that another model's checkpoint is refused.

    Raises:
        NonFiniteLoss: NaN or infinity.
        ScalenetError: the checkpoint belongs to another job.
    """
    run = _Run(objective, recipe, numerics(recipe, device), device, seed, len(data.classes))
    model.to(device)
    with quick_convolutions(model, device, channels_last=run.how.channels_last):
        average = Average(model, recipe.ema_decay) if recipe.ema_decay else None
        state = State(model, make_optimizer(model, recipe), average)
        size, last = recipe.batch_size, run.how.channels_last
        batches = Batches(
            data, "fit", side=side, batch_size=size, seed=seed, flip=recipe.flip, device=device, channels_last=last
        )

        many = size * JUDGED if device.type == "cuda" else size

        def judged(part: Part) -> _Normalised:
            return _Normalised(
                lambda: evaluation_batches(data, part, side=side, batch_size=many, device=device, channels_last=last)
            )

        fit, held = judged("fit"), judged(judge)
        job: dict[str, Any] = {"model": identity, "data": data.fingerprint, "side": side, "seed": seed, "judge": judge}
        job["recipe"] = to_plain(recipe)

        history = checkpoints.load(checkpoint, job, state) if checkpoint else []
        yield from (dict(metrics) for metrics in history)
        step = Step(model, objective, state.optimizer, recipe.clip_norm, run.how.bf16)
        taken = Replayed(step, device) if run.how.recorded else step
        written, due = time.monotonic(), checkpoint_seconds
        for epoch in range(len(history) + 1, recipe.epochs + 1):
            with isolated(seed_of("epoch", seed, epoch), device, threads):
                metrics: dict[str, Any] = {"epoch": epoch}
                metrics |= _train_epoch(run, state, taken, batches, epoch)
                metrics |= _judge(run, average.model if average else model, fit, held)
            history.append(metrics)
            saved = time.monotonic() - written >= due or (checkpoint_last and epoch == recipe.epochs)
            if checkpoint and saved:
                start = time.monotonic()
                checkpoints.save(checkpoint, job, state, history)
                written = time.monotonic()
                due = max(checkpoint_seconds, SAVING * (written - start)) if checkpoint_seconds else 0.0
            try:
                yield dict(metrics)
            except GeneratorExit:  # told to stop here, perhaps to go on later: this epoch need not be trained twice
                if checkpoint and not saved:
                    checkpoints.save(checkpoint, job, state, history)
                raise
        if average:
            model.load_state_dict(average.model.state_dict())


@dataclass(frozen=True)
class _Run:
    """What stays the same over the epochs."""

    objective: Objective
    recipe: Recipe
    how: Numerics
    device: torch.device
    seed: int
    classes: int

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.how.bf16)


def _train_epoch(run: _Run, state: State, step: Step | Replayed, batches: Batches, epoch: int) -> dict[str, Any]:
    """One pass over the batches. Within a step the host never waits for the device."""
    recipe, model = run.recipe, state.model.train()
    views_generator = torch.Generator().manual_seed(seed_of("views", run.seed, epoch))
    steps = len(batches)
    first = (epoch - 1) * steps
    losses = torch.zeros(steps, device=run.device)
    sizes: list[int] = []
    start = time.perf_counter()
    for i, (pictures, labels) in enumerate(batches.epoch(epoch)):
        images, targets = augmented(pictures, labels, recipe, classes=run.classes, batch=(run.seed, epoch, i))
        views = tuple(normalise(view) for view in run.objective.views(images, views_generator))
        losses[i] = step(views, targets, learning_rate(recipe, first + i, steps))
        if state.average:
            state.average.update()
        sizes.append(len(labels))
        if (i + 1) % CHECK_EVERY == 0 or i + 1 == steps:
            _check(losses, epoch, recipe)
    # No loss follows the last step: without a look at the weights it could leave a model of NaN with a score.
    if not nn.utils.get_total_norm([parameter.detach() for parameter in model.parameters()]).isfinite():
        raise NonFiniteLoss(first + steps, epoch, learning_rate(recipe, first + steps - 1, steps), "weights were")
    seconds = time.perf_counter() - start
    images_seen = sum(sizes)
    return {
        "loss": float(losses.cpu() @ torch.tensor(sizes, dtype=torch.float32)) / images_seen,
        "lr": learning_rate(recipe, first + steps - 1, steps),
        "images": images_seen,
        "seconds": seconds,
        "images_per_second": images_seen / seconds,
    }


def _check(losses: Tensor, epoch: int, recipe: Recipe) -> None:
    bad = torch.isfinite(losses).logical_not().nonzero().flatten().tolist()
    if bad:
        step = (epoch - 1) * len(losses) + bad[0]
        raise NonFiniteLoss(step + 1, epoch, learning_rate(recipe, step, len(losses)))


def _judge(
    run: _Run, model: nn.Module, fit: Iterable[tuple[Tensor, Tensor]], held: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    start = time.perf_counter()
    with run.autocast():
        scores = run.objective.evaluate(model.eval(), fit, held)
    return {**{key: float(value) for key, value in scores.items()}, "eval_seconds": time.perf_counter() - start}


class _Normalised:
    """Batches for judging, normalised. Made at first use, as most objectives never read `fit`, and kept."""

    def __init__(self, make: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> None:
        self.make = make
        self.batches: Iterable[tuple[Tensor, Tensor]] | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if self.batches is None:
            self.batches = self.make()
        return ((normalise(images), labels) for images, labels in self.batches)
