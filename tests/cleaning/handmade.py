"""Folders, scans and judgements put together by hand, and what a folder holds down to the last bit."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scalenet.cleaning.values import LOOK, Entry, Fault, Finding, Group, Judgement, Limits, Rule, Scan
from scalenet.data.folder import SUFFIXES

PARTS = {"train": "fit", "val": "select", "test": "held"}


def fill(root: Path, names: Mapping[str, bytes] | list[str]) -> Path:
    """Files with those bytes, by default their names, each with a time and a mode of its own."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(names[name] if isinstance(names, Mapping) else os.fsencode(name) * 7)
        path.chmod(0o600 + number % 8 * 8)
        os.utime(path, ns=(10**18, 10**18 + 1_000_000_007 * number))
    root.mkdir(parents=True, exist_ok=True)
    return root


def seen(root: Path) -> Scan:
    """The folder as a scan would have it: digests are true, whatever needs a decoder is nought."""
    entries = []
    for path in sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_symlink() or not p.is_dir()):
        whole = os.path.join(root, path)
        picture = os.path.splitext(path)[1].lower() in SUFFIXES and os.path.exists(whole)
        steps = path.split(os.sep)
        part = PARTS.get(steps[0])
        steps = steps[1:] if part else steps
        found = os.lstat(whole)
        kind = "picture" if picture else "broken link" if os.path.islink(whole) else "other"
        if os.path.basename(path).startswith("."):
            kind = "hidden"
        entries.append(
            Entry(path, kind, steps[0] if len(steps) > 1 else None, part, found.st_size, (found.st_mtime_ns,))
        )
    pictures = tuple(e for e in entries if e.kind == "picture")
    looks = np.zeros(len(pictures), LOOK)
    for look, entry in zip(looks, pictures, strict=True):
        data = (root / entry.path).read_bytes()
        look["sha256"] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        look["fault"] = Fault.NONE if data else Fault.EMPTY
    return Scan(root, tuple(entries), pictures, looks)


def judged(root: Path, removed: Mapping[str, Rule], groups: tuple[Group, ...] = ()) -> Judgement:
    """A judgement that removes these paths for these rules."""
    findings = tuple(Finding(path, rule, f"{rule} by hand", 1.0, True) for path, rule in removed.items())
    return Judgement(seen(root), Limits(), tuple(dict.fromkeys(removed.values())), findings, groups)


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Path -> bytes or link, mode and time of all files below; folders by name alone."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            key = os.path.relpath(path, root)
            if stat.S_ISLNK(info.st_mode):
                found[key] = ("link", os.readlink(path), info.st_mtime_ns)
            elif stat.S_ISDIR(info.st_mode):
                found[key] = ("folder",)
            else:
                data = Path(path).read_bytes()
                found[key] = (hashlib.sha256(data).hexdigest(), info.st_size, info.st_mode, info.st_mtime_ns)
    return found


def files(root: Path) -> dict[str, tuple[object, ...]]:
    """As `state`, without the folders."""
    return {path: what for path, what in state(root).items() if what != ("folder",)}
