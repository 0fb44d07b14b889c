from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from scalenet.children import started
from scalenet.cleaning import kept
from scalenet.cleaning import scan as module
from scalenet.cleaning.look import ROW, looks
from scalenet.cleaning.scan import scan
from scalenet.cleaning.values import LOOK, Fault, Limits
from scalenet.errors import ScalenetError

HERE = Path(__file__).parents[2]
PIXELS = Limits().pixels


def pictures(root: Path, count: int, side: int = 20) -> Path:
    draw = np.random.default_rng(count)
    for number in range(count):
        place = root / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(place / f"{number:04}.png")
    return root


def rows(cache: Path) -> Path:
    (file,) = cache.glob("scans/*/looks")
    return file


@pytest.fixture
def idle(monkeypatch):
    """Nothing is to be looked at."""

    def engage():
        def refuse(*_):
            raise AssertionError("a process was started")

        monkeypatch.setattr(module, "started", refuse)

    return engage


def test_looks_are_of_the_pictures_in_their_order(tmp_path):
    root = pictures(tmp_path / "x", 150)
    (root / "a" / "bad.jpg").write_text("words")
    (root / "a" / "empty.jpg").write_bytes(b"")
    (root / "a" / "notes.txt").write_text("words")
    told = []
    found = scan(root, Limits(), lambda *news: told.append(news), workers=3)
    assert len(found.entries) == 153
    assert [entry.path for entry in found.pictures] == sorted(e.path for e in found.entries if e.kind == "picture")
    assert found.looks.dtype == LOOK
    expected = looks([str(root / entry.path) for entry in found.pictures], PIXELS)
    assert np.array_equal(found.looks["sha256"], expected["sha256"])
    assert np.array_equal(found.looks["phash"], expected["phash"])
    assert {e.path: Fault(f).name for e, f in zip(found.pictures, found.looks["fault"].tolist(), strict=True) if f} == {
        "a/bad.jpg": "FOREIGN",
        "a/empty.jpg": "EMPTY",
    }
    assert isinstance(found.looks, np.memmap)
    assert found.reused == 0
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert {total for _, total, _ in told} == {152}
    assert (told[0][0], told[-1][0]) == (0, 152)


def test_an_unchanged_folder_is_not_read_again(tmp_path, idle):
    root = pictures(tmp_path / "x", 20)
    first = scan(root, Limits())
    idle()
    second = scan(root, Limits())
    assert second.reused == 20
    assert second.looks.tobytes() == first.looks.tobytes()
    assert scan(root, Limits(blur=3.0, side=9)).reused == 20  # what only judging needs


def test_only_what_changed_is_looked_at_again(tmp_path):
    root = pictures(tmp_path / "x", 20)
    scan(root, Limits())
    Image.new("RGB", (20, 20), "red").save(root / "a" / "0002.png")
    (root / "a" / "0004.png").unlink()
    (root / "b" / "0001.png").rename(root / "a" / "0000a.png")
    found = scan(root, Limits())
    assert (len(found.pictures), found.reused) == (19, 17)
    expected = looks([str(root / entry.path) for entry in found.pictures], PIXELS)
    assert np.array_equal(found.looks["sha256"], expected["sha256"])


def test_fresh_and_what_a_look_depends_on(tmp_path, monkeypatch):
    root = pictures(tmp_path / "x", 6)
    scan(root, Limits())
    assert scan(root, Limits(), fresh=True).reused == 0
    assert scan(root, Limits(), fresh=False).reused == 6
    found = scan(root, Limits(pixels=399))
    assert found.reused == 0
    assert (found.looks["fault"] == Fault.BOMB).all()
    scan(root, Limits())
    monkeypatch.setattr("PIL.__version__", "99")
    assert scan(root, Limits()).reused == 0


def test_what_may_pass_is_looked_at_again(tmp_path):
    root = pictures(tmp_path / "x", 4)
    keys = module._keys(scan(root, Limits()).pictures, Limits())
    file = rows(tmp_path / "cache")
    for place, fault in enumerate([Fault.DENIED, Fault.GONE, Fault.CORRUPT]):
        look = np.zeros(1, LOOK)
        look["fault"] = fault
        with open(file, "r+b") as written:
            os.pwrite(written.fileno(), module.sealed(int(keys[place]), look[0]), place * ROW.itemsize)
    found = scan(root, Limits())
    assert found.reused == 2
    assert found.looks["fault"].tolist() == [0, 0, Fault.CORRUPT, 0]


@pytest.mark.parametrize("torn", [1, ROW.itemsize - 1, ROW.itemsize, 3 * ROW.itemsize + 7])
def test_a_torn_tail_is_looked_at_again(tmp_path, torn):
    root = pictures(tmp_path / "x", 10)
    first = scan(root, Limits()).looks.tobytes()
    os.truncate(rows(tmp_path / "cache"), 10 * ROW.itemsize - torn)
    found = scan(root, Limits())
    assert found.reused == 10 - -(-torn // ROW.itemsize)
    assert found.looks.tobytes() == first


def test_damage_anywhere_is_looked_at_again(tmp_path):
    root = pictures(tmp_path / "x", 5)
    first = scan(root, Limits()).looks.tobytes()
    file = rows(tmp_path / "cache")
    for place in (0, ROW.itemsize + 8, 2 * ROW.itemsize + 700, 4 * ROW.itemsize - 1):
        data = bytearray(file.read_bytes())
        data[place] ^= 1
        file.write_bytes(data)
        found = scan(root, Limits())
        assert found.reused == 4, place
        assert found.looks.tobytes() == first
    file.write_bytes(b"nonsense" * 999)
    assert scan(root, Limits()).reused == 0


def test_a_killed_scan_loses_at_most_what_was_being_looked_at(tmp_path):
    root = pictures(tmp_path / "x", 60)
    script = (
        "import os, signal; from pathlib import Path\n"
        "from scalenet.cleaning import scan as module; from scalenet.cleaning.values import Limits\n"
        "module.CHUNK = 5\n"
        f"root = Path({str(root)!r})\n"
        "def progress(done, total, what):\n"
        "    if done >= 30: os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.scan(root, Limits(), progress, workers=2)"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    found = scan(root, Limits())
    assert 30 <= found.reused <= 40
    expected = looks([str(root / entry.path) for entry in found.pictures], PIXELS)
    assert found.looks.tobytes() == expected.tobytes()


def test_ctrl_c_leaves_what_was_seen_and_no_process(tmp_path, monkeypatch):
    root = pictures(tmp_path / "x", 40)
    monkeypatch.setattr(module, "CHUNK", 5)

    def interrupt(done, *_):
        if done >= 10:
            raise KeyboardInterrupt

    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(KeyboardInterrupt):
        scan(root, Limits(), interrupt, workers=2)
    assert {child.pid for child in psutil.Process().children()} <= before
    assert scan(root, Limits()).reused >= 10


def deadly(_, environment):
    return started("tests.cleaning.deadly", {**environment, "PYTHONPATH": str(HERE)})


def test_a_picture_that_kills_its_process_costs_only_itself(tmp_path, monkeypatch):
    root = pictures(tmp_path / "x", 30)
    (root / "a" / "0004.png").rename(root / "a" / "deadly.png")
    (root / "b" / "0005.png").rename(root / "b" / "0005deadly.png")
    monkeypatch.setattr(module, "started", deadly)
    told = []
    found = scan(root, Limits(), lambda done, *_: told.append(done), workers=2)
    faults = dict(zip([e.path for e in found.pictures], found.looks["fault"].tolist(), strict=True))
    assert {path for path, fault in faults.items() if fault} == {"a/deadly.png", "b/0005deadly.png"}
    assert faults["a/deadly.png"] == Fault.CORRUPT
    assert told[-1] == 30
    assert told == sorted(told)


@pytest.mark.parametrize("count", [1, 12])
def test_a_process_killed_from_outside_condemns_no_picture(tmp_path, monkeypatch, count):
    root = pictures(tmp_path / "x", count)
    (root / "a" / "0000.png").rename(root / "a" / "once.png")
    monkeypatch.setattr(module, "started", deadly)
    found = scan(root, Limits(), workers=1)
    assert not found.looks["fault"].any()
    assert (root / "a" / "once.png.tried").exists()


def test_processes_that_cannot_start_are_an_error_and_no_fault_of_the_pictures(tmp_path, monkeypatch):
    root = pictures(tmp_path / "x", 4)
    monkeypatch.setattr(module, "started", lambda _, environment: started("scalenet.nowhere", environment))
    with pytest.raises(ScalenetError, match="died as it started"):
        scan(root, Limits())
    monkeypatch.undo()


def test_a_disk_that_fills_is_an_error_and_no_fault_of_the_pictures(tmp_path, monkeypatch):
    root = pictures(tmp_path / "x", 4)
    monkeypatch.setattr(module, "answer", lambda _: "looks cannot be written (No space left on device).")
    with pytest.raises(ScalenetError, match="No space left"):
        scan(root, Limits())


def test_a_cache_that_cannot_be_written_costs_only_the_reuse(tmp_path, monkeypatch):
    root = pictures(tmp_path / "x", 6)
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        found = scan(root, Limits())
        assert found.reused == 0
        assert len(np.unique(found.looks["sha256"], axis=0)) == 6


def test_no_room_anywhere_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_reserve", full)
    with pytest.raises(ScalenetError, match=r"has room for 0 MB of looks \(No space left on device\)"):
        scan(pictures(tmp_path / "x", 2), Limits())


def _scanning(root: str, cache: str, results: multiprocessing.Queue) -> None:
    os.environ["SCALENET_CACHE"] = cache
    found = scan(Path(root), Limits(), workers=2)
    results.put((found.reused, found.looks["sha256"].tobytes()))


def test_two_scans_at_once(tmp_path):
    root = pictures(tmp_path / "x", 120)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    both = [context.Process(target=_scanning, args=(str(root), str(tmp_path / "cache"), results)) for _ in range(2)]
    for process in both:
        process.start()
    digests = {results.get(timeout=120)[1] for _ in both}
    for process in both:
        process.join()
    results.close()
    assert digests == {scan(root, Limits()).looks["sha256"].tobytes()}
    assert scan(root, Limits()).reused == 120


def test_a_second_scan_meanwhile_uses_what_is_known_and_disturbs_nothing(tmp_path):
    root = pictures(tmp_path / "x", 8)
    first = scan(root, Limits()).looks.tobytes()
    file = rows(tmp_path / "cache")
    with open(file.parent / "lock", "ab") as held:
        kept._lock(held)
        Image.new("RGB", (20, 20)).save(root / "a" / "0000.png")
        found = scan(root, Limits())
        assert found.reused == 7
        assert kept.mapped(file)["look"].tobytes() == first
    assert scan(root, Limits()).reused == 7


def test_a_scan_may_be_used_after_another_one(tmp_path):
    root = pictures(tmp_path / "x", 8)
    found = scan(root, Limits())
    before = found.looks.tobytes()
    (root / "a" / "0000.png").unlink()
    scan(root, Limits(), fresh=True)
    assert found.looks.tobytes() == before


@pytest.mark.skipif(sys.platform != "linux", reason="file names of arbitrary bytes")
def test_odd_names_can_be_looked_at(tmp_path):
    root = pictures(tmp_path / "x", 2)
    data = (root / "a" / "0000.png").read_bytes()
    for name in (b"bad\xff.png", b"new\nline.png", b"quote\"'.png", b"-rf.png", b"x" * 251 + b".png"):
        with open(os.fsencode(root) + b"/a/" + name, "wb") as file:
            file.write(data)
    found = scan(root, Limits())
    assert len(found.pictures) == 7
    assert not found.looks["fault"].any()
    assert scan(root, Limits()).reused == 7


def test_nothing_to_look_at(tmp_path, idle):
    idle()
    (tmp_path / "x").mkdir()
    found = scan(tmp_path / "x", Limits())
    assert (found.entries, found.looks.shape, found.looks.dtype) == ((), (0,), LOOK)


def test_chunks_are_bounded_by_number_and_by_bytes():
    entries = [module.Entry(str(i), "picture", size=module.BYTES // 3 + 1) for i in range(7)]
    assert [len(chunk) for chunk in module._chunks(entries, range(7))] == [3, 3, 1]
    entries = [module.Entry(str(i), "picture", size=1) for i in range(2 * module.CHUNK + 1)]
    chunks = list(module._chunks(entries, range(len(entries))))
    assert [len(chunk) for chunk in chunks] == [module.CHUNK, module.CHUNK, 1]
    assert [place for chunk in chunks for place in chunk] == list(range(len(entries)))


def test_an_orphan_does_not_write_to_the_next_scan(tmp_path):
    file = tmp_path / "looks"
    file.write_bytes(bytes(ROW.itemsize))
    with started("scalenet.cleaning.look") as child:
        module.tell(child, [str(tmp_path), str(file), file.stat().st_ino + 1, PIXELS])
        for _ in range(300):
            if child.poll() is not None:
                break
            time.sleep(0.1)
        assert child.poll() == 0
