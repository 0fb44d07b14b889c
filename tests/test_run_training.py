from __future__ import annotations

import json
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from scalenet import plugins, run_training
from scalenet.data import DataRequest, Prepared
from scalenet.errors import ScalenetError
from scalenet.modelfile import ModelFile, read_model_file
from scalenet.plain import to_plain
from scalenet.recipe import Recipe
from scalenet.run_training import train_model
from scalenet.train import train
from scalenet.weights import read_tensors
from tests.pictures import tiny_pictures
from tests.toy import Toy, ToySpec

CLOCK = {"seconds", "eval_seconds", "images_per_second"}
MODEL = ModelFile("toy", to_plain(ToySpec((1, 1), (4, 8), 16)))
RECIPE = Recipe(epochs=3, batch_size=12, lr=0.01, ema_decay=0.5)


@pytest.fixture(autouse=True)
def _toy_on_tiny_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plugins, "architecture", {"toy": Toy()}.__getitem__)

    def prepare(request: DataRequest, side: int, **_: Any) -> Prepared:
        return tiny_pictures(tmp_path / request.source, classes=4 if request.source == "four" else 3)

    monkeypatch.setattr(run_training, "prepare", prepare)


def training(out: Path, source: str = "three", **options: Any) -> Generator[dict[str, Any], None, None]:
    return train_model(MODEL, DataRequest(source), RECIPE, out=out, device="cpu", threads=1, **options)


def timeless(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in metrics.items() if key not in CLOCK} for metrics in epochs]


def test_a_directory_with_model_metrics_and_weights(tmp_path: Path) -> None:
    epochs = list(training(tmp_path / "out"))
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == epochs
    assert len(epochs) == 3
    assert read_model_file(tmp_path / "out" / "model.yaml") == MODEL
    _, header = read_tensors(tmp_path / "out" / "weights.safetensors")
    assert header["classes"] == ["colour0", "colour1", "colour2"]


def test_interrupted_and_resumed_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(training(tmp_path / "whole"))
    monkeypatch.setattr(run_training, "train", partial(train, checkpoint_seconds=0.0))
    cut = training(tmp_path / "cut")
    next(cut), next(cut)
    cut.close()
    with pytest.raises(ScalenetError, match=r"already holds a training \(metrics\.jsonl, checkpoint\.safetensors\)"):
        next(training(tmp_path / "cut"))
    assert timeless(list(training(tmp_path / "cut", resume=True))) == timeless(whole)
    one, other = (read_tensors(tmp_path / name / "weights.safetensors")[0] for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 3


def test_it_starts_from_other_weights(tmp_path: Path) -> None:
    before = list(training(tmp_path / "first"))
    weights = tmp_path / "first" / "weights.safetensors"
    said: list[str] = []
    after = list(training(tmp_path / "second", init_from=weights, announce=said.append))
    assert after[0]["loss"] < before[0]["loss"]
    assert said == []
    list(training(tmp_path / "third", source="four", init_from=weights, announce=said.append))
    assert said == [f"{weights} has another number of classes: head.weight, head.bias start afresh."]


def test_nothing_is_touched_before_the_first_epoch_is_asked_for(tmp_path: Path) -> None:
    training(tmp_path / "out")
    assert not (tmp_path / "out").exists()
