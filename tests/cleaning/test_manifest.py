from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest

from scalenet.cleaning.manifest import Manifest, as_source, listed, read, state, write
from scalenet.cleaning.partition import partition
from scalenet.cleaning.values import Fault, Finding, Group, Judgement
from scalenet.data import DataRequest, prepare, survey
from scalenet.errors import ScalenetError
from tests.cleaning.handmade import judged, seen
from tests.data.pictures import folder


@pytest.fixture
def pets(tmp_path):
    return folder(tmp_path / "pets", {"cat": 12, "dog": 12})


@pytest.fixture
def sidecar(tmp_path):
    return tmp_path / "pets.scalenet"


@pytest.fixture
def clean(pets) -> Manifest:
    return listed(judged(pets, {"cat/000.png": "blurry", "dog/001.png": "dark", "dog/002.png": "dark"}))


def test_what_a_judgement_keeps_and_leaves_out(pets):
    (pets / "dog" / "empty.png").write_bytes(b"")
    (pets / "notes.txt").write_text("x")
    (pets / "dog" / "nowhere.png").symlink_to("gone.png")
    groups = (Group(("cat/001.png", "cat/003.png", "cat/000.png"), False, ("cat",), ()),
              Group(("dog/001.png", "dog/000.png"), False, ("dog",), ()))  # fmt: skip
    scan = seen(pets)
    findings = (
        Finding("notes.txt", "other", "no picture by its name", 0, False),
        Finding("cat/000.png", "format", "turned", 0, False),
        Finding("cat/000.png", "blurry", "blur 3 < 100", 1, True),
        Finding("cat/001.png", "dark", "only told", 1, False),
        Finding("dog/001.png", "near-duplicate", "as dog/000.png", 1, True),
    )
    found = listed(Judgement(scan, judged(pets, {}).limits, ("blurry",), findings, groups))
    assert found.classes == ("cat", "dog")
    assert {left.path: (left.rule, left.reason) for left in found.left_out} == {
        "notes.txt": ("other", "no picture by its name"),
        "cat/000.png": ("blurry", "blur 3 < 100"),
        "dog/001.png": ("near-duplicate", "as dog/000.png"),
        "dog/empty.png": ("broken", "It is empty."),
        "dog/nowhere.png": ("link", "It leads nowhere."),
    }
    grouped = {p.path: p.group for p in found.pictures if p.group}
    assert grouped == {"cat/001.png": "cat/001.png", "cat/003.png": "cat/001.png"}
    assert len(found.pictures) == 22
    assert found.told == "Left out 3 of 25 pictures: 1 blurry, 1 broken, 1 near-duplicate."


def test_nothing_left_out_is_not_told(pets):
    assert listed(judged(pets, {})).told is None


def test_round_trip_and_a_relative_root(clean, sidecar, tmp_path, pets):
    write(clean, sidecar / "clean.json")
    plain = json.loads((sidecar / "clean.json").read_text())
    assert plain["root"] == "../pets"
    assert plain["pictures"][0] == {
        "path": "cat/001.png", "label": "cat", "part": None, "group": None, "sha256": clean.pictures[0].sha256
    }  # fmt: skip
    assert plain["left_out"][0] == {"path": "cat/000.png", "rule": "blurry", "reason": "blurry by hand"}
    assert read(sidecar / "clean.json") == clean
    (tmp_path / "far").mkdir()
    for path in (pets, sidecar):
        path.rename(tmp_path / "far" / path.name)
    assert read(tmp_path / "far/pets.scalenet/clean.json").root == str(tmp_path / "far" / "pets")


def test_a_named_root_takes_the_place_of_the_written_one(clean, sidecar, pets, tmp_path):
    write(clean, sidecar / "clean.json")
    pets.rename(tmp_path / "animals")
    with pytest.raises(ScalenetError, match=r"pets, which is no folder"):
        read(sidecar / "clean.json")
    assert read(sidecar / "clean.json", tmp_path / "animals").root == str(tmp_path / "animals")


def test_names_that_are_no_text(pets, sidecar):
    odd = os.fsdecode(b"cat/\xff.png")
    os.rename(pets / "cat/000.png", pets / odd)
    write(listed(judged(pets, {})), sidecar / "clean.json")
    found = read(sidecar / "clean.json")
    assert odd in {p.path for p in found.pictures}
    assert r"cat/\xff.png" not in {p.path for p in found.pictures}
    item = next(item for item in as_source(found).items if item.picture.endswith("\udcff.png"))
    assert item.name == r"cat/\udcff.png"
    assert os.path.exists(item.picture)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"path": "../secret.png"}, "lies outside"),
        ({"path": "cat/../../secret.png"}, "lies outside"),
        ({"path": "cat/../cat/001.png"}, "lies outside"),
        ({"path": "{abs}/secret.png"}, "lies outside"),
        ({"path": "cat/out.png"}, "link that leads out"),
        ({"path": "out/secret.png"}, "lies outside"),
        ({"path": "cat/\0.png"}, "lies outside"),
        ({"path": ""}, "lies outside"),
        ({"path": "cat/002.png"}, "listed twice"),
        ({"label": "owl"}, "is of class 'owl'; listed: cat, dog"),
        ({"sha256": "12"}, "64 digits"),
        ({"part": "train"}, "fit, select, held"),
        ({"extra": 1}, "extra"),
        ({"path": 3}, "must be a text"),
    ],
)
def test_a_strangers_list_is_read_strictly(clean, sidecar, pets, tmp_path, change, complaint):
    (tmp_path / "secret.png").write_bytes(b"x")
    (pets / "cat" / "out.png").symlink_to(tmp_path / "secret.png")
    (pets / "out").symlink_to(tmp_path)
    write(clean, sidecar / "clean.json")
    plain = json.loads((sidecar / "clean.json").read_text())
    plain["pictures"][0].update({k: v.format(abs=tmp_path) if k == "path" and v and isinstance(v, str) else v
                                 for k, v in change.items()})  # fmt: skip
    (sidecar / "clean.json").write_text(json.dumps(plain))
    with pytest.raises(ScalenetError, match=complaint) as told:
        read(sidecar / "clean.json")
    assert str(told.value).startswith(str(sidecar / "clean.json"))


def test_a_link_within_the_folder_is_a_picture(clean, sidecar, pets):
    (pets / "cat" / "link.png").symlink_to("../dog/000.png")
    linked = replace(clean.pictures[0], path="cat/link.png")
    write(replace(clean, pictures=(*clean.pictures, linked)), sidecar / "a.json")
    assert read(sidecar / "a.json").pictures[-1].path == "cat/link.png"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a list of pictures"),
        ('{"a": 1}', "is not a list of pictures"),
        ('{"schema_version": 2, "pictures": [], "root": "."}', "schema_version is 2"),
        ('{"schema_version": 1, "pictures": [], "root": "."}', "missing"),
    ],
)
def test_other_json_is_refused(tmp_path, text, complaint):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ScalenetError, match=complaint):
        read(tmp_path / "a.json")


def test_no_such_file_and_no_room_to_write(clean, tmp_path):
    with pytest.raises(ScalenetError, match="cannot be read"):
        read(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(ScalenetError, match="cannot be written"):
        write(clean, tmp_path / "file" / "a.json")


def test_state_follows_every_path(pets):
    before = state(seen(pets).entries)
    assert state(seen(pets).entries) == before
    (pets / "notes.txt").write_text("x")
    more = state(seen(pets).entries)
    os.utime(pets / "cat/000.png", ns=(1, 1))
    assert len({before, more, state(seen(pets).entries)}) == 3


def test_a_list_is_data(clean, sidecar, pets):
    write(clean, sidecar / "clean.json")
    found = survey(DataRequest(str(sidecar / "clean.json")))
    assert (found.name, found.pictures, found.classes) == ("pets", 21, ("cat", "dog"))
    assert found.warnings[0] == "Left out 3 of 24 pictures: 2 dark, 1 blurry."
    assert found.cleaned == clean.fingerprint
    prepared = prepare(DataRequest(str(sidecar / "clean.json")), 16)
    assert (prepared.pictures, prepared.cleaned) == (21, clean.fingerprint)
    assert survey(DataRequest(str(pets))).pictures == 24


def test_the_parts_of_a_list_are_kept(clean, sidecar):
    divided = partition(clean, 0.2, 0.3, 5)
    write(divided, sidecar / "split.json")
    found = survey(DataRequest(str(sidecar / "split.json"), seed=1))
    counts = {part: sum(p.part == part for p in divided.pictures) for part in ("fit", "select", "held")}
    assert found.counts == counts
    write(replace(divided, pictures=divided.pictures[1:]), sidecar / "split.json")
    assert survey(DataRequest(str(sidecar / "split.json"), seed=1)).pictures == found.pictures - 1


def test_a_changed_picture_is_read_again(clean, sidecar, pets):
    write(clean, sidecar / "clean.json")
    before = survey(DataRequest(str(sidecar / "clean.json")))
    os.replace(pets / "cat/000.png", pets / "cat/001.png")
    assert survey(DataRequest(str(sidecar / "clean.json"))).fingerprint != before.fingerprint


def test_groups_of_a_list_stay_in_one_part(clean, sidecar):
    tied = [replace(p, group=f"g{i // 3}") for i, p in enumerate(clean.pictures)]
    write(replace(clean, pictures=tuple(tied)), sidecar / "clean.json")
    from scalenet.data.plan import plan
    from scalenet.data.source import locate

    for seed in range(3):
        request = DataRequest(str(sidecar / "clean.json"), seed=seed)
        planned = plan(locate(request), request)
        groups = [{item.group for item in planned.parts[part]} for part in ("fit", "select", "held")]
        assert all(groups)
        assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]


def test_a_list_without_classes_is_no_data(pets, sidecar):
    scan = seen(pets / "cat")
    flat = listed(Judgement(scan, judged(pets, {}).limits, (), (), ()))
    assert (flat.classes, len(flat.pictures)) == ((), 12)
    write(flat, sidecar / "flat.json")
    with pytest.raises(ScalenetError, match="of 0 classes"):
        survey(DataRequest(str(sidecar / "flat.json")))


def test_faults_are_never_kept(pets):
    judgement = judged(pets, {})
    judgement.scan.looks["fault"][3] = Fault.TRUNCATED
    found = listed(judgement)
    assert [(left.path, left.reason) for left in found.left_out] == [("cat/003.png", "It is truncated.")]
    assert np.count_nonzero(judgement.scan.looks["fault"]) == 1


def test_a_list_never_replaces_what_is_none(clean, tmp_path, pets):
    picture = (pets / "cat/001.png").read_bytes()
    with pytest.raises(ScalenetError, match="no list of pictures"):
        write(clean, pets / "cat/001.png")
    assert (pets / "cat/001.png").read_bytes() == picture
    (tmp_path / "empty.json").touch()
    for _ in range(2):
        write(clean, tmp_path / "empty.json")
    assert len(read(tmp_path / "empty.json").pictures) == len(clean.pictures)


@pytest.mark.parametrize("change", [{"root": "\0"}, {"root": "\ud800"}, {"root": "x" * 5000}, {"root": 3},
                                    {"classes": 7}, {"division": 1e400}, {"schema_version": 10**30}])  # fmt: skip
def test_nonsense_in_a_list_is_one_sentence(clean, sidecar, change):
    write(clean, sidecar / "clean.json")
    plain = json.loads((sidecar / "clean.json").read_text())
    (sidecar / "clean.json").write_text(json.dumps(plain | change))
    with pytest.raises(ScalenetError):
        read(sidecar / "clean.json")


@pytest.mark.parametrize("path", ["cat/\ud800.png", "\ud800/1.png", "/etc/hostname", "../1.png", "cat/\0", "x" * 9000])
def test_paths_that_are_none_are_one_sentence(clean, sidecar, path):
    write(clean, sidecar / "clean.json")
    plain = json.loads((sidecar / "clean.json").read_text())
    plain["pictures"][0]["path"] = path
    (sidecar / "clean.json").write_text(json.dumps(plain))
    if path.startswith("x"):
        read(sidecar / "clean.json")  # a picture that has vanished, as any other
        return
    with pytest.raises(ScalenetError, match="lies outside") as caught:
        read(sidecar / "clean.json")
    str(caught.value).encode()
