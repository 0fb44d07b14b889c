"""How a multiplied number of blocks, channels or pixels becomes a whole one. Pure arithmetic, for plugins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum


class Rounding(Enum):
    """Which rule `Architecture.scale` applies.

    PAPER is the paper's own and reproduces its published rows. FINE, which search and `scalenet scale` use, takes the
    smallest steps that the architecture permits, so that equal compute can be met closely.
    """

    PAPER = "paper"
    FINE = "fine"


PAPER = Rounding.PAPER
FINE = Rounding.FINE


def make_divisible(value: float, divisor: int = 8, floor: float = 0.9) -> int:
    """The multiple of `divisor` nearest to `value`, at least one, and not below `floor` x `value`.

    The channel rule of MobileNet and EfficientNet (arXiv:1704.04861, arXiv:1905.11946, released code).
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < floor * value else rounded


def nearest_multiple(value: float, step: int = 1, minimum: int | None = None) -> int:
    """The multiple of `step` nearest to `value` (a half goes up), not below `minimum` (default: one step)."""
    least = step if minimum is None else math.ceil(minimum / step) * step
    return max(least, math.floor(value / step + 0.5) * step)


def ceil_depths(blocks: Sequence[int], factor: float) -> tuple[int, ...]:
    """Blocks per stage by EfficientNet's rule: every stage rounded up by itself (arXiv:1905.11946, released code)."""
    # 10 * 1.1 is 11.000000000000002 in binary: without the slack that stage would get a twelfth block.
    return tuple(max(1, math.ceil(n * factor - 1e-9)) for n in blocks)


def allot_depths(blocks: Sequence[int], factor: float) -> tuple[int, ...]:
    """Blocks per stage with the *total* rounded to the nearest, allotted by largest remainder; no stage below 1.

    The total has as many steps as the network has blocks, where `ceil_depths` leaps by one block per stage.
    """
    total = nearest_multiple(sum(blocks) * factor, 1, minimum=len(blocks))
    quotas = [n * total / sum(blocks) for n in blocks]
    depths = [max(1, math.floor(q)) for q in quotas]
    by_remainder = sorted(range(len(blocks)), key=lambda i: (depths[i] - quotas[i], i))
    for i in (by_remainder * 2)[: max(0, total - sum(depths))]:
        depths[i] += 1
    while sum(depths) > total:  # stages lifted to 1 are paid for by the one furthest above its quota
        i = max((i for i in range(len(depths)) if depths[i] > 1), key=lambda i: (depths[i] - quotas[i], -i))
        depths[i] -= 1
    return tuple(depths)


def whole_heads(width: float, head_dim: int) -> tuple[int, int]:
    """Channels and heads for about `width` channels: heads of about `head_dim` each, which divide the channels.

    The number of heads is the nearest to width / head_dim, and the channels the multiple of it nearest to `width`: a
    step is as many channels as there are heads, and a head keeps about its size at any width.
    """
    heads = nearest_multiple(width / head_dim)
    channels = nearest_multiple(width, heads)
    # Kept between the widths at which the number of heads changes, lest a greater width give fewer channels.
    channels += heads * ((heads > 1 and channels < (heads - 0.5) * head_dim) - (channels > (heads + 0.5) * head_dim))
    return channels, heads
