from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scalenet.cleaning.limits import Limits
from scalenet.cleaning.summary import NO_CLASS, fingerprint, summarise
from scalenet.cleaning.values import LOOK, Entry, Fault, Finding, Judgement, Scan


def look(seed: int, **known: object) -> np.ndarray:
    """A sound picture of 64 x 48 unless told otherwise."""
    found = np.zeros((), LOOK)
    found["sha256"] = np.random.default_rng(seed).integers(0, 256, 32, dtype=np.uint8)
    found["format"], found["mode"], found["orientation"], found["frames"] = b"JPEG", b"RGB", 1, 1
    found["width"], found["height"] = 64, 48
    for name, value in known.items():
        found[name] = value
    return found


@pytest.fixture
def judged() -> Judgement:
    rows = [
        (Entry("cat/a.jpg", "picture", "cat", "fit", 1000), look(0)),
        (Entry("cat/b.png", "picture", "cat", "held", 2000), look(1, format=b"PNG", mode=b"P", width=100, height=20)),
        (Entry("cat/c.jpg", "picture", "cat", "fit", 3000), look(2, frames=3)),
        (Entry("dog/a.jpg", "picture", "dog", "fit", 4000), look(3, orientation=6)),
        (Entry("dog/b.jpg", "picture", "dog", "fit", 0), look(4, fault=Fault.EMPTY, width=0, height=0)),
        (Entry("loose.jpg", "picture", None, None, 10), look(5)),
    ]
    hidden = Entry("cat/.DS_Store", "hidden", "cat")
    pictures = tuple(entry for entry, _ in rows)
    scan = Scan(Path("/pets"), (hidden, *pictures), pictures, np.array([record for _, record in rows]))
    findings = (
        Finding("dog/b.jpg", "broken", "is empty.", 1.0, removes=True),
        Finding("cat/.DS_Store", "hidden", "is hidden.", 1.0, removes=True),
        Finding("cat/a.jpg", "blurry", "is blurry.", 2.0, removes=False),
        Finding("cat/c.jpg", "dark", "is dark.", 2.0, removes=True),
        Finding("cat/c.jpg", "small", "is small.", 1.0, removes=True),
    )
    return Judgement(scan, Limits(), ("broken", "hidden", "dark", "small"), findings, ())


def test_counts_by_class_and_part_before_and_after(judged: Judgement) -> None:
    found = {c.name: (c.pictures, dict(c.parts), c.kept) for c in summarise(judged).classes}
    assert found == {
        "cat": (3, {"fit": 2, "held": 1}, 2),
        "dog": (2, {"fit": 2}, 1),
        NO_CLASS: (1, {}, 1),
    }


def test_describes_the_sound_pictures_only(judged: Judgement) -> None:
    found = summarise(judged)
    assert found.formats == {"JPEG": 4, "PNG": 1}
    assert found.modes == {"RGB": 4, "P": 1}
    assert found.faults == {"empty": 1}
    assert (found.turned, found.animated) == (1, 1)
    assert found.shorter is not None
    assert found.longer is not None
    assert (found.shorter.least, found.shorter.median, found.longer.most) == (20, 48, 100)
    assert found.sizes == (("64 x 48", 4), ("100 x 20", 1))
    assert found.bytes == 10_010
    assert found.paths == {"picture": 6, "hidden": 1}


def test_imbalance_is_the_largest_class_over_the_smallest(judged: Judgement) -> None:
    assert summarise(judged).imbalance == 3.0


def test_what_would_go_counts_each_path_once_under_its_first_rule(judged: Judgement) -> None:
    found = summarise(judged)
    assert found.removed == {"broken": {"dog": 1}, "hidden": {"cat": 1}, "dark": {"cat": 1}}
    assert found.findings == {"broken": 1, "hidden": 1, "blurry": 1, "dark": 1, "small": 1}


def test_a_folder_in_which_nothing_is_sound_is_described_too() -> None:
    entry = Entry("cat/a.jpg", "picture", "cat")
    scan = Scan(Path("/pets"), (entry,), (entry,), np.array([look(0, fault=Fault.CORRUPT, width=0, height=0)]))
    found = summarise(Judgement(scan, Limits(), (), (), ()))
    assert (found.shorter, found.imbalance, found.formats) == (None, None, {})


def test_the_fingerprint_is_of_contents_and_classes_not_of_names_or_order(judged: Judgement) -> None:
    scan = judged.scan
    renamed = tuple(Entry(f"x{i}", e.kind, e.label, e.part) for i, e in enumerate(scan.pictures))
    same = Scan(Path("/other"), renamed[::-1], renamed[::-1], scan.looks[::-1])
    assert fingerprint(same) == fingerprint(scan)
    moved = (Entry("x", "picture", "dog", "fit"), *scan.pictures[1:])
    assert fingerprint(Scan(scan.root, moved, moved, scan.looks)) != fingerprint(scan)
