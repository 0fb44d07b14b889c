"""Decoding files into a cache's array by several processes.

Threads would share one interpreter, and a small picture spends most of its time there and not in the decoder.
"""

from __future__ import annotations

import queue
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from scalenet.children import Child, ChildDied, answer, conversation, started, tell
from scalenet.data.pixels import square
from scalenet.errors import ScalenetError

DIED = "A process that decodes pictures died; is there memory enough?"
Decode = Callable[[Sequence[int]], list[int]]  # positions -> those that cannot be read


@contextmanager
def decoding_processes(array: Path, files: Sequence[str], side: int, count: int) -> Iterator[Decode]:
    """A function that decodes consecutive positions of `files` into the rows of `array`, from `count` threads at once.

    Raises ScalenetError when a process dies.
    """
    free: queue.SimpleQueue[Child] = queue.SimpleQueue()

    def decode(places: Sequence[int]) -> list[int]:
        child = free.get()
        try:
            tell(child, [places[0], [files[i] for i in places]])
            return [int(place) for place in answer(child)]
        finally:
            free.put(child)

    try:
        with ExitStack() as stack:
            for _ in range(count):
                child = stack.enter_context(started("scalenet.data.decoder"))
                free.put(child)
                tell(child, [str(array), side])
            yield decode
    except ChildDied as error:
        raise ScalenetError(DIED) from error


def main() -> None:
    """Is told the array's path and side, then a first position and files at a time; answers by what failed."""
    told, reply = conversation()
    array, side = next(told)
    rows = np.lib.format.open_memmap(array, mode="r+")
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    for first, files in told:
        bad = []
        for place, file in enumerate(files, first):
            try:
                rows[place] = square(file, side)
            except Exception:  # a damaged file can raise nearly anything, and must cost no more than itself
                bad.append(place)
        reply(bad)
