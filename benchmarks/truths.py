"""Response surfaces whose optimum is known: some by name, and families from which one is drawn for every search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalenet import scheffe

Array = NDArray[np.float64]
Score = Callable[[Array], Array]  # of points (n, 3)
FINE = scheffe.grid(200)
WELL_INSIDE = 0.08  # every share of an optimum that counts as inside


@dataclass(frozen=True)
class Truth:
    """What the scores follow; `quirks` is a candidate's own deviation from it, in sigma."""

    name: str
    place: str  # of its optimum: inside, edge, corner or nowhere
    score: Score
    quirks: float = 0.0


@dataclass(frozen=True)
class Family:
    """Truths of one form, drawn until the optimum is where it shall be."""

    name: str
    place: str
    form: Callable[[np.random.Generator], Score]

    def draw(self, rng: np.random.Generator) -> Truth:
        """One of them."""
        while True:
            score = self.form(rng)
            if place(FINE[score(FINE).argmax()]) == self.place:
                return Truth(self.name, self.place, score)


def place(point: Array) -> str | None:
    """Where on the simplex a point is; None within WELL_INSIDE of an edge that it is not on."""
    zeros = int((point == 0).sum())
    if zeros:
        return "edge" if zeros == 1 else "corner"
    return "inside" if point.min() >= WELL_INSIDE else None


def hill(*at: float) -> Score:
    return lambda x: -np.sum((x - np.array(at)) ** 2, axis=1)


def bump(width: float, *at: float) -> Score:
    return lambda x: np.exp(-np.sum((x - np.array(at)) ** 2, axis=1) / (2 * width**2))


def cobb_douglas(*powers: float) -> Score:
    return lambda x: np.prod((x + 0.05) ** np.array(powers), axis=1)


def ces(rho: float, *weights: float) -> Score:
    return lambda x: ((x + 0.05) ** rho @ np.array(weights)) ** (1 / rho)


def saturation(*rates: float) -> Score:
    return unequal_saturation(rates, (1.0, 1.0, 1.0))


def unequal_saturation(rates: tuple[float, ...], sizes: tuple[float, ...]) -> Score:
    return lambda x: (1 - np.exp(-x * np.array(rates))) @ np.array(sizes)


def some(rng: np.random.Generator, low: float, high: float) -> Array:
    """Three numbers, uniform by their logarithm."""
    return np.exp(rng.uniform(np.log(low), np.log(high), 3))


def some_quadratic(rng: np.random.Generator) -> Score:
    """A hill up to four times as steep one way as across, which way is chance, its top on the simplex or off it."""
    off = rng.choice([0.0, 0.4]) * rng.normal(size=3)
    top = rng.dirichlet([1.5] * 3) + off - off.mean()
    turn = rng.uniform(0, np.pi)
    plane = np.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / np.sqrt([[2.0], [6.0]])
    ways = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ plane
    steep = np.array([1.0, np.exp(-rng.uniform(0, np.log(4)))])
    return lambda x: -(((x - top) @ ways.T) ** 2 @ steep)


def some_saturation(rng: np.random.Generator) -> Score:
    rates, sizes = some(rng, 1, 10), some(rng, 0.5, 2)
    return lambda x: (1 - np.exp(-x * rates)) @ sizes


def some_other(rng: np.random.Generator) -> Score:
    """Sums of x / (x + k) or of log(1 + k x), CES functions, and Gaussian bumps."""
    forms = (some_hyperbolas, some_logarithms, some_ces, some_bump)
    return forms[rng.integers(len(forms))](rng)


def some_hyperbolas(rng: np.random.Generator) -> Score:
    halves, sizes = some(rng, 0.1, 1), some(rng, 0.5, 2)
    return lambda x: (x / (x + halves)) @ sizes


def some_logarithms(rng: np.random.Generator) -> Score:
    rates, sizes = some(rng, 1, 20), some(rng, 0.5, 2)
    return lambda x: np.log1p(x * rates) @ sizes


def some_ces(rng: np.random.Generator) -> Score:
    return ces(rng.uniform(-1, 0.5), *rng.dirichlet([3.0] * 3))


def some_bump(rng: np.random.Generator) -> Score:
    return bump(rng.uniform(0.25, 0.6), *rng.dirichlet([1.5] * 3))


FLAT = Truth("flat", "nowhere", lambda x: np.zeros(len(x)))
INSIDE = Truth("quadratic", "inside", hill(0.4, 0.3, 0.3))
QUADRATICS = (
    INSIDE,
    Truth("quadratic, off centre", "inside", hill(0.6, 0.25, 0.15)),
    Truth("quadratic", "edge", hill(0.5, 0.8, -0.3)),
    Truth("quadratic, level there", "edge", hill(0.5, 0.5, 0.0)),
    Truth("quadratic", "corner", hill(1.4, -0.2, -0.2)),
    Truth("linear", "corner", lambda x: x @ np.array([0.0, 1.0, 0.6])),
)
OTHERS = (
    Truth("saturation 2/3/4", "inside", saturation(2, 3, 4)),
    Truth("saturation 3/5/8", "inside", saturation(3, 5, 8)),
    Truth("Cobb-Douglas .4/.3/.3", "inside", cobb_douglas(0.4, 0.3, 0.3)),
    Truth("CES, rho -0.5", "inside", ces(-0.5, 0.3, 0.4, 0.3)),
    Truth("Gaussian, width 0.3", "inside", bump(0.3, 0.4, 0.3, 0.3)),
    Truth("Gaussian, width 0.25, off centre", "inside", bump(0.25, 0.6, 0.2, 0.2)),
    Truth("saturation, two factors", "edge", unequal_saturation((3, 5, 4), (1, 1, 0.1))),
    Truth("Gaussian, width 0.3", "edge", bump(0.3, 0.5, 0.5, 0.0)),
    Truth("Gaussian, width 0.35", "corner", bump(0.35, 0.0, 1.0, 0.0)),
    Truth("quadratic, candidates off by 0.5 sigma", "inside", hill(0.4, 0.3, 0.3), quirks=0.5),
    Truth("saturation 1.5/3/6", "inside", saturation(1.5, 3, 6)),
    Truth("sum of x / (x + k), k .3/.4/.6", "inside", lambda x: np.sum(x / (x + np.array([0.3, 0.4, 0.6])), axis=1)),
    Truth("sum of log(1 + kx), k 2/5/9", "inside", lambda x: np.sum(np.log1p(x * np.array([2.0, 5.0, 9.0])), axis=1)),
)
DRAWN = (
    Family("quadratics, drawn", "inside", some_quadratic),
    Family("saturations, drawn", "inside", some_saturation),
    Family("others, drawn", "inside", some_other),
)
DRAWN_ON_THE_BORDER = (
    Family("quadratics, drawn", "edge", some_quadratic),
    Family("quadratics, drawn", "corner", some_quadratic),
    Family("saturations, drawn", "edge", some_saturation),
)
