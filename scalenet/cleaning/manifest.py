"""Pictures as a list on disk, clean.json and split.json: which are used, in which part, and why others are not."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scalenet.cleaning.limits import Limits, Rule
from scalenet.cleaning.moving import Folder, seen_from
from scalenet.cleaning.summary import fingerprint
from scalenet.cleaning.values import Entry, Fault, Finding, Judgement
from scalenet.data.folder import printable
from scalenet.data.source import Item, Located, Source
from scalenet.data.split import together
from scalenet.data.store import hashed, write_json
from scalenet.data.values import Part
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, to_plain

FORMAT = 1
NO_PICTURES = ("hidden", "link", "other")  # rules for what is none by its name, or leads to none
SHA256 = re.compile("[0-9a-f]{64}")
BEGINS = re.compile(rb'\s*(\{\s*"schema_version"|$)')  # a list, or nothing


@dataclass(frozen=True)
class Picture:
    """One that is used. Pictures of one `group` are copies of each other and stay in one part."""

    path: str  # relative to the root
    label: str | None  # None for a picture that lies in no class folder
    part: Part | None  # None: not divided yet
    sha256: str
    group: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """A path that is not used, and why."""

    path: str
    rule: Rule
    reason: str


@dataclass(frozen=True)
class Division:
    """How the parts came about; a part that the folder brought was kept whatever its fraction."""

    select: float
    held: float
    seed: int


@dataclass(frozen=True)
class Manifest:
    """A list of pictures. In the file `root` is relative to it where the two can move together; once read, absolute."""

    schema_version: int
    root: str
    fingerprint: str  # of the pictures that were judged: their bytes, classes and parts
    state: str  # of all paths, their sizes and times: whether the folder is still as it was judged
    classes: tuple[str, ...]
    limits: Limits
    removing: tuple[Rule, ...]
    division: Division | None
    pictures: tuple[Picture, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def told(self) -> str | None:
        """One sentence on the pictures that are left out; None where none is."""
        found = Counter(left.rule for left in self.left_out if left.rule not in NO_PICTURES)
        total = sum(found.values())
        if not total:
            return None
        rules = ", ".join(f"{count:,} {rule}" for rule, count in sorted(found.items(), key=lambda f: (-f[1], f[0])))
        return f"Left out {total:,} of {total + len(self.pictures):,} pictures: {rules}."


def listed(judgement: Judgement) -> Manifest:
    """What a judgement keeps, as a list that is not divided but for the parts that the folder itself brings."""
    scan = judgement.scan
    kept = judgement.kept
    digests = dict(zip((entry.path for entry in scan.pictures), scan.looks["sha256"], strict=True))
    stays = {entry.path for entry in kept}
    groups = together([path for path in group.paths if path in stays] for group in judgement.groups)
    sizes = Counter(groups.values())
    return Manifest(
        schema_version=FORMAT,
        root=os.path.realpath(scan.root),
        fingerprint=fingerprint(scan),
        state=state(scan.entries),
        classes=tuple(sorted({entry.label for entry in kept if entry.label is not None})),
        limits=judgement.limits,
        removing=judgement.removing,
        division=None,
        pictures=tuple(
            Picture(
                entry.path,
                entry.label,
                entry.part,
                digests[entry.path].tobytes().hex(),
                groups[entry.path] if sizes[groups.get(entry.path, "")] > 1 else None,
            )
            for entry in kept
        ),
        left_out=_left_out(judgement, stays),
    )


def state(entries: Iterable[Entry]) -> str:
    """A SHA-256 in hex of what an inventory says: it changes when any path comes, goes or is written to."""
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(json.dumps([entry.path, entry.kind, entry.label, entry.part, entry.mark]).encode())
    return digest.hexdigest()


def write(manifest: Manifest, path: Path) -> None:
    """Writes the file, whole or not at all.

    Raises:
        ScalenetError: it cannot be written, or what is there is no list: a picture, by a slip of the keyboard.
    """
    root = seen_from(os.path.dirname(os.path.abspath(path)), manifest.root)
    try:
        if path.exists() and not _is_list(path):
            raise ScalenetError(f"{path} is there already and no list of pictures; name another file.")
        write_json(path, to_plain(replace(manifest, root=root)))
    except OSError as error:
        raise ScalenetError(f"{path} cannot be written ({error.strerror}).") from error


def read(path: Path, root: Path | None = None) -> Manifest:
    """The list in a file, which a stranger may have written: it reaches nothing outside its folder.

    Args:
        path: of the file.
        root: the folder of pictures, where it is not any more where the file says.

    Raises:
        ScalenetError: no such file, not a list of pictures, a path that leads out of the folder, or no such folder.
    """
    try:
        plain = json.loads(path.read_bytes())
    except OSError as error:
        raise ScalenetError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise ScalenetError(f"{path} is not JSON.") from error
    if not isinstance(plain, dict) or not {"schema_version", "pictures", "root"} <= plain.keys():
        raise ScalenetError(f"{path} is not a list of pictures; `scalenet data clean` and `data split` write them.")
    if plain["schema_version"] != FORMAT:
        raise ScalenetError(f"{path}: schema_version is {plain['schema_version']!r}; this scalenet reads {FORMAT}.")
    manifest = from_plain(Manifest, plain, str(path))
    told = os.path.join(os.path.dirname(os.path.realpath(path)), manifest.root)
    try:
        manifest = replace(manifest, root=os.path.realpath(told if root is None else root))
    except ValueError as error:
        raise ScalenetError(f"{path}: the root {manifest.root!r} is no name that a folder can have.") from error
    if not os.path.isdir(manifest.root):
        raise ScalenetError(f"{path} lists pictures in {manifest.root}, which is no folder.")
    check(manifest, str(path))
    return manifest


def located(path: Path) -> Located:
    """The list in a file as a source of pictures, such as --data takes.

    Raises:
        ScalenetError: as `read`, or the pictures have no classes.
    """
    manifest = read(path)
    marks = [_mark(os.path.join(manifest.root, picture.path)) for picture in manifest.pictures]
    source = as_source(manifest)
    return Located(source.name, manifest.root, hashed("list", to_plain(manifest), marks), lambda: source)


def as_source(manifest: Manifest) -> Source:
    """The pictures of a list, for training.

    Raises:
        ScalenetError: fewer than two classes.
    """
    if len(manifest.classes) < 2:
        raise ScalenetError(
            f"The pictures of {manifest.root} are of {len(manifest.classes)} classes; a classifier needs two or more, "
            "each in a folder of its own."
        )
    index = {label: number for number, label in enumerate(manifest.classes)}
    items = [
        Item(printable(p.path), index[p.label], os.path.join(manifest.root, p.path), p.part, p.group)
        for p in manifest.pictures
        if p.label is not None
    ]
    return Source(
        name=printable(os.path.basename(manifest.root)) or "data",
        classes=tuple(map(printable, manifest.classes)),
        items=items,
        ignored=sum(left.rule in NO_PICTURES for left in manifest.left_out),
        warnings=(manifest.told,) if manifest.told else (),
        cleaned=manifest.fingerprint,
    )


def _left_out(judgement: Judgement, stays: set[str]) -> tuple[LeftOut, ...]:
    """Every path with something against it that does not stay; what removes it is the reason, else what comes first."""
    reasons: dict[str, Finding] = {}
    for finding in judgement.findings:
        if finding.path not in stays:
            reasons.setdefault(finding.path, finding)
    reasons.update(judgement.removed)
    found = {path: LeftOut(path, finding.rule, finding.reason) for path, finding in reasons.items()}
    faults = judgement.scan.looks["fault"]
    for i in np.flatnonzero(faults):
        path = judgement.scan.pictures[i].path
        found.setdefault(path, LeftOut(path, "broken", f"It is {Fault(int(faults[i])).name.lower()}."))
    for entry in judgement.scan.entries:
        if entry.kind == "broken link":
            found.setdefault(entry.path, LeftOut(entry.path, "link", "It leads nowhere."))
        elif entry.kind == "denied":
            found.setdefault(entry.path, LeftOut(entry.path, "denied", "It may not be read."))
    return tuple(found[path] for path in sorted(found))


def check(manifest: Manifest, path: str) -> None:
    """Raises ScalenetError for what a list may not say, such as a picture outside its folder."""
    inside = Folder(manifest.root)
    seen = set()
    for picture in manifest.pictures:
        where = f"{path}: the picture {printable(picture.path)!r}"
        if not inside.holds_file(picture.path):
            raise ScalenetError(f"{where} lies outside {manifest.root}, or is a link that leads out of it.")
        if picture.path in seen:
            raise ScalenetError(f"{where} is listed twice.")
        if picture.label is not None and picture.label not in manifest.classes:
            raise ScalenetError(f"{where} is of class {picture.label!r}; listed: {', '.join(manifest.classes)}.")
        if not SHA256.fullmatch(picture.sha256):
            raise ScalenetError(f"{where} has the sha256 {picture.sha256!r}; it must be 64 digits in hex.")
        seen.add(picture.path)
    if len(set(manifest.classes)) < len(manifest.classes):
        raise ScalenetError(f"{path}: a class is listed twice: {', '.join(manifest.classes)}.")


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return BEGINS.match(file.read(80)) is not None


def _mark(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
