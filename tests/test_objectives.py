from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from scalenet.errors import ScalenetError
from scalenet.objectives import CrossEntropy


class Recite(nn.Module):
    """Takes the pictures' first row for logits."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0]


def batches_of(logits: list[list[float]], labels: list[int], size: int) -> list[tuple[Tensor, Tensor]]:
    images = torch.tensor(logits)[:, None, None]
    return [(images[i : i + size], torch.tensor(labels[i : i + size])) for i in range(0, len(labels), size)]


def unread() -> Iterator[tuple[Tensor, Tensor]]:
    raise AssertionError("cross-entropy has no use for the fitted pictures")
    yield


def test_top1_and_top5_by_hand_over_uneven_batches() -> None:
    falling = [[7.0, 6, 5, 4, 3, 2, 1]] * 5
    scores = CrossEntropy().evaluate(Recite(), unread(), batches_of(falling, [0, 0, 4, 5, 6], 2))
    assert scores == {"top1": pytest.approx(2 / 5), "top5": pytest.approx(3 / 5)}


def test_top5_is_left_out_where_five_guesses_are_all_there_are() -> None:
    scores = CrossEntropy().evaluate(Recite(), unread(), batches_of([[0.0, 1, 2, 3, 4]] * 2, [4, 1], 1))
    assert scores == {"top1": 0.5}


def test_the_loss_takes_indices_and_distributions() -> None:
    images, labels = torch.randn(4, 1, 1, 3), torch.tensor([0, 2, 1, 1])
    onehot = nn.functional.one_hot(labels).float()
    by_index = CrossEntropy().loss(Recite(), (images,), labels)
    assert torch.allclose(by_index, CrossEntropy().loss(Recite(), (images,), onehot))
    assert torch.allclose(by_index, -images[:, 0, 0].log_softmax(1)[torch.arange(4), labels].mean())


def test_nothing_to_judge_on_is_an_error() -> None:
    with pytest.raises(ScalenetError, match="holds no pictures"):
        CrossEntropy().evaluate(Recite(), unread(), [])
