"""What features are good for: nearest neighbours and a linear probe on what an encoder makes of pictures."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.errors import ScalenetError


@torch.no_grad()
def judge_features(
    encoder: nn.Module, fit: Iterable[tuple[Tensor, Tensor]], held: Iterable[tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Shares of `held` named rightly from an encoder's features (n, d): top1 by a probe, knn_top1 by neighbours.

    Both learn on `fit` alone. Batches are of normalised images and class indices; features are taken as the encoder is
    (in eval mode, under the caller's autocast), everything after them is float32.

    Raises:
        ScalenetError: one of the parts is empty.
    """
    (known, labels), (asked, truth) = _features(encoder, fit), _features(encoder, held)
    classes = int(labels.max()) + 1  # of those that `fit` lacks nothing can be known
    with torch.autocast(known.device.type, enabled=False):
        guesses = {
            "top1": linear_probe(known, labels, asked, classes),
            "knn_top1": nearest_neighbours(known, labels, asked, classes),
        }
    return {name: float((guess == truth).float().mean()) for name, guess in guesses.items()}


def _features(encoder: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    found = [(encoder(images).float(), labels) for images, labels in batches]
    if not found:
        raise ScalenetError("The parts to judge with hold no pictures; each must hold at least one.")
    return torch.cat([features for features, _ in found]), torch.cat([labels for _, labels in found])


def nearest_neighbours(known: Tensor, labels: Tensor, asked: Tensor, classes: int, k: int = 20) -> Tensor:
    """The class of each row of `asked` by its k nearest of `known`, weighted by exp(cosine / 0.07).

    arXiv:1805.01978, section 3.4.
    """
    known, asked = F.normalize(known), F.normalize(asked)
    votes = []
    for rows in torch.split(asked, 256):
        nearest = (rows @ known.T).topk(min(k, len(known)), 1)
        weights = (nearest.values / 0.07).softmax(1)
        votes.append((F.one_hot(labels[nearest.indices], classes) * weights[:, :, None]).sum(1).argmax(1))
    return torch.cat(votes)


def linear_probe(known: Tensor, labels: Tensor, asked: Tensor, classes: int, l2: float = 1e-3) -> Tensor:
    """The class of each row of `asked` by logistic regression on `known`, standardised by the means of `known`.

    At most 30 steps of L-BFGS from zero, with 0.5 * l2 times the sum of squared weights added to the mean loss.
    """
    mean, spread = known.mean(0), known.std(0, correction=0).clamp(min=1e-6)
    known, asked = (known - mean) / spread, (asked - mean) / spread
    weight = known.new_zeros(classes, known.shape[1], requires_grad=True)
    bias = known.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=30, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(known, weight, bias), labels) + 0.5 * l2 * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return F.linear(asked, weight, bias).argmax(1)
