"""The embedded set `shapes`: ten outlines on cluttered grounds, drawn with Pillow at 64 px.

For trying the tool, and marked as a demonstration wherever it is used. It is made so that each knob could plausibly
help: neighbouring classes (pentagon, hexagon and disc; stars of five and six points) differ in detail that small
pictures lose, parts must be related over a distance, and colour, filling, size, place, turn and ground say nothing
about the class. The generator was fixed before any search ran on it, checked only to be learnable (a plain convnet of
1.4 M multiply-adds at 32 px passes 70 % in ten epochs; a first draft, figures and grounds of any tone, it could not
learn), and is not tuned to an outcome: change it, and VERSION must change too.

Every picture depends on its number alone. Numbers come from Python's Mersenne Twister, whose `random` and
`getrandbits` are the same everywhere; the drawing is Pillow's, so another release of it may differ in a few pixels.
The fingerprint in a run's record then differs as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw

from scalenet.data.source import Dataset, Item, Published, Source

VERSION = 1
SIDE = 64  # native, px
DRAWN = 2 * SIDE  # drawn at twice the side and reduced, for smooth edges
PER_CLASS = 300
CLASSES = ("crescent", "cross", "disc", "hexagon", "pentagon", "ring", "square", "star5", "star6", "triangle")
SEED = 20190528  # the day EfficientNet appeared

# Tones of each channel: figures are brighter than their ground, and clutter overlaps both.
DARK, CLUTTER, BRIGHT = (0, 110), (40, 200), (130, 255)

Colour = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Where a figure lies, how large, how turned and how narrow."""

    x: float
    y: float
    radius: float
    turn: float
    stretch: float

    def place(self, points: list[Point]) -> list[Point]:
        """Points of the unit circle, narrowed, turned and moved."""
        cos, sin = self.radius * math.cos(self.turn), self.radius * math.sin(self.turn)
        narrow = self.stretch
        return [(self.x + u * narrow * cos - v * sin, self.y + u * narrow * sin + v * cos) for u, v in points]


def load(root: Path) -> Source:
    """All pictures, drawn anew (a few seconds); nothing is read from or written to `root`."""
    numbers = range(PER_CLASS * len(CLASSES))
    items = [Item(f"{CLASSES[i % len(CLASSES)]}/{i:04d}", i % len(CLASSES), draw(i)) for i in numbers]
    return Source("shapes", CLASSES, items, demonstration=True)


SHAPES = Dataset(
    "shapes",
    f"{PER_CLASS * len(CLASSES):,} drawn outlines in {len(CLASSES)} classes, {SIDE} px; embedded, for trying the tool",
    load,
    stamp=lambda root: f"shapes {VERSION}",
    published=Published(PER_CLASS * len(CLASSES), len(CLASSES), str(SIDE), 0, "drawn here, as scalenet's own", ""),
)


def draw(number: int) -> NDArray[np.uint8]:
    """Picture `number`, (64, 64, 3) uint8; its class is `number` modulo ten."""
    random = Random(SEED * 100_000 + number)
    image = _ground(random)
    shade = _colour(random, BRIGHT)
    figure = _figure(CLASSES[number % len(CLASSES)], random)
    image.paste(_filling(shade, random), mask=figure)
    _strokes(ImageDraw.Draw(image), random, count=_between(random, 0, 3))
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    return _grain(np.asarray(small), random)


def _figure(name: str, random: Random) -> Image.Image:
    """The mask of the figure: size, place, turn and stretch are free; a quarter are outlines only."""
    radius = _uniform(random, 0.22, 0.38) * DRAWN
    x, y = (_uniform(random, radius, DRAWN - radius) for _ in range(2))
    pose = Pose(x, y, radius, turn=_uniform(random, 0.0, 2 * math.pi), stretch=_uniform(random, 0.85, 1.0))
    hollow = random.random() < 1 / 4 and name not in ("disc", "ring")  # an empty disc would be a ring
    mask = _solid(name, pose)
    if hollow:
        mask = ImageChops.subtract(mask, _solid(name, replace(pose, radius=0.72 * radius)))
    return mask


def _solid(name: str, pose: Pose) -> Image.Image:
    mask = Image.new("L", (DRAWN, DRAWN), 0)
    pen = ImageDraw.Draw(mask)
    place = pose.place
    pen.polygon(place(_outline(name)), fill=255)
    if name == "ring":
        pen.polygon(place([(0.5 * u, 0.5 * v) for u, v in _regular(48)]), fill=0)
    if name == "crescent":
        pen.polygon(place([(0.45 + 0.85 * u, 0.85 * v) for u, v in _regular(48)]), fill=0)
    return mask


def _outline(name: str) -> list[Point]:
    corners = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}
    if name in corners:
        return _regular(corners[name])
    if name == "cross":
        arm = 0.3
        quarter: list[Point] = [(arm, arm), (arm, 1.0), (-arm, 1.0)]
        turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
        return [(c * u - s * v, s * u + c * v) for c, s in turns for u, v in quarter]
    if name.startswith("star"):
        points = int(name[4:])
        inner = 0.5
        return [
            (u * (inner if i % 2 else 1.0), v * (inner if i % 2 else 1.0))
            for i, (u, v) in enumerate(_regular(2 * points))
        ]
    return _regular(48)  # disc, and what ring and crescent are cut from


def _regular(corners: int) -> list[Point]:
    return [(math.cos(2 * math.pi * i / corners), math.sin(2 * math.pi * i / corners)) for i in range(corners)]


def _ground(random: Random) -> Image.Image:
    """A gradient between two colours, in a random direction, with strokes and blots on it."""
    first, second = _colour(random, DARK), _colour(random, DARK)
    ramp = _along(_uniform(random, 0.0, 2 * math.pi)) / math.sqrt(2) + DRAWN / 2  # 0 to DRAWN at any angle
    mask = Image.fromarray(np.clip(ramp * (255 / DRAWN), 0, 255).astype(np.uint8))
    ground = Image.composite(Image.new("RGB", (DRAWN, DRAWN), first), Image.new("RGB", (DRAWN, DRAWN), second), mask)
    pen = ImageDraw.Draw(ground)
    for _ in range(_between(random, 2, 6)):
        x, y, r = _uniform(random, 0, DRAWN), _uniform(random, 0, DRAWN), _uniform(random, 2, 9)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=_colour(random, CLUTTER))
    _strokes(pen, random, count=_between(random, 2, 6))
    return ground


def _strokes(pen: ImageDraw.ImageDraw, random: Random, count: int) -> None:
    for _ in range(count):
        x, y = _uniform(random, 0, DRAWN), _uniform(random, 0, DRAWN)
        length, turn = _uniform(random, 10, 60), _uniform(random, 0, 2 * math.pi)
        end = (x + length * math.cos(turn), y + length * math.sin(turn))
        pen.line((x, y, *end), fill=_colour(random, CLUTTER), width=_between(random, 1, 4))


def _filling(shade: Colour, random: Random) -> Image.Image:
    """Plain for three quarters, else stripes of two tones, at any angle."""
    plain = Image.new("RGB", (DRAWN, DRAWN), shade)
    if random.random() < 3 / 4:
        return plain
    step = _between(random, 6, 14)
    bars = np.floor(_along(_uniform(random, 0.0, 2 * math.pi)) / step) % 2
    mask = Image.fromarray((bars * 255).astype(np.uint8))
    darker = Image.new("RGB", (DRAWN, DRAWN), (shade[0] - 60, shade[1] - 60, shade[2] - 60))
    return Image.composite(darker, plain, mask)


def _along(turn: float) -> NDArray[np.float64]:
    """How far each pixel lies from the middle, in the direction `turn`."""
    place = np.arange(DRAWN) - (DRAWN - 1) / 2
    return place[None, :] * math.cos(turn) + place[:, None] * math.sin(turn)


def _grain(pixels: NDArray[np.uint8], random: Random) -> NDArray[np.uint8]:
    """Noise in whole numbers: the mean of two bytes, centred, a quarter or less of its range."""
    count = pixels.size
    first, second = (
        np.frombuffer(random.getrandbits(8 * count).to_bytes(count, "little"), dtype=np.uint8) for _ in range(2)
    )
    strength = _between(random, 4, 16)  # of 64: standard deviation about 6 to 26
    noise = (first.astype(np.int32) + second.astype(np.int32) - 255) * strength // 64
    grainy: NDArray[np.int32] = np.clip(pixels.astype(np.int32) + noise.reshape(pixels.shape), 0, 255)
    return grainy.astype(np.uint8)


def _colour(random: Random, tones: tuple[int, int]) -> Colour:
    return _between(random, *tones), _between(random, *tones), _between(random, *tones)


def _uniform(random: Random, low: float, high: float) -> float:
    return low + (high - low) * random.random()


def _between(random: Random, low: int, high: int) -> int:
    """A whole number, both ends included."""
    return low + int((high - low + 1) * random.random())
