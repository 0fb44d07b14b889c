from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import scalenet
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
    monkeypatch.setattr("PIL.__version__", "0.0.1")  # which may decode other pixels from the same files
    places.add(reuse.place(plain))
    assert len(places) == 5
    moved = {**plain, "data": {**plain["data"], "directory": "/elsewhere"}}
    assert reuse.place(moved) == reuse.place(plain)


def test_what_auto_comes_to_decides_and_not_the_word(data: Prepared, trained: list[Any]) -> None:
    def placed(**changes: Any) -> Path:
        return reuse.place(job(data, recipe=Recipe(epochs=2, batch_size=12, lr=0.01, **changes)))

    assert placed(memory_format="channels_last") == placed(memory_format="auto") != placed(memory_format="contiguous")
    assert placed(precision="fp32") == placed(precision="auto") != placed(precision="bf16")


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_the_code_of_a_training_is_what_it_imports(tmp_path: Path) -> None:
    package = write(
        tmp_path / "lib",
        start="import lib.direct\nfrom lib import inner\nimport os\nfrom outside import lib as other",
        direct="def later():\n    if True:\n        from lib.deep.below import value",
        inner="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lib.types\nelse:\n    import lib.real",
        deep__below="from lib.start import loop",
        deep__beside="",
        types="",
        real="not python {{",
        report="import lib.start",
    )
    for folder in (package, package / "deep"):
        (folder / "__init__.py").write_text("")
    plugin = write(tmp_path / "elsewhere", plugin="import lib.report") / "plugin.py"
    needed = {"__init__", "start", "direct", "inner", "deep/__init__", "deep/below", "real"}
    assert set(reuse.imported(package, [package / "start.py"])) == {package / f"{name}.py" for name in needed}
    with_plugin = {package / f"{name}.py" for name in (*needed, "report")}
    assert set(reuse.imported(package, [package / "start.py", plugin])) == with_plugin


def test_a_training_imports_what_trains_and_not_what_reports() -> None:
    package = Path(scalenet.__file__).parent
    files = {file.relative_to(package).as_posix() for file in reuse.imported(package, [Path(str(trial.__file__))])}
    assert files >= {
        "train.py", "trial.py", "recipe.py", "optimise.py", "augment.py", "convolutions.py", "device.py",
        "objectives.py", "data/batches.py", "data/cache.py", "data/pixels.py", "data/split.py",
    }  # fmt: skip
    assert not files & {"report.py", "charts.py", "verdict.py", "cli.py", "search/campaign.py"}


def test_every_module_that_a_training_loads_is_in_the_hash() -> None:
    """By a process that builds and trains nothing but loads all that does: no module may be missing."""
    asked = (
        "import sys, scalenet.trial; "
        "print(*(m.__file__ for name, m in sys.modules.items() if name.split('.')[0] == 'scalenet'))"
    )
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    package = Path(scalenet.__file__).parent
    assert {Path(file) for file in loaded} <= set(reuse.imported(package, [Path(str(trial.__file__))]))


def test_a_strangers_tables_are_part_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[Any]
) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "net.py").write_text("from tests.toy import Toy\nclass Net(Toy):\n    pass\n")
    (folder / "widths.json").write_text("[8, 16]")
    monkeypatch.syspath_prepend(str(tmp_path))
    net = importlib.import_module("stranger.net")
    monkeypatch.setattr(plugins, "architecture", {"net": net.Net()}.__getitem__)

    def coded() -> str:
        reuse.code.cache_clear()
        return reuse.code("net")

    before = coded()
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "net.other.pyc").write_bytes(b"compiled")
    assert coded() == before
    (folder / "widths.json").write_text("[8, 24]")
    assert coded() != before
    reuse.code.cache_clear()
    for name in ("stranger", "stranger.net"):
        monkeypatch.delitem(sys.modules, name)


def test_a_store_that_cannot_be_written_costs_nothing_but_itself(data: Prepared, trained: list[Any]) -> None:
    trials = reuse.place(job(data)).parent.parent
    trials.parent.mkdir(parents=True, exist_ok=True)
    trials.write_text("a file where the folder would be")  # in the way of the superuser too, unlike permissions
    first, second = list(reuse.run(job(data))), list(reuse.run(job(data)))
    assert len(trained) == 2
    assert [m["top1"] for m in first] == [m["top1"] for m in second]


def test_two_that_train_the_same_at_once_leave_one_whole_file(data: Prepared, trained: list[Any]) -> None:
    both = [reuse.run(job(data)), reuse.run(job(data))]
    histories = [[dict(m) for m in pair] for pair in zip(*both, strict=True)]
    assert len(trained) == 2
    assert all(one["top1"] == other["top1"] for one, other in histories)
    place = reuse.place(job(data))
    assert [file.name for file in place.parent.iterdir()] == [place.name]  # no temporary file is left
    assert [m["top1"] for m in reuse.run(job(data))] == [one["top1"] for one, _ in histories]
    assert len(trained) == 2


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
