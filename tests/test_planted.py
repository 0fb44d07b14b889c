"""The planted folder of the cleaning benchmark: what its truth says is so, and what its score says follows from it."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SHARE = 0.008


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield {name: importlib.import_module(name) for name in ("planted", "planted_files", "clean_score")}


@pytest.fixture(scope="module")
def out(modules: dict[str, ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("planted") / "set"
    modules["planted"].plant(made, seed=3, share=SHARE)
    return made


@pytest.fixture(scope="module")
def truth(modules: dict[str, ModuleType], out: Path) -> dict[str, Any]:
    return json.loads(modules["planted"].manifest_of(out).read_text())


def of(truth: Mapping[str, Any], family: str) -> list[dict[str, Any]]:
    found = [d for d in truth["defects"] if d["family"] == family or d["family"].startswith(f"{family}, other")]
    assert found
    return found


def values(path: Path) -> np.ndarray:
    with Image.open(path) as file:
        return np.asarray(file.convert("L"), np.float64)


def sharpness(path: Path) -> float:
    """Variance of the Laplacian of the picture at half its size."""
    with Image.open(path) as file:
        grey = np.asarray(file.convert("L").reduce(2), np.float64)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var())


def test_counts_are_the_stated_ones(modules: dict[str, ModuleType]) -> None:
    planted = modules["planted"]
    assert sum(f.count for f in planted.FAMILIES) == 949
    assert sum(f.count for f in planted.FAMILIES if f.copy) == 363
    assert sum(count for count, _ in planted.LOOKS_BAD.values()) == 340
    plan = planted.plan(5)
    assert (len(plan.sound), len(plan.defects)) == (3000, 949)
    assert len({task.path for task in plan.tasks}) == 3949


def test_truth_and_folder_hold_the_same_files(out: Path, truth: dict[str, Any]) -> None:
    there = {os.path.relpath(os.path.join(at, name), out) for at, _, names in os.walk(out) for name in names}
    assert there == {d["path"] for d in truth["sound"] + truth["defects"]}
    assert {d["other"] for d in truth["defects"]} - {None} <= {s["path"] for s in truth["sound"]}


def test_a_seed_makes_the_same_files(modules: dict[str, ModuleType], out: Path, tmp_path: Path) -> None:
    plan, files = modules["planted"].plan(3, SHARE), modules["planted_files"]
    assert plan != modules["planted"].plan(4, SHARE)
    own = [task for task in plan.tasks if not task.original and not (out / task.path).is_symlink()]
    for task in reversed(own[::4]):  # in another order than at first
        files.make(str(tmp_path), task)
        (tmp_path / task.path).chmod(0o600)
        if os.access(out / task.path, os.R_OK):
            assert (tmp_path / task.path).read_bytes() == (out / task.path).read_bytes(), task


def test_broken_files_are_broken(out: Path, truth: dict[str, Any]) -> None:
    for defect in of(truth, "truncated JPEG"):
        data = (out / defect["path"]).read_bytes()
        assert data[:2] == b"\xff\xd8"
        assert b"\xff\xd9" not in data
    for defect in of(truth, "truncated PNG"):
        data = (out / defect["path"]).read_bytes()
        assert data[:4] == b"\x89PNG"
        assert b"IEND" not in data
        with pytest.raises(OSError, match="truncated"):
            values(out / defect["path"])
    assert all(not (out / d["path"]).stat().st_size for d in of(truth, "zero bytes"))
    for defect in of(truth, "text named .jpg"):
        with pytest.raises(UnidentifiedImageError):
            values(out / defect["path"])
    for defect in of(truth, "bomb"):
        assert (out / defect["path"]).stat().st_size < 2000
        with pytest.raises(Image.DecompressionBombError):
            values(out / defect["path"])
    assert all((out / d["path"]).stat().st_mode & 0o777 == 0 for d in of(truth, "no permission"))
    for defect in of(truth, "broken link") + of(truth, "link loop"):
        assert (out / defect["path"]).is_symlink()
        assert not os.path.exists(out / defect["path"])
    names = {Path(d["path"]).name for d in of(truth, "hidden junk")}
    assert all(name in (".DS_Store", "Thumbs.db") or name.startswith("._") for name in names)


@pytest.mark.parametrize("seed", range(6))
def test_a_strict_decoder_warns_of_rot(modules: dict[str, ModuleType], tmp_path: Path, seed: int) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    files = modules["planted_files"]
    task = files.Task("train/toys/0.jpg", files.rotten, (seed,), "toys", 120, 140)
    files.make(str(tmp_path), task)
    data = (tmp_path / task.path).read_bytes()
    assert data.endswith(b"\xff\xd9")
    with pytest.raises(ValueError, match=r"(?i)corrupt|premature|marker"):
        simplejpeg.decode_jpeg(data, strict=True)


def test_bad_pictures_are_bad_in_one_way(out: Path, truth: dict[str, Any]) -> None:
    for defect in of(truth, "out of focus") + of(truth, "shaken"):
        grey = values(out / defect["path"])
        assert sharpness(out / defect["path"]) < 100, defect
        assert 40 < grey.mean() < 215
        assert grey.std() > 25
    assert all(values(out / d["path"]).mean() < 30 for d in of(truth, "dark"))
    assert all(values(out / d["path"]).mean() > 220 for d in of(truth, "over-exposed"))
    for defect in of(truth, "low contrast"):
        grey = values(out / defect["path"])
        assert grey.std() < 25
        assert 40 < grey.mean() < 215
    assert all(max(values(out / d["path"]).shape) < 32 for d in of(truth, "tiny"))
    for defect in of(truth, "extreme aspect"):
        short, long = sorted(values(out / defect["path"]).shape)
        assert short > 32
        assert long > 4 * short


def test_sound_pictures_are_sound(out: Path, truth: dict[str, Any]) -> None:
    assert {s["kind"] for s in truth["sound"]} == {
        "plain", "product", "diagram", "night", "fog", "bokeh", "grey", "camera",
    }  # fmt: skip
    for sound in truth["sound"]:
        grey = values(out / sound["path"])
        assert min(grey.shape) >= 300
        assert max(grey.shape) <= 600
        assert sharpness(out / sound["path"]) > 100, sound
        assert grey.mean() > 30, sound
        assert grey.std() > 22, sound


def test_odd_formats_are_odd(out: Path, truth: dict[str, Any]) -> None:
    def seen(family: str) -> set[tuple[str, str]]:
        found = set()
        for defect in of(truth, family):
            with Image.open(out / defect["path"]) as file:
                found.add((file.format or "", file.mode))
                if family == "animated":
                    assert file.n_frames > 1  # type: ignore[attr-defined]
                if family == "EXIF-turned":
                    assert file.getexif()[0x0112] in (3, 6, 8)
        return found

    assert seen("PNG named .jpg") == {("PNG", "RGB")}
    assert all(d["path"].endswith(".jpg") for d in of(truth, "PNG named .jpg"))
    assert seen("CMYK") == {("JPEG", "CMYK")}
    assert seen("16 bit") == {("PNG", "I;16")}
    assert seen("palette") == {("PNG", "P")}
    assert {format for format, _ in seen("animated")} == {"GIF"}
    assert seen("EXIF-turned") == {("JPEG", "RGB")}


def test_copies_show_the_original(modules: dict[str, ModuleType], out: Path, truth: dict[str, Any]) -> None:
    upright = modules["planted_files"].upright

    def apart(defect: dict[str, Any]) -> float:
        """Mean difference of grey levels when both are as large as the smaller."""
        one, two = (upright(out / p).convert("L") for p in (defect["path"], defect["other"]))
        size = min(one.size, two.size)
        return float(np.abs(np.subtract(*(np.asarray(p.resize(size), np.float64) for p in (one, two)))).mean())

    for defect in of(truth, "exact"):
        assert (out / defect["path"]).read_bytes() == (out / defect["other"]).read_bytes()
    for family in ("re-encoded", "resized", "EXIF, shows the same"):
        for defect in of(truth, family):
            assert apart(defect) < 12, defect
            assert (out / defect["path"]).read_bytes() != (out / defect["other"]).read_bytes()
    for defect in of(truth, "cropped"):
        small, large = upright(out / defect["path"]).size, upright(out / defect["other"]).size
        lost = [1 - a / b for a, b in zip(small, large, strict=True)]
        assert max(lost) > 0.015
        assert all(0 <= part < 0.085 for part in lost)
    for defect in of(truth, "EXIF, tag only"):
        with Image.open(out / defect["path"]) as copy, Image.open(out / defect["other"]) as original:
            assert copy.getexif()[0x0112] > 1
            assert np.array_equal(np.asarray(copy), np.asarray(original))
    for defect in (d for d in truth["defects"] if d["other"]):
        (part, label), (other_part, other_label) = (Path(defect[k]).parts[:2] for k in ("path", "other"))
        assert (label != other_label) == (defect["rule"] == "conflict")
        assert (part != other_part) == (defect["rule"] == "leak")


def test_real_pictures_are_each_used_once(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    planted, rng = modules["planted"], np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (160, 170, 3), np.uint8)).save(tmp_path / f"{i}.png")
    Image.fromarray(np.full((160, 170, 3), 90, np.uint8)).save(tmp_path / "flat.png")
    Image.open(tmp_path / "0.png").save(tmp_path / "same.jpg", quality=95)
    real = list(planted.usable([tmp_path]))
    assert [Path(path).name for path in real] == ["0.png", "1.png", "2.png", "3.png"]
    plan = planted.plan(0, SHARE, real)
    assert sorted(source for task in plan.tasks for source in task.sources) == real


def right_answer(score: ModuleType, truth: Any) -> dict[str, Any]:
    """What one would say who knows."""
    groups: dict[str, list[str]] = {}
    for defect in (d for d in truth.defects if d["other"]):
        groups.setdefault(defect["other"], [defect["other"]]).append(defect["path"])
    return {
        "said": {d["path"]: [[d["rule"], f"it is {d['reasons'][0]}" if d["reasons"] else ""]] for d in truth.defects},
        "groups": list(groups.values()),
        "crossing": [[d["rule"], [d["path"], d["other"]]] for d in truth.defects if d["rule"] in ("leak", "conflict")],
        "entries": sorted([*truth.sound, *(d["path"] for d in truth.defects)]),
        "kept": sorted(truth.sound),
        "removed": [],
    }


def test_the_score_of_a_right_answer_is_full_and_each_mistake_costs(modules: dict[str, ModuleType], out: Path) -> None:
    score = modules["clean_score"]
    truth = score.truth_of(out, permissions=True)

    def missed(answer: dict[str, Any], same: bool = True, cpu: float = 1.0, memory: float = 100.0) -> list[str]:
        ran = score.Ran("scalenet", answer, score.Cost(cpu, 1.0, memory))
        return [what for what, met in score.bars(ran, score.score(ran, truth), truth, out, same, 300) if not met]

    def changed(**parts: Any) -> dict[str, Any]:
        return {**right_answer(score, truth), **parts}

    full = right_answer(score, truth)
    assert missed(full) == []
    assert len(missed(full, same=False)) == len(missed(full, cpu=2.0)) == len(missed(full, memory=151)) == 1
    healthy = next(path for path, kind in truth.sound.items() if kind == "plain")
    for rule, word in (("broken", "healthy"), ("blurry", "blurry"), ("dark", "dark")):
        (what,) = missed(changed(said={**full["said"], healthy: [[rule, ""]]}))
        assert word in what
    cut = next(d["path"] for d in truth.defects if d["family"] == "truncated JPEG")
    (what,) = missed(changed(said={**full["said"], cut: [["broken", "corrupt"]]}))  # the wrong reason
    assert what.startswith("truncated JPEG")
    assert len(missed(changed(entries=full["entries"][1:]))) == 1
    assert len(missed(changed(crossing=full["crossing"][1:]))) == 1
    views = [path for path, kind in truth.sound.items() if kind == "camera"][:2]
    assert "precision 0.9" in missed(changed(groups=[*full["groups"], views]))[0]
    assert "recall 0." in missed(changed(groups=full["groups"][1:]))[0]
