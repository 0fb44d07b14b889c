"""How each file of `planted.py` is made: sound pictures, copies, broken files, bad pictures, odd formats."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps
from planted_scenes import HARD, SCENES, Array, Base, Rng, camera, exposed, luma, moment, smooth

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}  # fmt: skip  # what makes the stored picture of one that is to be shown by that EXIF orientation
ORIENTATION = 0x0112
ImageFile.MAXBLOCK = 2**22  # Pillow's buffer for a progressive JPEG: too small for noisy pictures as it is


@dataclass(frozen=True)
class Task:
    """One file to be made. Its random numbers come from `seed` alone, whatever process makes it."""

    path: str
    make: Callable[[Rng, Task, Path], None]
    seed: tuple[int, ...]
    scene: str
    height: int
    width: int
    sources: tuple[str, ...] = ()  # real pictures to make it of, in place of drawn scenes
    original: str = ""  # what it is a copy of
    camera: int = 0  # what a fixed camera looks at


def make(root: str, task: Task) -> None:
    """Makes the file."""
    path = Path(root, task.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    task.make(np.random.default_rng(task.seed), task, path)


def base_of(task: Task) -> Base:
    """Each call gives another scene: the task's real pictures first, then drawn ones."""
    left = list(task.sources)

    def scene(rng: Rng, height: int, width: int) -> Array:
        if not left:
            return SCENES[task.scene](rng, height, width)
        with Image.open(left.pop(0)) as file:
            picture = file.convert("RGB")
        scale = max(height / picture.height, width / picture.width, rng.uniform(1.7, 2.0))
        high, wide = height / scale, width / scale
        top, side = rng.uniform(0, picture.height - high), rng.uniform(0, picture.width - wide)
        window = (side, top, side + wide, top + high)
        return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, window), np.float32)

    return scene


def sharp(rng: Rng, task: Task) -> Array:
    """A scene without a fault."""
    scene = base_of(task)(rng, task.height, task.width)
    return scene if task.sources else exposed(rng, scene)


def save(rng: Rng, picture: Image.Image, path: Path) -> None:
    """In the format that the suffix says, with the settings that one meets."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        picture.save(path, "JPEG", **jpeg_settings(rng))
    elif path.suffix == ".png":
        picture.save(path, compress_level=int(rng.integers(1, 7)))
    else:
        picture.save(path, quality=int(rng.integers(80, 96)), method=2)


def jpeg_settings(rng: Rng) -> dict[str, int | bool]:
    return {
        "quality": int(rng.integers(78, 97)), "subsampling": int(rng.choice([0, 1, 2])),
        "progressive": bool(rng.random() < 0.25), "optimize": bool(rng.random() < 0.3),
    }  # fmt: skip


def jpeg(rng: Rng, picture: Image.Image, **settings: int | bool) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", **{**jpeg_settings(rng), **settings})
    return buffer.getvalue()


# Sound pictures.


def plain(rng: Rng, task: Task, path: Path) -> None:
    save(rng, camera(rng, sharp(rng, task)), path)


def grey(rng: Rng, task: Task, path: Path) -> None:
    picture = camera(rng, sharp(rng, task)).convert("L")
    save(rng, picture if rng.random() < 0.5 else picture.convert("RGB"), path)


def hard(kind: str, rng: Rng, task: Task, path: Path) -> None:
    most = 0.5 if kind in ("diagram", "product") else 2.5
    save(rng, camera(rng, HARD[kind](rng, base_of(task), task.height, task.width), most), path)


def watched(rng: Rng, task: Task, path: Path) -> None:
    view = np.random.default_rng((*task.seed[:1], 7, task.camera))
    save(rng, camera(rng, moment(view, rng, base_of(task), task.height, task.width)), path)


# Copies.


def original_of(task: Task, path: Path) -> Path:
    """The file that is copied; both paths are relative to the same root."""
    return path.parents[task.path.count("/")] / task.original


def opened(task: Task, path: Path) -> Image.Image:
    with Image.open(original_of(task, path)) as file:
        picture: Image.Image = file.convert("L" if file.mode == "L" else "RGB")
    return picture


def exact(rng: Rng, task: Task, path: Path) -> None:
    path.write_bytes(original_of(task, path).read_bytes())


def reencoded(rng: Rng, task: Task, path: Path) -> None:
    picture = opened(task, path)
    if path.suffix == ".jpg":
        picture.save(path, quality=int(rng.integers(30, 96)))
    else:
        save(rng, picture, path)


def resized(rng: Rng, task: Task, path: Path) -> None:
    picture = opened(task, path)
    by = 1.2 if rng.random() < 0.15 else rng.uniform(0.5, 0.9)
    how = [Image.Resampling.LANCZOS, Image.Resampling.BICUBIC, Image.Resampling.BILINEAR][int(rng.integers(3))]
    size = round(picture.width * by), round(picture.height * by)
    save(rng, picture.resize(size, how), path)


def cropped(rng: Rng, task: Task, path: Path) -> None:
    """Of one side or both, 2 to 8 % are cut away, at either end or at both."""
    picture = opened(task, path)
    sides = [(True, True), (True, False), (False, True)][int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    box = []
    for length, cut in zip(picture.size, sides, strict=True):
        lost = rng.uniform(0.02, 0.08) * length if cut else 0.0
        start = round(lost * rng.choice([0.0, 0.5, 1.0, rng.random()]))
        box.append((start, start + round(length - lost)))
    save(rng, picture.crop((box[0][0], box[1][0], box[0][1], box[1][1])), path)


def with_orientation(data: bytes, orientation: int) -> bytes:
    """The JPEG file with an EXIF orientation put in, its picture untouched."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    block = exif.tobytes()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def turned_back(rng: Rng, task: Task, path: Path) -> None:
    """Stored turned, with the tag by which it is shown as the original is."""
    orientation = int(rng.choice([2, 3, 4, 5, 6, 6, 7, 8, 8]))
    picture = opened(task, path).transpose(TURNS[orientation])
    path.write_bytes(with_orientation(jpeg(rng, picture), orientation))


def tagged(rng: Rng, task: Task, path: Path) -> None:
    """Stored as the original is, with a tag by which it is shown turned."""
    data = original_of(task, path).read_bytes()
    path.write_bytes(with_orientation(data, int(rng.choice([2, 3, 6, 6, 8, 8]))))


# Broken files.


def cut_jpeg(rng: Rng, task: Task, path: Path) -> None:
    data = jpeg(rng, camera(rng, sharp(rng, task)))
    kept = float(rng.choice([rng.uniform(0.03, 0.94), rng.uniform(0.94, 0.99), 0.01], p=[0.6, 0.35, 0.05]))
    path.write_bytes(data[: min(int(len(data) * kept), len(data) - 100)])


def cut_png(rng: Rng, task: Task, path: Path) -> None:
    buffer = io.BytesIO()
    camera(rng, sharp(rng, task)).save(buffer, "PNG", compress_level=3)
    data = buffer.getvalue()
    kept = float(rng.choice([rng.uniform(0.02, 0.94), rng.uniform(0.94, 0.99)], p=[0.65, 0.35]))
    path.write_bytes(data[: int(len(data) * kept)])


def empty(rng: Rng, task: Task, path: Path) -> None:
    path.write_bytes(b"")


def text(rng: Rng, task: Task, path: Path) -> None:
    words = " ".join(rng.choice(["not", "found", "error", "access", "page", "request", "gone"], 60))
    forms = [
        words,
        f"<!DOCTYPE html><html><body><h1>404</h1>{words}</body></html>",
        f'{{"error": "{words}"}}',
        "\n" * 40,
    ]
    path.write_text(forms[int(rng.integers(len(forms)))])


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(rng: Rng, task: Task, path: Path) -> None:
    """A file of a few hundred bytes whose header states half a gigapixel or more."""
    side = int(rng.choice([23_000, 30_000, 50_000]))
    if path.suffix == ".png":
        header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        start = png_chunk(b"IDAT", zlib.compress(bytes(4096)))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + start + png_chunk(b"IEND", b""))
        return
    data = jpeg(rng, Image.new("RGB", (16, 16), "red"), progressive=False)
    frame = data.index(b"\xff\xc0")  # marker, length, precision, height, width
    path.write_bytes(data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :])


def rotten(rng: Rng, task: Task, path: Path) -> None:
    """A JPEG with flipped bits in the coded picture, such that a strict decoder warns of it.

    By turns a stuffed zero becomes a marker that decoders refuse, or one that most pass over (a restart where none is
    due), or scattered bits flip; whether these are noticed only simplejpeg can tell, so without it the second is done.
    """
    data = bytearray(jpeg(rng, camera(rng, sharp(rng, task)), progressive=False))
    start, end = data.index(b"\xff\xda") + 14, len(data) - 200
    way = int(rng.integers(3))
    for _ in range(3 + 50 * (way == 2)):
        place = int(rng.integers(start, end))
        if 0xFF not in data[place - 1 : place + 2]:
            data[place] ^= 1 << int(rng.integers(8))
            if 0xFF in data[place - 1 : place + 2] or (way == 2 and warned(bytes(data))):
                break
    if way < 2 or not warned(bytes(data)):
        stuffed = [i for i in range(start, end) if data[i] == 0xFF and data[i + 1] == 0]
        mark = 1 << int(rng.integers(1, 6)) if way == 0 else 0xD0 + int(rng.integers(8))
        data[int(rng.choice(stuffed)) + 1] ^= mark
    path.write_bytes(data)


def warned(data: bytes) -> bool:
    """Whether a strict decoder complains; False where there is none."""
    try:
        import simplejpeg
    except ImportError:
        return False
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except ValueError:
        return True
    return False


def denied(rng: Rng, task: Task, path: Path) -> None:
    plain(rng, task, path)
    path.chmod(0)


def dead_link(rng: Rng, task: Task, path: Path) -> None:
    path.symlink_to(f"../moved/{path.name}")


def looped_link(rng: Rng, task: Task, path: Path) -> None:
    path.symlink_to(path.name)


def junk(rng: Rng, task: Task, path: Path) -> None:
    starts = {".DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"}
    path.write_bytes(starts.get(path.name, b"\0\5\x16\7\0\2\0\0Mac OS X        ") + rng.bytes(200))


# Bad pictures.


def out_of_focus(rng: Rng, task: Task, path: Path) -> None:
    """A Gaussian of 1 to 2 % of the side: plain to see at any size."""
    sigma = rng.uniform(0.01, 0.02) * (task.height + task.width) / 2
    save(rng, camera(rng, smooth(sharp(rng, task), sigma), 1.5), path)


def shaken(rng: Rng, task: Task, path: Path) -> None:
    """Drawn along a path of 5 to 9 % of the side that bends a little, as a hand does."""
    length = rng.uniform(0.05, 0.09) * (task.height + task.width) / 2
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9) * rng.choice([-1, 1])
    t = np.linspace(-0.5, 0.5, 200)
    along, aside = length * t, bend * length * (t * t - 1 / 12)
    x, y = np.cos(angle) * along - np.sin(angle) * aside, np.sin(angle) * along + np.cos(angle) * aside
    pad = int(length) + 2
    scene = np.pad(sharp(rng, task), ((pad, pad), (pad, pad), (0, 0)), "reflect")
    spread = np.zeros(scene.shape[:2], np.float32)
    down, right = np.floor(y).astype(int), np.floor(x).astype(int)  # negative places wrap round
    for j in (0, 1):
        for i in (0, 1):
            np.add.at(spread, (down + j, right + i), (1 - abs(y - down - j)) * (1 - abs(x - right - i)) / len(t))
    blurred = np.fft.irfft2(
        np.fft.rfft2(scene, axes=(0, 1)) * np.fft.rfft2(spread)[..., None], scene.shape[:2], axes=(0, 1)
    )[pad:-pad, pad:-pad]
    save(rng, camera(rng, smooth(blurred.astype(np.float32), 0.8), 1.5), path)


def dark(rng: Rng, task: Task, path: Path) -> None:
    scene = sharp(rng, task)
    save(rng, camera(rng, scene * (rng.uniform(5, 22) / luma(scene).mean()), 1.5), path)


def washed_out(rng: Rng, task: Task, path: Path) -> None:
    """So much light that most of it is clipped: mean 228 to 247."""
    scene, wanted = sharp(rng, task) * rng.uniform(1, 1.4), rng.uniform(228, 247)
    low, high = 0.0, 255.0
    for _ in range(20):
        more = (low + high) / 2
        low, high = (more, high) if luma(np.minimum(scene + more, 255)).mean() < wanted else (low, more)
    save(rng, camera(rng, np.minimum(scene + low, 255), 1.5), path)


def pale(rng: Rng, task: Task, path: Path) -> None:
    """Contrast taken away but for a standard deviation of 4 to 13."""
    scene = sharp(rng, task)
    by = rng.uniform(4, 13) / luma(scene).std()
    save(rng, camera(rng, (scene - luma(scene).mean()) * by + rng.uniform(70, 185), 1.5), path)


def tiny(rng: Rng, task: Task, path: Path) -> None:
    size = int(rng.integers(12, 29)), int(rng.integers(12, 29))
    save(rng, camera(rng, sharp(rng, task)).resize(size, Image.Resampling.LANCZOS), path)


def strip(rng: Rng, task: Task, path: Path) -> None:
    """4.8 to 9 times as long as wide, cut where there is most detail."""
    scene = base_of(task)(rng, task.height, task.width)
    thin = int(max(scene.shape[:2]) / rng.uniform(4.8, 9))
    lying = task.width >= task.height
    scene = scene if lying else scene.swapaxes(0, 1)
    starts = [int(start) for start in rng.integers(0, len(scene) - thin, 12)]
    best = max(starts, key=lambda start: float(np.abs(np.diff(luma(scene[start : start + thin]))).mean()))
    scene = scene[best : best + thin] if lying else scene[best : best + thin].swapaxes(0, 1)
    save(rng, camera(rng, exposed(rng, scene)), path)


# Odd formats.


def misnamed(rng: Rng, task: Task, path: Path) -> None:
    camera(rng, sharp(rng, task)).save(path, "PNG", compress_level=3)


def cmyk(rng: Rng, task: Task, path: Path) -> None:
    camera(rng, sharp(rng, task)).convert("CMYK").save(path, quality=90)


def deep(rng: Rng, task: Task, path: Path) -> None:
    values = np.clip(luma(sharp(rng, task)) * 257 + rng.uniform(0, 300), 0, 65535).astype(np.uint16)
    Image.fromarray(values).save(path, compress_level=1)


def palette(rng: Rng, task: Task, path: Path) -> None:
    camera(rng, sharp(rng, task)).quantize(int(rng.choice([64, 128, 256]))).save(path, compress_level=3)


def animated(rng: Rng, task: Task, path: Path) -> None:
    picture = camera(rng, sharp(rng, task), 1.0).quantize(64)
    frames = [picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, 9 * i, 0, 1, 5 * i)) for i in range(1, 4)]
    picture.save(path, save_all=True, append_images=frames, duration=80, loop=0)


def shown_turned(rng: Rng, task: Task, path: Path) -> None:
    """Right when turned as its tag says: what a telephone stores."""
    orientation = int(rng.choice([3, 6, 8]))
    picture = camera(rng, sharp(rng, task)).transpose(TURNS[orientation])
    path.write_bytes(with_orientation(jpeg(rng, picture), orientation))


def upright(path: str | os.PathLike[str]) -> Image.Image:
    """The picture as it is shown."""
    with Image.open(path) as file:
        return ImageOps.exif_transpose(file.convert("RGB") if file.mode == "P" else file)
