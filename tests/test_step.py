"""A recorded step does what the step does: on a CPU by a tape of operators, by CUDA's graphs where there is CUDA."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scalenet import plugins
from scalenet.data import Prepared
from scalenet.device import Numerics, numerics
from scalenet.objectives import CrossEntropy
from scalenet.optimise import make_optimizer
from scalenet.recipe import OptimizerName, Recipe
from scalenet.step import WARM, Replayed, Step
from scalenet.timing import Subject, replays_faithfully, seconds_per_image
from scalenet.train import train
from tests.pictures import tiny_pictures
from tests.tape import Recorder

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=3, batch_size=12, lr=0.0078125, warmup_epochs=0.0)  # a power of two: the same in float32
on_cuda = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")]
RATES = [2.0**-i for i in range(7, 27)]


def fresh() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)]
    return nn.Sequential(*body, nn.Linear(6 * 6 * 6, 4))


def batches(sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(n, 3, 8, 8), torch.randint(4, (n,))) for n in sizes]


def taken(model: nn.Module, optimizer: OptimizerName, clip: float = 0.5) -> Step:
    return Step(model, CrossEntropy(), make_optimizer(model, replace(RECIPE, optimizer=optimizer)), clip, bf16=False)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("sizes", [[5] * 3 * WARM, [5, 5, 2] * (WARM + 2), [5, 5, 2] * WARM])
def test_replays_end_at_the_weights_of_the_steps(optimizer: OptimizerName, sizes: list[int]) -> None:
    one, other = fresh(), fresh()
    recorder = Recorder()
    plain, replayed = taken(one, optimizer), Replayed(taken(other, optimizer), CPU, recorder)
    found: list[list[float]] = []
    for step in (plain, replayed):
        torch.manual_seed(2)
        found.append(
            [float(step([images], labels, lr)) for (images, labels), lr in zip(batches(sizes), RATES, strict=False)]
        )
    assert found[0] == found[1]
    assert len(set(found[0])) == len(sizes)
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    many = [sizes.count(size) - WARM for size in (5, 2)]
    assert recorder.recordings == sum(more > 0 for more in many)
    assert recorder.replays == sum(more for more in many if more > 0)


def test_gradients_are_clipped_to_the_norm() -> None:
    """Plain SGD: the weights move by the rate times a gradient no longer than the norm."""
    images, labels = batches([5])[0]
    moved = []
    for clip in (0.0, 0.25):
        model = fresh()
        before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        step = replace(taken(model, "sgd", clip), optimizer=torch.optim.SGD(model.parameters(), lr=1.0))
        step([images], labels, 0.5)
        moved.append(float((nn.utils.parameters_to_vector(model.parameters()).detach() - before).norm()))
    assert moved[0] > 2 * moved[1]
    assert moved[1] == pytest.approx(0.5 * 0.25, rel=1e-3)


def test_what_was_given_is_not_kept() -> None:
    """A caller may reuse its tensors: a replay reads its own copies."""
    recorder = Recorder()
    replayed = Replayed(taken(fresh(), "sgd"), CPU, recorder)
    images, labels = batches([5])[0]
    for _ in range(WARM):
        replayed([images], labels, 0.01)
    first = float(replayed([images], labels, 0.0))
    assert recorder.replays == 1
    other = float(replayed([torch.zeros_like(images)], labels, 0.0))
    assert first != other


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pictures_keep_their_layout(layout: torch.memory_format) -> None:
    seen = []

    class Watching(CrossEntropy):
        def loss(self, model: nn.Module, views: tuple[Tensor, ...], targets: Tensor) -> Tensor:
            seen.append(views[0].is_contiguous(memory_format=layout))
            return super().loss(model, views, targets)

    replayed = Replayed(replace(taken(fresh(), "sgd"), objective=Watching()), CPU, Recorder())
    images, labels = batches([5])[0]
    for _ in range(WARM + 2):
        replayed([images.contiguous(memory_format=layout)], labels, 0.01)
    assert seen == [True] * (WARM + 1)  # the last one while it is recorded


def test_a_training_by_replays_is_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs with a short last batch, a schedule in float32, averaged weights."""
    data = tiny_pictures(tmp_path)
    recorder = Recorder()
    recipe = replace(RECIPE, epochs=4, ema_decay=0.9)
    plain, replayed = fresh_net(), fresh_net()
    expected = _of(train(plain, CrossEntropy(), data, recipe, side=16, seed=0, judge="select", device=CPU))
    monkeypatch.setattr("scalenet.train.numerics", lambda *_: Numerics(True, False, recorded=True))
    monkeypatch.setattr("scalenet.train.Replayed", lambda step, device: Replayed(step, device, recorder))
    found = _of(train(replayed, CrossEntropy(), data, recipe, side=16, seed=0, judge="select", device=CPU))
    shapes = 2 if data.counts["fit"] % recipe.batch_size > 1 else 1
    assert recorder.recordings == shapes
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-4)
    for a, b in zip(plain.state_dict().values(), replayed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def fresh_net() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8, 3))


def _of(epochs: Any) -> list[dict[str, float]]:
    return [{key: metrics[key] for key in ("epoch", "loss", "lr", "images", "top1")} for metrics in epochs]


def subject() -> Subject:
    arch = plugins.architecture("efficientnet")
    spec = replace(arch.variant("micro").spec, resolution=16)
    return Subject(arch, spec, 4, replace(RECIPE, drop_path=0.1), 4)


def test_recording_is_spread_over_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays of 1 s after a first step of 5 s, others of 2 s before the recording, and the recording itself, 9 s."""
    clock, calls = [0.0], [0]

    class Timed:
        def __call__(self, *_: Any) -> Tensor:
            calls[0] += 1
            clock[0] += {1: 5.0, 2: 2.0, 3: 2.0, WARM + 1: 9.0}.get(calls[0], 1.0)
            return torch.zeros(())

    monkeypatch.setattr("scalenet.timing.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr(Subject, "step", lambda *_: Timed())

    def timed(recorded: bool, **limits: Any) -> float:
        calls[0] = 0
        return seconds_per_image(subject(), nn.Identity(), Numerics(True, False, recorded), CPU, images=80, **limits)

    once = 8 + WARM * 1
    assert timed(True, longest=30.0) == pytest.approx(1 / 4 + once / 80)
    assert timed(True, longest=30.0, shapes=2) == pytest.approx(1 / 4 + 2 * once / 80)
    assert timed(False, longest=30.0, shapes=2) == pytest.approx(1 / 4)
    # Neither is a step before the recording a reason to stop, nor does it take from the time to time.
    assert timed(True, longest=3.5, hopeless=0.3) == pytest.approx(1 / 4 + once / 80)
    assert calls[0] == WARM + 1 + 4


@pytest.mark.parametrize("wrong", ["nothing", "rate", "labels", "weights"])
def test_recordings_that_train_otherwise_are_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spoilt(Replayed):
        calls = 0

        def __call__(self, views: Any, targets: Tensor, lr: float) -> Tensor:
            self.calls += 1
            replays = self.calls > WARM
            if wrong == "labels" and replays:
                targets = torch.zeros_like(targets)
            loss = super().__call__(views, targets, lr * (1.5 if wrong == "rate" and replays else 1.0))
            if wrong == "weights" and replays:
                with torch.no_grad():
                    next(self._step.model.parameters()).add_(0.1)
            return loss

    monkeypatch.setattr("scalenet.timing.Replayed", lambda step, device: Spoilt(step, device, Recorder()))
    of = subject()
    torch.manual_seed(0)
    model = of.build()
    before = copy.deepcopy(model.state_dict())
    assert replays_faithfully(of, model, Numerics(True, False, recorded=True), CPU) == (wrong == "nothing")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("name", sorted(plugins.architectures()))
def test_every_architecture_can_be_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step asks the device for a value, and none depends on what Python decided in an earlier one."""
    monkeypatch.setattr("scalenet.timing.Replayed", lambda step, device: Replayed(step, device, Recorder()))
    arch = plugins.architecture(name)
    of = Subject(arch, arch.variant("micro").spec, 10, replace(RECIPE, drop_path=0.1, optimizer="adamw"), 4)
    torch.manual_seed(0)
    assert replays_faithfully(of, of.build(), Numerics(True, False, recorded=True), CPU)


class Drops(nn.Module):
    """Stochastic depth by Python's own generator: a recording would drop a block always or never."""

    def __init__(self) -> None:
        super().__init__()
        self.body = fresh()
        self.draw = random.Random(0)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        return logits if self.draw.random() < 0.5 else 3 * logits


class Asks(nn.Module):
    """Looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.body = fresh()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        return logits if logits.sum() > 0 else logits * 2


class Rebinds(nn.Module):
    """Puts a new tensor in a buffer's place: a recording would read the old one for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.body = fresh()
        self.register_buffer("centre", torch.zeros(4))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.body(images)
        self.centre = 0.999 * self.centre + 0.001 * logits.detach().mean(0)
        return logits - self.centre


def test_a_model_that_draws_in_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalenet.timing.Replayed", lambda step, device: Replayed(step, device, Recorder()))
    of = replace(subject(), spec=replace(subject().spec, resolution=8))
    assert replays_faithfully(of, fresh(), Numerics(True, False, recorded=True), CPU)
    assert not replays_faithfully(of, Drops(), Numerics(True, False, recorded=True), CPU)
    assert not replays_faithfully(of, Rebinds(), Numerics(True, False, recorded=True), CPU)
    with pytest.raises(RuntimeError, match="waits for the device"):
        replays_faithfully(of, Asks(), Numerics(True, False, recorded=True), CPU)


@pytest.mark.parametrize("execution", ["auto", "eager", "cuda_graphs"])
def test_only_cuda_records(execution: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    recipe = Recipe(execution=execution)
    assert numerics(recipe, torch.device("cuda")).recorded == (execution == "cuda_graphs")
    assert not numerics(recipe, CPU).recorded
    assert not numerics(recipe, torch.device("mps")).recorded


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", sorted(plugins.architectures()))
def test_every_architecture_is_recorded_faithfully_on_cuda(name: str) -> None:
    """Two views of a step with draws of its own: dropout and stochastic depth where there are such."""
    arch = plugins.architecture(name)
    of = Subject(arch, arch.variant("micro").spec, 10, replace(RECIPE, drop_path=0.1), 32)
    cuda = torch.device("cuda", torch.cuda.current_device())
    for bf16 in (False, True):
        assert replays_faithfully(of, of.build().to(cuda), Numerics(True, bf16, recorded=True), cuda)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_draws_are_new_at_every_replay_and_follow_the_seed_on_cuda() -> None:
    cuda = torch.device("cuda")
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4)).to(cuda)
    replayed = Replayed(taken(model, "sgd"), cuda)
    images, labels = (tensor.to(cuda) for tensor in batches([5])[0])
    for _ in range(WARM):
        replayed([images], labels, 0.0)
    torch.manual_seed(3)
    losses = [float(replayed([images], labels, 0.0)) for _ in range(4)]
    assert len(set(losses)) == 4
    torch.manual_seed(3)
    assert [float(replayed([images], labels, 0.0)) for _ in range(4)] == losses


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_training_by_replays_is_the_training_on_cuda(tmp_path: Path) -> None:
    data: Prepared = tiny_pictures(tmp_path)
    found = []
    for execution in ("eager", "cuda_graphs"):
        recipe = replace(RECIPE, epochs=8, execution=execution, precision="fp32", ema_decay=0.9)  # type: ignore[arg-type]
        epochs = train(
            fresh_net(), CrossEntropy(), data, recipe, side=16, seed=0, judge="select", device=torch.device("cuda")
        )
        found.append(_of(epochs))
    for one, other in zip(*found, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=0.01)
