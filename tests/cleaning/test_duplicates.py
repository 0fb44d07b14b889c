import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from scalenet.cleaning.duplicates import groups
from scalenet.cleaning.values import Fault, Scan
from scalenet.data.pixels import UPRIGHT
from tests.cleaning.scanned import File, drawn, encoded, scanned


def _paths(scan: Scan) -> list[tuple[str, ...]]:
    return [group.paths for group in groups(scan)]


def _margins(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop(
        (round(left * width), round(top * height), round((1 - right) * width), round((1 - bottom) * height))
    )


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda image: encoded(image, 30),
    "half as large": lambda image: image.resize((120, 90), Image.Resampling.LANCZOS),
    "twice as large": lambda image: image.resize((480, 360), Image.Resampling.BICUBIC),
    "squeezed to a square": lambda image: image.resize((160, 160), Image.Resampling.BILINEAR),
    "cropped on all sides": lambda image: _margins(image, 0.08, 0.08, 0.08, 0.08),
    "cropped on one side": lambda image: _margins(image, 0.07, 0, 0, 0),
    "cropped at a corner": lambda image: _margins(image, 0, 0, 0.09, 0.08),
    "cropped, smaller, re-encoded": lambda image: encoded(
        _margins(image, 0.05, 0.01, 0.03, 0.04).resize((128, 128)), 60
    ),
    "cropped and enlarged": lambda image: _margins(image, 0.08, 0.06, 0.08, 0.06).resize((480, 360)),
    "of less contrast": lambda image: image.point(lambda grey: 60 + grey // 2),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_found_among_strangers(how: str) -> None:
    files = {f"{seed:02}.jpg": File(drawn(seed)) for seed in range(12)}
    for seed in range(4):
        files[f"copy {seed:02}.jpg"] = File(COPIES[how](drawn(seed)))
    found = {frozenset(paths) for paths in _paths(scanned(files))}
    assert found == {frozenset({f"{seed:02}.jpg", f"copy {seed:02}.jpg"}) for seed in range(4)}


@pytest.mark.parametrize("orientation", sorted(UPRIGHT))
def test_a_copy_that_exif_turns_is_found_as_stored_and_upright(orientation: int) -> None:
    back = UPRIGHT[{6: 8, 8: 6}.get(orientation, orientation)]
    files = {
        "a.jpg": File(drawn(1)),
        "b.jpg": File(encoded(drawn(1), 90).transpose(back), orientation=orientation),  # shows the same
        "c.jpg": File(drawn(2)),
        "d.jpg": File(encoded(drawn(2), 90), orientation=orientation),  # a tag was set on the same pixels
        "e.jpg": File(drawn(3)),
    }
    assert {frozenset(paths) for paths in _paths(scanned(files))} == {frozenset("a.jpg b.jpg".split()),
                                                                      frozenset("c.jpg d.jpg".split())}  # fmt: skip


def test_a_mirrored_picture_is_no_copy() -> None:
    mirrored = drawn(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert _paths(scanned({"a.jpg": File(drawn(1)), "b.jpg": File(mirrored)})) == []


@pytest.mark.parametrize("size", [16, 30, 60])
def test_a_fixed_camera_at_another_moment_takes_no_copy(size: int) -> None:
    files = {}
    for moment in range(4):
        scene = drawn(7)
        x = 15 + 55 * moment
        ImageDraw.Draw(scene).rectangle((x, 90, x + size, 90 + size), fill=250, outline=0, width=size // 5)
        files[f"{moment}.jpg"] = File(encoded(scene, 90))
    assert _paths(scanned(files)) == []


def test_pictures_of_one_grey_are_copies_by_their_bytes_alone() -> None:
    files = {
        "a.jpg": File(Image.new("L", (100, 100), 200)),
        "b.jpg": File(Image.new("L", (100, 100), 201)),
        "c.jpg": File(Image.new("L", (100, 100), 200)),
    }
    assert _paths(scanned(files)) == [("a.jpg", "c.jpg")]


def test_skies_are_no_copies_of_each_other() -> None:
    files = {}
    for place in range(6):  # from dark to light downwards, by different ways
        down = 120 + 20 * place + (60 - 8 * place) * np.linspace(-1, 1, 90)[:, None] ** (1 + 2 * (place % 2))
        rng = np.random.default_rng(place)
        sky = down + rng.normal(0, 1, (90, 120))
        files[f"{place}.jpg"] = File(Image.fromarray(np.clip(sky, 0, 255).astype(np.uint8)))
    assert _paths(scanned(files)) == []


def test_a_chain_does_not_glue_strangers_together() -> None:
    # Each shows the scene some way on: neighbours share 95 of 100 columns, the first and the last one half.
    wide = drawn(5, 480, 180)
    files = {f"{k:02}.jpg": File(wide.crop((12 * k, 0, 12 * k + 240, 180))) for k in range(11)}
    found = _paths(scanned(files))
    assert found
    for paths in found:
        numbers = [int(path[:2]) for path in paths]
        assert max(numbers) - min(numbers) <= 6, paths


def test_the_best_copy_is_the_largest_then_the_sharpest_then_the_first_by_name() -> None:
    image = drawn(3)
    soft = image.resize((60, 45)).resize((240, 180), Image.Resampling.BICUBIC)
    files = {
        "a.jpg": File(soft),
        "b.jpg": File(image.resize((120, 90))),
        "c.jpg": File(image),
        "d.jpg": File(image),
        "e.jpg": File(image.resize((480, 360))),
    }
    assert _paths(scanned(files)) == [("e.jpg", "c.jpg", "d.jpg", "a.jpg", "b.jpg")]


def test_of_two_alike_the_lossless_one_is_better() -> None:
    files = {"a.jpg": File(encoded(drawn(3), 92)), "b.png": File(drawn(3), more={"format": b"PNG"})}
    assert _paths(scanned(files)) == [("b.png", "a.jpg")]


def test_a_group_tells_its_labels_parts_and_whether_it_is_exact() -> None:
    files = {
        "test/cat/a.jpg": File(drawn(1), "cat", "held"),
        "train/dog/a.jpg": File(drawn(1), "dog", "fit"),
        "train/cat/b.jpg": File(drawn(2), "cat", "fit"),
        "train/cat/c.jpg": File(encoded(drawn(2), 40), "cat", "fit"),
    }
    crossing, near = groups(scanned(files))
    assert (crossing.exact, crossing.labels, crossing.parts) == (True, ("cat", "dog"), ("fit", "held"))
    assert (near.exact, near.labels, near.parts) == (False, ("cat",), ("fit",))


def test_broken_pictures_have_no_copies() -> None:
    files = {name: File(fault=Fault.EMPTY) for name in ("a.jpg", "b.jpg")}
    assert _paths(scanned(files)) == []
    assert groups(scanned({})) == ()


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_groups_do_not_depend_on_the_order(rng: random.Random) -> None:
    files = {f"{seed}.jpg": File(drawn(seed, 120, 90)) for seed in range(6)}
    files |= {f"{seed} again.jpg": File(encoded(drawn(seed, 120, 90), 50)) for seed in range(3)}
    files |= {f"{seed} less.jpg": File(_margins(drawn(seed, 120, 90), 0.05, 0, 0.05, 0)) for seed in range(2)}
    scan = scanned(files)
    order = list(range(len(scan.pictures)))
    rng.shuffle(order)
    entries = tuple(scan.pictures[i] for i in order)
    assert groups(Scan(scan.root, entries, entries, scan.looks[order])) == groups(scan)
