"""What a failed trial's reason says about the search."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Mapping
from typing import Any

FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


def disk_is_full(reason: str) -> bool:
    """Whether a trial failed for want of disk space: its checkpoint could not be written."""
    return any(text in reason for text in FULL)


def common_cause(reasons: list[str]) -> bool:
    """Whether all reasons are one, numbers and quoted parts aside: sizes, addresses and file names differ by trial."""
    return len({re.sub(r"\d[\d.]*|'[^']*'", "#", reason) for reason in reasons}) == 1


def not_finite(metrics: Mapping[str, Any]) -> str | None:
    """The complaint about an epoch's metrics if one of them is NaN or infinite."""
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value} in epoch {metrics.get('epoch', '?')}"
    return None
