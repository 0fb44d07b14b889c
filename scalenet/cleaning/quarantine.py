"""Moving aside what a judgement removes, and bringing all of it back; no file is ever deleted or replaced.

Every move is announced in the sidecar's journal before the first begins. A process that is killed leaves each file
whole in its old place or in its new one (across file systems possibly in both); which one is read off the disk, so
that `apply` goes on and `undo` brings back whatever happened before.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scalenet.cleaning.journal import FILE, FOLDER, LOCK, VERSION, Begun, Journal, Line, Move, Undone, opened
from scalenet.cleaning.limits import Rule
from scalenet.cleaning.moving import ChangedError, Folder, Stamp, part_of, seen_from, stamp, transfer
from scalenet.cleaning.values import Entry, Finding, Judgement
from scalenet.data.store import Progress
from scalenet.errors import ScalenetError

HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # the next file would fare no better
CHANGED = "it has changed since it was looked at"


@dataclass(frozen=True)
class Left:
    """A path that stayed where it was, and why."""

    path: str
    why: str


@dataclass(frozen=True)
class Applied:
    """What an `apply` did."""

    root: Path
    folder: Path  # where the files went
    moved: tuple[Move, ...]
    before: int  # of what was to go, moved by an earlier one already
    left: tuple[Left, ...]

    @property
    def rules(self) -> Mapping[Rule, int]:
        """rule -> files moved for it."""
        return Counter(move.rule for move in self.moved)


@dataclass(frozen=True)
class Restored:
    """What an `undo` did. With something `left` it did not bring back everything."""

    root: Path
    restored: int
    left: tuple[Left, ...]


@dataclass(frozen=True)
class Bounds:
    """The folder and the sidecar: a journal may come from a stranger, and nothing is touched outside the two."""

    folder: Folder
    aside: Folder

    def old(self, move: Move) -> str:
        """Where it was."""
        return os.path.join(self.folder.root, move.path)

    def new(self, move: Move) -> str:
        """Where it lies aside."""
        return os.path.join(self.aside.root, move.to)

    def broken_by(self, move: Move) -> str | None:
        """Why a move is not one of ours."""
        if not self.folder.holds(move.path):
            return "its old place lies outside the folder"
        top, *below = move.to.split(os.sep)
        if top != FOLDER or len(below) < 2 or not self.aside.holds(move.to):
            return f"the journal says that it lies in {move.to}, outside the quarantine"
        if self.folder.covers(os.path.dirname(self.new(move))):
            return f"{move.to} lies in the folder itself, by a link"
        return None


def apply(judgement: Judgement, aside: Path, progress: Progress | None = None) -> Applied:
    """Moves every path that is removed from the folder to aside/quarantine/<rule>/<path>; folders stay, also empty.

    Links are moved as links. What a link leads to that stays, what has changed since it was looked at, and what lies
    behind a link that leads out of the folder, is left and told of.

    Raises:
        ScalenetError: nothing can be moved there, another process is at it, or the disk is full; nothing is lost.
    """
    root = Path(os.path.realpath(judgement.scan.root))
    aside = Path(os.path.abspath(aside))
    if Folder(str(root)).holds(os.path.relpath(os.path.realpath(aside), root)) or os.path.realpath(aside) == str(root):
        raise ScalenetError(f"{aside} lies in {root}, where what is moved aside would count as pictures again.")
    with opened(aside, make=True) as journal:
        if journal.moves and _resolved(journal, aside, None) != root:
            raise ScalenetError(
                f"{aside} holds files of {_resolved(journal, aside, None)}; undo that, or name another place."
            )
        bounds = Bounds(Folder(str(root)), Folder(str(aside)))
        _settle(journal.moves, bounds)
        before, planned, left = _planned(judgement, root, aside, journal.moves, progress)
        broken = {move.path: why for move in planned if (why := bounds.broken_by(move))}
        left += [Left(path, why) for path, why in broken.items()]
        moves = [move for move in planned if move.path not in broken]
        if moves:
            started = datetime.now().astimezone().isoformat(timespec="seconds")
            begun = Begun(VERSION, seen_from(str(aside), str(root)), started, judgement.removing, judgement.limits)
            journal.append([Line(begun), *(Line(move=move) for move in moves)])
        moved: list[Move] = []
        aimed = ((str(root / m.path), str(aside / m.to), _stamp(m)) for m in moves)
        for done, (move, error) in enumerate(zip(moves, transfer(aimed), strict=True)):
            if error is None:
                moved.append(move)
            elif error.errno in HOPELESS:
                raise ScalenetError(
                    f"{done} of {len(moves)} files were moved to {aside / FOLDER}, then: {error.strerror}. Nothing is "
                    "lost: the same command goes on, --undo brings all back."
                ) from error
            else:
                left.append(Left(move.path, _why(error)))
            if progress:
                progress(done + 1, len(moves), "moving aside")
        if moves and not moved:
            raise ScalenetError(f"None of the {len(moves)} files can be moved to {aside / FOLDER}: {left[-1].why}.")
    return Applied(root, aside / FOLDER, tuple(moved), before, tuple(left))


def undo(aside: Path, progress: Progress | None = None, root: Path | None = None) -> Restored:
    """Brings back everything that any `apply` moved, the latest first; what is back already stays.

    A file that has since come to an old place is not replaced: it is told of, and what was moved stays aside.

    Args:
        aside: the sidecar.
        progress: told of every file.
        root: the folder of pictures; by default where the journal says, seen from the sidecar.

    Raises:
        ScalenetError: there is nothing to undo, the folder is not there, or the disk is full; nothing is lost.
    """
    aside = Path(os.path.abspath(aside))
    with opened(aside, make=False) as journal:
        whole = _resolved(journal, aside, root)
        if journal.moves and not os.path.isdir(whole):
            raise ScalenetError(f"No folder {whole} to bring the files of {aside / FOLDER} back to; name it.")
        bounds = Bounds(Folder(str(whole)), Folder(str(aside)))
        _settle(journal.moves, bounds)
        left: dict[str, Left] = {}
        back = []
        for move in reversed(journal.moves):
            if why := _kept_because(move, bounds):
                left[move.to] = Left(move.path, why)
            elif os.path.lexists(bounds.new(move)):
                back.append(move)
        aimed = ((bounds.new(m), bounds.old(m), None) for m in back)
        restored = 0
        for done, (move, error) in enumerate(zip(back, transfer(aimed), strict=True)):
            if error is None:
                restored += 1
            elif error.errno in HOPELESS:
                raise ScalenetError(
                    f"{done} of {len(back)} files were brought back to {whole}, then: {error.strerror}. Nothing is "
                    "lost: the same command goes on."
                ) from error
            else:
                left[move.to] = Left(move.path, _why(error))
            if progress:
                progress(done + 1, len(back), "bringing back")
        if journal.moves:
            with suppress(ScalenetError):  # only saves the next undo a look at every place
                journal.append([Line(undone=Undone(tuple(reversed(left))))])
        strays = list(_tidied(aside, {str(aside / to) for to in left}))
    return Restored(whole, restored, (*left.values(), *strays))


def _planned(
    judgement: Judgement, root: Path, aside: Path, earlier: Sequence[Move], progress: Progress | None
) -> tuple[int, list[Move], list[Left]]:
    """How many are aside already, what is to be moved where, and what is left."""
    inside = Folder(str(root))
    gone = {move.path for move in earlier if os.path.lexists(aside / move.to)}
    entries = {entry.path: entry for entry in judgement.scan.entries}
    looks = dict(zip((e.path for e in judgement.scan.pictures), judgement.scan.looks["sha256"], strict=True))
    removed = judgement.removed
    leads = _led_to(root, (entry.path for entry in judgement.scan.entries if entry.path not in removed))
    before, moves, left = 0, [], []
    for done, (path, finding) in enumerate(removed.items()):
        seen = looks.get(path)
        digest = bytes(seen).hex() if seen is not None and seen.any() else None
        found = _looked(root, inside, path, entries.get(path), digest)
        if isinstance(found, Stamp) and (link := leads.get(str(root / path))):
            left.append(Left(path, f"the link {link}, which stays, leads to it"))
        elif isinstance(found, Stamp):
            to = _free(aside, finding, path)
            moves.append(
                Move(path, to, finding.rule, finding.reason, found.size, found.sha256, found.mtime_ns, found.mode)
            )
        elif path in gone and not os.path.lexists(root / path):
            before += 1
        else:
            left.append(Left(path, found))
        if progress:
            progress(done + 1, len(removed), "checking")
    return before, moves, left


def _led_to(root: Path, paths: Iterable[str]) -> Mapping[str, str]:
    """Where the links among the paths lead, in the end -> one of them."""
    wholes = ((path, os.path.join(root, path)) for path in paths)
    return {os.path.realpath(whole): path for path, whole in wholes if os.path.islink(whole)}


def _looked(root: Path, inside: Folder, path: str, entry: Entry | None, digest: str | None) -> Stamp | str:
    """The path as it is now, or why it stays."""
    whole = str(root / path)
    if not inside.holds(path):
        return "it lies outside the folder, behind a link"
    try:
        found = stamp(whole)
        if digest is not None:
            now = found.sha256
            if os.path.islink(whole):  # what it leads to may have been moved a moment ago
                now = stamp(os.path.realpath(whole)).sha256 if os.path.exists(whole) else digest
            if now != digest:
                return CHANGED
        elif entry is not None and entry.mark and not os.path.islink(whole) and found.size != entry.size:
            return CHANGED
    except FileNotFoundError:
        return "it is gone"
    except OSError as error:
        return _why(error)
    return "it is a folder" if os.path.isdir(whole) and not os.path.islink(whole) else found


def _free(aside: Path, finding: Finding, path: str) -> str:
    """A free name for the path below the rule's folder; another such folder where an earlier cleaning took the name."""
    number = 1
    while True:
        rule = finding.rule if number == 1 else f"{finding.rule}~{number}"
        to = os.path.join(FOLDER, rule, path)
        parent = (aside / to).parent
        while not os.path.lexists(parent):
            parent = parent.parent
        if parent.is_dir() and not os.path.lexists(aside / to):
            return to
        number += 1


def _settle(moves: Iterable[Move], bounds: Bounds) -> None:
    """Ends what a killed process had begun: half copies go, and the second of two whole copies, the one aside."""
    for move in moves:
        if bounds.broken_by(move):
            continue
        old, new = bounds.old(move), bounds.new(move)
        for half in (part_of(old), part_of(new)):
            with suppress(OSError):
                os.unlink(half)
        if move.sha256 is not None and os.path.lexists(old) and os.path.lexists(new):
            with suppress(OSError):
                if stamp(old) == _stamp(move) and stamp(new).sha256 == move.sha256:
                    os.unlink(new)


def _kept_because(move: Move, bounds: Bounds) -> str | None:
    """Why a move is not undone; None where it is, or is already."""
    if broken := bounds.broken_by(move):
        return broken
    here, there = os.path.lexists(bounds.old(move)), os.path.lexists(bounds.new(move))
    if here and there:
        return f"something else is at its old place; it stays in {bounds.new(move)}"
    if there and os.path.isdir(bounds.new(move)) and not os.path.islink(bounds.new(move)):
        return f"{move.to} is a folder"
    return None if here or there else "it is in neither place any more"


def _tidied(aside: Path, known: set[str]) -> Iterator[Left]:
    """Removes emptied folders of the quarantine; yields files there that no line of the journal knows."""
    top = str(aside / FOLDER)
    own = {os.path.join(top, FILE), os.path.join(top, LOCK)}
    for folder, _, files in os.walk(top, topdown=False):
        for name in files:
            whole = os.path.join(folder, name)
            if whole not in known and whole not in own:
                yield Left(os.path.relpath(whole, aside), "the journal does not say where it came from")
        if folder != top:
            with suppress(OSError):
                os.rmdir(folder)


def _resolved(journal: Journal, aside: Path, root: Path | None) -> Path:
    """The folder whose files lie aside: the one that is named, unless that on record is there and another one."""
    told = _told(journal, aside)
    if root is None:
        if told is None and journal.moves:
            raise ScalenetError(f"{journal.path} does not say whose files these are; name the folder.")
        return aside if told is None else told
    named = Path(os.path.realpath(root))
    if journal.moves and told is not None and told != named and os.path.isdir(told):
        raise ScalenetError(f"{aside} holds files of {told}, not of {named}.")
    return named


def _told(journal: Journal, aside: Path) -> Path | None:
    if not journal.root:
        return None
    try:
        return Path(os.path.realpath(os.path.join(os.path.realpath(aside), journal.root)))
    except (ValueError, OSError):  # no name that a folder can have
        return None


def _stamp(move: Move) -> Stamp:
    return Stamp(move.size, move.mtime_ns, move.mode, move.sha256)


def _why(error: OSError) -> str:
    if isinstance(error, FileExistsError):
        return "something else has the name that it would get"
    if isinstance(error, ChangedError):
        return CHANGED
    return error.strerror or str(error)
