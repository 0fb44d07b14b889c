from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from scalenet.data import DataRequest, survey
from scalenet.errors import ScalenetError
from tests.data.pictures import folder, picture


def look(root: Path, **options):
    return survey(DataRequest(str(root), **options))


def test_class_folders_are_split_three_ways(tmp_path):
    found = look(folder(tmp_path / "pets", {"dog": 20, "cat": 10}))
    assert (found.name, found.classes, found.pictures, found.native_size) == ("pets", ("cat", "dog"), 30, 24)
    assert found.counts == {"fit": 18, "select": 6, "held": 6}
    assert found.class_counts["cat"] == {"fit": 6, "select": 2, "held": 2}
    assert found.flip
    assert not found.demonstration
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("names", "counts"),
    [
        (("train", "test"), {"fit": 16, "select": 4, "held": 8}),
        (("Train", "valid"), {"fit": 16, "select": 4, "held": 8}),
        (("train", "val", "test"), {"fit": 20, "select": 8, "held": 8}),
        (("training", "validation", "test"), {"fit": 20, "select": 8, "held": 8}),
    ],
)
def test_given_parts(tmp_path, names, counts):
    layout = {f"{name}/{label}": 10 if i == 0 else 4 for i, name in enumerate(names) for label in "ab"}
    assert look(folder(tmp_path / "x", layout)).counts == counts


def test_val_is_select_and_test_is_held(tmp_path):
    found = look(folder(tmp_path / "x", {"train/a": 5, "train/b": 5, "val/a": 2, "val/b": 2, "test/a": 3, "test/b": 3}))
    assert found.counts == {"fit": 10, "select": 4, "held": 6}


def test_one_wrapping_folder_is_looked_through(tmp_path):
    plain = look(folder(tmp_path / "x" / "flowers", {"rose": 6, "tulip": 6}))
    wrapped = look(tmp_path / "x")
    assert wrapped.classes == ("rose", "tulip")
    assert wrapped.fingerprint == plain.fingerprint


def test_hidden_files_and_notes_are_passed_over(tmp_path):
    root = folder(tmp_path / "x", {"a": 5, "b/deeper": 5, ".hidden": 5})
    (root / ".DS_Store").write_bytes(b"x")
    (root / "a" / "._000.png").write_bytes(b"x")
    (root / "a" / "notes.txt").write_text("x")
    (root / "README").write_text("x")
    (root / "empty").mkdir()
    (root / "a" / "photo.heic").write_bytes(b"x")
    found = look(root)
    assert (found.pictures, found.ignored, found.unreadable) == (10, 3, ())
    assert found.classes == ("a", "b")
    assert any("empty" in warning for warning in found.warnings)
    assert any("cannot be read here" in warning for warning in found.warnings)


def test_unreadable_files_are_listed_and_left_out(tmp_path):
    root = folder(tmp_path / "x", {"a": 6, "b": 6})
    (root / "a" / "zero.jpg").write_bytes(b"")
    (root / "a" / "words.jpg").write_text("not a picture")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "b" / "pipe.png")
    found = look(root)
    assert found.pictures == 12
    assert set(found.unreadable) == {"a/words.jpg", "a/zero.jpg", "b/gone.png", "b/pipe.png"}
    assert any("Unreadable pictures, left out: 4 (" in warning and "1 more" in warning for warning in found.warnings)


def test_a_class_that_cannot_be_read_at_all_is_an_error(tmp_path):
    root = folder(tmp_path / "x", {"a": 6, "b": 6})
    (root / "c").mkdir()
    (root / "c" / "bad.jpg").write_bytes(b"bad")
    with pytest.raises(
        ScalenetError, match=r"None of the 1 pictures of class 'c' can be read; the first is c/bad\.jpg"
    ):
        look(root)


def test_conflicting_labels_are_counted_and_warned_about(tmp_path):
    root = folder(tmp_path / "x", {"a": 6, "b": 6})
    shutil.copy(root / "a" / "000.png", root / "b" / "copy.png")
    shutil.copy(root / "a" / "001.png", root / "a" / "copy.png")
    found = look(root)
    assert (found.conflicts, found.duplicates, found.pictures) == (1, 2, 14)
    assert any("conflicting labels: 1" in warning for warning in found.warnings)


def test_a_test_picture_that_is_also_in_train_is_not_trained_on(tmp_path):
    root = folder(tmp_path / "x", {"train/a": 8, "train/b": 8, "test/a": 3, "test/b": 3})
    shutil.copy(root / "test" / "a" / "000.png", root / "train" / "a" / "leak.png")
    found = look(root)
    assert (found.crossing, found.counts["held"], found.pictures) == (1, 6, 22)
    assert any("left out of training" in warning for warning in found.warnings)


def test_fingerprint_follows_contents_not_names(tmp_path):
    root = folder(tmp_path / "x", {"a": 8, "b": 8})
    before = look(root)
    moved = shutil.copytree(root, tmp_path / "y")
    (moved / "a" / "000.png").rename(moved / "a" / "zzz.png")
    assert look(moved).fingerprint == before.fingerprint
    assert look(root, seed=1).fingerprint != before.fingerprint
    picture(root / "a" / "000.png", 999)
    assert look(root).fingerprint != before.fingerprint


def test_an_unchanged_folder_is_not_read_again(tmp_path, monkeypatch):
    root = folder(tmp_path / "x", {"a": 8, "b": 8})
    first = look(root)
    other = look(root, seed=3)

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("scalenet.data.digest._examine", refuse)
    assert look(root) == first  # from the kept survey
    shutil.rmtree(tmp_path / "cache" / "surveys")
    assert look(root, seed=3) == other  # from the index of digests
    picture(root / "a" / "000.png", 999)
    with pytest.raises(AssertionError, match="read again"):
        look(root)


def test_a_damaged_index_is_made_anew(tmp_path):
    root = folder(tmp_path / "x", {"a": 8, "b": 8})
    first = look(root)
    for kept in (tmp_path / "cache").rglob("*.json"):
        kept.write_text('{"version": [1, 2')
    assert look(root) == first


@pytest.mark.skipif(sys.platform != "linux", reason="file names of arbitrary bytes")
def test_names_that_are_not_text_can_be_printed(tmp_path):
    root = folder(tmp_path / "x", {"a": 6, "b": 6})
    Path(os.fsdecode(os.fsencode(root / "a") + b"/bad\xff.jpg")).write_bytes(b"")
    found = look(root)
    assert found.unreadable == ("a/bad\\udcff.jpg",)
    assert look(root) == found
    "".join(found.warnings).encode("utf-8")


def test_native_size_is_the_median_shorter_side(tmp_path):
    root = tmp_path / "x"
    for number, (height, width) in enumerate([(20, 30), (40, 20), (24, 24), (90, 80), (20, 20)] * 4):
        picture(root / "ab"[number % 2] / f"{number}.png", number, height, width)
    assert look(root).native_size == 20


def test_subset_and_its_errors(tmp_path):
    root = folder(tmp_path / "x", {"a": 10, "b": 20, "c": 10})
    assert look(root, subset=20).counts == {"fit": 12, "select": 4, "held": 4}
    with pytest.raises(ScalenetError, match="subset 2 is too small: 3 classes"):
        look(root, subset=2)
    assert any("500" in warning for warning in look(root, subset=500).warnings)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"subset": 0}, "subset is 0"),
        ({"select": 0.0}, "select is 0.0"),
        ({"held": 1.5}, "held is 1.5"),
        ({"select": 0.6, "held": 0.4}, "leave nothing to fit"),
    ],
)
def test_bad_requests_are_refused(options, match):
    with pytest.raises(ScalenetError, match=match):
        DataRequest(**options)


def test_errors_name_the_culprit(tmp_path):
    with pytest.raises(ScalenetError, match="Did you mean 'cifar10'"):
        survey(DataRequest("cifra10"))
    with pytest.raises(ScalenetError, match=r"No folder '\./nowhere'"):
        survey(DataRequest("./nowhere"))
    archive = tmp_path / "pets.tar.gz"
    archive.write_bytes(b"x")
    with pytest.raises(ScalenetError, match=r"is a file.*Unpack"):
        look(archive)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScalenetError, match="holds no pictures"):
        look(tmp_path / "empty")
    with pytest.raises(ScalenetError, match="one class only, 'cat'"):
        look(folder(tmp_path / "one", {"cat": 4}))
    loose = tmp_path / "loose"
    loose.mkdir()
    Image.new("RGB", (8, 8)).save(loose / "a.png")
    with pytest.raises(ScalenetError, match="no class folders"):
        look(loose)
    with pytest.raises(ScalenetError, match=r"'emu'.*train has: a, b"):
        look(folder(tmp_path / "extra", {"train/a": 4, "train/b": 4, "test/a": 2, "test/emu": 2}))
    bare = folder(tmp_path / "bare", {"train/a": 4, "train/b": 4})
    (bare / "test").mkdir()
    with pytest.raises(ScalenetError, match="test holds no pictures"):
        look(bare)


def test_a_class_missing_from_test_is_a_warning(tmp_path):
    found = look(folder(tmp_path / "x", {"train/a": 6, "train/b": 6, "test/a": 2}))
    assert any("'held' for: b" in warning for warning in found.warnings)


def test_links_in_a_circle_are_passed_over(tmp_path):
    root = folder(tmp_path / "pets", {"cat": 5, "dog": 5})
    (root / "loop").symlink_to("loop")
    (root / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (root / "cat" / "up").symlink_to("..")
    found = look(root)
    assert found.classes == ("cat", "dog")
    assert found.unreadable == ("cat/loop.jpg",)
    (tmp_path / "circle").mkdir()
    (tmp_path / "circle" / "again").symlink_to(".")
    with pytest.raises(ScalenetError, match="holds no pictures"):
        look(tmp_path / "circle")


@pytest.mark.parametrize("name", ["/" + "x" * 300, "~nobody-of-that-name/pets"])
def test_a_path_that_cannot_be_is_no_folder(name):
    with pytest.raises(ScalenetError, match="No folder"):
        survey(DataRequest(name))
