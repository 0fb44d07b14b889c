"""Where the optimum of a response surface may lie: a confidence region on the simplex, by test inversion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from scalenet.comparison import FloatArray
from scalenet.mixture import lattice
from scalenet.scheffe import STEPS, as_array, grid
from scalenet.shares import Shares
from scalenet.surface import Surface

LEVEL = 0.90
DRAWS, SEED = 1000, 0
KAPPA = 1.25  # a rival this many standard errors behind is no rival
EDGE = 1e-6  # a share below it cannot fall
TINY = 1e-30  # a variance
# Ways to move within the simplex, one every 30 degrees: from one share to another, from or to both of the others.
WAYS = np.array(
    [np.roll(way, by) for way in ((1, -1, 0), (-1, 1, 0), (2, -1, -1), (-2, 1, 1)) for by in range(3)], dtype=np.float64
)


@dataclass(frozen=True, eq=False)
class Region:
    """The points that cannot be told apart from the optimum; `level` of such regions hold the true one."""

    surface: Surface
    level: float
    optimum: Shares  # of the fitted surface, always inside
    points: tuple[Shares, ...]  # those of the {3, 20} lattice that are inside; none where it is smaller than a cell

    @property
    def area(self) -> float:
        """Part of the simplex that is inside, counted on the lattice; 1 is everything.

        A point stands for what of its hexagon lies on the simplex: on an edge half, in a corner a sixth.
        """
        hexagons = np.array([0.0, 1 / 6, 1 / 2, 1.0])[(grid() > 0).sum(axis=1)]
        kept = set(self.points)
        inside = np.array([shares in kept for shares in lattice(STEPS)])
        return float(hexagons[inside].sum() / hexagons.sum())

    def contains(self, shares: Shares) -> bool:
        """Whether a point is inside."""
        return bool(standing(self.surface, as_array([shares]), self.level)[0])


def region(surface: Surface, level: float = LEVEL) -> Region:
    """The region of a surface's optimum.

    A point x is inside unless some rival z is better by more than chance explains: unless the largest of
    t(z, x) = (y(z) - y(x)) / se exceeds its critical value. This inverts a test of "x is the optimum" (Peterson, Cahya
    and del Castillo, Technometrics 44, 2002). Rivals are the points of a lattice over the simplex and, infinitesimally
    near x, the slopes along twelve ways that stay on the simplex; inside, the latter alone would be the region of the
    stationary point (Box and Hunter, Biometrika 41, 1954). The critical value is the quantile of the largest of the
    centred t's, by a parametric bootstrap of the coefficients. Rivals far behind x are left out of it: they would only
    make it larger than it need be (generalised moment selection: Andrews and Soares, Econometrica 78, 2010). The draws
    are the same every time, but follow the order of the factors: under other names the region differs by their chance,
    about 1 % of the simplex.

    Args:
        surface: as fitted.
        level: how often such regions are to hold the true optimum.
    """
    inside = standing(surface, grid(), level)
    points = tuple(shares for shares, kept in zip(lattice(STEPS), inside, strict=True) if kept)
    return Region(surface, level, surface.optimum, points)


def standing(surface: Surface, points: FloatArray, level: float = LEVEL) -> NDArray[np.bool_]:
    """Which of the points (n, 3) are in the region: no rival beats them."""
    draws = _bootstrap(surface)
    everywhere = surface.basis.values(grid())
    # The critical value lies between that of one rival and Bonferroni's for all of them.
    least, most = stats.t.ppf([level, 1 - (1 - level) / (len(grid()) + len(WAYS))], surface.df)

    def stands(point: FloatArray) -> bool:
        far = everywhere[np.abs(grid() - point).max(axis=1) > EDGE] - surface.basis.values(point)
        feasible = WAYS[np.all((point > EDGE) | (WAYS >= 0), axis=1)]
        rivals = np.concatenate([far, feasible @ surface.basis.slopes(point).T])  # as contrasts of the coefficients
        errors = np.sqrt(np.sum(rivals @ surface.covariance * rivals, axis=1).clip(TINY))
        statistics = rivals @ surface.coefficients / errors
        if statistics.max() <= least or statistics.max() > most:
            return bool(statistics.max() <= least)
        near = statistics >= -KAPPA
        chance = (draws @ (rivals[near] / errors[near, None]).T).max(axis=1)
        return bool(statistics.max() <= np.quantile(chance, level))

    return np.array([stands(point) for point in points], dtype=bool)


def _bootstrap(surface: Surface) -> FloatArray:
    """What chance does to a surface's coefficients (draws, functions): multivariate t."""
    values, vectors = np.linalg.eigh(surface.covariance)  # of lower rank where candidates are few
    return np.asarray(_standard_t(len(values), surface.df) @ (vectors * np.sqrt(values.clip(0))).T, dtype=np.float64)


@lru_cache(maxsize=128)
def _standard_t(size: int, df: int) -> FloatArray:
    """Draws (draws, size) of the multivariate t, the same ones every time."""
    normal = np.random.default_rng(SEED).standard_normal((DRAWS, size))
    # Made to have the very moments that they should have: the same draws would else err to the same side every time.
    normal = normal - normal.mean(axis=0)
    normal = normal @ np.linalg.inv(np.linalg.cholesky(np.cov(normal.T))).T
    scale = np.sqrt(stats.chi2.ppf((np.arange(DRAWS) + 0.5) / DRAWS, df) / df)
    return np.asarray(normal / scale[:, None], dtype=np.float64)
