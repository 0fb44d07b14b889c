"""Budgets: how they are written, and that the richest search within one is taken."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet.budget import DESIGNS, Budget, fitted, ladder, parse, price, richest
from scalenet.data.values import Survey
from scalenet.errors import ScalenetError
from scalenet.experiment import Plan
from scalenet.recipe import Recipe
from scalenet.shares import PAPER_EXPONENTS
from scalenet.space import SearchSpace, resolve
from tests import synthetic

Knobs = tuple[float, ...]
KEYS = ("lattice", "seeds", "confirm.seeds", "recipe.epochs", "data.subset")
SPACES = st.builds(
    lambda epochs, warmup, batch, lattice, subset: SearchSpace(
        lattice=lattice,
        recipe=Recipe(epochs=epochs, warmup_epochs=min(epochs, warmup), batch_size=batch),
        data=replace(SearchSpace().data, subset=subset),
    ),
    st.integers(1, 20), st.floats(0, 8), st.sampled_from((8, 32, 256)), st.integers(1, 7), st.integers(100, 300),
)  # fmt: skip
FIXED = st.frozensets(st.sampled_from(KEYS))


def pictures(number: int, classes: int = 10) -> Survey:
    """A source of so many pictures, three fifths of them to fit."""
    counts = {"fit": number - 2 * (number // 5), "select": number // 5, "held": number // 5}
    names = tuple(f"class {i}" for i in range(classes))
    return Survey("made", "f", 32, names, number, counts, {}, (), 0, 0, 0, 0, True, False, ())


def planned_for(space: SearchSpace, whole: int) -> Plan:
    """A plan without a network; its candidates are the synthetic ones."""
    found = pictures(min(space.data.subset or whole, whole))
    if space.data.subset:  # parting by class moves a few pictures from one part to another
        found = replace(found, counts={**found.counts, "fit": found.counts["fit"] + 7})
    candidates = tuple(synthetic.design(space.lattice))
    return Plan("toy", space, found, cast(Any, None), PAPER_EXPONENTS, candidates, ())


def fit(space: SearchSpace, whole: int, budget: Budget, fixed: frozenset[str], made: list[SearchSpace]) -> Plan:
    def replan(_: Plan, wanted: SearchSpace) -> Plan:
        made.append(wanted)
        return planned_for(wanted, whole)

    planned = planned_for(richest(space, fixed), whole)
    return fitted(planned, budget, fixed, lambda p: price(p, budget.unit, 2, 1e-3), replan)


def knobs(space: SearchSpace, whole: int) -> Knobs:
    subset = min(space.data.subset or whole, whole)
    return space.lattice, space.seeds, space.confirm.seeds, space.recipe.epochs, subset


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("90s", 90, "seconds"),
        ("4m", 240, "seconds"),
        ("2h", 7200, "seconds"),
        ("1h30m", 5400, "seconds"),
        ("1h 0.5m 3s", 3633, "seconds"),
        ("1.5H", 5400, "seconds"),
        ("200epochs", 200, "epochs"),
        ("1 epoch", 1, "epochs"),
    ],
)
def test_budgets_as_they_are_written(text: str, amount: float, unit: str) -> None:
    assert parse(text) == Budget(amount, cast(Any, unit))


@pytest.mark.parametrize(
    "text",
    ["", "0", "0m", "0h0s", "0epochs", "-4m", "4", "4x", "1m1h", "1e3s", "infs", "nan", "1.5epochs", "4m200epochs"],
)
def test_everything_else_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ScalenetError, match=r"above 0 \(90s, 4m, 2h, 1h30m\).*\(200epochs\), got ") as refused:
        parse(text)
    assert repr(text) in str(refused.value)


@settings(max_examples=100, deadline=None)
@given(SPACES, st.integers(60, 100_000), st.integers(2, 20), FIXED)
def test_every_rung_is_as_rich_as_the_one_below_and_none_is_too_poor_to_learn(
    space: SearchSpace, whole: int, classes: int, fixed: frozenset[str]
) -> None:
    data = pictures(whole, classes)
    rungs = ladder(space, data, fixed)
    for lower, upper in pairwise(rungs):
        below, above = knobs(lower, whole), knobs(upper, whole)
        assert below != above
        assert all(a <= b for a, b in zip(below, above, strict=True))
    own = {
        "lattice": space.lattice, "seeds": space.seeds, "confirm.seeds": space.confirm.seeds,
        "recipe.epochs": space.recipe.epochs, "data.subset": space.data.subset,
    }  # fmt: skip
    for rung in rungs:
        set_to = (rung.lattice, rung.seeds, rung.confirm.seeds, rung.recipe.epochs, rung.data.subset)
        assert {key: value for key, value in zip(KEYS, set_to, strict=True) if key in fixed} == {
            key: own[key] for key in fixed
        }
        fit_pictures = (rung.data.subset or whole) * data.counts["fit"] / whole
        if "recipe.epochs" not in fixed:
            assert rung.recipe.epochs >= max(3, rung.recipe.warmup_epochs + 2)
        if "data.subset" not in fixed:
            assert rung.data.subset is None or fit_pictures >= 40 * classes
        if not fixed & {"recipe.epochs", "data.subset"}:
            assert rung.recipe.epochs * math.ceil(fit_pictures / rung.recipe.batch_size) >= 60
        assert replace(
            rung, lattice=1, seeds=1, confirm=space.confirm, data=space.data, recipe=space.recipe
        ) == replace(space, lattice=1, seeds=1)  # nothing else is touched


@settings(max_examples=60, deadline=None)
@given(SPACES, st.integers(60, 30_000), FIXED, st.floats(1, 6), st.floats(1, 3), st.booleans())
def test_more_budget_never_buys_less_and_none_is_overdrawn(
    space: SearchSpace, whole: int, fixed: frozenset[str], size: float, more: float, timed: bool
) -> None:
    budget = Budget(10**size, "seconds" if timed else "epochs")
    made: list[SearchSpace] = []
    try:
        poorer = fit(space, whole, budget, fixed, made)
    except ScalenetError:
        return
    assert price(poorer, budget.unit, 2, 1e-3) <= budget.amount
    assert len(made) <= 3 + 2  # the other lattices, and once or, just where a rounding decides, twice what was taken
    richer = fit(space, whole, replace(budget, amount=budget.amount * more), fixed, [])
    assert all(a <= b for a, b in zip(knobs(poorer.space, whole), knobs(richer.space, whole), strict=True))


def test_the_rung_above_would_not_have_fitted() -> None:
    space, whole = resolve("mobilevit"), 3000
    budget = Budget(300.0, "seconds")
    found = fit(space, whole, budget, frozenset(), []).space
    rungs = ladder(richest(space, frozenset()), pictures(whole), frozenset())
    above = rungs[rungs.index(found) + 1]
    assert price(planned_for(above, whole), "seconds", 2, 1e-3) > budget.amount


def test_a_rung_that_is_too_dear_by_a_rounding_is_not_taken() -> None:
    space, whole = resolve("mobilevit"), 3000
    for rung in ladder(richest(space, frozenset()), pictures(whole), frozenset())[1:]:
        just_below = price(planned_for(rung, whole), "seconds", 2, 1e-3) * (1 - 1e-9)
        found = fit(space, whole, Budget(just_below, "seconds"), frozenset(), [])
        assert price(found, "seconds", 2, 1e-3) <= just_below


@pytest.mark.parametrize("unit", ["seconds", "epochs"])
def test_too_little_is_refused_with_the_least_that_would_do(unit: Any) -> None:
    space = resolve("mobilevit")
    with pytest.raises(ScalenetError, match=r"^A budget of .* is too little for toy on made: .* or more\.$") as refused:
        fit(space, 3000, Budget(20.0, unit), frozenset(), [])
    named = parse(str(refused.value).split("--budget ")[1].removesuffix(" or more."))
    assert named.unit == unit
    enough = fit(space, 3000, named, frozenset(), [])
    least = ladder(richest(space, frozenset()), pictures(3000), frozenset())[0]
    assert knobs(enough.space, 3000)[:4] == knobs(least, 3000)[:4]  # pictures cost no epochs, so there may be more
    with pytest.raises(ScalenetError, match="too little"):
        fit(space, 3000, replace(named, amount=named.amount - 1), frozenset(), [])


def test_every_line_of_the_table_is_a_rung() -> None:
    space, whole = resolve("mobilevit"), 10**7
    found = {knobs(rung, whole) for rung in ladder(space, pictures(whole), frozenset())}
    least = knobs(ladder(space, pictures(whole), frozenset())[0], whole)[-1]
    for d in DESIGNS:
        subset = math.floor(min(whole, least * d.pictures))
        assert (d.lattice, d.seeds, d.confirm, round(3 * d.epochs), subset) in found


def test_a_sampler_draws_as_many_points_as_the_lattice_has() -> None:
    space = replace(resolve("mobilevit"), sampler="tpe")
    rungs = ladder(space, pictures(3000), frozenset())
    assert sorted({rung.trials for rung in rungs}) == [6, 10, 15, 21]
    assert {rung.lattice for rung in rungs} == {space.lattice}
    assert {rung.trials for rung in ladder(space, pictures(3000), frozenset({"trials"}))} == {space.trials}
    named = replace(space, sampler="named")
    assert {(rung.lattice, rung.trials) for rung in ladder(named, pictures(3000), frozenset())} == {(5, 21)}


def test_a_search_without_a_search_phase_has_no_seeds_of_it_to_buy() -> None:
    guided = replace(resolve("mobilevit"), sampler="guided")
    rungs = ladder(guided, pictures(10**7), frozenset())
    assert {rung.seeds for rung in rungs} == {1}
    assert {rung.lattice for rung in rungs} == {2, 3, 4, 5}
    assert {rung.confirm.seeds for rung in rungs} == {2, 3, 4, 5}


def test_recipes_that_ask_for_more_epochs_keep_half_of_them() -> None:
    slow = resolve("mixer")
    assert ladder(slow, pictures(3000), frozenset())[0].recipe.epochs == math.ceil(slow.recipe.epochs / 2) == 4
