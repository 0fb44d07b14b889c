"""The rules of cleaning and their thresholds, as the command line needs them: without a picture in sight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scalenet.errors import ScalenetError

Rule = Literal[
    "broken", "hidden", "duplicate", "near-duplicate", "leak", "conflict",
    "blurry", "dark", "bright", "low-contrast", "small", "aspect",
    "format", "denied", "link", "other",
]  # fmt: skip


@dataclass(frozen=True)
class RuleText:
    """A rule in words, and whether what it finds is moved unless one says otherwise."""

    rule: Rule
    what: str
    removes: bool  # by default
    movable: bool = True  # False: what it finds is only ever told


RULES: tuple[RuleText, ...] = (
    RuleText("broken", "empty, truncated, corrupt, no picture at all, or too large to decode", True),
    RuleText("hidden", "hidden files and what systems leave behind (.DS_Store, ._x.jpg, Thumbs.db)", True),
    RuleText("duplicate", "the same bytes as a better copy of the class", True),
    RuleText("near-duplicate", "the same picture as a better copy of the class: re-encoded, resized, cropped, turned",
             True),
    RuleText("leak", "the same picture in a part that is judged on; the copy for training goes", True),
    RuleText("conflict", "the same picture under two labels; all copies go", False),
    RuleText("blurry", "without sharp detail", True),
    RuleText("dark", "too dark", True),
    RuleText("bright", "over-exposed", True),
    RuleText("low-contrast", "hardly any contrast", True),
    RuleText("small", "far smaller than the others", True),
    RuleText("aspect", "far longer than wide, or wider than long", True),
    RuleText("format", "to be converted: another format than the name says, palette, CMYK, 16 bit, turned, animated",
             False, movable=False),
    RuleText("denied", "may not be read", False, movable=False),
    RuleText("link", "a link that leads nowhere", True),
    RuleText("other", "no picture by its name", False, movable=False),
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Where a picture begins to be bad; the usual thresholds."""

    blur: float = 100.0  # variance of the Laplacian below which a picture is blurry
    dark: float = 30.0  # mean grey below which it is dark
    bright: float = 220.0  # mean grey above which it is over-exposed
    contrast: float = 25.0  # standard deviation of grey below which contrast is low
    side: int = 32  # shorter side in pixels below which it is small
    aspect: float = 4.0  # longer over shorter side above which it is extreme
    pixels: int = 178_956_970  # more are not decoded (Pillow's own limit for an error)

    def __post_init__(self) -> None:
        for name in ("blur", "dark", "bright", "contrast", "side"):
            if getattr(self, name) < 0:
                raise ScalenetError(f"{name} is {getattr(self, name)}; it must be 0 (off) or more.")
        if self.aspect < 1:
            raise ScalenetError(f"aspect is {self.aspect}; longer over shorter side is 1 or more.")
        if self.pixels < 1:
            raise ScalenetError(f"pixels is {self.pixels}; it must be 1 or more.")
