"""Pictures in one format, in a new folder: upright, eight bits, sRGB, on white; the originals stay as they are."""

from __future__ import annotations

import itertools
import os
import queue
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalenet.children import Child, ChildDied, answer, started, tell
from scalenet.cleaning.converter import HALF
from scalenet.cleaning.form import Form
from scalenet.cleaning.journal import alone
from scalenet.cleaning.manifest import Manifest, Picture, check
from scalenet.data.folder import printable
from scalenet.data.store import Progress, hashed, in_threads, read_json, write_json
from scalenet.data.values import Part
from scalenet.environment import cpus
from scalenet.errors import ScalenetError

FORMAT = 1  # of convert.json
CHUNK = 8  # pictures told to a process at a time
FOLDERS: Mapping[Part, str] = {"fit": "train", "select": "val", "held": "test"}


@dataclass(frozen=True)
class Failed:
    """A picture that could not be converted, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Converted:
    """What lies in the new folder."""

    folder: Path
    record: Path  # JSON: which file came from which, and what is told here
    pictures: int
    before: int  # of these, from a conversion that was broken off
    renamed: int  # because their own name, with the new ending, was another's
    failed: tuple[Failed, ...]
    unprofiled: tuple[str, ...]  # their colour profile could not be used: their colours are as without it


def convert(
    listed: Manifest, out: Path, form: Form, progress: Progress | None = None, workers: int | None = None
) -> Converted:
    """Writes a converted copy of every picture of the list into the new folder `out`.

    Classes and parts lie as they did; where the list itself was divided, in train, val and test. Pictures whose names
    differ in the ending alone all get a copy. Every file is whole or absent, and the same call goes on with what was
    broken off. Beside the folder, `out`.scalenet/convert.json says what came from where.

    Raises:
        ScalenetError: `out` holds other things, lies among the pictures or is being written to by another process, the
            disk is full, or a process dies.
    """
    out = Path(os.path.abspath(out))
    check(listed, listed.root)
    targets = _targets(listed, form)
    record = out.parent / f"{out.name}.scalenet" / "convert.json"
    key = hashed(FORMAT, asdict(form), [(p.path, p.sha256, targets[p.path]) for p in listed.pictures])
    earlier = _begin(listed, out, record, key)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with alone(record.parent):  # each would take the other's half files for those of a killed one
            _write(record, key, form, listed, targets, (), earlier)
            for folder in sorted({os.path.dirname(target) for target in targets.values()}):
                (out / folder).mkdir(parents=True, exist_ok=True)
                for half in (out / folder).glob(HALF.format("*")):
                    half.unlink(missing_ok=True)
            todo = [path for path, target in targets.items() if not _is_whole(out / target)]
            failed, found = _in_processes(listed, out, form, targets, todo, progress, workers or cpus())
            unprofiled = tuple(sorted({*earlier, *found}))
            _write(record, key, form, listed, targets, failed, unprofiled)
    except OSError as error:
        raise ScalenetError(f"{out} cannot be written ({error.strerror}).") from error
    return Converted(
        folder=out,
        record=record,
        pictures=len(targets) - len(failed),
        before=len(targets) - len(todo),
        renamed=sum(_stem(path) != _stem(target) for path, target in targets.items()),
        failed=failed,
        unprofiled=unprofiled,
    )


def _targets(listed: Manifest, form: Form) -> dict[str, str]:
    """Path -> where it goes below the new folder; no two the same, even where case does not count."""
    divided = listed.division is not None
    places = {picture.path: _place(picture) if divided else picture.path for picture in listed.pictures}
    folders = {_folded(str(parent)) for place in places.values() for parent in Path(place).parents}
    targets: dict[str, str] = {}
    taken: set[str] = set()
    for picture in sorted(listed.pictures, key=lambda picture: picture.path):
        stem, ending = os.path.splitext(places[picture.path])
        longer = f"{stem}_{ending[1:].lower()}"
        names = itertools.chain([stem, longer], (f"{longer}_{number}" for number in itertools.count(2)))
        target = next(n for n in names if _folded(n) not in taken and _folded(n + form.ending) not in folders)
        taken.add(_folded(target))
        targets[picture.path] = target + form.ending
    return targets


def _place(picture: Picture) -> str:
    """The path of a picture in a list that was divided: part, class, and what lies below the class folder."""
    steps = picture.path.split(os.sep)
    below = steps[steps.index(picture.label) + 1 :] if picture.label in steps[:-1] else steps[-1:]
    return os.path.join(FOLDERS[picture.part] if picture.part else "", picture.label or "", *below)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _begin(listed: Manifest, out: Path, record: Path, key: str) -> tuple[str, ...]:
    """Refuses a folder that holds anything but the same conversion; what that said of profiles of no use."""
    real = os.path.realpath(out)
    if os.path.commonpath([real, listed.root]) in (real, listed.root):
        raise ScalenetError(f"{out} and the pictures in {listed.root} lie one inside the other; name a folder beside.")
    try:
        filled = os.path.lexists(out) and bool(os.listdir(out))
    except OSError as error:
        raise ScalenetError(f"{out} cannot be used as a folder ({error.strerror}).") from error
    match read_json(record):
        case {"key": before, "unprofiled": [*paths]} if before == key and filled:
            return tuple(str(path) for path in paths)
    if filled:
        raise ScalenetError(f"{out} is not empty and not this conversion, broken off; name a new folder.")
    return ()


def _is_whole(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0  # a loss of power may leave an empty file under the name
    except OSError:
        return False


def _write(
    record: Path,
    key: str,
    form: Form,
    listed: Manifest,
    targets: Mapping[str, str],
    failed: Iterable[Failed],
    unprofiled: Iterable[str],
) -> None:
    plain = {
        "schema_version": FORMAT,
        "key": key,
        "form": asdict(form),
        "root": listed.root,
        "fingerprint": listed.fingerprint,
        "pictures": [{"path": path, "to": target} for path, target in targets.items()],
        "failed": [asdict(failure) for failure in failed],
        "unprofiled": list(unprofiled),
    }
    write_json(record, plain)


def _in_processes(
    listed: Manifest,
    out: Path,
    form: Form,
    targets: Mapping[str, str],
    todo: Sequence[str],
    progress: Progress | None,
    count: int,
) -> tuple[tuple[Failed, ...], tuple[str, ...]]:
    """Those that failed, and those whose colour profile was of no use."""
    free: queue.SimpleQueue[Child] = queue.SimpleQueue()
    failed: list[Failed] = []
    unprofiled: list[str] = []

    def work(paths: Sequence[str]) -> list[Any]:
        child = free.get()
        try:
            tell(child, [[os.path.join(listed.root, path), str(out / targets[path])] for path in paths])
            return [(path, told) for path, told in zip(paths, answer(child), strict=True)]
        finally:
            free.put(child)

    try:
        with ExitStack() as stack:
            for _ in range(min(count, -(-len(todo) // CHUNK))):
                child = stack.enter_context(started("scalenet.cleaning.converter"))
                free.put(child)
                tell(child, asdict(form))
            done = len(targets) - len(todo)
            for chunk in in_threads(work, todo, CHUNK):
                for path, told in chunk:
                    if told["full"]:
                        raise ScalenetError(
                            f"{out} cannot be written ({told['why']}) after {done:,} of {len(targets):,} pictures; the "
                            "same command goes on."
                        )
                    if told["why"] is not None:
                        failed.append(Failed(path, told["why"]))
                    elif told["unprofiled"]:
                        unprofiled.append(path)
                    done += 1
                if progress:
                    progress(done, len(targets), "converting")
    except ChildDied as error:
        raise ScalenetError(
            f"A process that converts pictures of {printable(listed.root)} died; is there memory enough?"
        ) from error
    return tuple(failed), tuple(unprofiled)
