"""What a check is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scalenet.architecture import Architecture

# One sentence of the contract: returns where an architecture keeps it, raises Violation where it does not. Its name is
# the function's, its meaning the docstring's first line.
Check = Callable[[Architecture[Any]], None]


class Violation(AssertionError):
    """An architecture breaks its contract: what was asked for and what was found, in one sentence."""


def require(holds: bool, otherwise: str) -> None:
    """Raises Violation(otherwise) unless `holds`."""
    if not holds:
        raise Violation(otherwise)
