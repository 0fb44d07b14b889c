from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalenet.data import PARTS, DataRequest, Prepared, open_part, prepare, resolution_warning, survey
from scalenet.data.cache import grown
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, to_plain
from tests.data.pictures import folder, picture, pixels

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return folder(tmp_path / "pets", {"cat": 10, "dog": 10})


def decoded(prepared: Prepared) -> list[tuple[bytes, int]]:
    """(pixels, label) of everything in the cache, sorted."""
    found = []
    for part in PARTS:
        pictures, labels = open_part(prepared, part)
        assert pictures.shape == (prepared.counts[part], prepared.side, prepared.side, 3)
        assert pictures.dtype == np.uint8
        assert labels.dtype == np.int64
        found += [(row.tobytes(), int(label)) for row, label in zip(pictures, labels, strict=True)]
    return sorted(found)


def test_every_picture_lands_in_the_cache_with_its_label(root):
    prepared = prepare(DataRequest(str(root)), 24)
    assert prepared.side == 24  # never above the native size
    expected = [(pixels(number).tobytes(), number // 10) for number in range(20)]  # as pictures.folder numbers them
    assert decoded(prepared) == sorted(expected)


def test_stored_at_the_largest_side_with_room_for_cropping(tmp_path):
    root = folder(tmp_path / "x", {"a": 4, "b": 4}, side=64)
    assert prepare(DataRequest(str(root)), 32).side == grown(32) == 37  # 36.8
    assert prepare(DataRequest(str(root)), 60).side == 64
    assert prepare(DataRequest(str(root)), 500).side == 64
    with pytest.raises(ScalenetError, match="side is 0"):
        prepare(DataRequest(str(root)), 0)


def test_arrays_are_mapped_and_cannot_be_written(root):
    pictures, _ = open_part(prepare(DataRequest(str(root)), 24), "fit")
    assert isinstance(pictures, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pictures[0] = 0


def test_size_is_announced_before_decoding(root, monkeypatch):
    said: list[str] = []
    seen: list[int] = []

    def watch(picture: object, side: int) -> np.ndarray:
        seen.append(len(said))
        return np.zeros((side, side, 3), np.uint8)

    monkeypatch.setattr("scalenet.data.cache.square", watch)
    prepare(DataRequest(str(root)), 24, announce=said.append)
    assert set(seen) == {1}
    assert "20 pictures of pets at 24 px: 35 kB" in said[0]  # 20 * (24 * 24 * 3 + 8) = 34,720 bytes
    prepare(DataRequest(str(root)), 24, announce=said.append)
    assert len(said) == 1


def test_a_short_disk_is_refused_before_anything_is_written(root, cache, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, 64 << 20))
    with pytest.raises(ScalenetError, match=r"needs 35 kB \(34720 bytes\).*has 67.1 MB \(67108864 bytes\) free"):
        prepare(DataRequest(str(root)), 24)
    assert list((cache / "pictures").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 0, (64 << 20) + 34720))
    prepare(DataRequest(str(root)), 24)


def test_a_second_start_decodes_nothing(root, monkeypatch):
    first = prepare(DataRequest(str(root)), 24)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("scalenet.data.cache.square", refuse)
    monkeypatch.setattr("scalenet.data.digest._examine", refuse)
    assert prepare(DataRequest(str(root)), 24) == first


def test_another_decoder_decodes_anew(root, monkeypatch):
    before = prepare(DataRequest(str(root)), 24)
    monkeypatch.setattr("PIL.__version__", "0.0.1")
    after = prepare(DataRequest(str(root)), 24)
    assert after.directory != before.directory
    assert Path(before.directory).is_dir()  # a search that runs may be reading it
    assert after.fingerprint == before.fingerprint


def test_prepared_is_plain(root):
    prepared = prepare(DataRequest(str(root)), 24)
    assert from_plain(Prepared, json.loads(json.dumps(to_plain(prepared))), "job") == prepared
    assert prepared.fingerprint == survey(DataRequest(str(root))).fingerprint


def test_pixels_that_cannot_be_decoded_are_dropped_and_listed(tmp_path):
    root = folder(tmp_path / "x", {"a": 10, "b": 10}, side=64)
    broken = [root / "a" / "003.png", root / "b" / "007.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:2000])  # a sound header, half of the pixels
    (root / "a" / "zero.png").write_bytes(b"")
    found = survey(DataRequest(str(root)))
    assert (found.pictures, found.unreadable) == (20, ("a/zero.png",))
    for _ in range(2):  # made, then found
        prepared = prepare(DataRequest(str(root)), 64)
        assert set(prepared.unreadable) == {"a/zero.png", "a/003.png", "b/007.png"}
        assert prepared.pictures == sum(prepared.counts.values()) == 18
        assert sum(prepared.class_counts["a"].values()) == 9
        assert [w for w in prepared.warnings if "Unreadable" in w] == [prepared.warnings[-1]]
        assert "left out: 3 (" in prepared.warnings[-1]
        kept = {(pixels(n, 64, 64).tobytes(), n // 10) for n in range(20) if n not in (3, 17)}
        assert set(decoded(prepared)) == kept


def test_a_part_or_class_lost_in_decoding_is_an_error(tmp_path, cache):
    root = folder(tmp_path / "x", {"train/a": 4, "train/b": 4, "test/a": 2, "test/b": 2}, side=64)
    for path in (root / "test").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ScalenetError, match="part 'held' can be read"):
        prepare(DataRequest(str(root)), 64)
    root = folder(tmp_path / "y", {"a": 4, "b": 4, "c": 4}, side=64)
    for path in (root / "b").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ScalenetError, match="left to fit for: 'b'"):
        prepare(DataRequest(str(root)), 64)
    assert list((cache / "pictures").iterdir()) == []


@pytest.mark.parametrize("blow", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_cache_is_not_there(root, cache, monkeypatch, blow):
    def stop(done: int, total: int, what: str) -> None:
        if what == "decoding pictures":
            raise blow

    with pytest.raises((KeyboardInterrupt, ScalenetError)):
        prepare(DataRequest(str(root)), 24, progress=stop)
    assert list((cache / "pictures").iterdir()) == []
    assert prepare(DataRequest(str(root)), 24).pictures == 20


def test_a_damaged_cache_is_made_anew(root):
    prepared = prepare(DataRequest(str(root)), 24)
    fit = Path(prepared.directory) / "fit.npy"
    before = fit.read_bytes()
    fit.write_bytes(before[:100])
    with pytest.raises(ScalenetError, match="gone or damaged"):
        open_part(prepared, "fit")
    assert prepare(DataRequest(str(root)), 24) == prepared
    assert fit.read_bytes() == before
    (Path(prepared.directory) / "meta.json").unlink()
    assert prepare(DataRequest(str(root)), 24) == prepared
    shutil.rmtree(prepared.directory)
    with pytest.raises(ScalenetError, match="gone or damaged"):
        open_part(prepared, "held")


# A power cut leaves empty files; NumPy answers that with EOFError, and half a header with tokenize.TokenError.
@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00\x76\x00{'descr': ("])
@pytest.mark.parametrize("file", ["fit.npy", "fit.labels.npy"])
def test_any_damage_to_an_array_is_found(root, file, damage):
    prepared = prepare(DataRequest(str(root)), 24)
    array = Path(prepared.directory) / file
    before = array.read_bytes()
    array.write_bytes(damage)
    with pytest.raises(ScalenetError, match="gone or damaged"):
        open_part(prepared, "fit")
    assert prepare(DataRequest(str(root)), 24) == prepared
    assert array.read_bytes() == before
    np.save(array, np.load(array).astype(np.float32))
    prepare(DataRequest(str(root)), 24)
    assert array.read_bytes() == before


def test_what_is_known_and_decoded_is_not_looked_for_again(root, cache):
    request = DataRequest(str(root))
    known = survey(request)
    prepared = prepare(request, 24, known=known)
    assert prepared == prepare(request, 24)
    shutil.rmtree(root)
    assert prepare(request, 24, known=known) == prepared
    with pytest.raises(ScalenetError, match="No folder"):
        prepare(request, 24)


def test_pictures_that_have_changed_since_they_were_known_are_refused(root, cache):
    request = DataRequest(str(root))
    known = survey(request)
    picture(root / "cat" / "new.png", 99)
    with pytest.raises(ScalenetError, match="changed while they were being read"):
        prepare(request, 24, known=known)
    assert prepare(request, 24).pictures == 21


def test_leftovers_of_killed_processes_are_swept(root, cache):
    old, young = cache / "pictures" / ".x-1.part", cache / "pictures" / ".x-2.part"
    for left in (old, young):
        left.mkdir(parents=True)
    past = time.time() - 2 * 24 * 3600
    os.utime(old, (past, past))
    prepare(DataRequest(str(root)), 24)
    assert not old.exists()
    assert young.exists()


def test_two_at_once_share_one_cache(root, cache):
    found: list[Prepared] = []
    gate = threading.Barrier(2)

    def work() -> None:
        gate.wait()
        found.append(prepare(DataRequest(str(root)), 24))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    assert [path.name for path in (cache / "pictures").iterdir()] == [Path(found[0].directory).name]
    assert len(decoded(found[0])) == 20


def test_the_other_process_was_first(root, cache, monkeypatch):
    # The very moment: another process publishes between our check and our rename.
    finished = prepare(DataRequest(str(root)), 24)
    aside = cache / "aside"
    Path(finished.directory).rename(aside)
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if self.suffix == ".part" and aside.exists():
            rename(aside, finished.directory)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    assert prepare(DataRequest(str(root)), 24) == finished
    assert len(list((cache / "pictures").iterdir())) == 1


def _shape_in_child(prepared: Prepared, answers: object) -> None:
    answers.put(open_part(prepared, "fit")[0].shape)  # type: ignore[attr-defined]


def test_another_process_can_open_it(root):
    prepared = prepare(DataRequest(str(root)), 24)
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    child = context.Process(target=_shape_in_child, args=(prepared, answers))
    child.start()
    assert answers.get(timeout=60) == (prepared.counts["fit"], 24, 24, 3)
    child.join()


def test_progress_counts_to_the_end(root):
    calls: list[tuple[int, int, str]] = []
    prepare(DataRequest(str(root)), 24, progress=lambda *call: calls.append(call))
    for what in ("reading pictures", "decoding pictures"):
        counts = [done for done, total, said in calls if said == what]
        assert counts == sorted(counts)
        assert counts[-1] == 20
    assert {total for _, total, _ in calls} == {20}


def test_resolution_warning_beyond_the_native_size(root):
    found = survey(DataRequest(str(root)))
    assert resolution_warning(found, 24) is None
    assert "25 px" in resolution_warning(found, 25)
    assert "24 px" in resolution_warning(prepare(DataRequest(str(root)), 24), 25)


def test_a_folder_that_cannot_hold_the_cache_is_named(root, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "file"))
    with pytest.raises(ScalenetError, match="SCALENET_CACHE"):
        prepare(DataRequest(str(root)), 24)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read anything")
def test_a_file_without_permission_is_left_out_until_it_has_it(root):
    path = root / "cat" / "000.png"
    path.chmod(0)
    assert survey(DataRequest(str(root))).unreadable == ("cat/000.png",)
    path.chmod(0o600)
    assert survey(DataRequest(str(root))).unreadable == ()


def test_a_passing_read_error_is_not_remembered(root, monkeypatch):
    stat = os.stat
    culprit = str((root / "cat" / "000.png").resolve())

    def fail(path: object, *args: object, **options: object) -> os.stat_result:
        if path == culprit:
            raise PermissionError(13, "Permission denied")
        return stat(path, *args, **options)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr("scalenet.data.digest.os.stat", fail)
        assert survey(DataRequest(str(root))).unreadable == ("cat/000.png",)
    assert survey(DataRequest(str(root))).unreadable == ()


def test_odd_pictures_do_not_stop_anything(tmp_path):
    root = folder(tmp_path / "x", {"a": 6, "b": 6})
    Image.new("L", (1, 1)).save(root / "a" / "dot.png")
    picture(root / "b" / "line.png", 77, height=1, width=400)
    prepared = prepare(DataRequest(str(root)), 24)
    assert (prepared.pictures, prepared.unreadable) == (14, ())


def test_importing_the_package_does_not_import_torch():
    code = "import sys, scalenet.data, scalenet.data.named; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def by_processes(monkeypatch):
    """Decoding as for thousands of files: by processes, and in chunks of three."""
    monkeypatch.setattr("scalenet.data.cache.MANY", 1)
    monkeypatch.setattr("scalenet.data.cache.CHUNK", 3)
    monkeypatch.setattr("scalenet.data.cache.cpus", lambda: 2)


@pytest.mark.usefixtures("by_processes")
def test_processes_decode_what_threads_decode(root):
    odd = root / "cat" / "na\u00efve \u732b\n.png"  # any name that a file may have
    (root / "cat" / "000.png").rename(odd)
    expected = [(pixels(number).tobytes(), number // 10) for number in range(20)]
    assert decoded(prepare(DataRequest(str(root)), 24)) == sorted(expected)


@pytest.mark.usefixtures("by_processes")
def test_processes_drop_what_cannot_be_decoded(tmp_path):
    test_pixels_that_cannot_be_decoded_are_dropped_and_listed(tmp_path)


@pytest.mark.usefixtures("by_processes")
def test_a_decoding_process_that_dies_is_one_sentence_and_leaves_nothing(root, cache, monkeypatch):
    monkeypatch.setattr("scalenet.children.sys.executable", shutil.which("true"))
    with pytest.raises(ScalenetError, match="A process that decodes pictures died"):
        prepare(DataRequest(str(root)), 24)
    assert list((cache / "pictures").iterdir()) == []
