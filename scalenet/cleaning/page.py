"""What was found in a folder, as one page that needs nothing else, a table for a spreadsheet, and JSON."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalenet.cleaning.rules import doubts
from scalenet.cleaning.summary import Summary, class_of
from scalenet.cleaning.thumbs import thumbnails
from scalenet.cleaning.values import RULES, Fault, Finding, Judgement, RuleText
from scalenet.data.store import Progress
from scalenet.data.values import PARTS
from scalenet.plain import to_plain

SHEET = 24  # pictures of a class on its contact sheet, fewer where there are many classes
SHEETS = 1500  # pictures on all contact sheets together
KINDS = {
    "picture": "pictures",
    "hidden": "hidden",
    "broken link": "broken links",
    "denied": "not readable",
    "other": "others",
}
SHOWN = 10_000  # findings that the page shows (2 to 4 KB each), the worst of each rule; the table has all of them


@dataclass(frozen=True)
class Files:
    """The files of a report."""

    html: Path
    csv: Path
    json: Path


@dataclass(frozen=True)
class Section:
    """A rule and what it found, as the page shows it."""

    rule: RuleText
    removes: bool  # by the switches
    count: int
    goes: int  # paths for which it is the reason to go
    shown: Sequence[Finding]

    @property
    def others(self) -> str:
        """What the other pictures of a finding are to it."""
        return "the other labels" if self.rule.rule == "conflict" else "stays"


def write(judgement: Judgement, summary: Summary, folder: Path, *, sheets: bool, progress: Progress | None) -> Files:
    """Writes report.html, findings.csv and report.json into `folder`, each whole or not at all.

    Args:
        judgement: of the folder of pictures.
        summary: of the same.
        folder: made if it is not there.
        sheets: a contact sheet of every class as well.
        progress: told of the thumbnails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(folder / "report.html", folder / "findings.csv", folder / "report.json")
    _write(files.csv, table(judgement))
    _write(files.json, json.dumps(as_plain(judgement, summary), indent=1))
    _write(files.html, html(judgement, summary, sheets=sheets, progress=progress))
    return files


def as_plain(judgement: Judgement, summary: Summary) -> dict[str, Any]:
    """Everything as JSON data; names that are no valid text keep their bytes as lone surrogates."""
    return {
        "schema_version": 1,
        "summary": to_plain(summary),
        "limits": to_plain(judgement.limits),
        "removing": list(judgement.removing),
        "findings": [to_plain(finding) for finding in judgement.findings],
        "groups": [to_plain(group) for group in judgement.groups],
    }


def table(judgement: Judgement) -> str:
    """All findings as CSV, one line each."""
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerow(("path", "class", "part", "rule", "removes", "reason", "severity", "others"))
    entries = {entry.path: entry for entry in judgement.scan.entries}
    removed = judgement.removed
    for finding in judgement.findings:
        entry = entries[finding.path]
        decides = removed.get(finding.path) is finding
        others = " | ".join(map(printable, finding.others))
        lines.writerow(
            (printable(finding.path), printable(class_of(entry)), entry.part or "", finding.rule,
             "yes" if decides else "no", printable(finding.reason), f"{finding.severity:.6g}", others)
        )  # fmt: skip
    return written.getvalue()


def html(judgement: Judgement, summary: Summary, *, sheets: bool, progress: Progress | None = None) -> str:
    """The page."""
    import jinja2

    sections = list(_sections(judgement))
    sheet = dict(_sheets(judgement)) if sheets else {}
    wanted = [path for section in sections for finding in section.shown for path in (finding.path, *finding.others[:3])]
    wanted += [path for paths in sheet.values() for path in paths]
    pictures = {entry.path for entry in judgement.scan.pictures}
    drawn = thumbnails(judgement.scan.root, [path for path in dict.fromkeys(wanted) if path in pictures], progress)
    loader = jinja2.PackageLoader("scalenet")
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["printable"] = printable
    return templates.get_template("data.html.j2").render(
        name=judgement.scan.root.name or str(judgement.scan.root),
        verdict=verdict(summary),
        doubts=doubts(judgement),
        parts=[part for part in PARTS if any(part in found.parts for found in summary.classes)],
        summary=summary,
        facts=list(facts(judgement, summary)),
        sections=sections,
        most=max((found.pictures for found in summary.classes), default=1),
        sheets=sheet,
        thumbs=drawn,
    )


def verdict(summary: Summary) -> str:
    """What would go and what would stay, in one sentence."""
    gone = {rule: sum(counts.values()) for rule, counts in summary.removed.items()}
    kept = sum(found.kept for found in summary.classes)
    if not gone:
        return f"Nothing would go: {kept:,} of {summary.pictures:,} pictures can be used as they are."
    total = sum(gone.values())
    files = f"{total:,} file{'s' if total > 1 else ''}"
    return f"{files} would go ({listed(gone)}); {kept:,} of {summary.pictures:,} pictures stay."


def printable(text: str) -> str:
    """Text that any page and terminal can show: bytes that are no text, and control characters, are spelled out."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def _sections(judgement: Judgement) -> Iterator[Section]:
    found: dict[str, list[Finding]] = {}
    for finding in judgement.findings:
        found.setdefault(finding.rule, []).append(finding)
    goes = Counter(finding.rule for finding in judgement.removed.values())
    share = min(1.0, SHOWN / max(1, len(judgement.findings)))
    for text in RULES:
        if here := found.get(text.rule):
            shown = here[: max(12, int(share * len(here)))]
            yield Section(text, text.rule in judgement.removing, len(here), goes[text.rule], shown)


def _sheets(judgement: Judgement) -> Iterator[tuple[str, list[str]]]:
    """Class -> some of its sound pictures, drawn at random but the same ones every time."""
    sound = judgement.scan.looks["fault"] == Fault.NONE
    by_class: dict[str, list[str]] = {}
    for entry, good in zip(judgement.scan.pictures, sound, strict=True):
        if good:
            by_class.setdefault(class_of(entry), []).append(entry.path)
    count = max(4, min(SHEET, SHEETS // max(1, len(by_class))))
    for label in sorted(by_class):
        paths = by_class[label]
        yield label, sorted(random.Random(f"sheet {label}").sample(paths, min(count, len(paths))))


def facts(judgement: Judgement, summary: Summary) -> Iterator[tuple[str, str]]:
    """(name, value) of the folder, for people."""
    yield "folder", printable(summary.root)
    yield "files", listed({KINDS[kind]: count for kind, count in summary.paths.items()})
    yield "pictures", f"{summary.pictures:,} in {len(summary.classes)} classes, {summary.bytes / 1e6:,.1f} MB"
    if summary.faults:
        yield "broken", listed(summary.faults)
    if summary.imbalance is not None:
        yield "imbalance", f"the largest class has {summary.imbalance:.1f} times the pictures of the smallest"
    yield "formats", listed(summary.formats)
    yield "modes", listed(summary.modes)
    for name, spread in (("shorter side", summary.shorter), ("longer side", summary.longer)):
        if spread is not None:
            yield (
                name,
                (
                    f"median {spread.median:.0f} px, 90 % between {spread.low:.0f} and {spread.high:.0f}, "
                    f"all between {spread.least:.0f} and {spread.most:.0f}"
                ),
            )
    if summary.sizes:
        yield "most frequent sizes", ", ".join(f"{size} ({count:,})" for size, count in summary.sizes[:5])
    yield "oddities", listed({"turned by EXIF": summary.turned, "animated": summary.animated})
    yield "fingerprint", summary.fingerprint
    limits = judgement.limits
    yield (
        "limits",
        (
            f"blur {limits.blur:g}, dark {limits.dark:g}, bright {limits.bright:g}, contrast {limits.contrast:g}, "
            f"side {limits.side} px, aspect {limits.aspect:g}"
        ),
    )


def listed(counts: Mapping[str, int]) -> str:
    """'120 JPEG, 3 PNG'; 'none' for nothing."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "none"


def _write(path: Path, text: str) -> None:
    """Whole or not at all: what is written under another name first replaces what was there."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    unfinished.replace(path)
