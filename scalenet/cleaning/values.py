"""What the parts of cleaning hand to each other: paths, what one look at a file tells, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scalenet.cleaning.limits import RULES, Limits, Rule, RuleText
from scalenet.data.values import Part

__all__ = [
    "LOOK",
    "RULES",
    "THUMB",
    "Entry",
    "Fault",
    "Finding",
    "Group",
    "Judgement",
    "Kind",
    "Limits",
    "Rule",
    "RuleText",
    "Scan",
]

# What a path is before it is opened. Only a "picture" is: a file, or a link to one, with the suffix of a picture.
Kind = Literal["picture", "hidden", "broken link", "denied", "other"]
THUMB = 32  # pixels


class Fault(IntEnum):
    """What keeps a picture from being one; NONE for a sound file."""

    NONE = 0
    EMPTY = 1  # zero bytes
    FOREIGN = 2  # not in a format that can be read: a text named .jpg
    TRUNCATED = 3  # ends before the picture does
    CORRUPT = 4  # cannot be decoded to its end for another reason
    BOMB = 5  # its header states more pixels than are decoded; it was not
    DENIED = 6  # may not be read: nothing is known of the picture
    GONE = 7  # went away, or failed to be read by the disk, while being looked at


# One look at a picture, as a record of fixed size: what is appended to disk is read back as an array. A file with a
# fault has zeros from `width` on, as far as they are not known.
LOOK = np.dtype(
    [
        ("fault", "u1"),  # Fault
        ("sha256", "u1", (32,)),  # of the file's bytes
        ("format", "S8"),  # Pillow's name of what the bytes are: JPEG, PNG, WEBP
        ("mode", "S8"),  # Pillow's, before any conversion: RGB, L, P, CMYK, I;16
        ("orientation", "u1"),  # EXIF's, 1 to 8; 1 where nothing is said
        ("frames", "u4"),  # above 1: animated
        ("width", "u4"),  # pixels, as stored (before EXIF's orientation)
        ("height", "u4"),
        ("phash", "u8"),  # perceptual hash of the picture as stored
        ("upright", "u8"),  # and of it turned as EXIF says; the same where it says nothing
        ("thumb", "u1", (THUMB, THUMB)),  # grey, upright, stretched to a square
        ("blur", "f4"),  # variance of the Laplacian of the grey picture at half scale: low is blurry
        ("brightness", "f4"),  # mean grey, 0 to 255
        ("contrast", "f4"),  # standard deviation of grey
        ("colour", "f4"),  # the largest standard deviation of red, green or blue; 0 where grey has contrast enough
        ("sharp", "f4"),  # the same, of its sharpest tiles along the least sharp direction
        ("low", "u1"),  # the grey that one pixel in 200 stays below: the shadows
        ("high", "u1"),  # and the one that one in 200 goes beyond: the lights
    ]
)


@dataclass(frozen=True)
class Entry:
    """A path below the folder; every one on disk is exactly one entry, but for the folders themselves.

    `path` is relative, with the system's separators, as `os.fsdecode` gives it (names that are not valid text keep
    their bytes). `label` is the class folder, `part` what a train/val/test layout says; None where there is none.
    """

    path: str
    kind: Kind
    label: str | None = None
    part: Part | None = None
    size: int = 0  # bytes
    mark: tuple[int, ...] = ()  # what changes when the file does: size, times, inode; () where unknown


@dataclass(frozen=True, eq=False)
class Scan:
    """All that was seen in a folder. `looks[i]` (LOOK) is of `pictures[i]`."""

    root: Path
    entries: tuple[Entry, ...]  # sorted by path
    pictures: tuple[Entry, ...]  # those of kind "picture", in the same order
    looks: NDArray[np.void]  # (pictures,) of LOOK, possibly mapped from disk
    reused: int = 0  # looks taken from an earlier scan


@dataclass(frozen=True)
class Finding:
    """Something about one path. A path may have several; the first that removes it is the reason on record."""

    path: str
    rule: Rule
    reason: str  # one sentence for people, with the value and the limit
    severity: float  # within the rule, higher is worse
    removes: bool  # with the switches that were set
    others: tuple[str, ...] = ()  # the other side: copies, the best one (which stays) first


@dataclass(frozen=True)
class Group:
    """Copies of one picture."""

    paths: tuple[str, ...]  # the best first: largest, then sharpest, then by name
    exact: bool  # all of the same bytes
    labels: tuple[str, ...]  # more than one: a conflict
    parts: tuple[Part, ...]  # more than one: a leak


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is wrong with a folder, and what would be left of it."""

    scan: Scan
    limits: Limits
    removing: tuple[Rule, ...]  # the switches
    findings: tuple[Finding, ...]  # by rule in the order of RULES, the worst first
    groups: tuple[Group, ...]

    @property
    def removed(self) -> Mapping[str, Finding]:
        """path -> why it goes: the first of its findings that removes."""
        found: dict[str, Finding] = {}
        for finding in self.findings:
            if finding.removes:
                found.setdefault(finding.path, finding)
        return found

    @property
    def kept(self) -> Sequence[Entry]:
        """The pictures that can be used: sound, and not removed."""
        gone = self.removed
        sound = self.scan.looks["fault"] == Fault.NONE
        return [e for e, good in zip(self.scan.pictures, sound, strict=True) if good and e.path not in gone]
