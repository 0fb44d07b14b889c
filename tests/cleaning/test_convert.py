from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageCms

from scalenet.cleaning import convert as module
from scalenet.cleaning import converter
from scalenet.cleaning.convert import convert
from scalenet.cleaning.converter import converted
from scalenet.cleaning.form import Form
from scalenet.cleaning.journal import alone
from scalenet.cleaning.manifest import Manifest, listed
from scalenet.cleaning.partition import partition
from scalenet.cleaning.values import Judgement, Limits
from scalenet.errors import ScalenetError
from tests.cleaning.handmade import seen, state
from tests.data.pictures import folder, pixels


def everything(root) -> Manifest:
    return listed(Judgement(seen(root), Limits(), (), (), ()))


def paths(root) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def opened(data: Image.Image, format: str, **options) -> Image.Image:
    file = io.BytesIO()
    data.save(file, format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def flat(colour, mode: str = "RGB", size=(8, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


def middle(image: Image.Image):
    return image.getpixel((image.width // 2, image.height // 2))


PNG = Form("png")


def test_a_folder_becomes_another(tmp_path):
    root = folder(tmp_path / "pets", {"train/cat": 3, "train/dog/deep": 2, "test/cat": 1, "test/dog": 1})
    before = state(root)
    done = convert(everything(root), tmp_path / "out", Form("jpeg", side=12), workers=2)
    assert (done.pictures, done.before, done.renamed, done.failed, done.unprofiled) == (7, 0, 0, (), ())
    assert paths(tmp_path / "out") == {path[:-4] + ".jpg" for path in paths(root)}
    with Image.open(tmp_path / "out/train/dog/deep/001.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (12, 12))
    assert state(root) == before
    record = json.loads((tmp_path / "out.scalenet" / "convert.json").read_text())
    assert {"path": "test/cat/000.png", "to": "test/cat/000.jpg"} in record["pictures"]
    assert record["form"] == {"format": "jpeg", "mode": "RGB", "side": 12, "quality": None}


def test_names_that_differ_in_the_ending_or_in_case_alone_all_survive(tmp_path):
    root = tmp_path / "pets"
    (root / "cat").mkdir(parents=True)
    for number, name in enumerate(("a.bmp", "a.jpg", "a.png", "A.PNG", "a_jpg.png", "b.png", "ss.png", "ß.png")):
        Image.fromarray(pixels(number)).save(root / "cat" / name)
    done = convert(everything(root), tmp_path / "out", PNG, workers=1)
    assert (done.pictures, done.renamed) == (8, 5)
    written = paths(tmp_path / "out")
    assert len({path.casefold() for path in written}) == 8
    told = json.loads(done.record.read_text())["pictures"]
    for line in told:
        with Image.open(root / line["path"]) as one, Image.open(tmp_path / "out" / line["to"]) as other:
            assert np.array_equal(np.asarray(one.convert("RGB")), np.asarray(other))


def test_a_picture_with_the_name_of_a_folder_survives(tmp_path):
    root = folder(tmp_path / "pets", {"cat/a.jpg": 2, "dog": 2})
    (root / "dog" / "000.png").rename(root / "cat" / "a.png")
    done = convert(everything(root), tmp_path / "out", Form("jpeg"))
    assert (done.pictures, done.before, done.failed) == (4, 0, ())
    assert paths(tmp_path / "out") == {"cat/a.jpg/000.jpg", "cat/a.jpg/001.jpg", "cat/a_png.jpg", "dog/001.jpg"}


def test_the_parts_of_a_list_become_folders(tmp_path):
    root = folder(tmp_path / "pets", {"wrapped/cat/deep": 10, "wrapped/dog": 10})
    whole = everything(root / "wrapped")
    divided = partition(whole, 0.2, 0.2, 0)
    convert(divided, tmp_path / "out", PNG, workers=1)
    found = paths(tmp_path / "out")
    assert len(found) == 20
    counts = {part: sum(path.startswith(part + os.sep) for path in found) for part in ("train", "val", "test")}
    assert counts == {"train": 12, "val": 4, "test": 4}
    assert all(path.split(os.sep)[1:3] == ["cat", "deep"] or path.split(os.sep)[1] == "dog" for path in found)


def test_the_layout_of_given_parts_is_not_doubled(tmp_path):
    root = folder(tmp_path / "pets", {"train/cat": 6, "train/dog": 6, "test/cat": 2, "test/dog": 2})
    convert(partition(everything(root), 0.0, 0.2, 0), tmp_path / "out", PNG, workers=1)
    assert paths(tmp_path / "out") == paths(root)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (opened(flat(128, "L"), "PNG"), (128, 128, 128)),
        (Image.fromarray(np.full((6, 8), 257 * 100, np.uint16)), (100, 100, 100)),
        (opened(Image.fromarray(np.full((6, 8), 257 * 200, np.uint16)), "PNG"), (200, 200, 200)),
        (opened(Image.fromarray(np.full((6, 8), 257 * 30, np.uint16)), "TIFF"), (30, 30, 30)),
        (opened(flat((0, 255, 0, 0), "RGBA"), "PNG"), (255, 255, 255)),
        (opened(flat((255, 0, 0, 128), "RGBA"), "WEBP", lossless=True), (255, 127, 127)),
        (opened(flat((10, 255), "LA"), "PNG"), (10, 10, 10)),
        (opened(flat((0, 0, 255)).quantize(4), "PNG"), (0, 0, 255)),
        (opened(flat((200, 100, 50)).quantize(4), "GIF"), (200, 100, 50)),
        (opened(flat(1, "1"), "PNG"), (255, 255, 255)),
        (opened(flat((0, 255, 255, 0), "CMYK"), "JPEG", quality=100), (255, 0, 0)),  # magenta and yellow are red
        (opened(flat((0, 0, 0, 255), "CMYK"), "TIFF"), (0, 0, 0)),
        (opened(flat((50, 100, 150)).convert("YCbCr"), "TIFF"), (50, 100, 150)),
    ],
)
def test_colours(image, expected):
    done, unprofiled = converted(image, Form("png"))
    assert (done.mode, unprofiled) == ("RGB", False)
    assert middle(done) == pytest.approx(expected, abs=3)
    grey, _ = converted(image, Form("png", mode="L"))
    red, green, blue = expected
    assert (grey.mode, middle(grey)) == ("L", pytest.approx(0.299 * red + 0.587 * green + 0.114 * blue, abs=2))


def test_transparent_palettes_lie_on_white():
    image = flat((0, 0, 255)).quantize(4)
    done, _ = converted(opened(image, "GIF", transparency=image.getpixel((0, 0))), PNG)
    assert middle(done) == (255, 255, 255)


def test_the_first_frame_of_an_animation():
    frames = [flat((250, 0, 0)), flat((0, 0, 250))]
    image = opened(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert middle(converted(image, PNG)[0]) == pytest.approx((250, 0, 0), abs=3)


@pytest.mark.parametrize("value", range(1, 9))
def test_exif_is_applied(value):
    upright = Image.fromarray(pixels(3, 20, 30))
    # How a camera stores an upright picture under each of the values (EXIF 2.32, 4.6.4): the inverse of what undoes it.
    stored = {
        1: upright, 2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180), 4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE), 6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE), 8: upright.transpose(Image.Transpose.ROTATE_270),
    }[value]  # fmt: skip
    exif = Image.Exif()
    exif[274] = value
    done, _ = converted(opened(stored, "PNG", exif=exif), PNG)
    assert np.array_equal(np.asarray(done), np.asarray(upright))


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [((300, 200), 100, (150, 100)), ((200, 300), 100, (100, 150)), ((90, 80), 100, (90, 80)), ((999, 7), 5, (714, 5))],
)
def test_the_shorter_side_is_reduced_and_never_enlarged(size, side, expected):
    for format in ("JPEG", "PNG"):
        assert converted(opened(flat((9, 9, 9), size=size), format), Form("png", side=side))[0].size == expected


def test_profiles_become_srgb_or_are_told():
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    colour = (200, 100, 50)
    for profile, unprofiled in ((srgb, False), (lab, True), (b"damaged", True)):
        done = converted(opened(flat(colour), "PNG", icc_profile=profile), PNG)
        assert (middle(done[0]), done[1]) == (colour, unprofiled)


def wide_gamut() -> bytes:
    """A matrix profile whose red and green are exchanged: a picture under it must come out exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    tags = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    data[tags[b"rXYZ"] : tags[b"rXYZ"] + 4], data[tags[b"gXYZ"] : tags[b"gXYZ"] + 4] = b"gXYZ", b"rXYZ"
    return bytes(data).replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be")).replace(b"sRGB", b"odd!")


def test_a_profile_moves_the_colours():
    done, unprofiled = converted(opened(flat((200, 100, 50)), "PNG", icc_profile=wide_gamut()), PNG)
    assert not unprofiled
    assert middle(done) == pytest.approx((100, 200, 50), abs=3)


def test_what_the_file_said_besides_pixels_is_not_kept(tmp_path):
    exif = Image.Exif()
    exif[274], exif[271] = 6, "camera"
    flat((1, 2, 3), size=(30, 20)).save(tmp_path / "a.jpg", exif=exif, icc_profile=wide_gamut(), comment=b"secret")
    for form in (Form("jpeg"), Form("png"), Form("webp")):
        converter.write(str(tmp_path / "a.jpg"), str(tmp_path / "out"), form)
        with Image.open(tmp_path / "out") as image:
            image.load()
            assert image.size == (20, 30)
            assert not {"exif", "icc_profile", "comment"} & image.info.keys()
            assert not image.getexif()


def test_quality_counts(tmp_path):
    Image.fromarray(pixels(0, 60, 60)).save(tmp_path / "a.png")
    sizes = []
    for quality in (20, None, 99):
        converter.write(str(tmp_path / "a.png"), str(tmp_path / "out"), Form("jpeg", quality=quality))
        sizes.append(os.path.getsize(tmp_path / "out"))
    assert sizes[0] < sizes[1] < sizes[2]


def test_what_cannot_be_read_costs_only_itself(tmp_path):
    root = folder(tmp_path / "pets", {"cat": 3, "dog": 3})
    whole = everything(root)
    (root / "cat" / "001.png").write_bytes(b"no picture any more")
    (root / "dog" / "001.png").unlink()
    done = convert(whole, tmp_path / "out", PNG, workers=1)
    assert done.pictures == 4
    assert [failure.path for failure in done.failed] == ["cat/001.png", "dog/001.png"]
    assert "No such file" in done.failed[1].why
    assert len(paths(tmp_path / "out")) == 4


def test_goes_on_where_it_was_broken_off(tmp_path):
    root = folder(tmp_path / "pets", {"cat": 20, "dog": 20})
    whole = everything(root)

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(whole, tmp_path / "out", PNG, stop, workers=1)
    kept = paths(tmp_path / "out")
    assert 0 < len(kept) < 40
    (tmp_path / "out" / "cat" / "000.png").write_bytes(b"")  # as a loss of power leaves it
    (tmp_path / "out" / "dog" / ".scalenet-1.part").write_bytes(b"half")  # as a killed process leaves it
    reports = []
    done = convert(whole, tmp_path / "out", PNG, lambda *told: reports.append(told), workers=1)
    assert (done.pictures, done.before) == (40, len(kept) - 1)
    assert reports[-1] == (40, 40, "converting")
    assert len(paths(tmp_path / "out")) == 40
    with Image.open(tmp_path / "out" / "cat" / "000.png") as image:
        image.load()
    assert convert(whole, tmp_path / "out", PNG, workers=1).before == 40


@pytest.mark.parametrize("form", [Form("webp"), Form("png", side=3)])
def test_a_folder_with_other_things_is_refused(tmp_path, form):
    whole = everything(folder(tmp_path / "pets", {"cat": 2, "dog": 2}))
    convert(whole, tmp_path / "out", PNG, workers=1)
    before = state(tmp_path / "out")
    with pytest.raises(ScalenetError, match="is not empty"):
        convert(whole, tmp_path / "out", form, workers=1)
    assert state(tmp_path / "out") == before


def test_never_among_the_pictures(tmp_path):
    whole = everything(folder(tmp_path / "a" / "pets", {"cat": 2, "dog": 2}))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    for out in ("a/pets", "a/pets/out", "a", "link/pets/cat/new"):
        with pytest.raises(ScalenetError, match="inside the other"):
            convert(whole, tmp_path / out, PNG, workers=1)
    with pytest.raises(ScalenetError, match="lies outside"):
        convert(replace(whole, pictures=(replace(whole.pictures[0], path="../x.png"),)), tmp_path / "out", PNG)


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    root = folder(tmp_path / "pets", {"cat": 2, "dog": 2})
    (tmp_path / "out.scalenet").mkdir()
    with alone(tmp_path / "out.scalenet"), pytest.raises(ScalenetError, match="in use by another process"):
        convert(everything(root), tmp_path / "out", PNG)
    assert convert(everything(root), tmp_path / "out", PNG).pictures == 4


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    whole = everything(folder(tmp_path / "pets", {"cat": 2, "dog": 2}))
    told = {"why": os.strerror(errno.ENOSPC), "full": True, "unprofiled": False}
    monkeypatch.setattr(module, "answer", lambda child: [told] * 4)
    with pytest.raises(ScalenetError, match=r"No space left on device.*after 0 of 4"):
        convert(whole, tmp_path / "out", PNG, workers=1)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def refuse(old: str, new: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Image.fromarray(pixels(0)).save(tmp_path / "a.png")
    monkeypatch.setattr(os, "replace", refuse)
    told = converter._told(str(tmp_path / "a.png"), str(tmp_path / "out.png"), PNG)
    assert told == {"why": "No space left on device", "full": True, "unprofiled": False}
    assert paths(tmp_path) == {"a.png"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"side": 0}, "side is 0"), ({"quality": 101}, "1 to 100"), ({"format": "png", "quality": 90}, "PNG keeps")],
)
def test_forms_that_make_no_sense(options, complaint):
    with pytest.raises(ScalenetError, match=complaint):
        Form(**options)
