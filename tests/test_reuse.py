from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scalenet import plugins, reuse, trial
from scalenet.data import Prepared
from scalenet.plain import to_plain
from scalenet.recipe import Recipe
from scalenet.trial import Job
from tests.pictures import tiny_pictures
from tests.toy import Toy, ToySpec


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return tiny_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The jobs that were really trained; the store is empty at first."""
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path))
    monkeypatch.setattr(plugins, "architecture", {"toy": Toy()}.__getitem__)
    jobs: list[Any] = []
    real = trial.run

    def train_anew(job: Any) -> Any:
        jobs.append(job)
        return real(job)

    monkeypatch.setattr(trial, "run", train_anew)
    return jobs


def job(data: Prepared, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"plugin": "toy", "spec": to_plain(ToySpec((1, 1), (4, 8), 16)), "num_classes": 3}
    settings |= {"data": data, "recipe": Recipe(epochs=2, batch_size=12, lr=0.01), "seed": 0, "key": "a1"}
    plain: dict[str, Any] = to_plain(Job(**(settings | {"threads": 1, "device": "cpu"} | changes)))
    return plain


def test_the_same_training_is_said_again_and_not_done_again(data: Prepared, trained: list[Any], tmp_path: Path) -> None:
    first = list(reuse.run(job(data)))
    again = list(reuse.run(job(data, checkpoint=str(tmp_path / "elsewhere"))))
    assert len(trained) == 1
    assert [{k: v for k, v in m.items() if k != reuse.MARK} for m in again] == first
    assert all(m[reuse.MARK] for m in again)
    assert not any(reuse.MARK in m for m in first)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"key": "a2"},
        {"judge": "held"},
        {"threads": 2},
        {"spec": {"depths": [1, 2], "widths": [4, 8], "resolution": 16}},
        {"recipe": Recipe(epochs=2, batch_size=12, lr=0.02)},
        {"recipe": Recipe(epochs=1, batch_size=12, lr=0.01)},
    ],
)
def test_whatever_decides_a_training_tells_it_from_others(
    data: Prepared, trained: list[Any], change: dict[str, Any]
) -> None:
    list(reuse.run(job(data)))
    list(reuse.run(job(data, **change)))
    assert len(trained) == 2


def test_other_pictures_and_other_code_are_other_trainings(
    data: Prepared, trained: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {reuse.place(job(data))}
    plain = job(data)
    places.add(reuse.place({**plain, "data": {**plain["data"], "fingerprint": "another"}}))
    places.add(reuse.place({**plain, "data": {**plain["data"], "side": 99}}))
    monkeypatch.setattr(reuse, "code", lambda plugin: "another version")
    places.add(reuse.place(plain))
    assert len(places) == 4
    moved = {**plain, "data": {**plain["data"], "directory": "/elsewhere"}}
    assert reuse.place(moved) == reuse.place(plain)


def test_half_a_training_is_not_kept(data: Prepared, trained: list[Any]) -> None:
    begun = reuse.run(job(data))
    next(begun)
    begun.close()
    list(reuse.run(job(data)))
    assert len(trained) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", json.dumps([{"top1": 0.5}]), json.dumps([1, 2])])
def test_a_damaged_file_is_trained_again(data: Prepared, trained: list[Any], damage: str) -> None:
    first = list(reuse.run(job(data)))
    reuse.place(job(data)).write_text(damage)
    again = list(reuse.run(job(data)))
    assert len(trained) == 2
    assert [m["top1"] for m in again] == [m["top1"] for m in first]
