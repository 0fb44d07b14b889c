"""The mixture experiment's design: which splits of the growth are tried."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scalenet.errors import ScalenetError
from scalenet.shares import EQUAL, Shares

__all__ = ["centre", "lattice", "lattice_name", "nearby", "point_name"]


def lattice(m: int) -> list[Shares]:
    """The {3, m} simplex lattice: every split of the growth into m equal parts, (m + 1)(m + 2) / 2 points.

    From all depth, by falling depth and then falling width, to all resolution (Scheffe, 1958).

    Raises:
        ScalenetError: m below 1.
    """
    if m < 1:
        raise ScalenetError(f"lattice must be at least 1 (parts of the growth), got {m}.")
    return [Shares(d / m, w / m, (m - d - w) / m) for d in range(m, -1, -1) for w in range(m - d, -1, -1)]


def lattice_name(shares: Shares, m: int) -> str:
    """ "lattice 2/2/1": parts of depth, width and resolution."""
    parts = (shares.depth, shares.width, shares.resolution)
    return "lattice " + "/".join(str(round(part * m)) for part in parts)


def point_name(shares: Shares) -> str:
    """ "point 0.20/0.30/0.50": a direction that was asked for by its shares of depth, width and resolution."""
    return f"point {shares.depth:.2f}/{shares.width:.2f}/{shares.resolution:.2f}"


def centre() -> Shares:
    """Where replicates go: equal shares. A lattice has that point only where 3 divides m."""
    return EQUAL


def nearby(tried: Iterable[Shares], predict: Callable[[Shares], float], m: int, count: int) -> list[Shares]:
    """Adaptive points: where a fitted surface is best on the {3, m} lattice, and one step around, the best first.

    Args:
        tried: shares as built; what lies within half a step of one is not asked for again.
        predict: the surface's top1 (or anything that rises with it).
        m: of the lattice to be refined to, usually twice the search's own.
        count: of points, at most.
    """
    tried = list(tried)

    def steps(a: Shares, b: Shares) -> float:
        return m * max(abs(a.depth - b.depth), abs(a.width - b.width), abs(a.resolution - b.resolution))

    points = lattice(m)
    best = max(points, key=predict)
    around = [p for p in points if steps(p, best) < 1.5 and all(steps(p, t) > 0.5 for t in tried)]
    return sorted(around, key=predict, reverse=True)[:count]
