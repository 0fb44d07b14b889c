from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet.cleaning import journal, moving, quarantine
from scalenet.cleaning.quarantine import apply, undo
from scalenet.errors import ScalenetError
from tests.cleaning.handmade import files, fill, judged, seen, state

NAMES = ["cat/1.jpg", "cat/2.jpg", "cat/deep/1.jpg", "dog/1.jpg", "dog/2.jpg", "dog/3.jpg"]
REMOVED = {"cat/1.jpg": "blurry", "dog/1.jpg": "blurry", "cat/deep/1.jpg": "dark", "dog/2.jpg": "duplicate"}


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return fill(tmp_path / "pets", NAMES)


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    return tmp_path / "pets.scalenet"


def lines(aside: Path) -> list[dict]:
    return [json.loads(line) for line in (aside / "quarantine" / "moves.jsonl").read_text().splitlines()]


def test_equal_names_in_two_classes_go_and_come_back(pets, aside):
    before = state(pets)
    done = apply(judged(pets, REMOVED), aside)
    assert (len(done.moved), done.before, done.left) == (4, 0, ())
    assert done.rules == {"blurry": 2, "dark": 1, "duplicate": 1}
    assert set(files(pets)) == {"cat/2.jpg", "dog/3.jpg"}
    for path, rule in REMOVED.items():
        assert files(aside)[f"quarantine/{rule}/{path}"] == before[path]
    assert undo(aside) == quarantine.Restored(pets, 4, ())
    assert state(pets) == before
    assert not [p for p in (aside / "quarantine").iterdir() if p.is_dir()]


def test_the_journal_says_what_went_where_and_why(pets, aside):
    info = os.stat(pets / "dog/2.jpg")
    apply(judged(pets, {"dog/2.jpg": "duplicate"}), aside)
    begun, move = lines(aside)
    assert begun["begun"]["root"] == "../pets"
    assert begun["begun"]["limits"]["blur"] == 100.0
    assert move["move"] == {
        "path": "dog/2.jpg",
        "to": "quarantine/duplicate/dog/2.jpg",
        "rule": "duplicate",
        "reason": "duplicate by hand",
        "size": 63,
        "sha256": "e94ba31084d4f3ee5bb9865739d715e2c18db04e576eab6819ec99f0923c50dc",  # sha256sum
        "mtime_ns": info.st_mtime_ns,
        "mode": info.st_mode,
    }


def test_emptied_class_folders_stay(pets, aside):
    apply(judged(pets, {"cat/deep/1.jpg": "dark"}), aside)
    assert (pets / "cat" / "deep").is_dir()


def test_links_hidden_files_and_names_that_are_no_text(pets, aside):
    (pets / "cat" / "link.jpg").symlink_to("../dog/3.jpg")
    (pets / "dog" / "nowhere.jpg").symlink_to("gone.jpg")
    odd = os.fsdecode(b"cat/\xff\xfe.jpg")
    fill(pets, {"cat/.DS_Store": b"x", "cat/._1.jpg": b"y", odd: b"z", "dog/" + "n" * 251 + ".jpg": b"long"})
    before = state(pets)
    removed = {"cat/link.jpg": "small", "dog/nowhere.jpg": "link", "cat/.DS_Store": "hidden", "cat/._1.jpg": "hidden",
               odd: "blurry", "dog/" + "n" * 251 + ".jpg": "dark"}  # fmt: skip
    done = apply(judged(pets, removed), aside)
    assert done.left == ()
    assert os.readlink(aside / "quarantine/small/cat/link.jpg") == "../dog/3.jpg"
    assert not set(files(pets)) & set(removed)
    assert undo(aside).left == ()
    assert state(pets) == before


def test_what_changed_since_is_left(pets, aside):
    judgement = judged(pets, REMOVED)
    (pets / "cat/1.jpg").write_bytes(b"another")
    (pets / "dog/1.jpg").unlink()
    done = apply(judgement, aside)
    assert len(done.moved) == 2
    assert {left.path: left.why for left in done.left} == {
        "cat/1.jpg": "it has changed since it was looked at", "dog/1.jpg": "it is gone"
    }  # fmt: skip
    assert (pets / "cat/1.jpg").read_bytes() == b"another"


def test_touched_but_not_changed_goes(pets, aside):
    judgement = judged(pets, REMOVED)
    os.utime(pets / "cat/1.jpg", ns=(5, 5))
    before = state(pets)
    assert apply(judgement, aside).left == ()
    undo(aside)
    assert state(pets) == before


def test_a_change_between_the_check_and_the_move_is_seen(pets, aside):
    def write(done: int, total: int, what: str) -> None:
        if what == "checking" and done == total:
            (pets / "dog/2.jpg").write_bytes(b"new")

    done = apply(judged(pets, REMOVED), aside, write)
    assert [left.path for left in done.left] == ["dog/2.jpg"]
    assert (pets / "dog/2.jpg").read_bytes() == b"new"


def test_apply_again_has_nothing_to_do(pets, aside):
    judgement = judged(pets, REMOVED)
    apply(judgement, aside)
    done = apply(judgement, aside)
    assert (done.moved, done.before, done.left) == ((), 4, ())


def test_two_cleanings_and_one_undo(pets, aside):
    before = state(pets)
    apply(judged(pets, REMOVED), aside)
    apply(judged(pets, {"dog/3.jpg": "blurry"}), aside)
    assert set(files(pets)) == {"cat/2.jpg"}
    assert undo(aside).restored == 5
    assert state(pets) == before
    assert undo(aside).restored == 0
    apply(judged(pets, REMOVED), aside)
    assert undo(aside).restored == 4
    assert state(pets) == before


def test_the_same_name_again_does_not_replace_what_is_aside(pets, aside):
    first = state(pets)["cat/1.jpg"]
    apply(judged(pets, {"cat/1.jpg": "blurry"}), aside)
    fill(pets, {"cat/1.jpg": b"a second one"})
    second = state(pets)["cat/1.jpg"]
    apply(judged(pets, {"cat/1.jpg": "blurry"}), aside)
    found = files(aside)
    assert (found["quarantine/blurry/cat/1.jpg"], found["quarantine/blurry~2/cat/1.jpg"]) == (first, second)
    done = undo(aside)
    assert (done.restored, [left.path for left in done.left]) == (1, ["cat/1.jpg"])
    assert state(pets)["cat/1.jpg"] == second
    assert files(aside)["quarantine/blurry/cat/1.jpg"] == first
    (pets / "cat/1.jpg").unlink()
    assert undo(aside) == quarantine.Restored(pets, 1, ())
    assert state(pets)["cat/1.jpg"] == first


def test_a_folder_where_a_file_was_moved_aside(pets, aside):
    before = state(pets)
    fill(pets, {"cat/x": b"file"})
    apply(judged(pets, {"cat/x": "hidden"}), aside)
    fill(pets, {"cat/x/1.jpg": b"below"})
    assert apply(judged(pets, {"cat/x/1.jpg": "hidden"}), aside).left == ()
    assert [left.path for left in undo(aside).left] == ["cat/x"]
    assert set(before) < set(state(pets))


def test_undo_does_not_replace_what_came_since(pets, aside):
    before = state(pets)
    apply(judged(pets, REMOVED), aside)
    (pets / "dog/1.jpg").write_bytes(b"came since")
    done = undo(aside)
    assert (done.restored, [left.path for left in done.left]) == (3, ["dog/1.jpg"])
    assert "quarantine/blurry/dog/1.jpg" in done.left[0].why
    assert (pets / "dog/1.jpg").read_bytes() == b"came since"
    assert files(aside)["quarantine/blurry/dog/1.jpg"] == before["dog/1.jpg"]
    (pets / "dog/1.jpg").unlink()
    assert undo(aside).restored == 1
    assert state(pets) == before


def test_undo_says_what_is_in_neither_place_and_what_nobody_knows(pets, aside):
    apply(judged(pets, REMOVED), aside)
    (aside / "quarantine/dark/cat/deep/1.jpg").unlink()
    (aside / "quarantine/dark/stray.jpg").write_bytes(b"x")
    done = undo(aside)
    assert done.restored == 3
    assert {left.path for left in done.left} == {"cat/deep/1.jpg", "quarantine/dark/stray.jpg"}


def test_undo_after_both_were_moved(pets, aside, tmp_path):
    before = state(pets)
    apply(judged(pets, REMOVED), aside)
    (tmp_path / "elsewhere").mkdir()
    for path in (pets, aside):
        path.rename(tmp_path / "elsewhere" / path.name)
    assert undo(tmp_path / "elsewhere" / aside.name).restored == 4
    assert state(tmp_path / "elsewhere" / "pets") == before


def test_undo_of_a_renamed_folder_needs_its_name(pets, aside, tmp_path):
    before = state(pets)
    apply(judged(pets, REMOVED), aside)
    pets.rename(tmp_path / "animals")
    with pytest.raises(ScalenetError, match=r"No folder .*pets"):
        undo(aside)
    assert undo(aside, root=tmp_path / "animals").restored == 4
    assert state(tmp_path / "animals") == before


def test_a_vanished_class_folder_is_made_again(pets, aside):
    before = state(pets)
    apply(judged(pets, {"cat/deep/1.jpg": "dark"}), aside)
    (pets / "cat" / "deep").rmdir()
    undo(aside)
    assert state(pets) == before


def test_nothing_to_undo(aside):
    with pytest.raises(ScalenetError, match="Nothing to undo"):
        undo(aside)
    assert not aside.exists()


def test_a_sidecar_in_use_or_of_another_folder_is_refused(pets, aside, tmp_path):
    apply(judged(pets, REMOVED), aside)
    with journal.opened(aside, make=True), pytest.raises(ScalenetError, match="in use by another process"):
        undo(aside)
    other = fill(tmp_path / "other", NAMES)
    with pytest.raises(ScalenetError, match=r"holds files of .*pets"):
        apply(judged(other, REMOVED), aside)
    assert set(NAMES) == set(files(other))


def test_what_lies_behind_a_link_out_of_the_folder_stays(pets, aside, tmp_path):
    fill(tmp_path / "pool", ["1.jpg"])
    (pets / "owl").symlink_to(tmp_path / "pool")
    judgement = judged(pets, REMOVED)
    finding = quarantine.Finding("owl/1.jpg", "blurry", "r", 1.0, True)
    judgement = type(judgement)(judgement.scan, judgement.limits, ("blurry",), (finding, *judgement.findings), ())
    done = apply(judgement, aside)
    assert [left.path for left in done.left] == ["owl/1.jpg"]
    assert (tmp_path / "pool/1.jpg").exists()


@pytest.mark.parametrize(
    "move",
    [
        {"path": "../out/new.jpg"},
        {"path": "/new.jpg"},
        {"path": "cat/../../new.jpg"},
        {"path": "out/new.jpg"},  # a link
        {"to": "../out/1.jpg"},
        {"to": "quarantine/../../out/1.jpg"},
        {"to": "clean.json"},
    ],
)
def test_a_strangers_journal_reaches_nothing_outside(pets, aside, tmp_path, move):
    fill(tmp_path / "out", ["1.jpg"])
    (pets / "out").symlink_to(tmp_path / "out")
    apply(judged(pets, {"cat/1.jpg": "blurry"}), aside)
    (aside / "clean.json").write_text("{}")
    begun, whole = lines(aside)
    whole["move"].update(move)
    text = "".join(json.dumps(line) + "\n" for line in (begun, whole))
    (aside / "quarantine" / "moves.jsonl").write_text(text)
    before = state(tmp_path / "out"), state(pets)
    done = undo(aside)
    assert done.restored == 0
    assert done.left
    assert (state(tmp_path / "out"), state(pets)) == before
    assert (aside / "clean.json").exists()
    assert not (tmp_path / "new.jpg").exists()


def test_half_a_line_at_the_end_is_cut_off_and_a_damaged_one_costs_only_itself(pets, aside):
    before = state(pets)
    apply(judged(pets, REMOVED), aside)
    file = aside / "quarantine" / "moves.jsonl"
    texts = file.read_text().splitlines()
    texts[2] = "\0" * 40
    file.write_text("\n".join(texts) + '\n{"half')
    apply(judged(pets, {"dog/3.jpg": "small"}), aside)
    assert "half" not in file.read_text()
    done = undo(aside)
    assert done.restored == 4
    assert [left.path for left in done.left] == ["quarantine/blurry/dog/1.jpg"]
    assert set(before) - set(state(pets)) == {"dog/1.jpg"}


def test_a_later_version_is_refused(pets, aside):
    apply(judged(pets, REMOVED), aside)
    file = aside / "quarantine" / "moves.jsonl"
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ScalenetError, match="of version 2"):
        undo(aside)


def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar as if on another file system."""
    real = moving.rename_new

    def rename_new(old: str, new: str) -> None:
        if (".scalenet" + os.sep in os.path.dirname(old)) != (".scalenet" + os.sep in os.path.dirname(new)):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(old, new)

    monkeypatch.setattr(moving, "rename_new", rename_new)


@pytest.fixture
def two_disks(monkeypatch) -> None:
    apart(monkeypatch)


def test_across_file_systems(pets, aside, two_disks):
    (pets / "cat" / "link.jpg").symlink_to("../dog/3.jpg")
    before = state(pets)
    done = apply(judged(pets, REMOVED | {"cat/link.jpg": "small"}), aside)
    assert (len(done.moved), done.left) == (5, ())
    assert not set(files(pets)) & set(REMOVED)
    for path, rule in REMOVED.items():
        assert files(aside)[f"quarantine/{rule}/{path}"] == before[path]
    assert undo(aside).restored == 5
    assert state(pets) == before


def test_a_copy_that_reads_back_otherwise_is_not_trusted(pets, aside, two_disks, monkeypatch):
    before = state(pets)
    real = moving._sha256
    monkeypatch.setattr(moving, "_sha256", lambda path: "0" * 64 if path.endswith(".part") else real(path))
    with pytest.raises(ScalenetError, match="does not read back"):
        apply(judged(pets, REMOVED), aside)
    assert state(pets) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folders_that_may_not_be_written(pets, aside):
    (pets / "dog").chmod(0o500)
    before = state(pets)
    try:
        done = apply(judged(pets, REMOVED), aside)
        assert {left.path for left in done.left} == {"dog/1.jpg", "dog/2.jpg"}
        with pytest.raises(ScalenetError, match=r"None of the 1 files can be moved.*denied"):
            apply(judged(pets, {"dog/3.jpg": "dark"}), aside)
        undo(aside)
        aside.chmod(0o500)
        assert state(pets) == before
    finally:
        aside.chmod(0o700)
        (pets / "dog").chmod(0o700)


def test_refused_moves_are_one_sentence(pets, aside, monkeypatch):
    def refuse(old: str, new: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    before = state(pets)
    monkeypatch.setattr(moving, "rename_new", refuse)
    with pytest.raises(ScalenetError, match=r"None of the 4 files .*Read-only file system"):
        apply(judged(pets, REMOVED), aside)
    assert state(pets) == before


@pytest.mark.parametrize("inside", [".", "aside", "cat/aside"])
def test_a_sidecar_among_the_pictures_is_refused(pets, inside):
    before = state(pets)
    with pytest.raises(ScalenetError, match="would count as pictures again"):
        apply(judged(pets, REMOVED), pets / inside)
    assert state(pets) == before


def test_a_sidecar_that_cannot_be_made(pets, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScalenetError, match="cannot be written"):
        apply(judged(pets, REMOVED), tmp_path / "file")


class Killed(BaseException):
    """As if the process ended here."""


CALLS = (
    (moving, "rename_new"), (os, "fsync"), (os, "write"), (os, "unlink"), (os, "makedirs"), (os, "ftruncate"),
    (os, "rmdir"),
)  # fmt: skip


def failing(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException, after: bool) -> list[str]:
    """From now on the `at`-th call that changes the disk fails, before or after it is done; then all do."""
    calls: list[str] = []

    def wrapped(real, name):
        def call(*arguments, **named):
            calls.append(name)
            if len(calls) > at or (len(calls) == at and not after):
                raise error
            result = real(*arguments, **named)
            if len(calls) == at:
                raise error
            return result

        return call

    for module, name in CALLS:
        monkeypatch.setattr(module, name, wrapped(getattr(module, name), name))
    return calls


def whole_somewhere(before: dict, pets: Path, aside: Path) -> None:
    """Every file is complete in its old place or aside; nothing has another content than it had."""
    here, there = files(pets), {p.split(os.sep, 2)[2]: what for p, what in files(aside).items() if p.count(os.sep) > 1}
    for path, what in before.items():
        if what != ("folder",):
            assert what in (here.get(path), there.get(path)), path


@settings(max_examples=40, deadline=None)
@given(
    at=st.integers(1, 60),
    kill=st.booleans(),
    after=st.booleans(),
    across=st.booleans(),
    during=st.sampled_from(["apply", "undo"]),
    then=st.sampled_from(["apply", "undo"]),
)
def test_whatever_fails_at_any_call_nothing_is_lost(tmp_path_factory, at, kill, after, across, during, then):
    folder = tmp_path_factory.mktemp("failing")
    pets, aside = fill(folder / "pets", NAMES), folder / "pets.scalenet"
    (pets / "cat" / "link.jpg").symlink_to("1.jpg")
    removed = REMOVED | {"cat/link.jpg": "small"}
    before = state(pets)
    judgement = judged(pets, removed)
    with pytest.MonkeyPatch.context() as outer:
        if across:
            apart(outer)
        if during == "undo":
            apply(judgement, aside)
        with pytest.MonkeyPatch.context() as inner:
            failing(inner, at, Killed() if kill else OSError(errno.ENOSPC, "No space left on device"), after)
            with suppress(Killed, OSError, ScalenetError):
                apply(judgement, aside) if during == "apply" else undo(aside)
        whole_somewhere(before, pets, aside)
        if then == "apply":
            done = apply(judgement, aside)
            assert (len(done.moved) + done.before, done.left) == (len(removed), ())
            assert not set(files(pets)) & set(removed)
            whole_somewhere(before, pets, aside)
        if (aside / "quarantine" / "moves.jsonl").exists():
            assert undo(aside).left == ()
        assert state(pets) == before
        assert not [p for p in files(aside) if p.count(os.sep) > 1]


CHILD = """
import sys
from pathlib import Path
from scalenet.cleaning.quarantine import apply, undo
from tests.cleaning.handmade import judged
root, aside, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
removed = {p: r for p, r in zip(sys.argv[4::2], sys.argv[5::2])}
judgement = judged(root, removed) if what == "apply" else None
print("ready", flush=True)
def slow(done, total, doing):
    print(done, flush=True)
apply(judgement, aside, slow) if judgement else undo(aside, slow)
"""


def killed_at_random(pets: Path, aside: Path, what: str, removed: dict[str, str], draw: random.Random) -> bool:
    """Runs `what` in a process of its own and kills it some time after it has begun; whether it was still at it."""
    arguments = [text for pair in removed.items() for text in pair]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(pets), str(aside), what, *arguments],
        stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        for _ in range(draw.randrange(3 * len(removed) // 2)):
            child.stdout.readline()
        time.sleep(draw.random() * 0.001)
        child.send_signal(signal.SIGKILL)
    return child.returncode == -signal.SIGKILL


KILLS = int(os.environ.get("SCALENET_KILLS", "4"))


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_processes_lose_nothing(tmp_path, seed):
    draw = random.Random(seed)
    names = [f"{label}/{i:03d}.jpg" for label in ("cat", "dog") for i in range(150)]
    pets, aside = fill(tmp_path / "pets", names), tmp_path / "pets.scalenet"
    removed = {name: draw.choice(["blurry", "dark", "duplicate"]) for name in draw.sample(names, 200)}
    before = state(pets)
    killed = killed_at_random(pets, aside, "apply", removed, draw)
    there = {path.split(os.sep, 2)[2]: what for path, what in files(aside).items() if path.count(os.sep) > 1}
    here = files(pets)
    assert not set(here) & set(there)
    assert here | there == {path: what for path, what in before.items() if what != ("folder",)}
    if seed % 2 and killed:
        done = apply(judged(pets, {p: r for p, r in removed.items() if p in here}), aside)
        assert done.left == ()
        assert set(files(pets)) == set(names) - set(removed)
    if (aside / "quarantine" / "moves.jsonl").exists():
        killed_at_random(pets, aside, "undo", removed, draw)
        assert undo(aside).left == ()
    assert state(pets) == before


def test_scan_of_the_helpers_is_true(pets):
    scan = seen(pets)
    assert [entry.label for entry in scan.pictures] == ["cat", "cat", "cat", "dog", "dog", "dog"]
