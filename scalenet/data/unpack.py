"""Archives of data sets: regular files and folders, and nothing that leads outside.

Python's own filter for archives (PEP 706) is missing from early 3.10 and 3.11, and lets links through that stay inside.
A published set of pictures holds neither links nor devices, so one rule for tar and zip alike is shorter and stricter:
names are checked here, files are written under them, and owners, modes and times are left to the system.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from scalenet.errors import ScalenetError

Told = Callable[[int], None]  # takes the bytes of the archive that are done
# Makes the file or folder at the second path, where nothing is yet, of the file at the first.
Unpack = Callable[[Path, Path, Told], None]
FOREIGN = frozenset("\\:\0")  # in no name of a published set; a way out of the folder on some systems


def copy(file: Path, target: Path, told: Told) -> None:
    """A file that is no archive."""
    shutil.copyfile(file, target)
    told(target.stat().st_size)


def gunzip(file: Path, target: Path, told: Told) -> None:
    """A single compressed file."""
    with open(file, "rb") as raw, gzip.open(raw) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)
        told(raw.tell())


def untar(file: Path, target: Path, told: Told, *, inside: str = "") -> None:
    """The folder `inside` of a tar archive, compressed or not; all of it by default. The rest is left out.

    Raises:
        ScalenetError: a link, a device or a name that leads outside; or no such folder.
    """
    with open(file, "rb") as raw, tarfile.open(fileobj=raw, mode="r|*") as archive:
        for member in archive:
            place = _place(member.name, inside)
            if not (member.isfile() or member.isdir() or member.islnk()):
                raise ScalenetError(f"{file.name} holds {member.name!r}, which is neither a file nor a folder.")
            if place is None:
                continue
            if member.islnk():  # how tar writes a file the second time; here it becomes a copy
                with open(_linked(file, member.linkname, target, inside), "rb") as source:
                    _write(source, target / place)
            else:
                _write(archive.extractfile(member), target / place)
            told(raw.tell())
    _found(file, target, inside)


def unzip(file: Path, target: Path, told: Told, *, inside: str = "") -> None:
    """As `untar`, for a zip archive."""
    done = 0
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            place = _place(member.filename, inside)
            kind = member.external_attr >> 28  # of a Unix mode: 8 file, 4 folder; 0 where a system has none
            if kind not in (0, 4, 8):
                raise ScalenetError(f"{file.name} holds {member.filename!r}, which is neither a file nor a folder.")
            if place is None:
                continue
            if member.is_dir():
                _write(None, target / place)
            else:
                with archive.open(member) as source:  # checks its CRC-32
                    _write(source, target / place)
            done += member.compress_size
            told(done)
    _found(file, target, inside)


def _place(name: str, inside: str) -> PurePosixPath | None:
    """The member's path below `inside`; None where it lies elsewhere. Refuses what leads outside the archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or FOREIGN.intersection(name):
        raise ScalenetError(f"The archive holds {name!r}, which leads outside it.")
    try:
        return path.relative_to(PurePosixPath(inside))
    except ValueError:
        return None


def _linked(file: Path, name: str, target: Path, inside: str) -> Path:
    place = _place(name, inside)
    if place is None or not (target / place).is_file():
        raise ScalenetError(f"{file.name} holds a link to {name!r}, which it does not hold.")
    return target / place


def _write(source: IO[bytes] | None, path: Path) -> None:
    """A file, or a folder where there is no source."""
    if source is None:
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        shutil.copyfileobj(source, out)


def _found(file: Path, target: Path, inside: str) -> None:
    if not target.exists():
        raise ScalenetError(f"{file.name} holds no {inside!r}.")
