"""Optimisers from a recipe, and the running average of the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from scalenet.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW or SGD with Nesterov momentum; parameters of one dimension (norms, biases) are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.is_floating_point() for p in parameters)  # one kernel for all of them; refuses complex numbers
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=fused)


class Average:
    """The exponential moving average of a model's weights and buffers, as a model of its own in `model`.

    After n updates the decay is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage, so that
    a short training is not dominated by its initial weights. Integers (BatchNorm's step count) are copied, and so are
    buffers that the model does not save: made of the spec alone, they may hold infinity, whose average is NaN.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0
        # Looked up once, as walking the modules takes longer than averaging; only buffers are ever replaced in forward.
        self._parameters = list(model.parameters())
        self._means = [*self.model.parameters(), *self.model.buffers()]
        saved = model.state_dict().keys()
        kept = [True] * len(self._parameters) + [name in saved for name, _ in model.named_buffers()]
        self._real = [is_kept and not _whole(mean) for is_kept, mean in zip(kept, self._means, strict=True)]
        self._source = model

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the model's weights as they are now, after an optimiser's step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        triples = list(zip(self._means, [*self._parameters, *self._source.buffers()], self._real, strict=True))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average([mean for mean, _, real in triples if real], [now for _, now, real in triples if real], self.updates)
        for mean, now, real in triples:
            if not real:
                mean.copy_(now)
        self.updates += 1


def _whole(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())
