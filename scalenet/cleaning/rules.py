"""What is wrong with a folder of pictures, what goes for which reason, and what is left."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from scalenet.cleaning.defects import broken, formats, looks
from scalenet.cleaning.duplicates import groups
from scalenet.cleaning.values import RULES, Entry, Fault, Finding, Group, Judgement, Limits, Rule, Scan
from scalenet.data.values import PARTS, Part
from scalenet.errors import ScalenetError

# What part of a class, or of all, may go before one should look oneself.
MOST = 0.5
FEW = 10  # pictures of a class: with fewer, half of them is soon reached


def judge(scan: Scan, limits: Limits, removing: Collection[Rule] | None = None) -> Judgement:
    """Every finding of every rule.

    Args:
        scan: of the folder.
        limits: where a picture begins to be bad.
        removing: rules whose findings are to go; None for those that say so by default.

    Raises:
        ScalenetError: a rule that is none, or one whose findings cannot be moved.
    """
    going = _switches(removing)
    found = [*_single(scan, limits, going)]
    bad = {finding.path for finding in found if finding.removes}
    copies = groups(scan)
    found += _Copies(scan, going, bad).findings(copies)
    order = {text.rule: place for place, text in enumerate(RULES)}
    found.sort(key=lambda finding: (order[finding.rule], -finding.severity, finding.path))
    return Judgement(scan, limits, going, tuple(found), copies)


def _switches(removing: Collection[Rule] | None) -> tuple[Rule, ...]:
    if removing is None:
        return tuple(text.rule for text in RULES if text.removes)
    movable = [text.rule for text in RULES if text.movable]
    for rule in removing:
        if rule not in movable:
            raise ScalenetError(
                f"The findings of {rule!r} cannot be removed; those of these can: {', '.join(movable)}."
            )
    return tuple(rule for rule in movable if rule in removing)


def _single(scan: Scan, limits: Limits, going: Collection[Rule]) -> Iterator[Finding]:
    """What is wrong with paths by themselves."""
    for entry in scan.entries:
        if told := ENTRIES.get(entry.kind):
            rule, reason = told
            if folder := _hidden_folder(entry):
                yield Finding(
                    entry.path, rule, f"It lies in the hidden folder {folder}, which is left alone.", 0.0, False
                )
            else:
                yield Finding(entry.path, rule, reason, 1.0, rule in going)
    for defect in (*broken(scan, limits), *looks(scan, limits), *formats(scan)):
        gone = scan.looks["fault"][defect.picture] == Fault.GONE  # there is nothing to move
        path = scan.pictures[defect.picture].path
        yield Finding(path, defect.rule, defect.reason, float(defect.severity), defect.rule in going and not gone)


def _hidden_folder(entry: Entry) -> str | None:
    """The hidden folder that a path lies in: a .git holds more than leftovers, and nobody wants it taken apart."""
    folders = entry.path.split(os.sep)[:-1]
    return next((folder for folder in folders if folder.startswith(".")), None)


ENTRIES: dict[str, tuple[Rule, str]] = {
    "hidden": ("hidden", "It is hidden, or left behind by a system, and no picture of the data set."),
    "broken link": ("link", "It is a link that leads nowhere."),
    "denied": ("denied", "It may not be read (no permission)."),
    "other": ("other", "By its name it is no picture."),
}


class _Copies:
    """The findings about groups of copies.

    The best copy is the first of a group that no rule removes for itself, and no link where there is a file: a smaller
    sharp copy is not given up for a larger blurred one, nor a file for a link to it.
    """

    def __init__(self, scan: Scan, going: Collection[Rule], bad: Collection[str]) -> None:
        self.root = scan.root
        self.going = going
        self.bad = bad
        self.entries = {entry.path: entry for entry in scan.pictures}
        self.place = {entry.path: i for i, entry in enumerate(scan.pictures)}
        self.sha256 = scan.looks["sha256"]

    def findings(self, copies: Iterable[Group]) -> Iterator[Finding]:
        for group in copies:
            # Stable: the best first among the good, and a link after what it may lead to.
            paths = sorted(group.paths, key=lambda path: (path in self.bad, os.path.islink(self.root / path)))
            yield from self._inside(paths)
            yield from self._across_parts(paths)
            if len(group.labels) > 1:
                yield from self._across_labels(paths)

    def _inside(self, paths: list[str]) -> Iterator[Finding]:
        cells: dict[tuple[str | None, Part | None], list[str]] = defaultdict(list)
        for path in paths:
            cells[self.entries[path].label, self.entries[path].part].append(path)
        for best, *others in cells.values():
            for path in others:
                rule: Rule = "duplicate" if self._bytes(path) == self._bytes(best) else "near-duplicate"
                same = "of the same bytes as" if rule == "duplicate" else "the same picture as"
                yield Finding(path, rule, f"It is {same} {best}, which stays.", 1.0, rule in self.going, (best,))

    def _across_parts(self, paths: list[str]) -> Iterator[Finding]:
        """The copy in the part that is judged on last stays: held-out, then validation, then training."""
        by_part: dict[Part, list[str]] = defaultdict(list)
        for path in paths:
            part = self.entries[path].part
            if part is not None:
                by_part[part].append(path)
        used = [part for part in PARTS if part in by_part]
        for place, part in enumerate(used[:-1]):
            later = [path for other in reversed(used[place + 1 :]) for path in by_part[other]]
            stays = any(path not in self.bad for path in later)
            for path in by_part[part]:
                reason = f"It is {WORDS[part]}, and {later[0]}, {WORDS[used[-1]]}, is the same picture."
                severity = float(PARTS.index(used[-1]))
                yield Finding(path, "leak", reason, severity, stays and "leak" in self.going, tuple(later))

    def _across_labels(self, paths: list[str]) -> Iterator[Finding]:
        for path in paths:
            label = self.entries[path].label
            others = [other for other in paths if self.entries[other].label not in (label, None)]
            if label is None or not others:
                continue
            reason = f"It is labelled {label}, and {others[0]}, the same picture, {self.entries[others[0]].label}."
            severity = float(len({self.entries[other].label for other in others}))
            yield Finding(path, "conflict", reason, severity, "conflict" in self.going, tuple(others))

    def _bytes(self, path: str) -> bytes:
        return bytes(self.sha256[self.place[path]])


WORDS: dict[Part, str] = {"fit": "for training", "select": "for validation", "held": "for the test"}


@dataclass(frozen=True)
class Piles:
    """All paths below a folder, each in exactly one of these."""

    sound: tuple[str, ...]
    broken: tuple[str, ...]
    denied: tuple[str, ...]  # not readable, be it a file or a folder
    hidden: tuple[str, ...]
    links: tuple[str, ...]  # that lead nowhere
    other: tuple[str, ...]


def piles(scan: Scan) -> Piles:
    """Every path by what it is, before anything is judged good or bad."""
    fault = {entry.path: Fault(value) for entry, value in zip(scan.pictures, scan.looks["fault"].tolist(), strict=True)}
    found: dict[str, list[str]] = defaultdict(list)
    for entry in scan.entries:
        found[_pile(entry, fault)].append(entry.path)
    return Piles(*(tuple(found[name]) for name in Piles.__dataclass_fields__))


def _pile(entry: Entry, fault: dict[str, Fault]) -> str:
    if entry.kind != "picture":
        return "links" if entry.kind == "broken link" else entry.kind
    return {Fault.NONE: "sound", Fault.DENIED: "denied"}.get(fault[entry.path], "broken")


def doubts(judgement: Judgement) -> tuple[str, ...]:
    """What a person should look at before so much goes: sentences, none where all is well.

    A whole class, more than half of one, or more than half of all, is more likely a limit that does not suit the
    pictures than so many bad pictures.
    """
    removed = judgement.removed
    reasons: dict[str | None, Counter[Rule]] = defaultdict(Counter)
    every: Counter[str | None] = Counter()
    for entry in judgement.scan.pictures:
        for name in {entry.label, None}:
            every[name] += 1
            if entry.path in removed:
                reasons[name][removed[entry.path].rule] += 1
    told = []
    for name in sorted(every, key=lambda name: (name is not None, name or "")):
        gone = reasons[name].total()
        if gone == every[name] or (gone > MOST * every[name] and every[name] >= FEW):
            rule, most = reasons[name].most_common(1)[0]
            whom = "all classes together" if name is None else f"the class {name}"
            told.append(
                f"{gone} of the {every[name]} pictures of {whom} would go, {most} of them as {rule}: "
                "see whether they are as bad as that."
            )
    return tuple(told)
