"""A process that looks at pictures as ours does, and dies of those that are named so."""

from __future__ import annotations

import os
from pathlib import Path

from scalenet.cleaning import look

plainly = look._look


def _look(path, *rest):
    if "deadly" in path:
        os.abort()
    if "once" in path and not Path(path + ".tried").exists():
        Path(path + ".tried").touch()
        os.abort()
    return plainly(path, *rest)


def main() -> None:
    look._look = _look
    look.main()
