"""`scalenet data` as a user meets it, on a small folder with everything wrong that is quick to make."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from scalenet.commands.data import data, removing
from scalenet.errors import ScalenetError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Twelve sound pictures in two classes; a copy, a copy under the other label, a torn one, a text, a hidden file."""
    root = tmp_path / "pets"
    for label, first in (("cat", 0), ("dog", 6)):
        (root / label).mkdir(parents=True)
        for i in range(first, first + 6):
            pixels = np.random.default_rng(i).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((160, 120), Image.Resampling.NEAREST).save(root / label / f"{i}.png")
    shutil.copy(root / "cat/0.png", root / "cat/copy.png")
    shutil.copy(root / "cat/1.png", root / "dog/conflict.png")
    torn = (root / "dog/6.png").read_bytes()
    (root / "dog/torn.png").write_bytes(torn[: len(torn) // 2])
    (root / "dog/text.jpg").write_text("a text")
    (root / ".DS_Store").write_bytes(b"\0")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)


def contents(root: Path) -> dict[str, str]:
    return {
        os.path.relpath(os.path.join(folder, name), root): hashlib.sha256(Path(folder, name).read_bytes()).hexdigest()
        for folder, _, names in os.walk(root)
        for name in names
    }


def test_inspect_tells_what_is_there_and_changes_nothing(pets: Path) -> None:
    before = contents(pets)
    told = run("inspect", pets, "--json")
    summary = json.loads(told.stdout)
    assert {c["name"]: c["pictures"] for c in summary["classes"]} == {"cat": 7, "dog": 9}
    assert summary["paths"] == {"picture": 16, "hidden": 1}
    assert summary["faults"] == {"foreign": 1, "truncated": 1}
    assert contents(pets) == before
    page = Path(summary["report"]).read_text(encoding="utf-8")
    assert page.count('<div class="sheet">') == 2


def test_clean_shows_what_would_go_and_moves_nothing(pets: Path) -> None:
    before = contents(pets)
    told = run("clean", pets)
    assert told.stdout.startswith("4 files would go (2 broken, 1 hidden, 1 duplicate); 13 of 16 pictures stay.\n")
    lines = {line.split()[0]: line.split() for line in told.stdout.splitlines() if line}
    assert lines["conflict"][-3:] == ["2", "told", "only"]
    assert lines["cat"] == ["cat", "6", "1", "0", "0", "1"]  # stay, go, broken, hidden, duplicate
    assert lines["dog"] == ["dog", "7", "2", "2", "0", "0"]
    assert contents(pets) == before
    assert not (pets.parent / "pets.scalenet" / "quarantine").exists()


def test_apply_and_undo_bring_back_every_byte(pets: Path) -> None:
    before = contents(pets)
    assert "moved     4 files" in run("clean", pets, "--apply").stdout
    after = contents(pets)
    assert before.keys() - after.keys() == {".DS_Store", "cat/copy.png", "dog/torn.png", "dog/text.jpg"}
    aside = pets.parent / "pets.scalenet"
    assert (aside / "quarantine/broken/dog/torn.png").is_file()
    listed = json.loads((aside / "clean.json").read_text())
    assert len(listed["pictures"]) == 13
    assert "restored  4 files" in run("clean", pets, "--undo").stdout
    assert contents(pets) == before


def test_what_has_come_to_an_old_place_meanwhile_is_kept_and_told(pets: Path) -> None:
    run("clean", pets, "--apply")
    (pets / "dog/text.jpg").write_text("another text")
    told = run("clean", pets, "--undo")
    assert told.exit_code == 1
    assert "dog/text.jpg was not brought back" in told.stderr
    assert (pets / "dog/text.jpg").read_text() == "another text"
    assert (pets.parent / "pets.scalenet/quarantine/broken/dog/text.jpg").read_text() == "a text"


def test_every_rule_has_its_switch(pets: Path) -> None:
    assert run("clean", pets, "--skip", "broken", "--skip", "hidden").stdout.startswith("1 file would go (1 duplicate)")
    assert run("clean", pets, "--only", "hidden").stdout.startswith("1 file would go (1 hidden)")
    assert "2 conflict" in run("clean", pets, "--also", "conflict").stdout.splitlines()[0]
    harsh = run("clean", pets, "--blur", "1000000")
    assert "13 blurry" in harsh.stdout.splitlines()[0]
    assert "would go, 13 of them as blurry" in harsh.stderr  # and that is doubted


def test_switches_that_contradict_each_other_are_refused() -> None:
    assert removing(("dark", "broken"), (), ()) == ("broken", "dark")
    with pytest.raises(ScalenetError, match="--skip dark contradicts"):
        removing((), ("dark",), ("dark",))
    assert "give one" in run("clean", ".", "--apply", "--undo").stderr


def test_split_divides_the_clean_list_and_keeps_copies_together(pets: Path) -> None:
    told = json.loads(run("split", pets, "--held", "0.3", "--select", "0.2", "--seed", "3", "--json").stdout)
    listed = json.loads(Path(told["list"]).read_text())
    part = {picture["path"]: picture["part"] for picture in listed["pictures"]}
    assert len(part) == 13
    assert set(part.values()) == {"fit", "select", "held"}
    assert part["cat/1.png"] == part["dog/conflict.png"]
    assert (
        run("split", pets, "--held", "0.3", "--select", "0.2", "--seed", "3", "--json").stdout
        == json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    )


def test_convert_writes_a_new_folder(pets: Path, tmp_path: Path) -> None:
    told = json.loads(run("convert", pets, tmp_path / "grey", "--mode", "L", "--side", "60", "--json").stdout)
    assert told["pictures"] == 13
    with Image.open(tmp_path / "grey/cat/0.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (80, 60))


def test_bad_places_are_refused_in_a_sentence(tmp_path: Path) -> None:
    for command in ("inspect", "clean", "split"):
        with pytest.raises(ScalenetError, match="nowhere"):
            run(command, tmp_path / "nowhere")


@pytest.mark.parametrize("command", ["inspect", "clean"])
@pytest.mark.parametrize("place", [".", "cat", "new/place"])
def test_nothing_is_written_among_the_pictures(pets: Path, command: str, place: str) -> None:
    before = contents(pets)
    with pytest.raises(ScalenetError, match="among the pictures"):
        run(command, pets, "--out", pets / place)
    assert contents(pets) == before


def test_what_is_next_names_the_place_that_was_named(pets: Path, tmp_path: Path) -> None:
    before = contents(pets)
    for switch, next_ in (((), "--apply"), (("--apply",), "--undo")):
        told = run("clean", pets, "--out", tmp_path / "aside", *switch)
        assert f"scalenet data clean {pets} --out {tmp_path / 'aside'} {next_} " in told.stdout
    run("clean", pets, "--out", tmp_path / "aside", "--undo")
    assert contents(pets) == before


def test_a_class_too_small_for_a_part_is_told(pets: Path) -> None:
    for picture in [*(pets / "cat").iterdir()][1:]:
        picture.unlink()
    told = run("split", pets, "--held", "0.3")
    assert "Warning: no picture in the part 'held' for: cat." in told.stderr
    assert "'select'" not in told.stderr
