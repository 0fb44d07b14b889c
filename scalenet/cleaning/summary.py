"""What a folder of pictures holds, in numbers."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalenet.cleaning.values import Entry, Fault, Judgement, Scan
from scalenet.data.values import Part

NO_CLASS = "(no class)"  # of pictures that lie in no class folder


@dataclass(frozen=True)
class Spread:
    """A number over all sound pictures: extremes, the middle, and where the outer twentieths begin."""

    least: float
    low: float  # 5 %
    median: float
    high: float  # 95 %
    most: float


@dataclass(frozen=True)
class ClassCount:
    """One class: all its pictures, sound or not, and how many of them would stay."""

    name: str
    pictures: int
    parts: Mapping[Part, int]  # as a train/val/test layout says; empty without one
    kept: int


@dataclass(frozen=True)
class Summary:
    """A folder before anything is done about it. Sides are pixels, of the sound pictures, as stored."""

    root: str
    fingerprint: str  # of the sound pictures' bytes, classes and parts; names and order do not matter
    paths: Mapping[str, int]  # kind -> how many; they add up to all that lies below the root
    bytes: int  # of the pictures' files
    pictures: int
    faults: Mapping[str, int]
    classes: tuple[ClassCount, ...]
    imbalance: float | None  # pictures of the largest class over those of the smallest; None with fewer than two
    formats: Mapping[str, int]
    modes: Mapping[str, int]
    shorter: Spread | None  # None where nothing is sound
    longer: Spread | None
    sizes: tuple[tuple[str, int], ...]  # the most frequent ones, "640 x 480"
    turned: int  # by EXIF
    animated: int
    findings: Mapping[str, int]
    removed: Mapping[str, Mapping[str, int]]  # rule -> class -> how many it would remove (each path once)


def summarise(judgement: Judgement) -> Summary:
    """The numbers of a folder that was looked at and judged."""
    scan = judgement.scan
    looks, pictures = scan.looks, scan.pictures
    sound = looks[looks["fault"] == Fault.NONE]
    counted = Counter(class_of(entry) for entry in pictures)
    parts = Counter((class_of(entry), entry.part) for entry in pictures if entry.part is not None)
    kept = Counter(class_of(entry) for entry in judgement.kept)
    classes = tuple(
        ClassCount(name, counted[name], {part: n for (label, part), n in parts.items() if label == name}, kept[name])
        for name in sorted(counted)
    )
    sides = np.stack([sound["width"], sound["height"]]) if len(sound) else np.zeros((2, 0))
    return Summary(
        root=str(scan.root),
        fingerprint=fingerprint(scan),
        paths=_counted(entry.kind for entry in scan.entries),
        bytes=sum(entry.size for entry in pictures),
        pictures=len(pictures),
        faults=_counted(Fault(int(fault)).name.lower() for fault in looks["fault"] if fault),
        classes=classes,
        imbalance=max(counted.values()) / min(counted.values()) if len(counted) > 1 else None,
        formats=_counted(name.decode() for name in sound["format"].tolist()),
        modes=_counted(name.decode() for name in sound["mode"].tolist()),
        shorter=_spread(sides.min(axis=0)) if len(sound) else None,
        longer=_spread(sides.max(axis=0)) if len(sound) else None,
        sizes=tuple(_counted(f"{w} x {h}" for w, h in sides.T.tolist()).items())[:12],
        turned=int(np.sum(sound["orientation"] > 1)),
        animated=int(np.sum(sound["frames"] > 1)),
        findings=Counter(finding.rule for finding in judgement.findings),
        removed=_removed(judgement),
    )


def fingerprint(scan: Scan) -> str:
    """A SHA-256 in hex of the sound pictures: their bytes, classes and parts."""
    lines = sorted(
        json.dumps([bytes(look["sha256"]).hex(), entry.label, entry.part])
        for entry, look in zip(scan.pictures, scan.looks, strict=True)
        if look["fault"] == Fault.NONE
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def class_of(entry: Entry) -> str:
    """The entry's class for people."""
    return NO_CLASS if entry.label is None else entry.label


def _removed(judgement: Judgement) -> dict[str, dict[str, int]]:
    labels = {entry.path: class_of(entry) for entry in judgement.scan.entries}
    found: dict[str, Counter[str]] = {}
    for path, finding in judgement.removed.items():
        found.setdefault(finding.rule, Counter())[labels[path]] += 1
    return {rule: dict(sorted(found[rule].items())) for rule in judgement.removing if rule in found}


def _counted(values: Iterable[str]) -> dict[str, int]:
    """value -> how often, the most frequent first, equals by name."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _spread(values: NDArray[np.uint32]) -> Spread:
    return Spread(*(float(q) for q in np.quantile(values, (0, 0.05, 0.5, 0.95, 1))))
