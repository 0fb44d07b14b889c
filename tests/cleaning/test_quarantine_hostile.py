"""What strangers, other processes and odd file systems can do to a sidecar, and that no file is lost by it."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from scalenet.cleaning import moving
from scalenet.cleaning.quarantine import apply, undo
from scalenet.cleaning.rules import judge
from scalenet.cleaning.values import Limits
from scalenet.errors import ScalenetError
from tests.cleaning.handmade import files, fill, judged, seen, state
from tests.cleaning.test_quarantine import NAMES, REMOVED, apart, lines


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return fill(tmp_path / "pets", NAMES)


@pytest.fixture
def aside(tmp_path: Path) -> Path:
    return tmp_path / "pets.scalenet"


@pytest.fixture
def two_disks(monkeypatch) -> None:
    apart(monkeypatch)


def rewrite(aside: Path, *changes: dict) -> None:
    """The journal with its moves changed, in order."""
    begun, *moves = lines(aside)
    for move, change in zip(moves, changes, strict=True):
        move["move"].update(change)
    text = "".join(json.dumps(line) + "\n" for line in (begun, *moves))
    (aside / "quarantine" / "moves.jsonl").write_text(text)


def interrupted(monkeypatch, what) -> None:
    """Across file systems, `what` happens when the copies are whole and the originals are about to go."""
    real = moving.flush

    def flush(folder: str) -> None:
        real(folder)
        what()

    monkeypatch.setattr(moving, "flush", flush)


def test_what_is_written_while_it_is_copied_is_not_lost(pets, aside, two_disks, monkeypatch):
    interrupted(monkeypatch, lambda: (pets / "cat/1.jpg").write_bytes(b"edited"))
    done = apply(judged(pets, REMOVED), aside)
    assert [left.path for left in done.left] == ["cat/1.jpg"]
    assert (pets / "cat/1.jpg").read_bytes() == b"edited"
    assert undo(aside).restored == 3


def test_what_replaces_a_file_while_it_is_copied_is_not_lost(pets, aside, two_disks, monkeypatch):
    def replace() -> None:
        if not (pets / "new").exists():
            (pets / "new").write_bytes(b"n")
            os.replace(pets / "new", pets / "dog/1.jpg")

    interrupted(monkeypatch, replace)
    apply(judged(pets, REMOVED), aside)
    assert (pets / "dog/1.jpg").read_bytes() == b"n"


def test_a_copy_stays_where_the_original_went_away_meanwhile(pets, aside, two_disks, monkeypatch):
    before = state(pets)
    apply(judged(pets, REMOVED), aside)
    interrupted(monkeypatch, lambda: (aside / "quarantine/blurry/cat/1.jpg").unlink(missing_ok=True))
    undo(aside)
    assert state(pets) == before


def test_a_pipe_is_not_waited_for(pets, aside, two_disks):
    os.mkfifo(pets / "cat/.pipe")
    writer = threading.Timer(2, lambda: os.close(os.open(pets / "cat/.pipe", os.O_RDWR)))  # ends a wait
    writer.start()
    done = apply(judged(pets, REMOVED | {"cat/.pipe": "hidden"}), aside)
    assert writer.is_alive()
    writer.cancel()
    assert [left.path for left in done.left] == ["cat/.pipe"]


def test_what_lies_aside_is_removed_only_where_it_is_a_copy(pets, aside):
    apply(judged(pets, REMOVED), aside)
    there = aside / "quarantine/blurry/cat/1.jpg"
    os.link(there, pets / "cat/1.jpg")
    os.unlink(there)
    there.write_bytes(b"mended by hand")
    undo(aside)
    assert there.read_bytes() == b"mended by hand"


@pytest.mark.parametrize("to", ["quarantine", "quarantine/blurry", "quarantine/blurry/cat", "quarantine/moves.jsonl",
                                "quarantine/lock"])  # fmt: skip
def test_a_strangers_journal_moves_files_alone(pets, aside, to):
    apply(judged(pets, {"cat/1.jpg": "blurry"}), aside)
    before = state(pets), set(files(aside))
    rewrite(aside, {"to": to})
    done = undo(aside)
    assert (done.restored, len(done.left) > 0) == (0, True)
    assert (state(pets), set(files(aside))) == before


def test_a_quarantine_that_is_the_folder_itself_costs_nothing(tmp_path):
    """The sidecar is above the folder, and a rule's folder a link to it: both places of a move are one file."""
    pets = fill(tmp_path / "pets", NAMES)
    apply(judged(pets, {"cat/1.jpg": "blurry"}), tmp_path)
    (tmp_path / "quarantine/blurry/cat/1.jpg").rename(pets / "cat/1.jpg")
    (tmp_path / "quarantine/blurry/cat").rmdir()
    (tmp_path / "quarantine/blurry").rmdir()
    (tmp_path / "quarantine/blurry").symlink_to(pets)
    before = state(pets)
    undo(tmp_path)
    apply(judged(pets, {"dog/1.jpg": "small"}), tmp_path)
    undo(tmp_path)
    assert state(pets) == before


@pytest.mark.parametrize(
    "change",
    [{"path": "cat/\ud800.jpg"}, {"path": "\ud800/1.jpg"}, {"to": "quarantine/blurry/\ud800"}, {"path": "a\0b"},
     {"to": "quarantine/a\0b/c"}, {"mtime_ns": 10**40, "size": -(10**40), "mode": 10**30}, {"path": "x" * 5000},
     {"path": "/".join("y" * 3000)}, {"sha256": "no digest"}, {"path": 1}, {"rule": []}],
)  # fmt: skip
def test_nonsense_in_a_journal_is_no_traceback(pets, aside, change):
    apply(judged(pets, {"cat/1.jpg": "blurry"}), aside)
    rewrite(aside, change)
    undo(aside)
    assert len(files(pets)) + len([f for f in files(aside) if f.count(os.sep) > 1]) == len(NAMES)


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "1", '"x"', "{}", '{"begun": null}', "9" * 5000, "NaN"])
def test_lines_that_are_nonsense_are_passed_over(pets, aside, text):
    before = state(pets)
    apply(judged(pets, REMOVED), aside)
    with open(aside / "quarantine/moves.jsonl", "a") as file:
        file.write(text + "\n")
    assert undo(aside).restored == 4
    assert state(pets) == before


@pytest.mark.parametrize("root", ["\0", "\ud800", "x" * 5000, ""])
def test_a_nonsensical_root(pets, aside, root):
    apply(judged(pets, REMOVED), aside)
    begun, *moves = lines(aside)
    begun["begun"]["root"] = root
    (aside / "quarantine/moves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (begun, *moves)))
    before = state(pets)
    with suppress(ScalenetError):
        undo(aside)
    assert state(pets) == before


def test_a_later_version_is_refused_whatever_its_lines_hold(pets, aside):
    apply(judged(pets, REMOVED), aside)
    file = aside / "quarantine" / "moves.jsonl"
    file.write_text(file.read_text().replace('"version": 1', '"version": 2, "host": "here"'))
    before = state(aside)
    with pytest.raises(ScalenetError, match="of version 2"):
        undo(aside)
    assert state(aside) == before


def test_files_of_one_folder_are_not_brought_back_to_another(pets, aside, tmp_path):
    apply(judged(pets, REMOVED), aside)
    other = fill(tmp_path / "other", ["cat/9.jpg"])
    with pytest.raises(ScalenetError, match=r"holds files of .*pets"):
        undo(aside, root=other)
    assert set(files(other)) == {"cat/9.jpg"}
    assert undo(aside, root=pets).restored == 4


def test_no_rights_are_given_away_with_a_copy(pets, aside, two_disks, monkeypatch):
    """Where the owner cannot be kept, a program that runs as its owner would run as somebody else."""
    (pets / "cat/1.jpg").chmod(0o6755)

    def chown(*_):
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(moving.os, "chown", chown)
    apply(judged(pets, REMOVED), aside)
    assert os.stat(aside / "quarantine/blurry/cat/1.jpg").st_mode & 0o7777 == 0o755


ODD = [b"cat/new\nline.jpg", b"cat/-rf.jpg", b"-/--.jpg", b"cat/\xff\xfe\x80.jpg",
       b"cat/\xc3\xa9.jpg", b"cat/e\xcc\x81.jpg",
       b"cat/A.JPG", b"cat/a.jpg", b"cat/" + b"z" * 251 + b".jpg", b"moves.jsonl", b"quarantine/moves.jsonl", b"lock",
       b"cat/.scalenet-0123456789abcdef.part", b"cat/ .jpg", b"cat/....jpg", b"cat/~.jpg", b"dog/\x1b[31m.jpg",
       b"cat/\\.jpg", b"cat/*?.jpg"]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems refuse, and attributes that they lack")
@pytest.mark.parametrize("far", [False, True])
def test_odd_names_go_and_come_back(tmp_path, monkeypatch, far):
    pets, aside = fill(tmp_path / "pets", [os.fsdecode(n) for n in ODD]), tmp_path / "pets.scalenet"
    (pets / "cat/empty.jpg").write_bytes(b"")
    os.link(pets / "cat/a.jpg", pets / "cat/hard.jpg")
    (pets / "cat/abs").symlink_to(pets / "cat/a.jpg")
    (pets / "cat/loop").symlink_to("loop")
    (pets / "cat/up").symlink_to("../..")
    (pets / "cat/suid.jpg").write_bytes(b"s")
    (pets / "cat/suid.jpg").chmod(0o6755)
    os.setxattr(pets / "cat/a.jpg", "user.note", b"mine")
    if far:
        apart(monkeypatch)
    before = state(pets)
    removed = dict.fromkeys(files(pets), "hidden")
    done = apply(judged(pets, removed), aside)
    assert done.left == ()
    assert files(pets) == {}
    assert undo(aside).left == ()
    assert state(pets) == before
    assert os.getxattr(pets / "cat/a.jpg", "user.note") == b"mine"


@pytest.mark.parametrize("link", ["cat/3.jpg", "dog/3.jpg"])
def test_what_a_link_that_stays_leads_to_stays(pets, aside, link):
    """A link may be the copy that a rule keeps, in the same class or in a part that is judged on."""
    fill(pets, {"cat/9.jpg": b"picture"})
    (pets / link).unlink(missing_ok=True)
    (pets / link).symlink_to("../cat/9.jpg")
    done = apply(judged(pets, {"cat/9.jpg": "duplicate", "dog/1.jpg": "dark"}), aside)
    assert ([left.path for left in done.left], len(done.moved)) == (["cat/9.jpg"], 1)
    assert link in done.left[0].why
    assert (pets / link).read_bytes() == b"picture"
    done = apply(judged(pets, {"cat/9.jpg": "duplicate", link: "duplicate"}), aside)
    assert len(done.moved) == 2


def test_a_file_is_the_best_copy_before_links_to_it(pets):
    (pets / "cat/!first.jpg").symlink_to("1.jpg")
    judgement = judge(seen(pets), Limits(), ["duplicate"])
    assert list(judgement.removed) == ["cat/!first.jpg"]
