import os
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from scalenet.cleaning.rules import doubts, judge, piles
from scalenet.cleaning.values import LOOK, RULES, Entry, Fault, Judgement, Kind, Limits, Rule, Scan
from scalenet.errors import ScalenetError
from tests.cleaning.scanned import File, drawn, scanned

EVERY: tuple[Rule, ...] = tuple(text.rule for text in RULES if text.movable)


def _judged(
    files: dict[str, File], limits: Limits | None = None, removing: tuple[Rule, ...] | None = None
) -> Judgement:
    return judge(scanned(files), limits or Limits(), removing)


def _rules(judgement: Judgement) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in judgement.findings:
        found.setdefault(finding.path, []).append(finding.rule)
    return found


def _noisy(image: Image.Image, seed: int = 0, much: float = 12) -> Image.Image:
    pixels = np.asarray(image.convert("L")) + np.random.default_rng(seed).normal(0, much, image.size[::-1])
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


PHOTO = _noisy(drawn(1))


def _night() -> Image.Image:
    scene = PHOTO.point(lambda grey: grey // 12)
    for x in range(20, 240, 50):
        ImageDraw.Draw(scene).ellipse((x, 60, x + 14, 74), fill=255)
    return scene


def _product() -> Image.Image:
    shot = Image.new("L", (240, 180), 253)
    shot.paste(PHOTO.crop((60, 50, 150, 120)), (80, 60))
    return shot


def _pale_product() -> Image.Image:
    shot = Image.new("L", (240, 180), 253)
    shot.paste(PHOTO.crop((60, 50, 150, 120)).point(lambda grey: 70 + grey // 2), (80, 60))
    return shot


def _diagram() -> Image.Image:
    page = Image.new("L", (240, 180), 255)
    draw = ImageDraw.Draw(page)
    draw.line((20, 20, 20, 160, 220, 160), fill=0, width=2)
    draw.line((20, 150, 90, 90, 150, 110, 220, 30), fill=60, width=2)
    return page


def _bokeh() -> Image.Image:
    scene = PHOTO.filter(ImageFilter.GaussianBlur(8))
    scene.paste(PHOTO.crop((70, 40, 170, 140)), (70, 40))
    return scene


def _shaken() -> Image.Image:
    pixels = np.asarray(_noisy(drawn(1), much=3)).astype(float)
    return Image.fromarray(np.mean([np.roll(pixels, k, axis=1) for k in range(24)], axis=0).astype(np.uint8))


BAD: dict[str, tuple[Image.Image, str]] = {
    "out of focus": (drawn(1).filter(ImageFilter.GaussianBlur(6)), "blurry"),
    "shaken": (_shaken(), "blurry"),
    "under-exposed": (PHOTO.point(lambda grey: grey // 8), "dark"),
    "over-exposed": (PHOTO.point(lambda grey: min(255, 140 + grey)), "bright"),
    "pale": (PHOTO.point(lambda grey: 110 + grey // 10), "low-contrast"),
    "a thumbnail": (PHOTO.resize((24, 18)), "small"),
    "a strip": (PHOTO.resize((600, 100)), "aspect"),
}
GOOD: dict[str, Image.Image] = {
    "photograph": PHOTO,
    "night": _night(),
    "product": _product(),
    "pale product": _pale_product(),
    "diagram": _diagram(),
    "bokeh": _bokeh(),
    "fog": PHOTO.point(lambda grey: 150 + grey * 2 // 5),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_has_one_finding_which_says_why(name: str) -> None:
    image, rule = BAD[name]
    judgement = _judged({"a.jpg": File(image), **{f"good {seed}.jpg": File(_noisy(drawn(seed))) for seed in (2, 3, 4)}})
    assert _rules(judgement) == {"a.jpg": [rule]}
    (finding,) = judgement.findings
    assert finding.removes
    assert finding.severity > 1
    assert finding.reason.endswith(".")
    assert any(figure.isdigit() for figure in finding.reason)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_often_taken_for_bad_is_not(name: str) -> None:
    assert _judged({"a.jpg": File(GOOD[name])}).findings == ()


@pytest.mark.parametrize("name", BAD)
def test_a_limit_of_nothing_switches_its_rule_off(name: str) -> None:
    off = Limits(blur=0, dark=0, bright=0, contrast=0, side=0, aspect=1000)
    assert _judged({"a.jpg": File(BAD[name][0])}, off).findings == ()


def test_pictures_that_are_all_small_are_not_too_small() -> None:
    files = {f"{seed}.png": File(drawn(seed, 28, 28), more={"format": b"PNG"}) for seed in range(5)}
    assert "small" not in Counter(finding.rule for finding in _judged(files).findings)


FAULTS = {
    Fault.EMPTY: "0 bytes", Fault.FOREIGN: "no picture format", Fault.TRUNCATED: "truncated", Fault.CORRUPT: "corrupt",
    Fault.GONE: "went away",
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_says_what_it_is(fault: Fault) -> None:
    (finding,) = _judged({"a.jpg": File(fault=fault)}).findings
    assert finding.rule == "broken"
    assert FAULTS[fault] in finding.reason
    assert finding.removes == (fault != Fault.GONE)


def test_a_bomb_says_how_many_pixels_it_states() -> None:
    bomb = File(fault=Fault.BOMB, more={"width": 30_000, "height": 20_000})
    (finding,) = _judged({"a.png": bomb}).findings
    assert finding.rule == "broken"
    assert "30000 x 20000 = 600000000" in finding.reason
    assert str(Limits().pixels) in finding.reason


def test_what_may_not_be_read_is_not_broken_and_stays() -> None:
    judgement = _judged({"a.jpg": File(fault=Fault.DENIED), "b": File(kind="denied")})
    assert [(finding.path, finding.rule, finding.removes) for finding in judgement.findings] == [
        ("a.jpg", "denied", False), ("b", "denied", False)
    ]  # fmt: skip
    assert judgement.kept == []


@pytest.mark.parametrize(
    ("path", "more", "said"),
    [
        ("a.jpg", {"format": b"PNG"}, "PNG, though named .jpg"),
        ("a.tiff", {"format": b"JPEG"}, "JPEG, though named .tiff"),
        ("a.jpg", {"mode": b"CMYK"}, "CMYK"),
        ("a.png", {"format": b"PNG", "mode": b"P"}, "palette"),
        ("a.png", {"format": b"PNG", "mode": b"I;16"}, "more than 8 bits"),
        ("a.png", {"format": b"PNG", "mode": b"RGB;16"}, "more than 8 bits"),
        ("a.jpg", {"orientation": 6}, "EXIF orientation 6"),
        ("a.gif", {"format": b"GIF", "frames": 12}, "animated (12 frames)"),
        ("a.jpg", {"format": b"WEBP", "frames": 2}, "WEBP, though named .jpg, and animated (2 frames)"),
    ],
)
def test_what_is_to_be_converted_is_named_and_stays(path: str, more: dict[str, object], said: str) -> None:
    (finding,) = _judged({path: File(PHOTO, more=more)}).findings
    assert (finding.rule, finding.removes) == ("format", False)
    assert said in finding.reason


@pytest.mark.parametrize(
    ("path", "format"), [("a.JPEG", b"JPEG"), ("a.jfif", b"JPEG"), ("a.tif", b"TIFF"), ("a.xyz", b"XYZ")]
)
def test_a_name_that_fits_is_not_remarked_on(path: str, format: bytes) -> None:
    assert _judged({path: File(PHOTO, more={"format": format})}).findings == ()


def test_copies_of_a_class_leave_the_best() -> None:
    files = {
        "cat/a.jpg": File(PHOTO, "cat"),
        "cat/b.jpg": File(PHOTO, "cat"),
        "cat/c.jpg": File(PHOTO.resize((160, 120)), "cat"),
    }
    judgement = _judged(files)
    assert [entry.path for entry in judgement.kept] == ["cat/a.jpg"]
    assert _rules(judgement) == {"cat/b.jpg": ["duplicate"], "cat/c.jpg": ["near-duplicate"]}
    assert all(f.others == ("cat/a.jpg",) and "cat/a.jpg" in f.reason for f in judgement.findings)


def test_a_conflict_tells_both_sides_and_takes_none_unless_told_to() -> None:
    files = {"cat/a.jpg": File(PHOTO, "cat"), "dog/a.jpg": File(PHOTO, "dog")}
    judgement = _judged(files)
    assert [(f.path, f.rule, f.others) for f in judgement.findings] == [
        ("cat/a.jpg", "conflict", ("dog/a.jpg",)), ("dog/a.jpg", "conflict", ("cat/a.jpg",))
    ]  # fmt: skip
    assert len(judgement.kept) == 2
    assert _judged(files, removing=("conflict",)).kept == []


def test_a_leak_takes_the_copy_for_training_then_that_for_validation() -> None:
    files = {
        "test/cat/a.jpg": File(PHOTO, "cat", "held"),
        "train/cat/a.jpg": File(PHOTO, "cat", "fit"),
        "val/cat/a.jpg": File(PHOTO, "cat", "select"),
    }
    judgement = _judged(files)
    assert {f.path: (f.rule, f.others) for f in judgement.findings} == {
        "train/cat/a.jpg": ("leak", ("test/cat/a.jpg", "val/cat/a.jpg")),
        "val/cat/a.jpg": ("leak", ("test/cat/a.jpg",)),
    }
    assert [entry.path for entry in judgement.kept] == ["test/cat/a.jpg"]


def test_a_leak_under_another_label_is_a_conflict_too() -> None:
    files = {"test/cat/a.jpg": File(PHOTO, "cat", "held"), "train/dog/a.jpg": File(PHOTO, "dog", "fit")}
    judgement = _judged(files)
    assert _rules(judgement) == {"train/dog/a.jpg": ["leak", "conflict"], "test/cat/a.jpg": ["conflict"]}
    assert judgement.removed["train/dog/a.jpg"].rule == "leak"


def test_a_sharp_copy_is_not_given_up_for_a_larger_blurred_one() -> None:
    blurred = drawn(1).filter(ImageFilter.GaussianBlur(5)).resize((480, 360))
    judgement = _judged({"large.jpg": File(blurred), "small.jpg": File(drawn(1))})
    assert len(judgement.groups) == 1
    assert judgement.groups[0].paths[0] == "large.jpg"
    assert [entry.path for entry in judgement.kept] == ["small.jpg"]


def test_findings_are_in_the_order_of_the_rules_then_the_worst_first() -> None:
    files = {f"{k}.jpg": File(PHOTO.point(lambda grey, k=k: grey // (8 + 4 * k))) for k in range(3)} | {
        "x": File(kind="other")
    }
    judgement = _judged(files, removing=())
    order = [text.rule for text in RULES]
    places = [order.index(finding.rule) for finding in judgement.findings]
    assert places == sorted(places)
    assert [f.path for f in judgement.findings if f.rule == "dark"] == ["2.jpg", "1.jpg", "0.jpg"]
    assert judgement.removed == {}


@pytest.mark.parametrize("rule", ["format", "denied", "other", "ugly"])
def test_only_rules_whose_findings_can_be_moved_are_switches(rule: Rule) -> None:
    with pytest.raises(ScalenetError, match=f"{rule}.*near-duplicate"):
        _judged({}, removing=(rule,))


def test_many_bad_pictures_are_doubted() -> None:
    dark = PHOTO.point(lambda grey: grey // 8)
    files = {f"night/{k}.jpg": File(_noisy(drawn(k)).point(lambda grey: grey // 8), "night") for k in range(4)}
    files |= {f"day/{k}.jpg": File(_noisy(drawn(10 + k)), "day") for k in range(30)}
    (told,) = doubts(_judged(files))
    assert "4 of the 4 pictures of the class night" in told
    assert "dark" in told
    assert doubts(_judged({f"{k}.jpg": File(_noisy(drawn(k))) for k in range(3)})) == ()
    assert "all classes together" in doubts(_judged({"a.jpg": File(dark)}))[0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(get_args(Kind)), st.sampled_from(Fault), st.integers(0, 2)), max_size=12))
def test_every_path_is_in_exactly_one_pile(kinds: list[tuple[Kind, Fault, int]]) -> None:
    files = {}
    for place, (kind, fault, seed) in enumerate(kinds):
        image = drawn(seed, 64, 48) if kind == "picture" and fault == Fault.NONE else None
        files[f"{place:02}.jpg"] = File(image, kind=kind, fault=fault if kind == "picture" else Fault.NONE)
    scan = scanned(files)
    found = [path for pile in astuple(piles(scan)) for path in pile]
    assert sorted(found) == [entry.path for entry in scan.entries]
    # What is kept is sound, what is not sound has a finding, and nothing that stays is removed.
    judgement = judge(scan, Limits(), EVERY)
    kept = {entry.path for entry in judgement.kept}
    assert kept <= set(piles(scan).sound)
    assert kept.isdisjoint(judgement.removed)
    assert set(files) == kept | set(judgement.removed) | {f.path for f in judgement.findings if not f.removes}


def test_leftovers_go_and_hidden_folders_stay() -> None:
    paths = (
        ".DS_Store",
        os.path.join("cat", "._a.jpg"),
        os.path.join(".git", "objects", "ab"),
        os.path.join("__MACOSX", "a"),
    )
    entries = tuple(Entry(path, "hidden") for path in paths)
    judgement = judge(Scan(Path("pets"), entries, (), np.zeros(0, LOOK)), Limits())
    assert set(judgement.removed) == {paths[0], paths[1], paths[3]}
    (left,) = (finding for finding in judgement.findings if not finding.removes)
    assert left.reason == "It lies in the hidden folder .git, which is left alone."


def test_what_is_of_one_grey_but_of_many_colours_has_contrast() -> None:
    one, other = (_noisy(drawn(seed)).point(lambda grey: 110 + grey // 10) for seed in (1, 2))
    judgement = _judged({"a.jpg": File(one, more={"colour": 60.0}), "b.jpg": File(other)})
    assert _rules(judgement) == {"b.jpg": ["low-contrast"]}
