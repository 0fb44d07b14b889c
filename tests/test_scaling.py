from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scalenet_plugins.efficientnet import EfficientNet
from scalenet_plugins.mobilenet import MobileNet
from scalenet_plugins.mobilevit import MobileViT

from scalenet.architecture import PAPER, Scale
from scalenet.complexity import measure
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, to_plain
from scalenet.scaling import (
    Exponents,
    Meter,
    Shares,
    at_budget,
    at_phi,
    multipliers,
    paper_scale,
    shares_of,
)
from scalenet.shares import normalised
from tests.toy import ToySpec, toy

PAPERS = Shares(0.28, 0.29, 0.43)
METER = Meter(toy(), ToySpec(), num_classes=4)  # its costs are remembered over all tests

# Width, depth, side, parameters and multiply-adds of the released EfficientNets (arXiv:1905.11946 and its code; the
# exact figures are those of timm and torchvision).
EFFICIENTNETS = {
    "b0": (1.0, 1.0, 224, 5_288_548, 385_814_752),
    "b1": (1.0, 1.1, 240, 7_794_184, 686_802_832),
    "b2": (1.1, 1.2, 260, 9_109_994, 993_561_872),
    "b3": (1.2, 1.4, 300, 12_233_232, 1_827_141_392),
    "b4": (1.4, 1.8, 380, 19_341_616, 4_393_771_024),
    "b5": (1.6, 2.2, 456, 30_389_784, 10_266_384_752),
    "b6": (1.8, 2.6, 528, 43_040_704, 19_067_593_536),
    "b7": (2.0, 3.1, 600, 66_347_960, 37_745_884_192),
}


def simplex() -> st.SearchStrategy[Shares]:
    """Shares in tenths, corners and edges included."""

    def of(cuts: tuple[int, int]) -> Shares:
        low, high = sorted(cuts)
        return Shares(low / 10, (high - low) / 10, (10 - high) / 10)

    return st.tuples(st.integers(0, 10), st.integers(0, 10)).map(of)


@pytest.mark.parametrize("name", EFFICIENTNETS)
def test_paper_rounding_reproduces_the_published_rows(name: str) -> None:
    width, depth, side, params, flops = EFFICIENTNETS[name]
    arch = EfficientNet()
    spec = arch.scale(arch.variants["b0"].spec, Scale(depth, width, side / 224), PAPER)
    cost = measure(arch, spec, num_classes=1000)
    assert (cost.params, cost.flops) == (params, flops)


def test_b1_costs_far_more_than_its_formula_says() -> None:
    meter = Meter(EfficientNet(), EfficientNet().variants["b0"].spec, num_classes=1000)
    assert round(meter.ratio(EfficientNet().variants["b1"].spec), 2) == 1.78
    assert round(1.1 * (240 / 224) ** 2, 2) == 1.26


@pytest.mark.parametrize(
    ("arch", "variant", "expected"),  # measured on timm's and torchvision's networks
    [
        (EfficientNet(), "b0", (1.020, 1.910, 1.995)),
        (MobileNet(), "1x", (1.149, 1.962, 1.998)),
        (MobileViT(), "s", (0.855, 1.918, 2.340)),
    ],
    ids=["efficientnet", "mobilenet", "mobilevit"],
)
def test_exponents(
    arch: EfficientNet | MobileNet | MobileViT, variant: str, expected: tuple[float, float, float]
) -> None:
    chosen = arch.variants[variant]
    found = Meter(arch, chosen.spec, num_classes=chosen.num_classes).exponents
    assert (found.depth, found.width, found.resolution) == pytest.approx(expected, abs=6e-4)


def test_exponents_use_the_step_that_was_reached() -> None:
    class Short(type(toy())):  # type: ignore[misc]
        def scale(self, spec: ToySpec, by: Scale, rounding: object = None) -> ToySpec:
            return super().scale(spec, replace(by, resolution=min(by.resolution, 1.5)))  # type: ignore[no-any-return]

    meter = Meter(Short(), ToySpec(), num_classes=4)
    reached = meter.cost(ToySpec(resolution=36)).flops / meter.cost(meter.baseline).flops
    assert meter.exponents.resolution == pytest.approx(math.log(reached) / math.log(1.5))


def test_a_factor_that_does_not_move_is_named() -> None:
    class Stiff(type(toy())):  # type: ignore[misc]
        def scale(self, spec: ToySpec, by: Scale, rounding: object = None) -> ToySpec:
            return super().scale(spec, replace(by, width=1.0))  # type: ignore[no-any-return]

    with pytest.raises(ScalenetError, match="doubling width multiplies it by 1"):
        _ = Meter(Stiff(), ToySpec(), num_classes=4).exponents


def test_the_papers_multipliers_are_about_these_shares() -> None:
    found = shares_of(Scale(1.2, 1.1, 1.15), Exponents(1, 2, 2))
    assert (found.depth, found.width, found.resolution) == pytest.approx((0.28, 0.29, 0.43), abs=0.005)


@given(simplex(), st.floats(0.1, 4), st.floats(0.5, 3), st.floats(0.5, 3), st.floats(0.5, 3))
def test_shares_and_multipliers_are_inverse(shares: Shares, growth: float, d: float, w: float, r: float) -> None:
    exponents = Exponents(d, w, r)
    by = multipliers(shares, exponents, growth)
    assert by.depth**d * by.width**w * by.resolution**r == pytest.approx(2**growth)
    back = shares_of(by, exponents)
    assert (back.depth, back.width) == pytest.approx((shares.depth, shares.width), abs=1e-9)


@pytest.mark.parametrize(("by", "message"), [((1, 1, 1), "all 1"), ((1.2, 0.9, 1.1), "at least 1, got 1.2, 0.9, 1.1")])
def test_multipliers_that_are_no_direction(by: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ScalenetError, match=message):
        shares_of(Scale(*by), Exponents(1, 2, 2))


@pytest.mark.parametrize("values", [(0.5, 0.5, 0.5), (-0.5, 1.0, 0.5), (math.nan, 0.5, 0.5)])
def test_shares_off_the_simplex_are_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ScalenetError, match="Shares must"):
        Shares(*values)


def test_parts_of_either_sign_are_shares_of_what_grew_or_shrank() -> None:
    assert normalised([1, 3, 0]) == normalised([-1, -3, 0]) == Shares(0.25, 0.75, 0)
    assert normalised([1, 3, -1]) == Shares(0.25, 0.75, 0)
    assert normalised([0, 0, 0]) == Shares(0, 0, 0)


@given(simplex())
def test_shares_survive_a_file(shares: Shares) -> None:
    assert from_plain(Shares, to_plain(shares), "file") == shares


@given(simplex())
def test_phi_zero_is_the_baseline(shares: Shares) -> None:
    found = at_phi(METER, shares, 0)
    assert found.spec == METER.baseline
    assert (found.phi, found.ratio, found.literal, found.note) == (0, 1, Scale(), None)


@given(simplex(), st.floats(-1.5, 3))
@settings(deadline=None, max_examples=40)
def test_phi_is_what_is_measured_and_no_factor_turns_round(shares: Shares, phi: float) -> None:
    try:
        found = at_phi(METER, shares, phi)
    except ScalenetError as error:
        if phi >= 0 or "at the least" not in str(error):  # 24 px end at 16
            raise
        return
    assert found.phi == pytest.approx(math.log2(METER.cost(found.spec).flops / METER.cost(METER.baseline).flops))
    assert (found.note is None) == (abs(2 ** (found.phi - phi) - 1) <= 0.02 + 1e-12)
    for factor in ("depth", "width", "resolution"):
        here, base = getattr(found.size, factor), getattr(METER.size, factor)
        if not getattr(shares, factor):
            assert getattr(found.scale, factor) == 1
            if factor != "width":  # the mean over blocks moves when blocks are added
                assert here == base
        elif factor != "width":
            assert here >= base if phi >= 0 else here <= base


@pytest.mark.parametrize("phi", [13, -13, math.inf, math.nan])
def test_phi_out_of_range(phi: float) -> None:
    with pytest.raises(ScalenetError, match="phi must be between -12 and 12"):
        at_phi(METER, PAPERS, phi)


def test_shrinking_ends_where_the_factors_do() -> None:
    with pytest.raises(ScalenetError, match=r"reaches 142,912 \(phi -1.17\) at the least: resolution ends at 16 px"):
        at_phi(METER, Shares(0, 0, 1), -2)


@given(simplex(), st.floats(0.35, 6), st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_budget_is_met_from_below(shares: Shares, times: float, by_params: bool) -> None:
    base = METER.cost(METER.baseline)
    budget = int(times * (base.params if by_params else base.flops))
    try:
        found = at_budget(METER, shares, params=budget) if by_params else at_budget(METER, shares, flops=budget)
    except ScalenetError as error:
        far = times < 1 or (by_params and shares.resolution >= 0.5)  # the other factors hardly move
        if not far or "out of reach" not in str(error):
            raise
        return
    got = found.cost.params if by_params else found.cost.flops
    assert got <= budget
    assert got >= 0.98 * budget or found.note is not None
    if found.step is not None:
        assert (found.step.cost.params if by_params else found.step.cost.flops) > budget


@pytest.mark.parametrize(("variant", "times"), [("b0", 2.0), ("b0", 5.2), ("b0", 0.5)])
def test_efficientnet_meets_budgets_within_two_per_cent(variant: str, times: float) -> None:
    arch = EfficientNet()
    meter = Meter(arch, arch.variants[variant].spec, num_classes=1000)
    budget = int(times * 385_814_752)
    found = at_budget(meter, PAPERS, flops=budget)
    assert 0.98 * budget <= found.cost.flops <= budget
    assert found.note is None
    # and the direction is kept: no factor is more than a quarter off the literal power
    for factor in ("depth", "width", "resolution"):
        assert 0.75 < getattr(found.scale, factor) / getattr(found.literal, factor) < 1.25


@pytest.mark.parametrize("times", [0.5, 2.0, 4.0])
def test_efficientnet_meets_params_budgets(times: float) -> None:
    arch = EfficientNet()
    meter = Meter(arch, arch.variants["micro"].spec, num_classes=10)
    budget = int(times * meter.cost(meter.baseline).params)
    found = at_budget(meter, PAPERS, params=budget)
    assert 0.98 * budget <= found.cost.params <= budget


def test_single_steps_are_combined_to_come_nearer() -> None:
    found = at_budget(METER, Shares(0.5, 0, 0.5), flops=964_416)  # without single steps: over 2 % short
    assert 0.98 * 964_416 <= found.cost.flops <= 964_416
    assert found.size.width == pytest.approx(12.8, abs=0.5)


@pytest.mark.parametrize(
    ("shares", "budget", "by_params"),
    [  # each has a neighbour within 2 % that was overlooked
        (Shares(0.5, 0.5, 0), 13_561_066, False),  # two blocks more, a few channels less
        (Shares(0.5, 0, 0.5), 15_651_576, False),  # two blocks less, three pixels more
        (Shares(1 / 3, 1 / 3, 1 / 3), 145_647, True),
    ],
)
def test_neighbouring_depths_are_solved_again(shares: Shares, budget: int, by_params: bool) -> None:
    meter = Meter(toy(), ToySpec((4, 6), (16, 32), 40), num_classes=4)
    found = at_budget(meter, shares, params=budget) if by_params else at_budget(meter, shares, flops=budget)
    got = found.cost.params if by_params else found.cost.flops
    assert 0.98 * budget <= got <= budget


def test_steps_that_cost_nothing_do_not_crowd_out_the_others() -> None:
    arch = MobileNet()  # whose parameters know no resolution, and depth 8 is over by itself
    meter = Meter(arch, arch.variants["micro"].spec, num_classes=10)
    for shares, budget in ((Shares(0.3, 0.2, 0.5), 47_471), (Shares(0.45, 0.04, 0.51), 54_719)):
        assert at_budget(meter, shares, params=budget).cost.params >= 0.98 * budget


def test_a_pixel_that_costs_nothing_is_no_step() -> None:
    # 33 and 34 px give maps of the same size, as 35 and 36 do
    arch = EfficientNet()
    meter = Meter(arch, arch.variants["micro"].spec, num_classes=10)
    found = at_budget(meter, Shares(0.5, 0, 0.5), flops=1_606_962)
    assert found.size.resolution in (35, 36)
    assert found.cost.flops >= 0.98 * 1_606_962
    assert found.step is not None
    assert (found.step.factor, found.step.size.resolution) == ("resolution", 37)


def test_steps_that_are_too_coarse_are_told() -> None:
    found = at_budget(METER, Shares(1, 0, 0), flops=482_208)
    assert found.step is not None
    assert (found.size.depth, found.cost.flops, found.step.factor) == (6, 404_416, "depth")
    assert found.note == ("16.1% of the 482,208 flops are left; the next step up, in depth, costs 487,360, 1.1% over")


@pytest.mark.parametrize(
    ("shares", "budget", "message"),
    [
        (
            PAPERS,
            {"flops": 100},
            "100 flops is out of reach: .* toy reaches [0-9,]+ at the least: depth ends at 2 blocks",
        ),
        (PAPERS, {"flops": 10**15}, r"permitted are up to 1,316,749,312, 2\^12 x the baseline"),
        (PAPERS, {"flops": 0}, "at least 1, got 0 flops"),
        (Shares(0, 0, 1), {"params": 10_000}, "stays at 6,748: resolution alone does not move it"),
        (Shares(0, 0, 1), {"params": 5_000}, "reaches 6,748 at the least"),
        (PAPERS, {}, "Give one budget"),
        (PAPERS, {"flops": 1, "params": 1}, "Give one budget"),
        (Shares(0, 0, 0), {"flops": 500_000}, "no direction"),
    ],
)
def test_budgets_out_of_reach(shares: Shares, budget: dict[str, int], message: str) -> None:
    with pytest.raises(ScalenetError, match=message):
        at_budget(METER, shares, **budget)


def test_the_papers_law_is_literal() -> None:
    arch, b0 = EfficientNet(), EfficientNet().variants["b0"].spec
    assert paper_scale(arch, b0, 1.2, 1.1, 1.15, 0) == b0
    grown = paper_scale(arch, b0, 1.2, 1.1, 1.15, 1)
    assert [stage.blocks for stage in grown.stages] == [2, 3, 3, 4, 4, 5, 2]  # 1.2 and 1.1 round up alike
    assert (grown.resolution, grown.stem, grown.head) == (258, 32, 1408)
    with pytest.raises(ScalenetError, match="all 1"):
        paper_scale(arch, b0, 1, 1, 1, 1)
