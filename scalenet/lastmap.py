"""Whether a network still has an image to look at when it ends."""

from __future__ import annotations

from typing import Any

from scalenet.architecture import Architecture
from scalenet.complexity import table

SMALLEST = 2  # below 2 x 2 the last feature map has no space left: depth and width work on a single point


def last_map(arch: Architecture[Any], spec: Any, *, num_classes: int) -> tuple[int, int] | None:
    """Height and width of the last feature map; None where there is none (tokens)."""
    rows = table(arch, spec, num_classes=num_classes)
    maps = [row.output for row in rows if row.output is not None and len(row.output) == 4]
    if not maps:
        return None
    _, first, second, third = maps[-1]
    # The pictures counted are square: (n, c, h, w) has its two equal sides last, (n, h, w, c) before the channels.
    return (second, third) if second == third else (first, second)


def map_warning(arch: Architecture[Any], spec: Any, *, num_classes: int) -> str | None:
    """One sentence where the last feature map is below 2 x 2."""
    last = last_map(arch, spec, num_classes=num_classes)
    if last is None or min(last) >= SMALLEST:
        return None
    return (
        f"At {spec.resolution} px the last feature map of {arch.name} is {last[0]} x {last[1]}: too small for more "
        "pixels, layers or channels there to be worth their compute; take a larger --resolution."
    )
