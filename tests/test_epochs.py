from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scalenet.epochs import close, reason_of
from scalenet.errors import ScalenetError


def test_a_generator_that_is_closed_is_over_whatever_it_raises() -> None:
    ended = []

    def epochs() -> Iterator[dict[str, Any]]:
        try:
            yield {"epoch": 1}
            yield {"epoch": 2}
        finally:
            ended.append(True)
            raise RuntimeError("no matter")

    begun = epochs()
    next(begun)
    close(begun)
    assert ended == [True]
    assert next(begun, None) is None
    close(None)
    close(iter([{"epoch": 1}]))


def test_running_out_of_memory_says_so() -> None:
    class OutOfMemoryError(RuntimeError):  # torch's, without torch
        pass

    assert reason_of(OutOfMemoryError("Tried to allocate 20 MiB.\nmore")).startswith("out of memory")
    assert reason_of(MemoryError()).startswith("out of memory")
    assert reason_of(RuntimeError("DefaultCPUAllocator: can't allocate memory")).startswith("out of memory")


def test_our_own_errors_are_sentences_already() -> None:
    assert reason_of(ScalenetError("No device 'x'.")) == "No device 'x'."
    assert reason_of(KeyError("a")) == "KeyError: 'a'"
    assert len(reason_of(RuntimeError("x" * 1000))) == 300
