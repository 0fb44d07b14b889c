"""How a model is trained, as plain data: the `recipe:` block of a search space. Torch-free."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from scalenet.errors import ScalenetError

OptimizerName = Literal["adamw", "sgd"]
Precision = Literal["auto", "fp32", "bf16"]
MemoryFormat = Literal["auto", "channels_last", "contiguous"]
Execution = Literal["auto", "eager", "cuda_graphs"]


@dataclass(frozen=True)
class Recipe:
    """One way of training, the same for every candidate of a search.

    The defaults suit short runs on small pictures and networks of any kind. Epochs may be fractions for the warm-up
    only. A value of 0 switches `warmup_epochs`, `label_smoothing`, `mixup`, `randaugment`, `drop_path`, `ema_decay`,
    `clip_norm` and `weight_decay` off.

    Raises:
        ScalenetError: a value out of range; the sentence names the key, the value and the range.
    """

    epochs: int = 20
    batch_size: int = 64
    optimizer: OptimizerName = "adamw"
    lr: float = 0.004  # the peak, reached after the warm-up; then a cosine to 0 over the remaining steps
    momentum: float = 0.9  # SGD's (Nesterov), or AdamW's first beta
    weight_decay: float = 0.05  # decoupled for AdamW, added to the gradient for SGD; never on norms and biases
    warmup_epochs: float = 1.0
    clip_norm: float = 1.0  # largest 2-norm of all gradients together
    label_smoothing: float = 0.1  # share of a target spread evenly over all classes (arXiv:1512.00567)
    flip: bool = True  # left-right, where the data allow it
    mixup: float = 0.0  # a of Beta(a, a), the share of the second picture (arXiv:1710.09412)
    randaugment: int = 0  # magnitude of two random operations per picture, of 30 (arXiv:1909.13719)
    drop_path: float = 0.0  # stochastic depth: the last block's rate (arXiv:1603.09382)
    ema_decay: float = 0.0  # of the averaged weights, which are then what is judged and saved
    precision: Precision = "auto"  # device.numerics says what auto means
    memory_format: MemoryFormat = "auto"
    execution: Execution = "auto"  # how a step is started: operator by operator, or as a whole (CUDA only)

    def __post_init__(self) -> None:
        for key, kind in (
            ("optimizer", OptimizerName), ("precision", Precision), ("memory_format", MemoryFormat),
            ("execution", Execution),
        ):  # fmt: skip
            value = getattr(self, key)
            if value not in get_args(kind):
                raise ScalenetError(f"{key} must be one of {', '.join(get_args(kind))}, got {value!r}")
        for key, least in (("epochs", 1), ("batch_size", 2)):
            if not getattr(self, key) >= least:
                raise ScalenetError(f"{key} must be at least {least}, got {getattr(self, key)!r}")
        for key in ("warmup_epochs", "weight_decay", "mixup", "clip_norm"):
            _within(key, getattr(self, key), "0 or more", 0 <= getattr(self, key) < math.inf)
        for key in ("momentum", "label_smoothing", "drop_path", "ema_decay"):
            _within(key, getattr(self, key), "at least 0 and below 1", 0 <= getattr(self, key) < 1)
        _within("lr", self.lr, "above 0 and finite", 0 < self.lr < math.inf)
        _within("randaugment", self.randaugment, "between 0 and 30", 0 <= self.randaugment <= 30)
        _within(
            "warmup_epochs", self.warmup_epochs, f"at most epochs ({self.epochs})", self.warmup_epochs <= self.epochs
        )


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of the optimiser's step `step` (from 0): linear up to `lr`, then half a cosine down to 0.

    The first of W warm-up steps runs at lr / (W + 1) and step W at lr; the step after the last would run at 0
    (arXiv:1608.03983 without restarts).
    """
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    return recipe.lr * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _within(key: str, value: float, permitted: str, holds: bool) -> None:
    if not holds:
        raise ScalenetError(f"{key} must be {permitted}, got {value!r}")
