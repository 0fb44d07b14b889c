"""Another price than FLOPs: exponents by hand, targets met by an independent count, budgets still in FLOPs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scalenet_plugins.mobilenet import MobileNet
from scalenet_plugins.vit import ViT
from torch import nn

from scalenet.architecture import Scale
from scalenet.errors import ScalenetError
from scalenet.meter import Meter
from scalenet.metric import ACTIVATIONS, FLOPS, PARAMS
from scalenet.mixture import lattice, lattice_name
from scalenet.projection import candidates, project
from scalenet.scaling import at_budget, at_phi
from scalenet.shares import Shares, multipliers
from tests.test_scaling import PAPERS, simplex
from tests.toy import ToySpec, toy

TOY = Meter(toy(), ToySpec((4, 6), (16, 32), 40), num_classes=4)
BY_ACTIVATIONS = TOY.priced(ACTIVATIONS)


def outputs(model: nn.Module, side: int) -> int:
    """Elements that convolutions and linear maps put out for one image, by running it."""
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, side, side))
    return sum(seen)


def test_candidates_meet_the_target_in_activations_as_another_count_has_them() -> None:
    arch = MobileNet()
    micro = arch.variants["micro"].spec
    meter = Meter(arch, micro, num_classes=10, metric=ACTIVATIONS)
    found = candidates(meter, [(lattice_name(point, 3), point) for point in lattice(3)])
    kept = [c for c in found if c.rejected is None]
    assert len(kept) >= 6
    base = outputs(arch.build(micro, num_classes=10), micro.resolution)
    for candidate in kept:
        spec = meter.scaled(candidate.scale)
        ratio = outputs(arch.build(spec, num_classes=10), spec.resolution) / base
        assert candidate.ratio == pytest.approx(ratio, rel=1e-12)
        assert candidate.off_target or ratio == pytest.approx(2, rel=0.1)
    inner = [c for c in kept if not c.shares.single]
    assert any(abs(c.cost.flops / meter.cost(micro).flops / 2 - 1) > 0.1 for c in inner)  # and not in FLOPs


def by_hand(tokens: int, dim: int, depth: int, heads: int, classes: int) -> int:
    """Activations of a ViT: patches, and per block q k v, two products of attention, its output, the perceptron."""
    patches = (tokens - 1) * dim
    block = 3 * tokens * dim + heads * tokens**2 + tokens * dim + tokens * dim + 4 * tokens * dim + tokens * dim
    return patches + depth * block + classes


def test_exponents_of_activations_by_hand() -> None:
    arch = ViT()
    meter = Meter(arch, arch.variants["micro"].spec, num_classes=10, metric=ACTIVATIONS)
    base = by_hand(65, 24, 6, 2, 10)  # 32 px in patches of 4, and the class token
    assert meter.price(meter.baseline) == base
    expected = (
        math.log2(by_hand(65, 24, 12, 2, 10) / base),
        math.log2(by_hand(65, 48, 6, 4, 10) / base),  # heads of 12 channels
        math.log2(by_hand(257, 24, 6, 2, 10) / base),
    )
    found = meter.exponents
    assert (found.depth, found.width, found.resolution) == pytest.approx(expected, abs=1e-9)


def test_a_stack_of_convolutions_by_hand() -> None:
    # Every block puts out its channels times the map, which the first block of a stage halves: 20 px and 10 px.
    assert BY_ACTIVATIONS.price(TOY.baseline) == 4 * 16 * 20**2 + 6 * 32 * 10**2 + 4
    found = BY_ACTIVATIONS.exponents
    assert (found.depth, found.width, found.resolution) == pytest.approx((1, 1, 2), abs=1e-3)
    assert TOY.exponents.width > 1.9  # while FLOPs go with the square of the channels


@given(simplex(), st.floats(1.3, 4))
@settings(deadline=None, max_examples=30)
def test_a_projection_keeps_its_promises_in_activations(shares: Shares, target: float) -> None:
    found = project(BY_ACTIVATIONS, shares, target=target)
    assert found.ratio == found.cost.activations / TOY.cost(TOY.baseline).activations
    off = abs(found.ratio / target - 1) > 0.1
    assert found.off_target == (off and shares.single is not None)
    assert (found.rejected is not None) == (off and shares.single is None)
    for factor in ("depth", "width", "resolution"):
        if not getattr(shares, factor):
            assert getattr(found.realised, factor) == 0
    assert found.realised.depth + found.realised.width + found.realised.resolution == pytest.approx(1)


def test_a_rejected_candidate_is_told_in_the_metric() -> None:
    coarse = Meter(toy(), ToySpec((1, 1), (16, 32), 16), num_classes=4, metric=ACTIVATIONS)  # blocks of 1 in 2
    told = [project(coarse, Shares(0.6, 0, 0.4), target=target).rejected for target in (1.2, 1.25, 1.3, 1.35, 1.4)]
    assert any(reason and "x the baseline's activations, " in reason for reason in told)


def test_realised_shares_are_of_activations() -> None:
    # Alone, depth and width each multiply activations (but the classifier's four), so the logs add up.
    found = project(BY_ACTIVATIONS, Shares(0.5, 0.5, 0))
    first, second = found.spec["depths"]
    deep = first * 16 * 20**2 + second * 32 * 10**2
    assert found.realised.depth == pytest.approx(math.log(deep / 44_800) / math.log(found.ratio), abs=0.01)
    assert project(TOY, Shares(0.5, 0.5, 0)).scale.width < found.scale.width


@given(simplex(), st.floats(0.3, 3))
@settings(deadline=None, max_examples=20)
def test_phi_is_of_the_metric(shares: Shares, phi: float) -> None:
    found = at_phi(BY_ACTIVATIONS, shares, phi)
    assert found.ratio == found.cost.activations / TOY.cost(TOY.baseline).activations
    assert found.phi == pytest.approx(math.log2(found.ratio))
    assert (found.note is None) == (abs(2 ** (found.phi - phi) - 1) <= 0.02 + 1e-12)


def test_a_budget_of_flops_is_met_along_the_same_multipliers() -> None:
    arch = MobileNet()
    meter = Meter(arch, arch.variants["1x"].spec, num_classes=1000, metric=ACTIVATIONS)
    shares = Shares(0.5, 0.4, 0.1)  # of activations; as width costs twice as much in FLOPs, less of them is depth's
    budget = 8 * meter.cost(meter.baseline).flops
    found = at_budget(meter, shares, flops=budget)
    assert 0.98 * budget <= found.cost.flops <= budget
    assert found.phi == pytest.approx(math.log2(found.cost.activations / meter.cost(meter.baseline).activations))
    assert found.literal == multipliers(shares, meter.exponents, found.phi)
    for factor in ("depth", "width", "resolution"):
        assert getattr(found.scale, factor) == pytest.approx(getattr(found.literal, factor), rel=0.1)


def test_a_budget_of_params_is_met_too() -> None:
    budget = int(2.5 * TOY.cost(TOY.baseline).params)
    found = at_budget(BY_ACTIVATIONS, PAPERS, params=budget)
    assert 0.98 * budget <= found.cost.params <= budget


def test_an_end_of_shrinking_is_told_in_the_metric() -> None:
    with pytest.raises(ScalenetError, match=r"asks for activations of 5,60.; .* reaches 7,172 \(phi -2\.64\)"):
        at_phi(BY_ACTIVATIONS, Shares(0, 0, 1), -3)  # 16 px: maps of 8 and 4, 0.4 squared of 40 px and the classifier


def test_counts_are_shared_between_metrics() -> None:
    meter = Meter(toy(), ToySpec(), num_classes=4)
    other = meter.priced(ACTIVATIONS)
    project(other, PAPERS)
    counted = other.counted
    assert meter.counted == counted
    assert other.priced(FLOPS).priced(ACTIVATIONS).ratio(other.scaled(Scale())) == 1
    assert meter.counted == counted


def test_flops_are_what_a_meter_means_unless_told_otherwise() -> None:
    cost = TOY.cost(TOY.baseline)
    assert TOY.price(TOY.baseline) == cost.flops
    assert TOY.price(TOY.baseline, PARAMS) == cost.params
    assert [metric.name for metric in (FLOPS, ACTIVATIONS, PARAMS)] == ["flops", "activations", "params"]
    stiff: Any = Meter(toy(), ToySpec(), num_classes=4, metric=PARAMS)  # resolution does not move parameters
    with pytest.raises(ScalenetError, match="doubling resolution multiplies it by 2 and params by 1"):
        _ = stiff.exponents
