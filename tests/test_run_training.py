from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
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
    assert said == [f"{weights} was not trained for these classes: head.weight, head.bias start afresh."]


def test_nothing_is_touched_before_the_first_epoch_is_asked_for(tmp_path: Path) -> None:
    training(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_refused_resume_leaves_a_finished_training_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    list(training(out))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = replace(MODEL, source="another")
    with pytest.raises(ScalenetError, match=r"another job \(recipe\.epochs is 3 there and 4 here\)"):
        next(
            train_model(
                other, DataRequest("three"), replace(RECIPE, epochs=4), out=out, device="cpu", threads=1, resume=True
            )
        )
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_place_that_is_no_folder_is_named_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_training, "prepare", None)
    (tmp_path / "model").write_text("plugin: toy")
    for out in (tmp_path / "model", tmp_path / "model" / "deeper"):
        with pytest.raises(ScalenetError, match="cannot be written"):
            next(training(out))
    assert (tmp_path / "model").read_text() == "plugin: toy"


def test_a_training_that_cannot_go_on_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = replace(RECIPE, optimizer="sgd", lr=1e30, clip_norm=0.0, warmup_epochs=0.0)
    with pytest.raises(ScalenetError, match=r"not finite at step 2 .epoch 1.*lower lr"):
        list(train_model(MODEL, DataRequest("three"), wild, out=tmp_path / "wild", device="cpu", threads=1))

    def full(*_: Any, **__: Any) -> Generator[dict[str, Any], None, None]:
        raise MemoryError
        yield {}

    monkeypatch.setattr(run_training, "train", full)
    with pytest.raises(ScalenetError, match=r"Out of memory on cpu with batches of 12 at 16 px; lower batch_size"):
        list(training(tmp_path / "full"))


def test_what_there_is_to_say_about_the_pictures_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = replace(tiny_pictures(tmp_path / "d"), warnings=("Unreadable pictures, left out: 1 (a/b.jpg).",))
    monkeypatch.setattr(run_training, "prepare", lambda *_, **__: replace(data, native_size=12))
    said: list[str] = []
    next(training(tmp_path / "out", announce=said.append))
    assert said[0] == "Warning: Unreadable pictures, left out: 1 (a/b.jpg)."
    assert said[1].startswith("Warning: ")
    assert "the pictures of tiny are 12 px" in said[1]
