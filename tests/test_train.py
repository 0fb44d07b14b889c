from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scalenet import checkpoint as checkpoints
from scalenet.convolutions import DepthwiseConv2d
from scalenet.data import Prepared
from scalenet.objectives import CrossEntropy
from scalenet.recipe import Recipe, learning_rate
from scalenet.train import NonFiniteLoss, train
from tests.pictures import tiny_pictures

CPU = torch.device("cpu")
CLOCK = {"seconds", "eval_seconds", "images_per_second"}
RECIPE = Recipe(epochs=4, batch_size=12, lr=0.01)
EVERYTHING = replace(RECIPE, mixup=0.2, randaugment=5, ema_decay=0.9)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return tiny_pictures(tmp_path_factory.mktemp("pictures"))


def net(seed: int = 0) -> nn.Module:
    """Draws of its own (dropout), running statistics and a layout to keep: what a resume can get wrong."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8, 3),
    )


def run(
    model: nn.Module, data: Prepared, recipe: Recipe = RECIPE, **options: Any
) -> Generator[dict[str, Any], None, None]:
    settings: dict[str, Any] = {"side": 16, "seed": 0, "judge": "select", "device": CPU, "checkpoint_seconds": 0.0}
    return train(model, options.pop("objective", CrossEntropy()), data, recipe, **(settings | options))


def timeless(epochs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in metrics.items() if key not in CLOCK} for metrics in epochs]


def test_metrics_are_plain_and_complete(data: Prepared) -> None:
    epochs = list(run(net(), data))
    assert [metrics["epoch"] for metrics in epochs] == [1, 2, 3, 4]
    for metrics in epochs:
        assert set(metrics) == {"epoch", "loss", "lr", "images", "top1"} | CLOCK
        assert all(type(value) in (int, float) for value in metrics.values())
        assert metrics["images"] == 36
        assert metrics["lr"] == learning_rate(RECIPE, 3 * metrics["epoch"] - 1, 3)


def test_it_learns(data: Prepared) -> None:
    epochs = list(run(net(), data, replace(RECIPE, epochs=8, lr=0.03)))
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert epochs[-1]["top1"] > 0.6


def test_same_seed_same_bits_and_other_seed_others(data: Prepared) -> None:
    first, again, other = (timeless(run(net(), data, EVERYTHING, seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert first[0]["loss"] != other[0]["loss"]


@pytest.mark.parametrize("done", [1, 3, 4])
@pytest.mark.parametrize(
    "recipe",
    [
        EVERYTHING,
        replace(RECIPE, optimizer="sgd", lr=0.1, weight_decay=1e-4),
        replace(RECIPE, memory_format="contiguous", label_smoothing=0.0),
    ],
    ids=["adamw+all", "sgd", "contiguous"],
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    data: Prepared, tmp_path: Path, recipe: Recipe, done: int
) -> None:
    whole = net()
    uninterrupted = timeless(run(whole, data, recipe))
    before = run(net(), data, recipe, checkpoint=tmp_path / "c.safetensors")
    reported = [next(before) for _ in range(done)]
    before.close()
    torch.rand(7)  # whatever else the process may draw
    resumed = net(seed=99)
    epochs = list(run(resumed, data, recipe, checkpoint=tmp_path / "c.safetensors"))
    assert epochs[:done] == reported, "the epochs of the checkpoint come again, clock and all"
    assert timeless(epochs) == uninterrupted
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_interleaved_trainings_do_not_disturb_each_other_or_the_caller(data: Prepared) -> None:
    alone = timeless(run(net(), data, threads=1))
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    a, b = run(net_without_seeding(), data, threads=1), run(net_without_seeding(), data, seed=3, threads=2)
    mixed = [(x, y) for x, y in zip(a, b, strict=True)]
    assert timeless([x for x, _ in mixed]) == alone
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


def net_without_seeding() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return net()


def test_threads_are_as_told_while_training(data: Prepared) -> None:
    seen = []

    class Watch(CrossEntropy):
        def views(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
            seen.append(torch.get_num_threads())
            return super().views(images, generator)

    next(run(net(), data, threads=2, objective=Watch()))
    next(run(net(), data, threads=1, objective=Watch()))
    assert seen == [2, 2, 2, 1, 1, 1]


def test_candidates_of_any_side_share_order_and_draws(data: Prepared) -> None:
    class Watch(CrossEntropy):
        def __init__(self) -> None:
            self.seen: list[Tensor] = []

        def loss(self, model: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
            self.seen.append(targets)
            torch.rand(views[0].shape[-1])  # a model's own draws differ from side to side
            return super().loss(model, views, targets)

    small, large = Watch(), Watch()
    recipe = replace(EVERYTHING, epochs=2)
    list(run(net(), data, recipe, side=12, objective=small))
    list(run(net(), data, recipe, side=16, objective=large))
    assert len(small.seen) == 6
    assert all(torch.equal(x, y) for x, y in zip(small.seen, large.seen, strict=True))
    assert not torch.equal(small.seen[0], small.seen[3]), "another epoch, another order"


class Poisoned(CrossEntropy):
    def __init__(self, at: int, value: float) -> None:
        self.at, self.value, self.steps = at, value, 0

    def loss(self, model: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        self.steps += 1
        return super().loss(model, views, targets) * (self.value if self.steps == self.at else 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_aborts_with_its_step(data: Prepared, value: float) -> None:
    epochs = run(net(), data, objective=Poisoned(5, value))
    next(epochs)
    with pytest.raises(NonFiniteLoss) as caught:
        next(epochs)
    assert (caught.value.step, caught.value.epoch) == (5, 2)
    assert caught.value.lr == learning_rate(RECIPE, 4, 3)
    assert "step 5 (epoch 2" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_huge_learning_rate_aborts(data: Prepared) -> None:
    recipe = replace(RECIPE, optimizer="sgd", lr=1e30, clip_norm=0.0, warmup_epochs=0.0)
    with pytest.raises(NonFiniteLoss, match=r"step 2 .epoch 1, learning rate 9\.83e\+29"):
        list(run(net(), data, recipe))


def test_weights_lost_in_the_very_last_step_abort(data: Prepared) -> None:
    recipe = Recipe(epochs=1, batch_size=100, optimizer="sgd", lr=1e300, clip_norm=0.0, warmup_epochs=0.0)
    with pytest.raises(NonFiniteLoss, match=r"The weights were not finite at step 1 .epoch 1") as caught:
        list(run(net(), data, recipe))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_long_epoch_aborts_before_its_end(data: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalenet.train.CHECK_EVERY", 2)
    poisoned = Poisoned(1, math.nan)
    with pytest.raises(NonFiniteLoss):
        list(run(net(), data, objective=poisoned))
    assert poisoned.steps == 2


def test_averaged_weights_are_judged_and_left_in_the_model(data: Prepared) -> None:
    judged: list[dict[str, Tensor]] = []

    class Watch(CrossEntropy):
        def evaluate(self, model: nn.Module, fit: Any, held: Any) -> dict[str, float]:
            assert not model.training
            judged.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            return super().evaluate(model, fit, held)

    model = net()
    list(run(model, data, replace(RECIPE, epochs=2, ema_decay=0.9), objective=Watch()))
    assert all(torch.equal(tensor, judged[-1][name]) for name, tensor in model.state_dict().items())
    plain = net()
    list(run(plain, data, replace(RECIPE, epochs=2)))
    assert not torch.equal(plain[0].weight, judged[-1]["0.weight"])  # type: ignore[index]


def test_the_part_asked_for_is_judged_and_evaluation_pictures_are_normalised(data: Prepared) -> None:
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}

    class Watch(CrossEntropy):
        def __init__(self, part: str) -> None:
            self.part = part

        def evaluate(self, model: nn.Module, fit: Any, held: Any) -> dict[str, float]:
            parts[self.part] = list(held)
            return {"top1": 0.0}

    for part in ("select", "held"):
        next(run(net(), data, judge=part, objective=Watch(part)))
    select, held = (torch.cat([images for images, _ in parts[part]]) for part in ("select", "held"))
    assert select.shape == held.shape == (18, 3, 16, 16)
    assert not torch.equal(select, held)
    assert float(select.min()) < 0


def test_pictures_and_kernels_are_channels_last_where_the_recipe_says_so(data: Prepared) -> None:
    layouts = []

    class Watch(CrossEntropy):
        def loss(self, model: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
            layouts.append([x.is_contiguous(memory_format=torch.channels_last) for x in (views[0], model[0].weight)])  # type: ignore[index]
            return super().loss(model, views, targets)

    for memory_format in ("channels_last", "contiguous"):
        recipe = replace(RECIPE, epochs=1, batch_size=36, memory_format=memory_format)
        list(run(net(), data, recipe, objective=Watch()))
    assert layouts == [[True, True], [False, False]]


def test_checkpoints_are_written_when_time_has_passed_and_when_it_ends_or_is_stopped(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    save = checkpoints.save

    def spy(path: Path, job: Any, state: Any, history: Any) -> None:
        lengths.append(len(history))
        save(path, job, state, history)

    monkeypatch.setattr(checkpoints, "save", spy)
    list(run(net(), data, checkpoint=tmp_path / "a", checkpoint_seconds=3600.0))
    list(run(net(), data, checkpoint=tmp_path / "none", checkpoint_seconds=3600.0, checkpoint_last=False))
    stopped = run(net(), data, checkpoint=tmp_path / "c", checkpoint_seconds=3600.0)
    assert [next(stopped)["epoch"], next(stopped)["epoch"]] == [1, 2]
    stopped.close()
    list(run(net(), data, checkpoint=tmp_path / "b", checkpoint_seconds=0.0))
    assert lengths == [4, 2, 1, 2, 3, 4]


@pytest.mark.parametrize("end", ["exhausted", "closed", "raised"])
def test_the_model_has_its_own_convolutions_again_however_the_training_ends(data: Prepared, end: str) -> None:
    model = net()
    parameters, names = list(model.parameters()), list(model.state_dict())
    epochs = run(model, data, objective=Poisoned(5 if end == "raised" else 0, math.nan))
    next(epochs)
    assert type(model[3]) is DepthwiseConv2d  # type: ignore[index]
    pickle.loads(pickle.dumps(model))(torch.randn(2, 3, 16, 16))  # which may be used all the same
    if end == "exhausted":
        list(epochs)
    elif end == "closed":
        epochs.close()
    else:
        with pytest.raises(NonFiniteLoss):
            next(epochs)
    assert [type(module) for module in model.modules() if isinstance(module, nn.Conv2d)] == [nn.Conv2d] * 2
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_it_trains_and_resumes_on_cuda(data: Prepared, tmp_path: Path) -> None:
    cuda = torch.device("cuda")
    options: dict[str, Any] = {"device": cuda, "checkpoint": tmp_path / "c"}
    recipe = replace(EVERYTHING, epochs=6, lr=0.03, mixup=0.0)
    epochs = run(net(), data, recipe, **options)
    first = [next(epochs), next(epochs)]
    epochs.close()
    resumed = list(run(net(seed=9), data, recipe, **options))
    assert resumed[:2] == first
    assert resumed[-1]["loss"] < first[0]["loss"]


def test_slow_checkpoints_are_written_less_often(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    written = []

    def save(*_: Any) -> None:
        written.append(clock[0])
        clock[0] += 1.0  # a second for writing: none for the next twenty

    monkeypatch.setattr("scalenet.train.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "save", save)
    for _ in run(
        net(),
        data,
        replace(RECIPE, epochs=40),
        checkpoint=tmp_path / "c",
        checkpoint_seconds=2.0,
        checkpoint_last=False,
    ):
        clock[0] += 1.0
    assert written[0] <= 3.0
    assert all(20 <= later - earlier <= 22 for earlier, later in itertools.pairwise(written))
    assert len(written) >= 2
