"""How an answer of `clean_methods.py` is held against the truth of `planted.py`, and what is asked of scalenet's."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import planted

UNLOADABLE = ("broken", "denied", "link", "hidden")
QUALITY = {
    "blurry": 0.98, "dark": 1.0, "bright": 0.9, "low-contrast": 0.95, "small": 1.0, "aspect": 1.0,
}  # fmt: skip  # recall and precision that are wanted
Pair = tuple[str, str]
Bar = tuple[str, bool]


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    cpu: float  # seconds of all processes
    wall: float
    memory: float  # MiB, the largest sum of PSS


@dataclass(frozen=True)
class Ran:
    """One method's answer; `why` where there is none."""

    name: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    cost: Cost | None = None
    why: str = ""

    def flagged(self, rule: str) -> set[str]:
        """The files of which it says so."""
        return {path for path, said in self.answer["said"].items() if any(r == rule for r, _ in said)}

    @property
    def pairs(self) -> set[Pair]:
        """Of files in one group."""
        return {pair for group in self.answer["groups"] for pair in pairs_of(group)}


@dataclass(frozen=True)
class Truth:
    """What is in the folder."""

    sound: Mapping[str, str]  # path -> kind
    defects: Sequence[Mapping[str, Any]]

    def of(self, *rules: str) -> set[str]:
        """The files of which that is right to say."""
        return {d["path"] for d in self.defects if d["rule"] in rules}

    @property
    def pairs(self) -> set[Pair]:
        """Of an original and its copies, and of the copies."""
        groups: dict[str, list[str]] = {}
        for defect in self.defects:
            if defect["other"]:
                groups.setdefault(defect["other"], [defect["other"]]).append(defect["path"])
        return {pair for group in groups.values() for pair in pairs_of(group)}

    @property
    def turned(self) -> set[str]:
        """Copies of which it is right to say that they are stored turned."""
        return {d["path"] for d in self.defects if d["family"].startswith("EXIF, ")}


def pairs_of(group: Sequence[str]) -> Iterator[Pair]:
    return ((min(a, b), max(a, b)) for a, b in combinations(group, 2))


def truth_of(out: Path, permissions: bool) -> Truth:
    manifest = json.loads(planted.manifest_of(out).read_text())
    defects = [d for d in manifest["defects"] if permissions or d["rule"] != "denied"]
    return Truth({s["path"]: s["kind"] for s in manifest["sound"]}, defects)


def right(ran: Ran, defect: Mapping[str, Any]) -> bool:
    """Whether the defect was found, for the right reason."""
    if defect["other"]:
        return (min(defect["path"], defect["other"]), max(defect["path"], defect["other"])) in ran.pairs
    for rule, words in ran.answer["said"].get(defect["path"], ()):
        if rule == defect["rule"] and (
            not defect["reasons"] or not words or any(r.lower() in words.lower() for r in defect["reasons"])
        ):
            return True
    return False


def named(ran: Ran, defect: Mapping[str, Any]) -> bool:
    """Whether a copy in another class or part is called that, with both sides shown."""
    both = {defect["path"], defect["other"]}
    return any(rule == defect["rule"] and both <= set(paths) for rule, paths in ran.answer.get("crossing", ()))


def share(part: int, whole: int) -> str:
    return f"{part / whole:.3f} ({part}/{whole})" if whole else "-"


@dataclass(frozen=True)
class Score:
    """All figures of one method; each is (right ones, all)."""

    families: Mapping[str, tuple[int, int]]
    precision: Mapping[str, tuple[int, int]]  # by rule
    crossing: Mapping[str, tuple[int, int]]  # named: by rule
    pairs_right: int
    pairs_found: int
    pairs_true: int
    wrong: Mapping[str, Sequence[Any]]  # what it got wrong, for looking at


def score(ran: Ran, truth: Truth) -> Score:
    families: dict[str, tuple[int, int]] = {}
    crossing: dict[str, tuple[int, int]] = {}
    wrong: dict[str, list[Any]] = {}
    for defect in truth.defects:
        for name, found, into in (
            (defect["family"], right(ran, defect), families),
            *([(defect["rule"], named(ran, defect), crossing)] if defect["rule"] in ("leak", "conflict") else []),
        ):
            had, all_ = into.get(name, (0, 0))
            into[name] = had + found, all_ + 1
            if not found:
                wrong.setdefault(f"missed: {name}", []).append([defect["path"], defect["other"]])
    precision = {}
    for rule in (*UNLOADABLE, *QUALITY, "format"):
        flagged = ran.flagged(rule)
        allowed = truth.of(rule) | (truth.turned if rule == "format" else set())
        precision[rule] = len(flagged & allowed), len(flagged)
        for path in sorted(flagged - allowed):
            wrong.setdefault(f"false: {rule}", []).append([path, truth.sound.get(path, "")])
    pairs, real = ran.pairs, truth.pairs
    wrong["false pairs"] = sorted(pairs - real)
    wrong["missed pairs"] = sorted(real - pairs)
    return Score(families, precision, crossing, len(pairs & real), len(pairs), len(real), wrong)


def bars(ran: Ran, found: Score, truth: Truth, out: Path, same: bool, pictures: int) -> Iterator[Bar]:
    """What is asked of scalenet."""
    assert ran.cost is not None
    for family, (part, whole) in found.families.items():
        rule = next(d["rule"] for d in truth.defects if d["family"] == family)
        if rule in (*UNLOADABLE, "format"):
            yield f"{family}: all found for the right reason: {part} of {whole}", part == whole
    part, whole = found.precision["broken"]
    yield f"no healthy file called broken: {whole - part}", part == whole
    deep = {d["path"] for d in truth.defects if d["family"] == "16 bit"}
    yield f"16 bit is never too bright: {len(deep & ran.flagged('bright'))}", not deep & ran.flagged("bright")
    there = {os.path.relpath(os.path.join(at, name), out) for at, _, names in os.walk(out) for name in names}
    entries, kept, gone = (ran.answer[key] for key in ("entries", "kept", "removed"))
    once = len(entries) == len(set(entries)) and set(entries) == there and not set(kept) & set(gone)
    yield f"every path is listed once: {len(entries)} of {len(there)}", once
    precision, recall = found.pairs_right / max(1, found.pairs_found), found.pairs_right / found.pairs_true
    yield (
        f"copies: precision {precision:.4f}, bar 0.995; recall {recall:.4f}, bar 0.978",
        precision >= 0.995 and recall >= 0.978,
    )
    for rule, (part, whole) in found.crossing.items():
        yield f"{rule}: all named, both sides shown: {part} of {whole}", part == whole
    yield "same findings and groups on a second run", same
    for rule, least in QUALITY.items():
        counts = [found.families[f] for f in {d["family"] for d in truth.defects if d["rule"] == rule}]
        recall = sum(part for part, _ in counts) / sum(whole for _, whole in counts)
        part, whole = found.precision[rule]
        precision = part / max(1, whole)
        yield f"{rule}: recall {recall:.3f}, precision {precision:.3f}, bar {least}", min(recall, precision) >= least
    yield f"pictures per CPU-s {pictures / ran.cost.cpu:.0f}, bar 250", pictures / ran.cost.cpu >= 250
    yield f"memory {ran.cost.memory:.0f} MiB, bar 150", ran.cost.memory <= 150
