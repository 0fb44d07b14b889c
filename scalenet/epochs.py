"""A training epoch by epoch, for whoever carries it out: how to end it early, and why it failed, in one line.

Ray's workers import this of the driver's side and nothing else: Optuna and SciPy would take each of them a second.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import Any

LONGEST = 300  # characters of a reason: a table holds it

RunTrial = Callable[[Mapping[str, Any]], Iterator[Mapping[str, Any]]]  # a job -> the metrics of its epochs


def close(epochs: Iterator[Mapping[str, Any]] | None) -> None:
    """Ends a generator that will not be asked again, which frees its memory; nothing that it raises then matters."""
    if isinstance(epochs, Generator):
        with suppress(Exception):
            epochs.close()


def reason_of(error: BaseException) -> str:
    """An exception as one line: scalenet's own by their text, others by kind and first line of text."""
    text = " ".join(str(error).strip().splitlines()[:1]) or "no message"
    kind = type(error).__name__
    if type(error).__module__.startswith("scalenet."):
        return text[:LONGEST]
    # torch says it as OutOfMemoryError on accelerators and as a RuntimeError of its CPU allocator.
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in text:
        return f"out of memory ({kind}: {text})"[:LONGEST]
    return f"{kind}: {text}"[:LONGEST]
