from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from scalenet import experiment, run_training
from scalenet.cleaning import scan as scanning
from scalenet.cleaning.cleaned import cleaned
from scalenet.cleaning.inventory import inventory
from scalenet.cleaning.limits import Limits
from scalenet.cleaning.manifest import LeftOut, listed, state, write
from scalenet.cleaning.rules import judge
from scalenet.cleaning.scan import scan
from scalenet.commands.search import search
from scalenet.commands.train import train
from scalenet.data import DataRequest, Item, Source, prepare, survey
from scalenet.data.plan import plan
from scalenet.data.source import Located, locate
from scalenet.errors import ScalenetError
from scalenet.runs import RunDirectory
from scalenet.space import SearchSpace, for_training, resolve
from tests.cleaning import handmade
from tests.data.pictures import folder, pixels


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Twelve sharp pictures of each class, and one dark, one that is there twice, one that is none."""
    root = folder(tmp_path / "pets", {"cat": 12, "dog": 12}, side=64)
    Image.new("RGB", (64, 64), (5, 5, 5)).save(root / "cat" / "dark.png")
    shutil.copy(root / "dog" / "000.png", root / "dog" / "copy.png")
    (root / "dog" / "words.jpg").write_text("no picture")
    return root


def clean(source: object, **options) -> DataRequest:
    return DataRequest(str(source), clean=True, **options)


def test_bad_pictures_are_left_out_and_nothing_is_written_there(pets, tmp_path):
    before = handmade.state(pets)
    found = survey(clean(pets))
    assert found.pictures == 24
    assert found.warnings[0].startswith("Left out 3 of 27 pictures: 1 ")
    assert found.cleaned is not None
    assert (found.unreadable, found.duplicates) == ((), 0)
    prepared = prepare(clean(pets), 16)
    assert (prepared.pictures, prepared.cleaned) == (24, found.cleaned)
    assert handmade.state(pets) == before
    assert not (tmp_path / "pets.scalenet").exists()


def test_without_clean_nothing_changes(pets):
    survey(clean(pets))
    plain = survey(DataRequest(str(pets)))
    assert (plain.pictures, plain.duplicates, plain.cleaned) == (26, 1, None)
    assert plain.unreadable == ("dog/words.jpg",)


def test_a_second_start_does_not_look_again(pets, monkeypatch):
    first = survey(clean(pets))
    monkeypatch.setattr(scanning, "scan", lambda *_: pytest.fail("looked again"))
    assert survey(clean(pets)) == first


def test_the_clean_list_is_used_while_the_folder_is_as_it_was(pets, tmp_path, monkeypatch):
    whole = listed(judge(scan(pets, Limits()), Limits()))
    own = replace(
        whole,
        pictures=tuple(p for p in whole.pictures if p.path != "cat/000.png"),
        left_out=(*whole.left_out, LeftOut("cat/000.png", "blurry", "by hand")),
    )
    write(own, tmp_path / "pets.scalenet" / "clean.json")
    with monkeypatch.context() as patched:
        patched.setattr(scanning, "scan", lambda *_: pytest.fail("looked again"))
        found = survey(clean(pets))
        assert (found.pictures, found.cleaned) == (23, whole.fingerprint)
        assert "1 blurry" in found.warnings[0]
    (pets / "notes.txt").write_text("the folder is not as it was")
    assert survey(clean(pets)).pictures == 24
    (tmp_path / "pets.scalenet" / "clean.json").write_text("{}")
    assert survey(clean(pets)).pictures == 24


def test_a_list_of_another_folder_is_not_used(pets, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pets, other)
    whole = listed(judge(scan(other, Limits()), Limits()))
    false = replace(whole, state=state(inventory(pets)), pictures=whole.pictures[:2])
    write(false, tmp_path / "pets.scalenet" / "clean.json")
    assert survey(clean(pets)).pictures == 24


def test_a_wrapping_folder_and_given_parts(pets, tmp_path):
    (tmp_path / "outer").mkdir()
    shutil.move(pets, tmp_path / "outer" / "pets")
    assert survey(clean(tmp_path / "outer")).pictures == 24
    given = folder(tmp_path / "given", {"train/a": 9, "train/b": 9, "test/a": 5, "test/b": 5}, first=500, side=64)
    shutil.copy(given / "test/a/000.png", given / "train/a/leak.png")
    found = survey(clean(given))
    assert found.counts["held"] == 10
    assert (found.pictures, found.crossing) == (28, 0)


def test_copies_that_stay_are_in_one_part(pets, tmp_path):
    whole = listed(judge(scan(pets, Limits()), Limits()))
    tied = tuple(replace(p, group=f"g{i // 3}") for i, p in enumerate(whole.pictures))
    write(replace(whole, pictures=tied), tmp_path / "pets.scalenet" / "clean.json")
    planned = plan(locate(clean(pets)), clean(pets))
    groups = [{item.group for item in items} for items in planned.parts.values()]
    assert all(groups)
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def named(pets: Path, labels: dict[str, int]) -> Located:
    """A data set by name whose files lie as it likes, with labels that no folder tells."""
    items = [Item(path, label, str(pets / path), "held" if path.startswith("dog/00") else None)
             for path, label in labels.items()]  # fmt: skip
    return Located("made", f"made:{pets}", None, lambda: Source("made", ("one", "two"), items))


def test_a_named_set_in_files_is_cleaned_under_its_own_labels(pets):
    paths = [path for path in handmade.files(pets) if path != "cat/005.png"]
    labels = {path: i % 2 for i, path in enumerate(sorted(paths))} | {"dog/000.png": 0, "dog/copy.png": 1}
    source = cleaned(named(pets, labels), None).load()
    kept = {item.name: item for item in source.items}
    assert set(paths) - set(kept) == {"cat/dark.png", "dog/words.jpg"}  # what is there twice has two labels here
    assert all(kept[path].label == labels[path] for path in kept)
    assert kept["dog/001.png"].given == "held"
    assert source.cleaned


def test_pictures_in_memory_are_refused(pets):
    items = [Item("a", 0, str(pets / "cat/000.png")), Item("b", 1, pixels(0))]
    found = Located("made", "made", "s", lambda: Source("made", ("one", "two"), items))
    with pytest.raises(ScalenetError, match="made are not in files of their own"):
        cleaned(found, None).load()


def test_a_class_behind_a_link_and_a_class_without_a_good_picture(pets, tmp_path):
    folder(tmp_path / "pool", {"owl": 6}, first=900, side=64)
    (pets / "owl").symlink_to(tmp_path / "pool" / "owl")
    with pytest.raises(ScalenetError, match=r"owl/000.png lies behind a link to a folder"):
        survey(clean(pets))
    (pets / "owl").unlink()
    (pets / "owl").mkdir()
    (pets / "owl" / "a.png").write_text("no picture")
    with pytest.raises(ScalenetError, match="leaves no picture of 'owl'"):
        survey(clean(pets))


def test_a_list_can_be_cleaned_too(pets, tmp_path):
    everything = listed(judge(scan(pets, Limits()), Limits(), ()))
    assert {"cat/dark.png", "dog/copy.png"} <= {p.path for p in everything.pictures}
    write(everything, tmp_path / "all.json")
    assert survey(DataRequest(str(tmp_path / "all.json"))).pictures == 26
    assert survey(clean(tmp_path / "all.json")).pictures == 24


def test_the_flag_and_the_key(pets, tmp_path):
    assert resolve("mobilevit", None, (), {"data.clean": True}).data.clean
    assert not resolve("mobilevit").data.clean
    (tmp_path / "space.yaml").write_text(f"data: {{source: {pets}, clean: true, subset: null}}\n")
    assert for_training(tmp_path, "mobilevit")[0].clean
    assert not for_training(tmp_path, "mobilevit", (), {"data.source": "elsewhere"})[0].clean


def test_the_commands_hand_it_on(pets, monkeypatch):
    asked: list[DataRequest] = []

    def ends(*arguments: object, **_: object) -> None:
        asked.extend(a.data if isinstance(a, SearchSpace) else a
                     for a in arguments if isinstance(a, (SearchSpace, DataRequest)))  # fmt: skip
        raise ScalenetError("far enough")

    monkeypatch.setattr(experiment, "plan", ends)
    monkeypatch.setattr(run_training, "train_model", ends)
    for command, arguments in ((search, ["-p", "mobilevit"]), (train, ["-p", "mobilevit", "--out", "nowhere"])):
        for more in (["--clean"], []):
            done = CliRunner().invoke(command, [*arguments, "--data", str(pets), *more])
            assert str(done.exception) == "far enough", done.output
    assert [(request.source, request.clean) for request in asked] == [(str(pets), True), (str(pets), False)] * 2


def test_a_run_says_that_it_was_cleaned(pets, tmp_path):
    run = RunDirectory.create(tmp_path / "runs", "mobilenet")
    found = survey(clean(pets))
    run.write_data(found)
    data = json.loads((run.path / "data.json").read_text())
    assert (data["pictures"], data["cleaned"]) == (24, found.cleaned)
    assert data["warnings"][0].startswith("Left out 3 of 27 pictures")
    run.write_space(SearchSpace(data=clean(pets)))
    assert survey(run.space().data) == run.data()


def test_links_in_the_way_to_the_folder(pets, tmp_path):
    (tmp_path / "way").symlink_to(tmp_path)
    assert survey(clean(tmp_path / "way" / "pets")).pictures == 24
    assert os.path.islink(tmp_path / "way")
