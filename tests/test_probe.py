from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.errors import ScalenetError
from scalenet.probe import judge_features, linear_probe, nearest_neighbours


def clusters(n: int, d: int, classes: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % classes
    return centres[labels] + noise * torch.randn(n, d, generator=generator), labels


def test_probe_and_neighbours_name_clusters_and_guess_on_noise() -> None:
    known, labels = clusters(300, 16, 10, 0.3)
    asked, truth = clusters(100, 16, 10, 0.3, seed=1)
    for judge in (linear_probe, nearest_neighbours):
        assert (judge(known, labels, asked, 10) == truth).float().mean() > 0.95
        blind = judge(torch.randn(300, 16, generator=torch.Generator().manual_seed(2)), labels, asked, 10)
        assert (blind == truth).float().mean() < 0.4


def test_probe_is_the_optimum_of_its_loss() -> None:
    known, labels = clusters(200, 6, 4, 1.5)
    asked, _ = clusters(400, 6, 4, 1.5, seed=1)
    z, q = ((x - known.mean(0)) / known.std(0, correction=0) for x in (known, asked))
    weight, bias = torch.zeros(4, 6, requires_grad=True), torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.5)
    for _ in range(1500):
        optimizer.zero_grad()
        (F.cross_entropy(z @ weight.T + bias, labels) + 0.5e-3 * weight.square().sum()).backward()
        optimizer.step()
    slow = (q @ weight.T + bias).argmax(1)
    assert (linear_probe(known, labels, asked, 4) == slow).float().mean() > 0.99


def test_few_pictures_have_fewer_neighbours() -> None:
    known, labels = clusters(3, 8, 3, 0.1)
    assert nearest_neighbours(known, labels, known, 3).tolist() == [0, 1, 2]


def test_evaluation_is_cheap() -> None:
    features, labels = clusters(1440, 32, 10, 2.0)
    start = time.process_time()
    linear_probe(features, labels, features[:480], 10)
    nearest_neighbours(features, labels, features[:480], 10)
    assert time.process_time() - start < 1.0


def test_neighbours_weigh_by_the_exponential_of_cosine_over_7_hundredths() -> None:
    # One neighbour of class 0 straight ahead, three of class 1 at a cosine c: 1 is named where 3 e^((c - 1) / .07) > 1
    for cosine, named in ((0.90, 0), (0.95, 1)):
        sine = (1 - cosine**2) ** 0.5
        known = torch.tensor([[5.0, 0.0]] + [[cosine, sine]] * 3)  # lengths do not matter
        assert nearest_neighbours(known, torch.tensor([0, 1, 1, 1]), torch.tensor([[0.1, 0.0]]), 2).tolist() == [named]


def batched(features: Tensor, labels: Tensor, size: int = 32) -> list[tuple[Tensor, Tensor]]:
    return list(zip(features.split(size), labels.split(size), strict=True))


def test_what_is_judged_on_teaches_nothing() -> None:
    known, labels = clusters(200, 16, 5, 0.8)
    asked, truth = clusters(60, 16, 5, 0.8, seed=1)
    alone = [linear_probe(known, labels, asked[i : i + 1], 5).item() for i in range(60)]
    shifted = torch.cat((asked, 100 + 50 * asked))  # would move means and spreads taken from them
    assert linear_probe(known, labels, shifted, 5)[:60].tolist() == alone
    scores = judge_features(nn.Identity(), batched(known, labels), batched(asked, truth))
    assert scores["top1"] == pytest.approx((torch.tensor(alone) == truth).float().mean().item())
    turned = judge_features(nn.Identity(), batched(known, labels), batched(asked.flip(0), truth.flip(0), 7))
    assert turned == scores  # the same whatever the batches of `held`


def test_classes_that_one_part_lacks_are_no_obstacle() -> None:
    known, labels = clusters(200, 16, 5, 0.2)
    asked, truth = clusters(100, 16, 5, 0.2, seed=1)
    some = labels != 4
    scores = judge_features(nn.Identity(), batched(known[some], labels[some]), batched(asked, truth))
    assert scores == {"top1": pytest.approx(0.8), "knn_top1": pytest.approx(0.8)}
    one = judge_features(nn.Identity(), batched(known, 0 * labels), batched(asked, 0 * truth))
    assert one == {"top1": 1.0, "knn_top1": 1.0}
    dead = judge_features(nn.Identity(), batched(0 * known, labels), batched(asked, truth))  # a collapsed encoder
    assert max(dead.values()) <= 0.25


def test_judging_keeps_no_graph_and_leaves_the_encoder_alone() -> None:
    features, labels = clusters(64, 16, 4, 0.5)
    encoder = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8)).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    batches = batched(features, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first, second = (judge_features(encoder, batches, batches) for _ in range(2))
    assert first == second
    assert min(first.values()) > 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    with pytest.raises(ScalenetError, match="no pictures"):
        judge_features(encoder, [], batches)
