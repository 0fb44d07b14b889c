"""Errors that are the user's to mend: one sentence, no traceback, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ScalenetError(ValueError):
    """Bad input. The message names the value, what was allowed and the culprit."""


def unknown(kind: str, name: str, known: Iterable[str], listed_as: str = "Installed") -> ScalenetError:
    """The error for a name that nothing answers to, with the nearest known one if there is one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ScalenetError(f"No {kind} {name!r}.{hint} {listed_as}: {', '.join(names) or 'none'}.")


def one_line(error: Exception) -> str:
    """What another's code raised: its kind and its words, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300] or 'no message'}"
