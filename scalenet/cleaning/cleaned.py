"""Any source of pictures in files without those that cleaning would leave out; nothing is moved or written there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from scalenet.cleaning.limits import RULES, Limits
from scalenet.cleaning.manifest import Manifest, listed, read, state
from scalenet.cleaning.values import Scan
from scalenet.data.source import Located, Source
from scalenet.data.store import Progress, hashed
from scalenet.errors import ScalenetError
from scalenet.plain import to_plain

CLEAN = "clean.json"  # in the sidecar
VERSION = 1  # of how pictures are judged, as far as rules and limits do not say it


def cleaned(found: Located, folder: Path | None) -> Located:
    """The source without what cleaning would leave out.

    For a folder, the clean list in its sidecar is used while the folder is as it was; otherwise, and for other sources,
    the pictures are looked at when they are fetched and judged with the usual limits.

    Args:
        found: the source.
        folder: where it is one, as the user named it, resolved.

    Raises:
        ScalenetError: when it is fetched or loaded, for pictures that are not in files, or a class that loses all.
    """
    ready = _current(folder) if folder is not None else None
    usual = [VERSION, to_plain(Limits()), [text.rule for text in RULES if text.removes]]
    stamp = hashed(found.stamp, "cleaned", to_plain(ready) if ready else usual) if found.stamp is not None else None
    work = _Cleaning(found, folder, ready)
    return replace(found, stamp=stamp, load=work.load, fetch=work.fetch)


@dataclass
class _Cleaning:
    """Looks once: in `fetch`, which has the progress bar, or in `load` where nobody fetched."""

    found: Located
    folder: Path | None
    ready: Manifest | None
    source: Source | None = field(default=None, init=False)

    def fetch(self, progress: Progress | None) -> None:
        """Looks at the pictures."""
        if self.found.fetch is not None:
            self.found.fetch(progress)
        source = self.found.load()
        files = _files(source)
        root = self.folder or Path(os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files]))
        paths = [os.path.relpath(file, root) for file in files]
        manifest = self.ready or _judged(source, paths, root, progress, relabel=self.folder is None)
        self.source = _without(source, paths, manifest)

    def load(self) -> Source:
        """The pictures that are kept."""
        if self.source is None:
            self.fetch(None)
        assert self.source is not None
        return self.source


def sidecar(folder: Path) -> Path:
    """Where what is written about a folder goes: beside it, to move along with it, and not among its pictures."""
    whole = folder.expanduser().resolve()
    return whole.parent / f"{whole.name}.scalenet"


def clean_list(folder: Path, progress: Progress | None = None) -> tuple[Manifest, Path]:
    """The clean list of a folder, and the file for it: the one in its sidecar while the folder is as it was.

    Otherwise the pictures are looked at and judged with the usual limits, and nothing is written.

    Raises:
        ScalenetError: no picture can be used, or the folder cannot be read.
    """
    from scalenet.cleaning.rules import judge
    from scalenet.cleaning.scan import scan

    whole = folder.expanduser().resolve()
    manifest = _current(whole) or listed(judge(scan(whole, Limits(), progress), Limits()))
    if not manifest.pictures:
        raise ScalenetError(f"{folder} holds no picture that can be used.")
    return manifest, sidecar(whole) / CLEAN


def _current(folder: Path) -> Manifest | None:
    """The clean list of a folder, where it is still of the folder as it is."""
    file = sidecar(folder) / CLEAN
    if not file.is_file():
        return None
    from scalenet.cleaning.inventory import inventory

    with suppress(ScalenetError):  # a list that cannot be used is one that is not there
        manifest = read(file)
        if manifest.root == str(folder) and manifest.state == state(inventory(folder)):
            return manifest
    return None


def _files(source: Source) -> list[str]:
    files = [item.picture for item in source.items if isinstance(item.picture, str)]
    if len(files) < len(source.items):
        raise ScalenetError(
            f"The pictures of {source.name} are not in files of their own and cannot be cleaned; leave out --clean."
        )
    if not files:
        raise ScalenetError(f"The data set {source.name!r} holds no pictures.")
    return files


def _judged(source: Source, paths: Sequence[str], root: Path, progress: Progress | None, *, relabel: bool) -> Manifest:
    from scalenet.cleaning.rules import judge
    from scalenet.cleaning.scan import scan

    seen = scan(root, Limits(), progress)
    return listed(judge(_labelled(seen, source, paths) if relabel else seen, Limits()))


def _labelled(seen: Scan, source: Source, paths: Sequence[str]) -> Scan:
    """The scan with the pictures of the source alone, under the labels and in the parts that it gives them."""
    told = dict(zip(paths, source.items, strict=True))
    entries = {
        entry.path: replace(entry, label=source.classes[told[entry.path].label], part=told[entry.path].given)
        for entry in seen.entries
        if entry.path in told
    }
    picked = np.flatnonzero([entry.path in told for entry in seen.pictures])
    looks = seen.looks if len(picked) == len(seen.pictures) else seen.looks[picked]
    pictures = tuple(entries[seen.pictures[i].path] for i in picked)
    return Scan(seen.root, tuple(entries.values()), pictures, looks, seen.reused)


def _without(source: Source, paths: Sequence[str], manifest: Manifest) -> Source:
    """The source with those of its own items that the list keeps."""
    kept = {picture.path: picture for picture in manifest.pictures}
    known = kept.keys() | {left.path for left in manifest.left_out}
    items = []
    for path, item in zip(paths, source.items, strict=True):
        if path not in known:
            raise ScalenetError(
                f"{item.name} lies behind a link to a folder, which cleaning does not follow; name that folder itself, "
                "or leave out --clean."
            )
        if path in kept:
            items.append(replace(item, group=kept[path].group))
    left = {item.label for item in items}
    if bare := [name for number, name in enumerate(source.classes) if number not in left]:
        raise ScalenetError(f"Cleaning leaves no picture of {', '.join(map(repr, bare))}; leave out --clean, or see "
                            "`scalenet data clean` for why.")  # fmt: skip
    told = (manifest.told,) if manifest.told else ()
    return replace(source, items=items, warnings=(*told, *source.warnings), cleaned=manifest.fingerprint)
