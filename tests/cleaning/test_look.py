from __future__ import annotations

import hashlib
import io
import os
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

from scalenet.cleaning import endings, look
from scalenet.cleaning.look import looks, strict_decoder
from scalenet.cleaning.values import Fault
from tests.cleaning.samples import PIXELS, chunk, differing, encoded, fault, look_at, nobody, scene


@pytest.fixture
def seen(tmp_path):
    return lambda data, name="a.jpg", **options: look_at(tmp_path / name, data, **options)


def test_several_pictures_in_one_jpeg_are_one_picture(seen):
    mpo = encoded(scene(), "MPO", save_all=True, append_images=[scene(seed=1)])
    found = seen(mpo)
    assert (fault(found), found["format"], found["frames"]) == ("NONE", b"JPEG", 1)


@pytest.mark.parametrize(
    "content", [b"just words", b"x", b"\0" * 4000, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"BMW and Audi\n" * 9]
)
def test_what_is_no_picture_is_foreign(seen, content):
    assert fault(seen(content)) == "FOREIGN"
    assert fault(seen(content, "a.tga")) == "FOREIGN"


def test_tga_goes_by_its_name(seen):
    data = encoded(scene(), "TGA")
    assert fault(seen(data, "a.TGA")) == "NONE"
    assert fault(seen(data, "a.jpg")) == "FOREIGN"


def test_empty_and_absent(seen, tmp_path):
    assert fault(seen(b"")) == "EMPTY"
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["nowhere.jpg", "folder.jpg", "pipe.jpg"]
    found = looks([str(tmp_path / name) for name in names], PIXELS)
    assert [fault(record) for record in found] == ["GONE"] * 3


def test_a_file_that_may_not_be_read_is_denied(tmp_path, monkeypatch):
    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(scene(), "JPEG"))
    file.chmod(0)
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    with nobody():
        assert fault(looks(["a.jpg"], PIXELS)[0]) == "DENIED"


def test_a_bomb_is_told_by_its_header_and_not_decoded(seen, monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(look, "reduced_grey", refuse)
    png = encoded(scene(), "PNG")
    header = struct.pack(">II", 60000, 50000) + png[24:29]
    huge = png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]
    jpeg = bytearray(encoded(scene(), "JPEG"))
    place = jpeg.index(b"\xff\xc0")
    jpeg[place + 5 : place + 9] = struct.pack(">HH", 65000, 65000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as in the processes that look
    for data, width in ((huge, 60000), (bytes(jpeg), 65000)):
        found = seen(data, pixels=178_956_970)
        assert (fault(found), found["width"]) == ("BOMB", width)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)
    assert fault(seen(huge, pixels=178_956_970)) == "BOMB"
    assert fault(seen(png, pixels=96 * 80 - 1)) == "BOMB"


def test_the_limit_itself_is_decoded(seen):
    assert fault(seen(encoded(scene(), "PNG"), pixels=96 * 80)) == "NONE"


def test_text_that_unfolds_without_end_is_not_read(seen):
    png = encoded(scene(), "PNG")
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(90_000_000), 9))
    assert fault(seen(png[:33] + text + png[33:])) == "CORRUPT"


def test_rot_in_a_jpeg_that_stops_the_decoder_is_corrupt_not_truncated(seen):
    whole = encoded(scene(200, 200), "JPEG", progressive=True)
    table = whole.index(b"\xff\xc4") + 5
    assert fault(seen(whole[:table] + b"\xff" * 16 + whole[table + 16 :])) == "CORRUPT"  # codes that cannot be
    second = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 2)
    assert fault(seen(whole[:second] + b"\xff\xe1\xff\xff" + whole[second + 4 :])) == "CORRUPT"  # longer than the file


@pytest.mark.parametrize(
    ("format", "mode", "name", "stored"),
    [
        ("JPEG", "RGB", b"JPEG", b"RGB"),
        ("JPEG", "L", b"JPEG", b"L"),
        ("JPEG", "CMYK", b"JPEG", b"CMYK"),
        ("PNG", "RGB", b"PNG", b"RGB"),
        ("PNG", "P", b"PNG", b"P"),
        ("PNG", "RGBA", b"PNG", b"RGBA"),
        ("PNG", "LA", b"PNG", b"LA"),
        ("PNG", "1", b"PNG", b"1"),
        ("GIF", "P", b"GIF", b"P"),
        ("BMP", "RGB", b"BMP", b"RGB"),
        ("TIFF", "CMYK", b"TIFF", b"CMYK"),
        ("WEBP", "RGB", b"WEBP", b"RGB"),
        ("JPEG2000", "RGB", b"JPEG2000", b"RGB"),
        ("AVIF", "RGB", b"AVIF", b"RGB"),
    ],
)
@pytest.mark.parametrize("size", [(48, 56), (200, 160)])
def test_formats_and_modes_are_told_as_stored_and_looked_at_alike(seen, format, mode, name, stored, size):
    picture = scene(*size)
    data = encoded(picture.convert(mode), format)
    found = seen(data)  # whatever its name says
    assert (fault(found), found["format"], found["mode"], found["frames"]) == ("NONE", name, stored, 1)
    assert (found["width"], found["height"], found["orientation"]) == (*size, 1)
    assert bytes(found["sha256"]) == hashlib.sha256(data).digest()
    plain = np.asarray(picture.convert("L"), float)
    assert found["brightness"] == pytest.approx(plain.mean(), abs=3)
    assert mode == "1" or found["contrast"] == pytest.approx(plain.std(), abs=5)
    expected = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    assert np.abs(found["thumb"] - expected).mean() < (25 if mode == "1" else 4)
    assert found["phash"] == found["upright"]


def test_sixteen_bits_of_colour_are_named(seen):
    row = b"\0" + struct.pack(">3H", 65535, 0, 128) * 40
    header = struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)
    png = endings.PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 40)) + chunk(b"IEND", b"")
    found = seen(png)
    assert (fault(found), found["mode"]) == ("NONE", b"RGB;16")
    assert found["brightness"] == pytest.approx(255 * 0.299, abs=1)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_frames_are_counted_and_the_first_is_looked_at(seen, format):
    frames = [Image.new("L", (80, 70), 30 + 90 * i).convert("RGB") for i in range(3)]
    found = seen(encoded(frames[0], format, save_all=True, append_images=frames[1:]))
    assert (fault(found), found["frames"]) == ("NONE", 3)
    assert found["brightness"] == pytest.approx(30, abs=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format", "size"), [("JPEG", (48, 40)), ("JPEG", (150, 190)), ("PNG", (150, 190))])
def test_a_turned_picture_is_known_as_stored_and_upright(seen, orientation, format, size):
    exif = Image.Exif()
    exif[274] = orientation
    picture = scene(*size, seed=3)
    data = encoded(picture, format, exif=exif)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))  # Pillow's own way to the upright picture
    found, upright, stored = seen(data), seen(encoded(turned, "PNG")), seen(encoded(picture, "PNG"))
    assert (found["orientation"], found["width"], found["height"]) == (orientation, *size)
    assert differing(found["phash"], stored["phash"]) <= 2
    assert differing(found["upright"], upright["phash"]) <= 2
    assert np.abs(found["thumb"].astype(int) - upright["thumb"]).mean() < 3
    if orientation > 1:
        assert differing(found["phash"], found["upright"]) > 8


def test_a_turned_tiff_is_turned_by_its_decoder(seen):
    picture = scene(70, 90)
    exif = Image.Exif()
    exif[274] = 6
    found, upright = (
        seen(encoded(picture, "TIFF", exif=exif)),
        seen(encoded(picture.transpose(Image.Transpose.ROTATE_270), "PNG")),
    )
    assert (found["orientation"], found["width"], found["height"]) == (1, 90, 70)
    assert found["phash"] == found["upright"] == upright["phash"]


def test_nonsense_in_metadata_harms_no_picture(seen):
    picture = scene()
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        found = seen(encoded(picture, "JPEG", exif=exif))
        assert (fault(found), found["orientation"]) == ("NONE", 1)
    odd = Image.Exif()
    odd[274] = 99
    assert seen(encoded(picture, "JPEG", exif=odd))["orientation"] == 1


def test_pictures_looked_at_together_are_as_alone(tmp_path):
    files = []
    for number, size in enumerate([(32, 32), (20, 30), (32, 32), (300, 200), (32, 32), (20, 30)]):
        files.append(str(tmp_path / f"{number}.jpg"))
        scene(*size, seed=number).save(files[-1])
    (tmp_path / "2.jpg").write_bytes(b"nothing")
    together = looks(files, PIXELS)
    for file, record in zip(files, together, strict=True):
        alone = looks([file], PIXELS)[0]
        for field in record.dtype.names:
            np.testing.assert_allclose(record[field], alone[field], rtol=1e-5) if record[
                field
            ].dtype.kind in "fu" else None
    assert not together[2]["thumb"].any()
    assert len({int(record["phash"]) for record in together}) == 6


def test_a_strict_decoder_decodes_jpegs_and_what_it_refuses_is_corrupt(seen):
    def refuse(*_):
        raise look.Faulty(Fault.CORRUPT)

    jpeg, png = encoded(scene(), "JPEG"), encoded(scene(), "PNG")
    assert fault(seen(jpeg, strict=refuse)) == "CORRUPT"
    assert fault(seen(png, strict=refuse)) == "NONE"
    assert seen(jpeg, strict=lambda *_: None).tobytes() == seen(jpeg).tobytes()  # Pillow is asked then
    assert seen(jpeg, strict=lambda *_: Image.new("L", (48, 40), 9))["brightness"] == 9
    assert fault(seen(jpeg[:-9], strict=refuse)) == "TRUNCATED"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}])
@pytest.mark.parametrize("size", [(33, 41), (64, 65), (131, 150), (2600, 1400)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_strict_decoder_sees_what_pillow_sees(seen, options, size, mode):
    pytest.importorskip("simplejpeg")
    data = encoded(scene(*size, mode=mode), "JPEG", **options)
    assert seen(data, strict=strict_decoder()).tobytes() == seen(data).tobytes()


@pytest.mark.parametrize(
    ("message", "rot"),  # libjpeg's own (jerror.h)
    [
        ("Corrupt JPEG data: premature end of data segment", True),
        ("Corrupt JPEG data: bad Huffman code", True),
        ("Corrupt JPEG data: 14 extraneous bytes before marker 0xd9", True),
        ("Corrupt JPEG data: found marker 0xd9 instead of RST3", True),
        ("Premature end of JPEG file", True),
        ("Corrupt JPEG data: 2 extraneous bytes before marker 0xdb", False),
        ("Corrupt JPEG data: 9 extraneous bytes before marker 0xe1", False),
        ("Unknown Adobe color transform code 9", False),
        ("Warning: unknown JFIF revision number 9.01", False),
        ("Unsupported color conversion request", False),
    ],
)
def test_which_complaints_are_rot(monkeypatch, message, rot):
    def decode_jpeg(*_, **__):
        raise ValueError(message)

    pretended = SimpleNamespace(decode_jpeg=decode_jpeg, decode_jpeg_header=lambda _: (8, 8, "Gray", ""))
    monkeypatch.setitem(sys.modules, "simplejpeg", pretended)
    if rot:
        with pytest.raises(look.Faulty, match="CORRUPT"):
            strict_decoder()(b"", 2)
    else:
        assert strict_decoder()(b"", 2) is None


def test_without_simplejpeg_there_is_no_strict_decoder(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    assert strict_decoder() is None


def test_rotten_jpegs_are_found_where_simplejpeg_is_installed(seen):
    pytest.importorskip("simplejpeg")
    strict = strict_decoder()
    for seed in range(12):
        whole = encoded(scene(200, 200, seed), "JPEG", quality=95)
        assert fault(seen(whole, strict=strict)) == "NONE"
        start = whole.index(b"\xff\xda") + 14
        marked = whole.index(b"\xff\x00", start + (len(whole) - start) // 3)  # in the codes, 255 is followed by 0
        assert fault(seen(whole[: marked + 1] + b"\xd3" + whole[marked + 2 :], strict=strict)) == "CORRUPT"
        assert fault(seen(whole[:marked] + whole[marked + 400 :], strict=strict)) == "CORRUPT"
    for mode in ("CMYK", "L"):
        assert fault(seen(encoded(scene(mode=mode), "JPEG"), strict=strict)) == "NONE"


def test_what_is_of_one_grey_may_be_of_many_colours(tmp_path: Path) -> None:
    red, green = (200, 60, 60), (60, 131, 60)  # one luma, 0.299 R + 0.587 G + 0.114 B = 102
    image = Image.new("RGB", (200, 160), red)
    for x in range(0, 200, 40):
        image.paste(green, (x, 0, x + 20, 160))
    files = [str(tmp_path / name) for name in ("a.jpg", "a.png", "grey.png")]
    image.save(files[0], quality=95)
    image.save(files[1])
    image.convert("L").save(files[2])
    found = looks(files, 10**6)
    assert found["contrast"].max() < 5
    assert found["colour"][:2] == pytest.approx(
        70, abs=6
    )  # half of the pixels at either end of 200 - 60, but for the edges
    assert found["colour"][2] == 0
