"""What is wrong with a picture by itself, judged from the numbers of one look at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from scalenet.cleaning.values import THUMB, Fault, Limits, Rule, Scan

USUAL = 50.0  # standard deviation of grey of a usual photograph
SHARP = 1.9  # times the limit of blur: what the sharpest tiles reach in any direction, unless all is soft
FULL = 160  # pixels of the shorter side; what is smaller was made so, which softens: less is asked (area, squared)
LINES = 8.0  # times that limit: so much detail, though all along one direction, is drawn and no motion
LIGHTS = 100  # grey that one pixel in 200 of a night scene exceeds, and none of an under-exposed picture
WHITE, BLOWN = 235, 248  # grey of a white ground; and where detail is lost, in the thumbnail
GROUND = 0.95  # share of the thumbnail's outer two pixels that are white where something is shown on white; or
AROUND, MORE = 0.8, 0.35  # this share, and so much more of them than of the middle
LOST, BLACK = 0.4, 40  # share of the thumbnail without detail, and the darkest grey: what is black too is only rich, or
SHOWN = 115  # the darkest grey, at most, of what is shown on white: a subject that is burnt out has nothing so dark
VEIL = 110  # the darkest grey alone: nothing is left of the shadows
RANGE = 80  # grey levels between the darkest and the lightest: less is a picture without contrast, more one of one hue
SUFFIXES = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo", "PNG": ".png .apng", "GIF": ".gif", "BMP": ".bmp .dib",
    "TIFF": ".tif .tiff", "WEBP": ".webp", "PPM": ".ppm .pgm .pbm .pnm", "AVIF": ".avif .avifs", "TGA": ".tga",
    "JPEG2000": ".jp2 .j2k .jpx .jpf .j2c .jpc",
}  # fmt: skip
BROKEN = {
    Fault.EMPTY: "The file is empty: 0 bytes.",
    Fault.FOREIGN: "The file is in no picture format that can be read, whatever its name says.",
    Fault.TRUNCATED: "The file is truncated: it ends before the picture does.",
    Fault.CORRUPT: "The file is corrupt: it cannot be decoded to its end.",
    Fault.GONE: "The file went away, or the disk failed to read it.",
}


@dataclass(frozen=True)
class Defect:
    """Of `scan.pictures[picture]`."""

    picture: int
    rule: Rule
    reason: str
    severity: float


def broken(scan: Scan, limits: Limits) -> Iterator[Defect]:
    """Files that are no sound pictures, or whose picture may not be read."""
    for i in np.flatnonzero(scan.looks["fault"]):
        fault = Fault(scan.looks["fault"][i])
        if fault == Fault.DENIED:
            yield Defect(int(i), "denied", "The file may not be read (no permission).", 1.0)
        elif fault == Fault.BOMB:
            yield Defect(int(i), "broken", *_bomb(scan.looks[i], limits))
        else:
            yield Defect(int(i), "broken", BROKEN[fault], 1.0)


def _bomb(look: np.void, limits: Limits) -> tuple[str, float]:
    width, height = int(look["width"]), int(look["height"])
    if not width * height:
        return f"Its header states more than the {limits.pixels} pixels that are decoded; it was not.", 1.0
    return (
        f"Its header states {width} x {height} = {width * height} pixels; more than {limits.pixels} are not decoded.",
        width * height / limits.pixels,
    )


def looks(scan: Scan, limits: Limits) -> Iterator[Defect]:
    """Too small, long, dark, bright, pale or soft. Of the last four, a picture has the first that explains the others:
    what is dark has neither contrast nor detail."""
    sound = np.flatnonzero(scan.looks["fault"] == Fault.NONE)
    if not len(sound):
        return
    # Copied field by field: the records may be mapped from disk, with a thumbnail in each.
    f = {name: scan.looks[name][sound].astype(np.float64) for name in LIGHTNESS}
    short, long = np.minimum(f["width"], f["height"]), np.maximum(f["width"], f["height"])
    least = min(float(limits.side), float(np.median(short)) / 2)
    for i in np.flatnonzero(short < least):
        yield Defect(int(sound[i]), "small", f"Its shorter side has {short[i]:.0f} pixels, fewer than {least:g}.",
                     least / max(short[i], 1))  # fmt: skip
    ratio = long / np.maximum(short, 1)
    for i in np.flatnonzero(ratio > limits.aspect):
        yield Defect(int(sound[i]), "aspect",
                     f"Its longer side is {ratio[i]:.1f} times its shorter, more than {limits.aspect:g}.",
                     ratio[i] / limits.aspect)  # fmt: skip
    left = short >= least
    for rule, found, reasons, severity in (
        _dark(f, limits), _bright(f, limits, scan, sound), _pale(f, limits), _soft(f, limits)
    ):  # fmt: skip
        for i in np.flatnonzero(found & left):
            yield Defect(
                int(sound[i]), rule, reasons.format(**{name: values[i] for name, values in f.items()}), severity[i]
            )
        left &= ~found


LIGHTNESS = ("width", "height", "blur", "brightness", "contrast", "sharp", "low", "high", "colour")
Values = dict[str, NDArray[np.float64]]
Judged = tuple[Rule, NDArray[np.bool_], str, NDArray[np.float64]]  # rule, which, the reason's pattern, severity


def _dark(f: Values, limits: Limits) -> Judged:
    found = (f["brightness"] < limits.dark) & (f["high"] < LIGHTS)
    reason = f"Its mean grey is {{brightness:.0f}} of 255, below {limits.dark:g}, and nothing in it is light."
    return "dark", found, reason, limits.dark / np.maximum(f["brightness"], 0.1)


def _bright(f: Values, limits: Limits, scan: Scan, sound: NDArray[np.intp]) -> Judged:
    found = (f["brightness"] > limits.bright) & (limits.bright > 0)
    for i in np.flatnonzero(found):
        thumb = scan.looks["thumb"][sound[i]]
        low = f["low"][i]
        lost = low >= VEIL or (low >= BLACK and (thumb >= BLOWN).mean() >= LOST)
        found[i] = lost and not (low < SHOWN and _on_white(thumb))
    reason = f"Its mean grey is {{brightness:.0f}} of 255, above {limits.bright:g}, with its detail lost in white."
    return "bright", found, reason, f["brightness"] / max(limits.bright, 1)


def _on_white(thumb: NDArray[np.uint8]) -> bool:
    """Whether something is shown on a white ground: a product, a diagram."""
    white = thumb >= WHITE
    edge = np.ones((THUMB, THUMB), dtype=bool)
    edge[2:-2, 2:-2] = False
    around, middle = float(white[edge].mean()), float(white[8:-8, 8:-8].mean())
    return around >= GROUND or (around >= AROUND and around - middle >= MORE)


def _pale(f: Values, limits: Limits) -> Judged:
    contrast = np.maximum(f["contrast"], f["colour"])
    found = (contrast < limits.contrast) & (f["high"] - f["low"] < RANGE)
    reason = f"Its grey deviates by {{contrast:.1f}} levels from its mean, less than {limits.contrast:g}."
    return "low-contrast", found, reason, limits.contrast / np.maximum(f["contrast"], 0.1)


def _soft(f: Values, limits: Limits) -> Judged:
    # Contrast scales the grey and so, squared, the variance: fog is no blur.
    pale = np.clip(f["contrast"] / USUAL, 0.02, 1.0) ** 2
    small = np.clip(np.minimum(f["width"], f["height"]) / FULL, 0.1, 1.0) ** 4
    f["asked"] = limits.blur * pale * small
    found = (f["sharp"] < SHARP * f["asked"]) & (f["blur"] < LINES * f["asked"])
    f["asked"] *= SHARP
    reason = (
        "It has no sharp detail: the variance of its Laplacian is {blur:.1f}, and where it is sharpest {sharp:.1f}, "
        "below {asked:.1f} (for its size and contrast)."
    )
    return "blurry", found, reason, f["asked"] / np.maximum(f["sharp"], 0.1)


def formats(scan: Scan) -> Iterator[Defect]:
    """What has to be converted, or turned, before every reader sees the same."""
    looks = scan.looks
    codes = {name.encode(): endings.split() for name, endings in SUFFIXES.items()}
    plain = np.isin(looks["mode"], [b"RGB", b"L"]) & (looks["orientation"] <= 1) & (looks["frames"] <= 1)
    for i in np.flatnonzero(looks["fault"] == Fault.NONE):
        suffix = PurePath(scan.pictures[i].path).suffix.lower()
        endings = codes.get(bytes(looks["format"][i]))
        if plain[i] and (endings is None or suffix in endings):
            continue
        found = _oddities(looks[i], suffix, endings)
        if found:
            yield Defect(int(i), "format", f"It is {_listed(found)}.", float(len(found)))


def _oddities(look: np.void, suffix: str, endings: Sequence[str] | None) -> list[str]:
    mode, orientation, frames = look["mode"].decode(), int(look["orientation"]), int(look["frames"])
    found = []
    if endings is not None and suffix not in endings:
        found.append(f"{look['format'].decode()}, though named {suffix or 'without a suffix'}")
    if mode in ("P", "PA"):
        found.append("in palette colours")
    if mode in ("CMYK", "YCCK"):
        found.append("in CMYK, the colours of print")
    if "16" in mode or mode in ("I", "F"):
        found.append(f"of more than 8 bits a channel ({mode})")
    if orientation > 1:
        found.append(f"turned by its EXIF orientation {orientation}")
    if frames > 1:
        found.append(f"animated ({frames} frames)")
    return found


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])}, and {words[-1]}"
