"""The mixture experiment's design: which splits of the growth are tried."""

from __future__ import annotations

from scalenet.errors import ScalenetError
from scalenet.shares import EQUAL, Shares

__all__ = ["centre", "lattice", "lattice_name"]


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


def centre() -> Shares:
    """Where replicates go: equal shares. A lattice has that point only where 3 divides m."""
    return EQUAL
