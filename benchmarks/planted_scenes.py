"""Pictures drawn by rule for `planted.py`: six kinds of scenes, and kinds that look bad and are not.

Arrays are float32, (height, width, 3), 0 to 255. The same generator of random numbers gives the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Array = NDArray[np.float32]
Base = Callable[[Rng, int, int], Array]  # (rng, height, width) -> a sharp, well exposed scene


def noise(rng: Rng, height: int, width: int, alpha: float = 1.0, stretch: float = 1.0) -> Array:
    """A field with an amplitude of 1/f^alpha, as in natural pictures; mean 0, standard deviation 1.

    `stretch` above 1 draws it out along x (grain of wood, water).
    """
    side = 16 * -(-max(height, width) // 16)
    y = np.fft.fftfreq(side).astype(np.float32)[:, None]
    x = np.fft.rfftfreq(side).astype(np.float32)[None, :] * stretch
    size = np.sqrt(y * y + x * x)
    size[0, 0] = 1
    spectrum = rng.standard_normal((side, side // 2 + 1, 2), np.float32).view(np.complex64)[..., 0]
    spectrum *= size**-alpha
    spectrum[0, 0] = 0
    field = np.fft.irfft2(spectrum, (side, side))[:height, :width].astype(np.float32)
    found: Array = (field - field.mean()) / (field.std() + 1e-6)
    return found


def luma(scene: Array) -> Array:
    """Grey as decoders weigh it, (height, width)."""
    return scene @ np.array([0.299, 0.587, 0.114], np.float32)


def colour(rng: Rng, low: float = 20, high: float = 235) -> Array:
    return rng.uniform(low, high, 3).astype(np.float32)


def slope(rng: Rng, height: int, width: int) -> Array:
    """A plane from 0 to 1 in a random direction, (height, width)."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    plane = np.cos(angle) * x + np.sin(angle) * y
    found: Array = (plane - plane.min()) / np.ptp(plane)
    return found


def ramp(rng: Rng, height: int, width: int) -> Array:
    """From one colour to another."""
    t = slope(rng, height, width)[..., None]
    return colour(rng) * (1 - t) + colour(rng) * t


def grain(rng: Rng, height: int, width: int, strength: float, alpha: float = 0.9, stretch: float = 1.0) -> Array:
    """Texture to be added: mostly grey, some colour. (height, width, 3)."""
    field = noise(rng, height, width, alpha, stretch)[..., None]
    return field * (strength * (1 + rng.uniform(-0.3, 0.3, 3).astype(np.float32)))


def elsewhere(rng: Rng, texture: Array) -> Array:
    """The same texture begun at another place."""
    down, along = (int(n) for n in rng.integers(0, texture.shape[:2]))
    return np.roll(texture, (down, along), (0, 1))


def drawn(height: int, width: int, paint: Callable[[ImageDraw.ImageDraw, int], None]) -> Array:
    """A mask, 0 to 1, painted at twice the size; `paint` is told the scale."""
    mask = Image.new("L", (2 * width, 2 * height))
    paint(ImageDraw.Draw(mask), 2)
    return np.asarray(mask.reduce(2), np.float32) / 255


def polygon(points: Sequence[Sequence[float]], draw: ImageDraw.ImageDraw, scale: int) -> None:
    draw.polygon([(scale * x, scale * y) for x, y in points], fill=255)


def boxes(corners: Sequence[tuple[float, ...]], draw: ImageDraw.ImageDraw, scale: int) -> None:
    for box in corners:
        draw.rectangle([scale * v for v in box], fill=255)


def strokes(lines: Sequence[Sequence[Sequence[float]]], thick: float, draw: ImageDraw.ImageDraw, scale: int) -> None:
    for line in lines:
        draw.line([(scale * x, scale * y) for x, y in line], fill=255, width=max(2, int(scale * thick)))


def over(picture: Array, mask: Array, paint: Array) -> None:
    """Lays paint, a colour or a picture, on the picture where the mask is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if rows.size:
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        picture[box] += mask[box][..., None] * ((paint[box] if paint.ndim == 3 else paint) - picture[box])


def outline(rng: Rng, x: float, y: float, radius: float, full: bool = False) -> list[tuple[float, float]]:
    """A lopsided shape, round or angular; only round and never thin where it must be `full`."""
    corners = 24 if full else int(rng.choice([3, 4, 5, 24]))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 24 else np.linspace(0, 6.2, corners)
    a, b = rng.uniform(2, 5), rng.uniform(0, 6)
    radii = radius * (1 + 0.25 * np.sin(a * angles + b)) * (rng.uniform(0.6, 1.2, corners) if corners < 24 else 1)
    flat = rng.uniform(0.7 if full else 0.5, 1)
    return [(x + r * np.cos(t), y + flat * r * np.sin(t)) for r, t in zip(radii, angles, strict=True)]


def put_thing(rng: Rng, picture: Array, x: float, y: float, radius: float, full: bool = False) -> None:
    """A shape with a shade and a texture of its own on the picture, sharp at its edge."""
    height, width = picture.shape[:2]
    points = outline(rng, x, y, radius, full)
    left, right = max(0, int(x - 1.6 * radius)), min(width, int(x + 1.6 * radius) + 1)
    top, bottom = max(0, int(y - 1.6 * radius)), min(height, int(y + 1.6 * radius) + 1)
    h, w = bottom - top, right - left
    if h < 4 or w < 4:
        return
    mask = drawn(h, w, partial(polygon, [(px - left, py - top) for px, py in points]))
    paint = ramp(rng, h, w) + grain(rng, h, w, rng.uniform(6, 28))
    over(picture[top:bottom, left:right], mask, paint)


def meadow(rng: Rng, height: int, width: int) -> Array:
    """A sky and some ridges, one before the other."""
    picture = ramp(rng, height, width) * 0.5 + 90 + grain(rng, height, width, rng.uniform(4, 25), 1.4)
    x = np.arange(width, dtype=np.float32)
    horizon = rng.uniform(0.1, 0.55) * height
    ridges = int(rng.integers(2, 6))
    growth = grain(rng, height, width, 1.0, rng.uniform(0.6, 1.0))
    for depth in range(ridges):
        line = horizon + (height - horizon) * (depth / ridges) ** rng.uniform(0.8, 1.6) + rng.uniform(-0.3, 0.3) * x
        for octave in range(1, 7):
            size = height * rng.uniform(0.03, 0.14) / octave
            line += size * np.sin(x / width * 2 * np.pi * octave * rng.uniform(0.4, 1.5) + rng.uniform(0, 7))
        mask = np.clip(np.arange(height, dtype=np.float32)[:, None] - line[None], 0, 1)
        near = (depth + 1) / ridges
        over(picture, mask, colour(rng, 15, 190) + (12 + 28 * near) * elsewhere(rng, growth))
    for _ in range(int(rng.integers(0, 4))):  # trees
        put_thing(rng, picture, rng.uniform(0, width), rng.uniform(0.3, 0.9) * height, rng.uniform(0.05, 0.22) * height)
    return picture


def stones(rng: Rng, height: int, width: int) -> Array:
    """Cells with a shade each: pebbles, scales, leaves."""
    count = int(rng.integers(12, 70))
    places = rng.uniform(0, 1, (count, 2)) * (height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    best, second = np.full((2, height, width), 1e9, np.float32)
    owner = np.zeros((height, width), np.int32)
    squash = rng.uniform(0.5, 2)
    for i, (cy, cx) in enumerate(places.astype(np.float32)):
        far = (y - cy) ** 2 * squash + (x - cx) ** 2
        nearer = far < best
        second = np.where(nearer, best, np.minimum(second, far))
        best = np.where(nearer, far, best)
        owner[nearer] = i
    edge = np.clip((np.sqrt(second) - np.sqrt(best)) / rng.uniform(3, 14), 0, 1)
    shades = rng.uniform(40, 230, (count, 1)) * rng.uniform(0.8, 1.2, (count, 3))
    light = 0.45 + 1.1 * slope(rng, height, width)[..., None]
    picture = shades.astype(np.float32)[owner] * light * (0.25 + 0.75 * edge[..., None])
    return np.asarray(picture + grain(rng, height, width, rng.uniform(8, 30), 0.8), np.float32)


def toys(rng: Rng, height: int, width: int) -> Array:
    """Many shapes over each other."""
    picture = ramp(rng, height, width) + grain(rng, height, width, rng.uniform(5, 25))
    for i in range(int(rng.integers(7, 22))):
        radius = rng.uniform(0.05, 0.34 if i < 5 else 0.18) * min(height, width)
        put_thing(rng, picture, rng.uniform(0, width), rng.uniform(0, height), radius)
    return picture


def street(rng: Rng, height: int, width: int) -> Array:
    """Fronts with windows before a sky, a road in front."""
    picture = ramp(rng, height, width) * 0.4 + 120 + grain(rng, height, width, rng.uniform(3, 20), 1.5)
    ground = int(rng.uniform(0.65, 0.92) * height)
    plaster = grain(rng, height, width, 1.0, 0.8)
    left = -rng.uniform(0, 0.2) * width
    while left < width:
        wide = rng.uniform(0.12, 0.4) * width
        top = rng.uniform(0.05, 0.6) * height
        lean = rng.uniform(-0.15, 0.15) * height
        corners = [(left, top), (left + wide, top + lean), (left + wide, ground), (left, ground)]
        mask = drawn(height, width, partial(polygon, corners))
        wall = colour(rng, 40, 215)
        over(picture, mask, wall + rng.uniform(4, 16) * elsewhere(rng, plaster))
        columns, rows = int(rng.integers(2, 8)), int(rng.integers(2, 10))
        across, down = wide / columns, (ground - top) / rows
        glass = [colour(rng, 5, 90), colour(rng, 120, 250)]
        for lit in (0, 1):
            holes = [
                (left + (i + 0.2) * across, top + lean * (i + 0.5) / columns + (j + 0.25) * down)
                for i in range(columns)
                for j in range(rows)
                if (rng.random() < 0.3) == bool(lit)
            ]
            panes = [(x, y, x + 0.6 * across, y + 0.5 * down) for x, y in holes]
            over(picture, drawn(height, width, partial(boxes, panes)) * mask, glass[lit])
        left += wide * rng.uniform(0.9, 1.3)
    picture[ground:] = colour(rng, 40, 120) + grain(rng, height - ground, width, rng.uniform(8, 20), 0.7)
    for _ in range(int(rng.integers(1, 5))):
        put_thing(
            rng, picture, rng.uniform(0, width), rng.uniform(0.7, 0.97) * height, rng.uniform(0.04, 0.12) * height
        )
    return picture


def page(rng: Rng, height: int, width: int) -> Array:
    """Strokes like writing on sheets that lie on a table."""
    picture = colour(rng, 30, 150) + grain(rng, height, width, rng.uniform(10, 28), 0.9, stretch=rng.uniform(2, 6))
    for _ in range(int(rng.integers(1, 4))):
        wide, high = rng.uniform(0.45, 0.95) * width, rng.uniform(0.45, 0.95) * height
        x, y, turn = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height, rng.uniform(-0.6, 0.6)
        paper, ink = colour(rng, 165, 235), colour(rng, 5, 90)
        line = rng.uniform(0.03, 0.09) * height

        aside, down = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
        corners = [(-wide / 2, -high / 2), (wide / 2, -high / 2), (wide / 2, high / 2), (-wide / 2, high / 2)]
        sheet = drawn(height, width, partial(polygon, [list((x, y) + a * aside + b * down) for a, b in corners]))
        over(picture, sheet, paper + grain(rng, height, width, rng.uniform(3, 9), 1.2))
        words = []
        for b in np.arange(-high / 2 + line, high / 2 - line, line):
            a = -wide / 2 + line
            while a < wide / 2 * rng.uniform(0.7, 1.0):
                word = rng.uniform(0.5, 2.5) * line
                along = np.linspace(a, a + word, max(3, int(6 * word / line)))
                wobble = b + rng.uniform(-0.3, 0.3, len(along)) * line
                words.append([list((x, y) + p * aside + q * down) for p, q in zip(along, wobble, strict=True)])
                a += word + 0.5 * line
        over(picture, drawn(height, width, partial(strokes, words, line / 10)) * sheet, ink)
    return picture


def fruit(rng: Rng, height: int, width: int) -> Array:
    """Lit balls on a table."""
    wood = grain(rng, height, width, rng.uniform(10, 30), 0.9, stretch=rng.uniform(1, 8))
    picture = ramp(rng, height, width) * 0.6 + 40 + wood
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    skin = grain(rng, height, width, rng.uniform(6, 22), rng.uniform(0.6, 1.2))
    for _ in range(int(rng.integers(3, 13))):
        radius = rng.uniform(0.07, 0.3) * min(height, width)
        cy, cx = rng.uniform(0, height), rng.uniform(0, width)
        rows, columns = (slice(max(0, int(c - 2 * radius)), int(c + 3 * radius)) for c in (cy, cx))
        box = np.s_[rows, columns]
        u, v = (x[box] - cx) / radius, (y[box] - cy) / radius
        inside = u * u + v * v
        shadow = np.exp(-((u - 0.5) ** 2 + (v - 0.6) ** 2) * 1.5)[..., None]
        picture[box] *= 1 - 0.6 * shadow
        light = 0.3 + 0.8 * np.sqrt(np.clip(1 - (u + 0.35) ** 2 - (v + 0.4) ** 2, 0, 1))
        paint = colour(rng, 60, 240) * light[..., None] + elsewhere(rng, skin)[box]
        over(picture[box], np.clip((1 - inside) * radius / 2, 0, 1), paint)
    return picture


SCENES: dict[str, Base] = {
    "fruit": fruit, "meadow": meadow, "page": page, "stones": stones, "street": street, "toys": toys,
}  # fmt: skip


def exposed(rng: Rng, scene: Array) -> Array:
    """The scene as a good camera would expose it: mean grey 75 to 165, standard deviation 42 to 70."""
    mean, spread = rng.uniform(75, 165), rng.uniform(42, 70)
    vivid = rng.uniform(0.3, 1)
    scene = scene.mean(2, keepdims=True) * (1 - vivid) + scene * vivid
    for _ in range(2):  # the second time makes up for what the first has clipped
        grey = luma(scene)
        scene = np.clip((scene - grey.mean()) * (spread / max(grey.std(), 1)) + mean, 0, 255)
    return scene


def camera(rng: Rng, scene: Array, most: float = 4.0) -> Image.Image:
    """What a sensor makes of it: noise of up to `most` grey levels, 8 bits."""
    hiss = rng.standard_normal(scene.shape, np.float32) * rng.uniform(0.5, most)
    return Image.fromarray(np.clip(scene + hiss + 0.5, 0, 255).astype(np.uint8))


def smooth(scene: Array, sigma: float) -> Array:
    picture = Image.fromarray(np.clip(scene + 0.5, 0, 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(float(sigma))), np.float32)


def product(rng: Rng, base: Base, height: int, width: int) -> Array:
    """One thing on white, with a soft shadow."""
    picture = np.full((height, width, 3), rng.uniform(246, 255), np.float32)
    radius = rng.uniform(0.27, 0.45) * min(height, width)
    cx, cy = width * rng.uniform(0.42, 0.58), height * rng.uniform(0.42, 0.58)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    fall = np.exp(-(((x - cx) / radius) ** 2 + ((y - cy - 0.9 * radius) / (0.25 * radius)) ** 2))
    picture -= 70 * fall[..., None]
    points = outline(rng, cx, cy, radius, full=True)
    mask = drawn(height, width, partial(polygon, points))
    over(picture, mask, 0.8 * exposed(rng, base(rng, height, width)))
    return picture


def diagram(rng: Rng, base: Base, height: int, width: int) -> Array:
    """Boxes, bars, lines and writing in flat colours."""
    picture = Image.new("RGB", (width, height), tuple(int(v) for v in rng.choice([255, 250, 238], 1).repeat(3)))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(5, 14))):
        x, y = rng.uniform(0, 0.85) * width, rng.uniform(0, 0.85) * height
        right, bottom = x + rng.uniform(0.08, 0.4) * width, y + rng.uniform(0.06, 0.3) * height
        fill = tuple(int(v) for v in colour(rng, 10, 250)) if rng.random() < 0.6 else None
        (draw.ellipse if rng.random() < 0.3 else draw.rectangle)([x, y, right, bottom], fill, (20, 20, 20), 2)
        draw.line([x, bottom, rng.uniform(0, width), rng.uniform(0, height)], (30, 30, 30), int(rng.integers(1, 4)))
        draw.text((x + 4, y + 4), "".join(rng.choice(list("ABCDEFGHKLMNPRSTXYZ 0123456789"), 9)), (0, 0, 0))
    for i in range(int(rng.integers(0, 9))):
        x, wide = (0.05 + 0.1 * i) * width, 0.07 * width
        draw.rectangle([x, rng.uniform(0.4, 0.9) * height, x + wide, 0.95 * height], tuple(int(v) for v in colour(rng)))
    return np.asarray(picture, np.float32)


def night(rng: Rng, base: Base, height: int, width: int) -> Array:
    """A dim scene with lamps and what they light: mean grey about 33 to 60."""
    scene = exposed(rng, base(rng, height, width)) * rng.uniform(0.08, 0.2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    lit = exposed(rng, base(rng, height, width))
    lamps = [
        (rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.01, 0.04) * width)
        for _ in range(rng.integers(4, 16))
    ]
    wanted = rng.uniform(34, 60)
    glow, bulbs = np.zeros((2, height, width), np.float32)
    for cx, cy, radius in lamps:
        far = np.sqrt((x - cx) ** 2 + (y - cy) ** 2)
        glow += np.exp(-far / (7 * radius))
        bulbs = np.maximum(bulbs, np.clip(radius - far, 0, 1))
    scene += lit * (0.5 * glow[..., None])
    scene *= wanted / max(luma(scene).mean(), 1)
    over(scene, bulbs, colour(rng, 215, 255))
    return np.asarray(scene, np.float32)


def fog(rng: Rng, base: Base, height: int, width: int) -> Array:
    """A view that fades into grey, with something clear at the front."""
    scene = exposed(rng, base(rng, height, width))
    depth = np.linspace(rng.uniform(0.75, 0.9), rng.uniform(0.25, 0.5), height, dtype=np.float32)[:, None]
    scene += depth[..., None] * (rng.uniform(150, 205) - scene)
    for _ in range(int(rng.integers(2, 6))):  # posts and trunks
        x, wide = rng.uniform(0, width), rng.uniform(0.015, 0.05) * width
        top, bottom = rng.uniform(0.05, 0.5) * height, rng.uniform(0.75, 1.0) * height
        corners = [(x, top), (x + wide, top + 3), (x + wide * rng.uniform(0.6, 1.6), bottom), (x, bottom)]
        mask = drawn(height, width, partial(polygon, corners))
        over(scene, mask, colour(rng, 25, 70) + grain(rng, height, width, rng.uniform(8, 16), 0.6))
    return scene


def bokeh(rng: Rng, base: Base, height: int, width: int) -> Array:
    """A sharp subject before a background that is out of focus."""
    scene = smooth(exposed(rng, base(rng, height, width)), rng.uniform(0.012, 0.03) * width)
    subject = exposed(rng, base(rng, height, width))
    cx, cy = width * rng.uniform(0.35, 0.65), height * rng.uniform(0.4, 0.65)
    points = outline(rng, cx, cy, rng.uniform(0.28, 0.42) * min(height, width), full=True)
    mask = drawn(height, width, partial(polygon, points))
    over(scene, mask, subject)
    return scene


def moment(scene: Rng, now: Rng, base: Base, height: int, width: int) -> Array:
    """What a fixed camera sees: the view by `scene`, what moves through it and the light by `now`."""
    view = exposed(scene, base(scene, height, width))
    shade = 1 + now.uniform(-0.35, 0.35) * (slope(now, height, width)[..., None] - 0.5)
    view *= shade * now.uniform(0.8, 1.2) * (1 + now.uniform(-0.06, 0.06, 3).astype(np.float32))
    for _ in range(int(now.integers(2, 5))):
        radius = now.uniform(0.06, 0.16) * min(height, width)
        put_thing(now, view, now.uniform(0.05, 0.95) * width, now.uniform(0.2, 0.95) * height, radius, full=True)
    return view


HARD: dict[str, Callable[[Rng, Base, int, int], Array]] = {
    "product": product, "diagram": diagram, "night": night, "fog": fog, "bokeh": bokeh,
}  # fmt: skip
