from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from scalenet import plugins
from scalenet.data import Prepared
from scalenet.device import is_out_of_memory
from scalenet.errors import ScalenetError
from scalenet.plain import to_plain
from scalenet.recipe import Recipe
from scalenet.trial import Job, TrialFailed, run
from tests.pictures import tiny_pictures
from tests.toy import Toy, ToySpec

CLOCK = {"seconds", "eval_seconds", "images_per_second"}
MICRO = ToySpec((1, 1), (4, 8), 16)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return tiny_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    architecture = Toy()
    monkeypatch.setattr(plugins, "architecture", {"toy": architecture}.__getitem__)
    return architecture


def job(data: Prepared, **changes: Any) -> Any:
    recipe = Recipe(epochs=2, batch_size=12, lr=0.01)
    settings: dict[str, Any] = {"plugin": "toy", "spec": to_plain(MICRO), "num_classes": 3, "data": data}
    settings |= {"recipe": recipe, "seed": 0, "key": "a1", "threads": 1, "device": "cpu"}
    return to_plain(Job(**(settings | changes)))


def timeless(told: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in metrics.items() if key not in CLOCK} for metrics in run(told)]


@pytest.mark.usefixtures("toy")
def test_a_plain_job_gives_plain_metrics_and_the_same_ones_again(data: Prepared) -> None:
    first = timeless(job(data))
    torch.manual_seed(1234)
    torch.rand(3)
    assert [metrics["epoch"] for metrics in first] == [1, 2]
    assert timeless(job(data)) == first


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("change", [{"key": "b2"}, {"seed": 1}])
def test_key_and_seed_both_change_the_initial_weights(data: Prepared, change: dict[str, Any]) -> None:
    assert timeless(job(data, **change))[0]["loss"] != timeless(job(data))[0]["loss"]


@pytest.mark.usefixtures("toy")
def test_it_resumes(data: Prepared, tmp_path: Path) -> None:
    told = job(data, checkpoint=str(tmp_path / "c"))
    begun = run(told)
    first = next(begun)
    begun.close()  # stopped: only now is a checkpoint written, as so short a trial needs none
    again = list(run(told))
    assert again[0] == first, "the epoch of the checkpoint comes again, clock and all"
    assert [metrics["epoch"] for metrics in again] == list(range(1, len(again) + 1))
    with pytest.raises(ScalenetError, match=r"another job \(model is 'a1' there and 'b2' here\)"):
        list(run(job(data, checkpoint=str(tmp_path / "c"), key="b2")))


def raising(error: Exception) -> Any:
    def build(*_: object, **__: object) -> nn.Module:
        raise error

    return build


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 400000000000000 bytes."),
        RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GiB)"),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_a_reason(
    data: Prepared, toy: Toy, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(toy, "build", raising(error), raising=False)
    with pytest.raises(TrialFailed, match=r"^Out of memory on cpu with batches of 12 at 16 px\.$") as caught:
        list(run(job(data)))
    assert caught.value.__context__ is None, "the frames of the failure hold its tensors"


def test_other_errors_are_not_called_out_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_what_a_model_raises_is_kept(data: Prepared, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "build", raising(IndexError("stage 3\nof 2")), raising=False)
    with pytest.raises(TrialFailed, match=r"^IndexError: stage 3 of 2$") as caught:
        list(run(job(data)))
    assert isinstance(caught.value.__cause__, IndexError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.usefixtures("toy")
def test_a_diverged_training_names_its_step(data: Prepared) -> None:
    recipe = Recipe(epochs=2, batch_size=12, optimizer="sgd", lr=1e30, clip_norm=0.0, warmup_epochs=0.0)
    with pytest.raises(TrialFailed, match=r"not finite at step \d+ \(epoch"):
        list(run(job(data, recipe=recipe)))


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spec": {"depth": [1]}}, "spec of toy: .*'depth'"),
        ({"device": "cuda:97"}, "cuda:97"),
        ({"device": "abacus"}, "No device 'abacus'"),
        ({"judge": "fit"}, "judge"),
    ],
)
def test_a_wrong_job_is_the_callers_error(data: Prepared, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ScalenetError, match=sentence):
        list(run({**job(data), **change}))


def test_it_imports_neither_ray_nor_optuna() -> None:
    code = "import sys, scalenet.trial; sys.exit(bool({'ray', 'optuna'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
