"""What one budget buys from a grid and from a guided search: simulated searches whose truth is known.

    python benchmarks/equal_budget.py [--worlds 100]

A budget in epochs over all trainings is spent on the richest rung of `budget.ladder` that it pays for, once by the
sampler grid (one seed each on select, corners and centre again, then the best three, the named points and the surface's
optimum with fresh seeds, which alone are compared) and once by guided. Truths are the seven of `replay.py`, in standard
deviations (sd) of a run that is judged on 600 pictures of ten classes as `power.assumed_noise` has it; judged on more,
a run varies by less. What longer training does for an answer is left out, so that the epochs that a guided training has
more than a grid's count for nothing here. Costs are equal. Both searches of a world have the same truth for a direction
that both try.

Columns: trainings times epochs; candidates tried; the tied set's size; how often it holds the truly best of those tried
(what a grid does not confirm is lost); how far the winner truly is behind the best direction that either can try.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
from replay import TRUTHS, Truth, smooth

from scalenet import surface
from scalenet.budget import ladder
from scalenet.comparison import fit
from scalenet.console import bar, table
from scalenet.data.values import Survey
from scalenet.mixture import lattice
from scalenet.power import assumed_noise
from scalenet.racing import guided, guided_trainings, tied
from scalenet.scheffe import as_array
from scalenet.shares import DWR, EQUAL, PAPER_EXPONENTS, PAPER_MULTIPLIERS, Shares, shares_of
from scalenet.space import Sampler, SearchSpace, resolve

BUDGETS = (150, 300, 600, 1500)  # epochs
PICTURES, CLASSES = 12_000, 10  # at hand
UNIT = assumed_noise(600, CLASSES).sd
NAMED = (Shares(1, 0, 0), Shares(0, 1, 0), Shares(0, 0, 1), EQUAL, shares_of(PAPER_MULTIPLIERS, PAPER_EXPONENTS), DWR)
OPTIMUM = "optimum"


@dataclass(frozen=True)
class Bought:
    """A search that a budget pays for."""

    space: SearchSpace
    points: tuple[Shares, ...]
    trainings: int
    sd: float  # of one run, in UNIT


Search = Callable[["World", Bought, np.random.Generator], Sequence[Shares]]


class World:
    """A truth: what every direction scores, departures of its own included."""

    def __init__(self, truth: Truth, rng: np.random.Generator) -> None:
        self._truth, self._rng = truth, rng
        self.directions = tuple(dict.fromkeys((*NAMED, *(p for m in range(2, 6) for p in lattice(m)))))
        fine = [*self.directions, *lattice(20)]
        self._fine = fine
        heights = truth.height * smooth(rng, as_array(fine), truth.peaked)
        self._smooth = dict(zip(fine, heights.tolist(), strict=True))
        self.score: dict[Shares, float] = {s: self._smooth[s] + rng.normal(0, truth.departure) for s in self.directions}
        self.best = max(self.score.values())

    def at(self, shares: Shares) -> float:
        """The score of a direction that is none of those; its smooth part is the nearest point's."""
        if shares not in self.score:
            near = min(self._fine, key=lambda other: math.dist(astuple(other), astuple(shares)))
            self.score[shares] = self._smooth[near] + self._rng.normal(0, self._truth.departure)
        return self.score[shares]


def bought(sampler: Sampler, budget: int) -> Bought:
    """The richest search of a sampler within so many epochs."""
    space = replace(resolve("mobilevit"), sampler=sampler)
    counts = {"fit": round(0.6 * PICTURES), "select": PICTURES // 5, "held": PICTURES // 5}
    found = Survey(
        name="made up", fingerprint="", native_size=64, classes=tuple(map(str, range(CLASSES))), pictures=PICTURES,
        counts=counts, class_counts={}, unreadable=(), conflicts=0, duplicates=0, crossing=0, ignored=0, flip=True,
        demonstration=False, warnings=(),
    )  # fmt: skip
    for rung in reversed(ladder(space, found, frozenset({"sampler"}))):
        points = tuple(dict.fromkeys((*NAMED, *lattice(rung.lattice))))
        if sampler == "guided":
            trainings = sum(1 + n for n in guided_trainings(len(points), rung.confirm.seeds))
        else:
            confirmed = len(NAMED) + rung.confirm.best + 1
            trainings = (1 + len(points)) * rung.seeds + 5 * rung.replicates + (1 + confirmed) * rung.confirm.seeds
        if trainings * rung.recipe.epochs <= budget:
            held = (rung.data.subset or PICTURES) // 5
            return Bought(rung, points, trainings, assumed_noise(held, CLASSES).sd / UNIT)
    raise SystemExit(f"{budget} epochs buy no search")


def by_grid(world: World, found: Bought, rng: np.random.Generator) -> tuple[Shares, ...]:
    """The tied set of a grid, the best first."""
    space = found.space
    points = {str(i): shares for i, shares in enumerate(found.points)}
    cells = [(key, seed) for seed in range(space.seeds) for key in points]
    cells += [(key, space.seeds) for key in list(points)[:4]] * space.replicates  # corners and centre come first
    level = rng.normal(size=space.seeds + 1)
    scores = {(key, s): world.at(points[key]) + level[s] + found.sd * rng.normal() for key, s in cells}
    layout = fit(scores)
    means = dict(zip(layout.keys, layout.means.tolist(), strict=True))
    finalists = dict.fromkeys(
        [*list(points)[: len(NAMED)], *sorted(means, key=lambda key: -means[key])[: space.confirm.best]]
    )
    fitted = surface.fit(layout, points)
    if isinstance(fitted, surface.Surface):
        points[OPTIMUM] = fitted.optimum
        finalists[OPTIMUM] = None
    held = {
        (key, seed): world.at(points[key]) + found.sd * rng.normal()
        for seed in range(space.confirm.seeds)
        for key in finalists
    }
    return tuple(points[key] for key in tied(held, dict.fromkeys(finalists, 1.0)))


def by_guided(world: World, found: Bought, rng: np.random.Generator) -> tuple[Shares, ...]:
    """The tied set of a guided search, the best first."""
    points = {str(i): shares for i, shares in enumerate(found.points)}
    growth, scores = dict.fromkeys(points, 1.0), dict[tuple[str, int], float]()
    while True:
        stands = guided(scores, growth, points, seeds=range(found.space.confirm.seeds))
        if stands.seed is None:
            return tuple(points[key] for key in tied(scores, growth, shares=points))
        scores |= {(key, stands.seed): world.at(points[key]) + found.sd * rng.normal() for key in stands.racing}


def told(search: Search, found: Bought, truth: Truth, worlds: int, stream: int) -> Iterator[tuple[int, bool, float]]:
    """Of each search the tied set's size, whether it holds the truly best that was tried, the winner's lag."""
    rng = np.random.default_rng([20261128, stream])
    for number in range(worlds):
        world = World(truth, np.random.default_rng([number, stream]))
        left = search(world, found, rng)
        best = max(found.points, key=world.at)
        yield len(left), best in left, world.best - world.at(left[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=100, help="of each truth")
    worlds = parser.parse_args().worlds
    rows: list[tuple[str, ...]] = []
    samplers: tuple[Sampler, ...] = ("grid", "guided")
    every = [(budget, sampler) for budget in BUDGETS for sampler in samplers]
    with bar("simulating") as report:
        for done, (budget, sampler) in enumerate(every):
            report(done, len(every), f"{budget} epochs, {sampler}")
            found, search = bought(sampler, budget), by_grid if sampler == "grid" else by_guided
            lines = [row for i, truth in enumerate(TRUTHS) for row in told(search, found, truth, worlds, i)]
            sizes, best_in, behind = (np.mean(column) for column in zip(*lines, strict=True))
            rows.append((
                str(budget), sampler, f"{found.trainings} x {found.space.recipe.epochs}", str(len(found.points)),
                f"{found.sd:.2f}", f"{sizes:.1f}", f"{best_in:.1%}", f"{behind:.2f} sd",
            ))  # fmt: skip
    table(
        ("budget", "sampler", "trainings", "tried", "one run's sd", "tied", "truly best in", "winner behind"),
        rows,
        text_columns=3,
    )


if __name__ == "__main__":
    main()
