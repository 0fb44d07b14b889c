"""Every path below a folder, by name and by what the system says of it: nothing is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from scalenet.cleaning.values import Entry, Kind
from scalenet.data.folder import SUFFIXES, hidden, layout, suffix
from scalenet.data.values import Part
from scalenet.errors import ScalenetError

Belongs = tuple[str | None, Part | None]  # label, part
NOBODYS: Belongs = (None, None)
# Whose rights are asked about: those that will open the file.
EFFECTIVE = os.access in os.supports_effective_ids


def inventory(root: Path) -> tuple[Entry, ...]:
    """All that lies below `root`, sorted by path; each path once, folders themselves not.

    Links to folders are not followed and count as "other", as do pipes, sockets and devices. A folder that may not be
    read is one entry, "denied", and so is a path that is too long for the system. Hidden is whatever has a hidden name
    or lies in a folder that has one. Labels and parts are those that `scalenet.data.folder` sees; a folder without
    classes has none.

    Raises ScalenetError only when `root` itself is no folder or may not be read.
    """
    try:
        os.scandir(root).close()
    except (OSError, ValueError) as error:
        raise ScalenetError(f"{root} cannot be read as a folder ({getattr(error, 'strerror', error)}).") from error
    parts = _parts(root)
    found: list[Entry] = []
    folders = [("", False)]
    while folders:  # no recursion: folders may lie deeper than Python's calls
        folder, concealed = folders.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as listed:
                entries = list(listed)
        except OSError:
            found.append(Entry(folder, "denied"))
            continue
        belongs = NOBODYS if concealed else _belongs(folder, parts)
        for entry in entries:
            path = os.path.join(folder, entry.name)
            covered = concealed or hidden(entry.name)
            if _is_folder(entry):
                folders.append((path, covered))
            else:
                found.extend(_entry(entry, path, covered, belongs))
    return tuple(sorted(found, key=lambda entry: entry.path))


def _parts(root: Path) -> dict[str, Part | None]:
    """Folder relative to the root -> the part that its class folders belong to."""
    try:
        _, parts = layout(root)
    except ScalenetError:  # the one folder in it may not be read
        return {"": None}
    return {os.path.relpath(folder, root) if folder != root else "": part for part, folder in parts.items()}


def _belongs(folder: str, parts: dict[str, Part | None]) -> Belongs:
    """What files directly in the folder are labelled."""
    for place, part in parts.items():
        if folder == place:
            return None, part
        above = os.path.join(place, "")
        if folder.startswith(above):
            return folder[len(above) :].split(os.sep, 1)[0], part
    return NOBODYS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _entry(entry: os.DirEntry[str], path: str, covered: bool, belongs: Belongs) -> Iterator[Entry]:
    """One entry, or none for what went away in the meantime."""
    try:
        seen = entry.stat(follow_symlinks=not covered)
    except OSError as error:
        if covered:
            yield Entry(path, "hidden")
        elif isinstance(error, PermissionError):
            yield Entry(path, "denied", *belongs)
        elif entry.is_symlink():
            yield Entry(path, "broken link", *belongs)
        elif not isinstance(error, FileNotFoundError):
            yield Entry(path, "denied", *belongs)
        return
    mark = (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino)
    yield Entry(path, "hidden" if covered else _kind(entry, seen), *belongs, seen.st_size, mark)


def _kind(entry: os.DirEntry[str], seen: os.stat_result) -> Kind:
    if not stat.S_ISREG(seen.st_mode) or suffix(entry.name) not in SUFFIXES:
        return "other"
    return "picture" if os.access(entry.path, os.R_OK, effective_ids=EFFECTIVE) else "denied"
