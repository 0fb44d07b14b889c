"""A folder of pictures: class folders, or a train folder beside val and/or test."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scalenet.data.source import Item, Located, Source
from scalenet.data.store import hashed
from scalenet.data.values import Part
from scalenet.errors import ScalenetError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
).union((".pnm", ".avif", ".tga", ".jp2"))
# Pictures that Pillow cannot read unaided; named, so that they are not mistaken for notes left in the folder.
FOREIGN = frozenset([".heic", ".heif", ".svg", ".cr2", ".nef", ".dng"])
ARCHIVES = (".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".zip", ".7z", ".rar")
TRAIN, SELECT, TEST = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
JUNK = frozenset(["thumbs.db", "desktop.ini", "__macosx"])  # what systems leave in folders and archives


def scan(path: Path) -> Located:
    """The pictures under `path`, by name only: no file is opened.

    A folder whose only content is one folder of folders is looked through. With `train` and both `val` and `test`,
    select is val and held is test; with one of them, it is held, and select is split off train. Names are compared
    without case, hidden files are passed over, and pictures may lie deeper inside a class folder.

    Raises ScalenetError for a file, an empty folder, a single class, or a class that only the test part has.
    """
    if not path.is_dir():
        archive = " Unpack the archive first." if path.name.lower().endswith(ARCHIVES) else ""
        raise ScalenetError(f"{path} is a file; data is a folder of pictures.{archive}")
    path = path.resolve()
    root, parts = layout(path)
    others: list[os.DirEntry[str]] = []
    pictures = {given: _read(folder, others) for given, folder in parts.items()}
    trained = pictures[next(iter(parts))]
    classes = tuple(sorted(label for label, files in trained.items() if files))
    _check(path, parts, pictures, classes)

    skip = len(os.path.join(root, ""))
    files = [
        (file, index, given)
        for given, tree in pictures.items()
        for index, label in enumerate(classes)
        for file in tree.get(label, ())
    ]
    marks = [(file.path[skip:], *_mark(file)) for file, _, _ in files]
    name, shown = printable(path.name) or "data", tuple(map(printable, classes))
    warnings = tuple(_remarks(others, trained))

    def load() -> Source:
        items = [Item(printable(file.path[skip:]), index, file.path, given) for file, index, given in files]
        return Source(name, shown, items, len(others), warnings=warnings)

    stamp = hashed(os.fspath(root), marks, classes, len(others), warnings)
    return Located(name, os.fspath(root), stamp, load)


def _remarks(others: Sequence[os.DirEntry[str]], trained: Mapping[str, Sequence[object]]) -> Iterator[str]:
    empty = sorted(label for label, pictures in trained.items() if not pictures)
    if empty:
        yield f"Folders without pictures are left out: {', '.join(map(printable, empty))}."
    foreign = sum(suffix(file.name) in FOREIGN for file in others)
    if foreign:
        yield f"Pictures in formats that cannot be read here are left out: {foreign} ({_listed(FOREIGN)})."


def layout(path: Path) -> tuple[Path, Mapping[Part | None, Path]]:
    """The folder that holds the classes or the parts, and the parts: {None: folder} where nothing is given.

    Raises ScalenetError when `path`, or the one folder in it, cannot be read.
    """
    while True:
        folders = _folders(path)
        named = {folder.name.lower(): folder for folder in folders}
        train, select, test = (next((named[n] for n in names if n in named), None) for names in (TRAIN, SELECT, TEST))
        if train and select and test:
            return path, {"fit": train, "select": select, "held": test}
        if train and (judge := select or test):
            return path, {"fit": train, "held": judge}
        if len(folders) != 1 or not _folders(folders[0]) or _has_pictures(path) or _has_pictures(folders[0]):
            return path, {None: path}
        path = folders[0]


def _check(
    path: Path,
    parts: Mapping[Part | None, Path],
    pictures: Mapping[Part | None, Mapping[str, Sequence[object]]],
    classes: tuple[str, ...],
) -> None:
    first = next(iter(parts.values()))
    if not classes:
        if _has_pictures(first):
            raise ScalenetError(f"{first} holds pictures but no class folders; put each class in a folder of its own.")
        raise ScalenetError(f"{path} holds no pictures in class folders; looked for {_listed(SUFFIXES)}.")
    if len(classes) == 1:
        raise ScalenetError(f"{first} holds one class only, {classes[0]!r}; a classifier needs two or more.")
    for given, tree in pictures.items():
        present = {label for label, files in tree.items() if files}
        if extra := sorted(present.difference(classes)):
            raise ScalenetError(
                f"{parts[given]} has classes that {first.name} has not: {', '.join(map(repr, extra))}; "
                f"{first.name} has: {', '.join(map(printable, classes))}."
            )
        if not present:
            raise ScalenetError(f"{parts[given]} holds no pictures in class folders; looked for {_listed(SUFFIXES)}.")


def _read(folder: Path, others: list[os.DirEntry[str]]) -> dict[str, list[os.DirEntry[str]]]:
    """Class folder -> the pictures below it. What is no picture, or lies beside the class folders, joins `others`."""
    pictures: dict[str, list[os.DirEntry[str]]] = {}
    for entry in _entries(folder):
        if not _is_dir(entry):
            others.append(entry)
            continue
        found = pictures[entry.name] = []
        for file in _walk(entry.path):
            (found if suffix(file.name) in SUFFIXES else others).append(file)
    return pictures


def _walk(folder: str) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):  # a link to a folder may lead in a circle
            yield from _walk(entry.path)
        elif not _is_dir(entry):
            yield entry


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What lies in the folder, sorted by name, hidden things left out."""
    try:
        with os.scandir(os.fspath(folder)) as found:
            return sorted((entry for entry in found if not hidden(entry.name)), key=lambda e: e.name)
    except OSError as error:
        raise ScalenetError(f"{folder} cannot be read ({error.strerror}).") from error


def _folders(path: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(path) if _is_dir(entry)]


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _has_pictures(path: Path) -> bool:
    return any(suffix(entry.name) in SUFFIXES for entry in _entries(path) if not _is_dir(entry))


def hidden(name: str) -> bool:
    """Whether a file or folder of that name is nobody's picture."""
    return name.startswith(".") or name.lower() in JUNK


def suffix(name: str) -> str:
    """The ending of a file's name, in lower case with its dot: what SUFFIXES and FOREIGN hold."""
    _, dot, ending = name.rpartition(".")
    return (dot + ending).lower()


def _mark(entry: os.DirEntry[str]) -> tuple[int, ...]:
    """What changes when a file does: size, times, kind and permissions. Zeros for a link that leads nowhere."""
    try:
        found = entry.stat()
    except OSError:
        return (0, 0, 0, 0)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode


def printable(name: str) -> str:
    """The name with / between folders, printable on any terminal even where it is not valid text."""
    shown = name.replace(os.sep, "/")
    return shown if shown.isascii() else shown.encode("utf-8", "backslashreplace").decode()


def _listed(suffixes: frozenset[str]) -> str:
    return " ".join(sorted(suffixes))
