"""Decoding files into a cache's array by several processes.

Threads would share one interpreter, and a small picture spends most of its time there and not in the decoder.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

import numpy as np

from scalenet.data.pixels import square
from scalenet.errors import ScalenetError

DIED = "A process that decodes pictures died; is there memory enough?"
Decode = Callable[[Sequence[int]], list[int]]  # positions -> those that cannot be read


@contextmanager
def decoding_processes(array: Path, files: Sequence[str], side: int, count: int) -> Iterator[Decode]:
    """A function that decodes consecutive positions of `files` into the rows of `array`, from `count` threads at once.

    Raises ScalenetError when a process dies.
    """
    start = "import sys; sys.path[:] = [p for p in sys.path if p]; from scalenet.data.decoder import main; main()"
    free: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
    with ExitStack() as stack:
        for _ in range(count):
            child = stack.enter_context(
                subprocess.Popen([sys.executable, "-c", start], stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True)
            )
            stack.callback(_end, child)
            free.put(child)
            _tell(child, [str(array), side])

        def decode(places: Sequence[int]) -> list[int]:
            child = free.get()
            try:
                _tell(child, [places[0], [files[i] for i in places]])
                return _answer(child)
            finally:
                free.put(child)

        yield decode


def main() -> None:
    """Reads lines of JSON: the array's path and side, then a first position and files; answers with what failed."""
    array, side = json.loads(sys.stdin.readline())
    rows = np.lib.format.open_memmap(array, mode="r+")
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    for line in sys.stdin:
        first, files = json.loads(line)
        bad = []
        for place, file in enumerate(files, first):
            try:
                rows[place] = square(file, side)
            except Exception:  # a damaged file can raise nearly anything, and must cost no more than itself
                bad.append(place)
        print(json.dumps(bad), flush=True)


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    assert child.stdin is not None
    with suppress(OSError):  # what it was not told any more
        child.stdin.close()


def _tell(child: subprocess.Popen[str], message: object) -> None:
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(message) + "\n")
        child.stdin.flush()
    except OSError as error:
        raise ScalenetError(DIED) from error


def _answer(child: subprocess.Popen[str]) -> list[int]:
    assert child.stdout is not None
    try:
        return [int(place) for place in json.loads(child.stdout.readline())]
    except (OSError, ValueError) as error:
        raise ScalenetError(DIED) from error
