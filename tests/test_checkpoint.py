from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scalenet import checkpoint
from scalenet.checkpoint import DamagedCheckpoint, State
from scalenet.errors import ScalenetError
from scalenet.optimise import Average, make_optimizer
from scalenet.recipe import Recipe
from scalenet.weights import read_tensors, write_tensors

JOB = {"model": "abc", "seed": 3, "recipe": {"lr": 0.1, "epochs": 2}}
HISTORY = [{"epoch": 1, "top1": 0.1 + 0.2}]


class Tied(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(self.norm(self.conv(images)).mean((2, 3))))  # type: ignore[no-any-return]


def state_of(seed: int, recipe: Recipe, steps: int, width: int = 4) -> State:
    torch.manual_seed(seed)
    model = Tied(width)
    state = State(model, make_optimizer(model, recipe), Average(model, 0.9) if recipe.ema_decay else None)
    for _ in range(steps):
        model(torch.randn(2, 3, 5, 5)).square().mean().backward()
        state.optimizer.step()
        if state.average:
            state.average.update()
    return state


def tensors_of(state: State) -> dict[str, Tensor]:
    found = {f"model {k}": v.clone() for k, v in state.model.state_dict().items()}
    if state.average:
        found |= {f"average {k}": v.clone() for k, v in state.average.model.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        found |= {f"{name} {k}": v.clone() for k, v in state.optimizer.state.get(parameter, {}).items()}
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "recipe", [Recipe(ema_decay=0.9), Recipe(optimizer="sgd"), Recipe(optimizer="sgd", momentum=0)]
)
def test_everything_comes_back(tmp_path: Path, recipe: Recipe) -> None:
    saved, other = state_of(0, recipe, 3), state_of(1, recipe, 0)
    checkpoint.save(tmp_path / "deep" / "c", JOB, saved, HISTORY)
    assert checkpoint.load(tmp_path / "deep" / "c", JOB, other) == HISTORY
    assert same(tensors_of(saved), tensors_of(other))
    if saved.average and other.average:
        assert other.average.updates == 3
    weight = other.model.get_parameter("conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for value in other.optimizer.state[weight].values():
        assert value.shape != weight.shape or value.stride() == weight.stride(), "fused kernels need like strides"


def test_no_file_is_no_history(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path / "none", JOB, state_of(0, Recipe(), 0)) == []


@pytest.mark.parametrize(
    ("job", "difference"),
    [
        ({**JOB, "seed": 4}, "seed is 3 there and 4 here"),
        ({**JOB, "recipe": {"lr": 0.2, "epochs": 2}}, "recipe.lr is 0.1 there and 0.2 here"),
        ({**JOB, "side": 32}, "side is None there and 32 here"),
        ({"model": "abc", "seed": 3}, "recipe.lr is 0.1 there and None here"),
    ],
)
def test_another_jobs_checkpoint_is_refused(tmp_path: Path, job: dict[str, Any], difference: str) -> None:
    state = state_of(0, Recipe(), 1)
    checkpoint.save(tmp_path / "c", JOB, state, HISTORY)
    before = tensors_of(state)
    with pytest.raises(ScalenetError, match=difference):
        checkpoint.load(tmp_path / "c", job, state)
    assert same(before, tensors_of(state))


def test_another_models_checkpoint_is_refused_by_its_first_tensor(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", JOB, state_of(0, Recipe(), 1, width=6), HISTORY)
    with pytest.raises(ScalenetError, match=r"model/conv.weight is \[6, 3, 3, 3\] there, and \[4, 3, 3, 3\]"):
        checkpoint.load(tmp_path / "c", JOB, state_of(0, Recipe(), 0))
    checkpoint.save(tmp_path / "c", JOB, state_of(0, Recipe(ema_decay=0.9), 1), HISTORY)
    with pytest.raises(ScalenetError, match=r"it has average/conv\.bias"):
        checkpoint.load(tmp_path / "c", JOB, state_of(0, Recipe(), 0))


@pytest.mark.parametrize("keep", [0, 5, 200, -1000, -1])
def test_a_cut_file_is_a_warning_and_touches_nothing(tmp_path: Path, keep: int) -> None:
    state = state_of(0, Recipe(), 1)
    path = tmp_path / "c"
    checkpoint.save(path, JOB, state, HISTORY)
    path.write_bytes(path.read_bytes()[:keep])
    fresh = state_of(1, Recipe(), 0)
    before = tensors_of(fresh)
    with pytest.warns(DamagedCheckpoint, match="starts again"):
        assert checkpoint.load(path, JOB, fresh) == []
    assert same(before, tensors_of(fresh))


@pytest.mark.parametrize("content", [b"not a checkpoint at all", b"\0" * 4096, b"\x02\0\0\0\0\0\0\0{}"])
def test_anything_else_under_that_name_is_a_warning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.warns(DamagedCheckpoint):
        assert checkpoint.load(tmp_path / "c", JOB, state_of(0, Recipe(), 0)) == []


def test_another_versions_checkpoint_is_refused_whatever_its_keys(tmp_path: Path) -> None:
    write_tensors(tmp_path / "c", {"x": torch.ones(1)}, {"schema_version": 2})
    with pytest.raises(ScalenetError, match="version 2; this scalenet reads 1"):
        checkpoint.load(tmp_path / "c", JOB, state_of(0, Recipe(), 0))


@pytest.mark.parametrize("job", [["no", "mapping"], 5, "text"])
def test_a_header_of_the_wrong_kind_is_a_warning(tmp_path: Path, job: Any) -> None:
    header = {"schema_version": 1, "job": job, "history": [], "updates": 0}
    write_tensors(tmp_path / "c", {"x": torch.ones(1)}, header)
    with pytest.warns(DamagedCheckpoint):
        assert checkpoint.load(tmp_path / "c", JOB, state_of(0, Recipe(), 0)) == []


def test_another_number_type_is_refused(tmp_path: Path) -> None:
    state = state_of(0, Recipe(), 1)
    checkpoint.save(tmp_path / "c", JOB, state, HISTORY)
    tensors, header = read_tensors(tmp_path / "c")
    write_tensors(tmp_path / "c", tensors | {"model/conv.bias": tensors["model/conv.bias"].half()}, header)
    with pytest.raises(ScalenetError, match=r"model/conv\.bias is torch\.float16 there, and torch\.float32"):
        checkpoint.load(tmp_path / "c", JOB, state)


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of(0, Recipe(), 1)
    checkpoint.save(tmp_path / "c", JOB, state, HISTORY)
    before = (tmp_path / "c").read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path / "c", JOB, state, [*HISTORY, *HISTORY])
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert (tmp_path / "c").read_bytes() == before
