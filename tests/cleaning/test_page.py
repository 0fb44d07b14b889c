from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalenet.cleaning import grey, page, thumbs
from scalenet.cleaning.limits import Limits
from scalenet.cleaning.summary import summarise
from scalenet.cleaning.values import LOOK, Entry, Fault, Finding, Group, Judgement, Scan

ODD = "cat/" + os.fsdecode(b"\xff<b>\n.jpg")


@pytest.fixture
def judged(tmp_path: Path) -> Judgement:
    """Two sound pictures, a copy and a broken one, in names that a page must not take at their word."""
    root = tmp_path / "pets"
    names = ("cat/<script>.jpg", "cat/copy.jpg", ODD, "dog/broken.jpg")
    looks = np.zeros(len(names), LOOK)
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, "JPEG")
        looks[i]["format"], looks[i]["mode"], looks[i]["width"], looks[i]["height"] = b"JPEG", b"RGB", 60, 40
        looks[i]["sha256"] = i
    (root / "dog/broken.jpg").write_bytes(b"no picture")
    looks[3]["fault"] = Fault.FOREIGN
    entries = tuple(Entry(name, "picture", name.split("/")[0], size=10) for name in names)
    findings = (
        Finding("dog/broken.jpg", "broken", "is no picture.", 1.0, removes=True),
        Finding("cat/copy.jpg", "duplicate", "has the bytes of the best copy.", 1.0, removes=True, others=(names[0],)),
        Finding(ODD, "blurry", "is blurry: 12, below 100.", 88.0, removes=False),
    )
    groups = (Group((names[0], names[1]), True, ("cat",), ()),)
    return Judgement(Scan(root, entries, entries, looks), Limits(), ("broken", "duplicate"), findings, groups)


def test_the_page_carries_all_it_shows(judged: Judgement) -> None:
    text = page.html(judged, summarise(judged), sheets=True)
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    # copy and its best, the odd one, and the contact sheet's three; the broken one has no picture
    assert text.count("data:image/jpeg;base64,") == 3 + 3
    assert text.count("no picture</div>") == 1


def test_names_are_shown_and_never_taken_as_html(judged: Judgement) -> None:
    text = page.html(judged, summarise(judged), sheets=True)
    assert "<script>" not in text
    assert "&lt;script&gt;.jpg" in text
    assert r"\udcff&lt;b&gt;\n.jpg" in text
    text.encode("utf-8")


def test_says_what_would_go_and_what_stays(judged: Judgement) -> None:
    assert page.verdict(summarise(judged)) == ("2 files would go (1 broken, 1 duplicate); 2 of 4 pictures stay.")


def test_files_hold_every_finding(judged: Judgement, tmp_path: Path) -> None:
    files = page.write(judged, summarise(judged), tmp_path / "out", sheets=False, progress=None)
    rows = list(csv.DictReader(files.csv.read_text(encoding="utf-8").splitlines()))
    assert [(row["rule"], row["removes"], row["class"]) for row in rows] == [
        ("broken", "yes", "dog"), ("duplicate", "yes", "cat"), ("blurry", "no", "cat"),
    ]  # fmt: skip
    assert rows[1]["others"] == "cat/<script>.jpg"
    plain = json.loads(files.json.read_text(encoding="utf-8"))
    assert [finding["path"] for finding in plain["findings"]][2] == ODD
    assert plain["groups"][0]["paths"] == ["cat/<script>.jpg", "cat/copy.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["findings.csv", "report.html", "report.json"]


def test_many_findings_are_shown_in_part_the_worst_of_each_rule_first(
    judged: Judgement, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "SHOWN", 30)
    many = tuple(Finding("cat/copy.jpg", "dark", f"number {i}.", 100.0 - i, removes=False) for i in range(100))
    few = tuple(Finding(ODD, "small", f"little {i}.", 1.0, removes=False) for i in range(5))
    crowded = Judgement(judged.scan, judged.limits, (), (*many, *few), ())
    text = page.html(crowded, summarise(crowded), sheets=False)
    assert "number 27." in text
    assert "number 29." not in text
    assert "little 4." in text
    assert "The worst 28 are shown" in text


def test_a_very_large_png_is_drawn_band_by_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    for name in ("large.png", "large.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
    monkeypatch.setattr(thumbs, "STREAMED", 1000)
    monkeypatch.setattr(grey, "STREAMED", 1000)
    drawn = thumbs.thumbnails(tmp_path, ["large.png", "large.bmp"])
    assert list(drawn) == ["large.png"]
    with Image.open(io.BytesIO(base64.b64decode(drawn["large.png"].split(",")[1]))) as small:
        assert small.size == (72, 96)
        assert np.ptp(np.asarray(small.convert("RGB")), axis=2).max() == 0  # grey
