"""What a budget buys: the richest search that it pays for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

from scalenet.console import duration
from scalenet.data import Survey
from scalenet.errors import ScalenetError
from scalenet.space import SearchSpace

if TYPE_CHECKING:
    from scalenet.experiment import Plan

LEAST_EPOCHS = 3
AFTER_WARMUP = 2  # epochs
LEAST_FIT = 40  # pictures a class to fit
LEAST_STEPS = 60  # of the optimiser in one trial: a third of the default search's, in which every `micro` learns
MOST_EPOCHS = 300
FINELY = 1.2  # factor between two rungs that differ in pictures or epochs alone
Unit = Literal["seconds", "epochs"]
PREPARING = 15.0  # seconds for looking at the pictures, planning and timing


@dataclass(frozen=True)
class Budget:
    """What a search may take: seconds on this machine, or epochs of training over all trials."""

    amount: float
    unit: Unit

    def __str__(self) -> str:
        return duration(self.amount) if self.unit == "seconds" else f"{self.amount:.0f} epochs"


def parse(text: str) -> Budget:
    """ "90s", "4m", "2h", "1h30m", "200epochs".

    Raises:
        ScalenetError: anything else, and nothing at all (0).
    """
    compact = "".join(text.lower().split())
    number = r"(\d{1,9}(?:\.\d{1,9})?)"
    clock = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", compact)
    epochs = re.fullmatch(r"(\d{1,9})epochs?", compact)
    parts = clock.groups() if clock else ()
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    budget = Budget(float(epochs[1]), "epochs") if epochs else Budget(seconds, "seconds")
    if budget.amount <= 0:
        raise ScalenetError(
            "A budget must be a time above 0 (90s, 4m, 2h, 1h30m) or a number of epochs above 0 (200epochs), "
            f"got {text!r}."
        )
    return budget


@dataclass(frozen=True)
class Design:
    """What a budget settles; `lattice` stands for as many points where a sampler draws them."""

    pictures: float  # all that are used; in the table below in units of the least that teach anything
    epochs: float  # likewise
    lattice: int
    confirm: int  # confirm.seeds
    seeds: int


# From the poorest to the richest; between two lines each value is raised in turn, from left to right. Pictures come
# first, as they also lower the noise of judging; points of the lattice are cheap; confirmation seeds decide; further
# seeds of the search phase only sharpen the surface and come last.
DESIGNS = (
    #      pictures  epochs  lattice  confirm.seeds  seeds
    Design(1,        1,      2,       2,             1),
    Design(1.5,      1,      3,       2,             1),
    Design(2,        1,      3,       3,             1),
    Design(2,        1.5,    4,       3,             1),
    Design(4,        2,      5,       3,             1),
    Design(8,        3,      5,       4,             1),
    Design(16,       5,      5,       4,             2),
    Design(32,       10,     5,       5,             2),
    Design(math.inf, 20,     5,       5,             3),
    Design(math.inf, 100,    5,       5,             3),
)  # fmt: skip


def richest(space: SearchSpace, fixed: frozenset[str]) -> SearchSpace:
    """`space` with all points and pictures that a budget may choose from: what `fitted` begins with."""
    data = space.data if "data.subset" in fixed else replace(space.data, subset=None)
    return _with_points(replace(space, data=data), DESIGNS[-1].lattice, fixed)


def ladder(space: SearchSpace, data: Survey, fixed: frozenset[str]) -> tuple[SearchSpace, ...]:
    """The spaces that a budget chooses from, the poorest first; none is poorer than an earlier one in any respect.

    Args:
        space: the search.
        data: all pictures that may be used.
        fixed: dotted keys that stay as they are in `space`.
    """
    recipe, share = space.recipe, data.counts["fit"] / data.pictures
    # Some architectures learn slowly: their recipes ask for more epochs, and get half of them at least.
    epochs = max(LEAST_EPOCHS, math.ceil(recipe.warmup_epochs) + AFTER_WARMUP, math.ceil(recipe.epochs / 2))
    at_first = recipe.epochs if "recipe.epochs" in fixed else epochs
    fit = max(LEAST_FIT * len(data.classes), recipe.batch_size * math.ceil(LEAST_STEPS / at_first))
    pictures = data.pictures if "data.subset" in fixed else min(data.pictures, math.ceil(fit / share))
    epochs = max(epochs, math.ceil(LEAST_STEPS / math.ceil(pictures * share / recipe.batch_size)))
    most = max(epochs, MOST_EPOCHS)
    marks = [
        replace(d, pictures=min(data.pictures, pictures * d.pictures), epochs=min(most, round(epochs * d.epochs)))
        for d in DESIGNS
    ]
    return tuple(dict.fromkeys(_space(space, design, data.pictures, fixed) for design in _rungs(marks)))


def fitted(
    planned: Plan,
    budget: Budget,
    fixed: frozenset[str],
    price: Callable[[Plan], float],
    replan: Callable[[Plan, SearchSpace], Plan],
) -> Plan:
    """The plan of the richest search that the budget pays for.

    Args:
        planned: of the `richest` space.
        fixed: dotted keys that stay as they are.
        price: what a plan costs, in the budget's unit.
        replan: the plan of another space.

    Raises:
        ScalenetError: not even the poorest is within the budget; the sentence names the least that is.
    """
    spaces = ladder(planned.space, planned.data, fixed)
    drafts: dict[SearchSpace, Plan] = {planned.space: planned}
    for space in reversed(spaces):
        alike = replace(planned.space, lattice=space.lattice, trials=space.trials)
        if alike not in drafts:
            drafts[alike] = replan(planned, alike)
        # Parting the pictures for every rung would take long, so they are counted in proportion; what fits by that
        # is planned properly.
        part = (space.data.subset or planned.data.pictures) / planned.data.pictures
        counts = {name: math.ceil(count * part) for name, count in planned.data.counts.items()}
        draft = replace(drafts[alike], space=space, data=replace(planned.data, counts=counts))
        if price(draft) <= budget.amount and price(done := replan(planned, space)) <= budget.amount:
            return done
    least = replan(planned, spaces[0])
    needed = replace(budget, amount=math.ceil(price(least)))
    raise ScalenetError(
        f"A budget of {budget} is too little for {planned.plugin} on {planned.data.name}: the least search from which "
        f"anything could be concluded takes {needed} ({least.trials} trainings of {least.space.recipe.epochs} epochs "
        f"on {least.data.pictures:,} pictures). Give "
        f"--budget {needed.amount:.0f}{'epochs' if needed.unit == 'epochs' else 's'} or more."
    )


def price(planned: Plan, unit: Unit, workers: int, of_one: float) -> float:
    """What a plan costs: epochs over all trials, or seconds (see `timing.estimate`) with what comes before them."""
    from scalenet.timing import estimate  # torch, which the ladder does not need

    if unit == "epochs":
        return float(planned.trials * planned.space.recipe.epochs)
    return PREPARING + estimate(planned, workers, of_one)


def _rungs(marks: Sequence[Design]) -> Iterator[Design]:
    """From mark to mark, raising one thing at a time, in the order of the columns."""
    at = marks[0]
    yield at
    for mark in marks[1:]:
        for field in fields(Design):
            while (value := getattr(at, field.name)) < (most := getattr(mark, field.name)):
                step = max(value + 1, round(value * FINELY)) if field.name in ("pictures", "epochs") else value + 1
                at = replace(at, **{field.name: min(most, step)})
                yield at


def _space(space: SearchSpace, design: Design, whole: int, fixed: frozenset[str]) -> SearchSpace:
    """`space` with the design's values wherever they are not fixed; all pictures are no subset."""
    wanted = _with_points(space, design.lattice, fixed)
    if "seeds" not in fixed and space.has_search_phase:
        wanted = replace(wanted, seeds=design.seeds)
    if "confirm.seeds" not in fixed:
        wanted = replace(wanted, confirm=replace(space.confirm, seeds=design.confirm))
    if "data.subset" not in fixed:
        subset = None if design.pictures >= whole else math.floor(design.pictures)
        wanted = replace(wanted, data=replace(space.data, subset=subset))
    if "recipe.epochs" not in fixed:
        wanted = replace(wanted, recipe=replace(space.recipe, epochs=int(design.epochs)))
    return wanted


def _with_points(space: SearchSpace, lattice: int, fixed: frozenset[str]) -> SearchSpace:
    if space.has_lattice and "lattice" not in fixed:
        return replace(space, lattice=lattice)
    if space.draws and "trials" not in fixed:
        return replace(space, trials=(lattice + 1) * (lattice + 2) // 2)
    return space
