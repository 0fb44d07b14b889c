"""A folder seen once: its paths listed, every picture looked at by as many processes as there are CPUs."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import selectors
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from scalenet.children import Child, ChildDied, answer, started, tell
from scalenet.cleaning import endings, grey, hashing, look, quality, values
from scalenet.cleaning.inventory import inventory
from scalenet.cleaning.kept import mapped, rows, unwritten
from scalenet.cleaning.look import ROW, sealed
from scalenet.cleaning.values import LOOK, Entry, Fault, Limits, Scan
from scalenet.data.store import Progress
from scalenet.environment import cpus
from scalenet.errors import ScalenetError

CHUNK = 64  # pictures that a process is told at once, fewer where they hold this many bytes:
BYTES = 4 << 20
TRIES = 2  # alone, of a picture whose process died: it may have been somebody else's doing
WHAT = "looking at pictures"
# Each process has one CPU, and the products it asks of a linear algebra library are small.
ALONE = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def scan(
    root: Path, limits: Limits, progress: Progress | None = None, workers: int | None = None, fresh: bool = False
) -> Scan:
    """Looks at every picture below `root`. What was seen before of a file that has not changed is not looked at again
    unless `fresh`; of `limits` only `pixels` counts.

    Raises ScalenetError when `root` is no folder that can be read, or processes cannot be started.
    """
    entries = inventory(root)
    pictures = tuple(entry for entry in entries if entry.kind == "picture")
    keys = _keys(pictures, limits)
    with rows(root, keys, fresh) as file:
        missing = unwritten(file, keys, range(len(keys)))
        if missing:
            work = _Work(root, pictures, keys, missing, file, limits.pixels, progress)
            work.run(workers or cpus())
        looks = mapped(file)["look"]
    return Scan(root, entries, pictures, looks, len(pictures) - len(missing))


def _keys(pictures: Sequence[Entry], limits: Limits) -> NDArray[np.uint64]:
    """For each picture, 64 bits of its path, its mark and whatever else a look at it depends on, our own code too."""
    strict = importlib.util.find_spec("simplejpeg") is not None
    base = hashlib.blake2b(repr((limits.pixels, strict, PIL.__version__)).encode(), digest_size=8)
    for module in (look, endings, grey, hashing, quality, values):
        base.update(Path(str(module.__file__)).read_bytes())
    found = np.empty(len(pictures), np.uint64)
    for place, entry in enumerate(pictures):
        digest = base.copy()
        digest.update(os.fsencode(entry.path) + b"\0" + repr(entry.mark).encode())
        found[place] = int.from_bytes(digest.digest(), "little")
    return found


class _Work:
    """Pictures not yet looked at, and the processes that look at them."""

    def __init__(
        self,
        root: Path,
        pictures: Sequence[Entry],
        keys: NDArray[np.uint64],
        missing: Sequence[int],
        file: Path,
        pixels: int,
        progress: Progress | None,
    ) -> None:
        self.pictures, self.keys, self.file, self.progress = pictures, keys, file, progress
        self.told = [os.fspath(root.absolute()), os.fspath(file), file.stat().st_ino, pixels]
        self.chunks = deque(_chunks(pictures, missing))
        self.done = len(pictures) - len(missing)
        self.deaths: Counter[int] = Counter()

    def run(self, workers: int) -> None:
        """Until nothing is left. However it ends, no process stays behind."""
        with selectors.DefaultSelector() as waiting, ExitStack() as everyone:
            self._report(0)
            for _ in range(min(workers, len(self.chunks))):
                self._hire(waiting, everyone)
            while waiting.get_map():
                for ready, _ in waiting.select():
                    worker: _Worker = ready.data
                    try:
                        self._heard(worker)
                        if not self.chunks:
                            waiting.unregister(ready.fileobj)
                            worker.end.close()
                            continue
                        worker.chunk = self.chunks.popleft()
                        tell(worker.child, [(p, self.pictures[p].path, int(self.keys[p])) for p in worker.chunk])
                    except ChildDied:
                        waiting.unregister(ready.fileobj)
                        worker.end.close()
                        self._buried(worker)
                        if self.chunks:
                            self._hire(waiting, everyone)

    def _hire(self, waiting: selectors.BaseSelector, everyone: ExitStack) -> None:
        end = everyone.enter_context(ExitStack())
        try:
            child = end.enter_context(started("scalenet.cleaning.look", ALONE))
            tell(child, self.told)
        except ChildDied as error:
            raise ScalenetError(str(error)) from error
        assert child.stdout is not None
        waiting.register(child.stdout, selectors.EVENT_READ, _Worker(child, end))

    def _heard(self, worker: _Worker) -> None:
        said = answer(worker.child)
        if isinstance(said, str):
            raise ScalenetError(said)
        self._report(len(worker.chunk or ()))

    def _buried(self, worker: _Worker) -> None:
        """Who died took down the picture it was at, and no other: what is left of its chunk is told one by one."""
        if worker.chunk is None:
            raise ScalenetError("A process that looks at pictures died as it started; is there memory enough?")
        left = unwritten(self.file, self.keys, worker.chunk)
        self._report(len(worker.chunk) - len(left))
        if len(worker.chunk) == len(left) == 1:
            (place,) = left
            self.deaths[place] += 1
            if self.deaths[place] == TRIES:
                blank = np.zeros(1, LOOK)
                blank["fault"], blank["orientation"], blank["frames"] = Fault.CORRUPT, 1, 1
                with open(self.file, "r+b") as written:
                    os.pwrite(written.fileno(), sealed(int(self.keys[place]), blank[0]), place * ROW.itemsize)
                self._report(1)
                return
        self.chunks.extendleft([place] for place in reversed(left))

    def _report(self, more: int) -> None:
        self.done += more
        if self.progress:
            self.progress(self.done, len(self.pictures), WHAT)


class _Worker:
    """A process and what it was told last; nothing as long as it has not said that it is there."""

    def __init__(self, child: Child, end: ExitStack) -> None:
        self.child, self.end = child, end
        self.chunk: list[int] | None = None


def _chunks(pictures: Sequence[Entry], places: Sequence[int]) -> Iterator[list[int]]:
    """Consecutive places, few enough to lose, of about as many bytes each."""
    chunk: list[int] = []
    held = 0
    for place in places:
        chunk.append(place)
        held += pictures[place].size
        if len(chunk) == CHUNK or held >= BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
