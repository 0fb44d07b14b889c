from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from scalenet.optimise import Average, make_optimizer
from scalenet.recipe import Recipe


def small_net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_norms_and_biases_are_not_decayed(name: Any) -> None:
    model = small_net()
    optimizer = make_optimizer(model, Recipe(optimizer=name, weight_decay=0.3))
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert {n: decay[p] for n, p in model.named_parameters()} == {
        "0.weight": 0.3,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "3.weight": 0.3,
        "3.bias": 0.0,
    }


def test_one_step_of_each_optimiser_by_hand() -> None:
    for recipe, expected in (
        # Nesterov's first step is lr (1 + momentum) (g + wd w); AdamW's is lr wd w, then lr times the gradient's sign.
        (Recipe(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=0.5), 2.0 - 0.1 * 1.9 * (3.0 + 0.5 * 2.0)),
        (Recipe(optimizer="adamw", lr=0.1, weight_decay=0.5), 2.0 * (1 - 0.1 * 0.5) - 0.1),
    ):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 2.0)
        model.weight.grad = torch.full((1, 1), 3.0)
        make_optimizer(model, recipe).step()
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)


def test_complex_parameters_can_be_trained() -> None:
    model = nn.Linear(2, 2, bias=False, dtype=torch.complex64)
    before = model.weight.detach().clone()
    model.weight.grad = torch.ones_like(model.weight)
    make_optimizer(model, Recipe()).step()
    assert not torch.equal(model.weight, before)


def test_average_by_the_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average, mean = Average(model, 0.5), 1.0
    for n in range(12):
        nn.init.constant_(model.weight, float(n * n))
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * n * n
    assert average.model.get_parameter("weight").item() == pytest.approx(mean, rel=1e-5)


def test_average_takes_buffers_in_and_copies_whole_numbers() -> None:
    model = nn.BatchNorm2d(2)
    average = Average(model, 0.9)
    model(torch.randn(4, 2, 3, 3) + 5)
    average.update()
    expected = 0.9 * model.get_buffer("running_mean")  # from 0, with the first update's decay of 1/10
    assert torch.allclose(average.model.get_buffer("running_mean"), expected)
    assert average.model.get_buffer("num_batches_tracked") == 1
    assert not average.model.training


def test_average_copies_what_is_not_saved() -> None:
    model = nn.Linear(1, 1)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]), persistent=False)
    average = Average(model, 0.9)
    for _ in range(3):
        average.update()
    assert average.model.get_buffer("mask").tolist() == [0.0, -torch.inf]
