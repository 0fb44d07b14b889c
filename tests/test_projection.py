from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scalenet_plugins.efficientnet import EfficientNet
from scalenet_plugins.mobilenet import MobileNet
from scalenet_plugins.mobilevit import MobileViT

from scalenet.architecture import PAPER, Architecture, Scale
from scalenet.errors import ScalenetError
from scalenet.meter import Meter
from scalenet.mixture import lattice, lattice_name
from scalenet.plain import from_plain, to_plain
from scalenet.projection import (
    Candidate,
    baseline_candidate,
    candidates,
    key_of,
    named_points,
    project,
    realised_shares,
)
from scalenet.shares import NOTHING, Law, Shares
from tests.test_scaling import simplex
from tests.toy import ToySpec, toy

METER = Meter(toy(), ToySpec((4, 6), (16, 32), 40), num_classes=4)
FACTORS = ("depth", "width", "resolution")


def design(m: int = 5) -> list[tuple[str, Shares]]:
    return [(lattice_name(point, m), point) for point in lattice(m)]


@given(simplex(), st.floats(1.3, 4))
@settings(deadline=None, max_examples=40)
def test_a_projection_keeps_its_promises(shares: Shares, target: float) -> None:
    found = project(METER, shares, target=target)
    spec = from_plain(ToySpec, found.spec, "candidate")
    assert METER.scaled(found.scale) == spec
    assert found.ratio == METER.cost(spec).flops / METER.cost(METER.baseline).flops
    for factor in FACTORS:
        multiplier = getattr(found.scale, factor)
        assert multiplier >= 1
        if not getattr(shares, factor):
            assert multiplier == 1
            assert getattr(found.realised, factor) == 0
    assert sum(getattr(found.realised, factor) for factor in FACTORS) == pytest.approx(1)
    off = abs(found.ratio / target - 1) > 0.1
    assert found.off_target == (off and shares.single is not None)
    assert (found.rejected is not None) == (off and shares.single is None)
    # depth by itself never overshoots, unless it is alone
    if shares.single != "depth":
        assert METER.ratio(METER.scaled(Scale(depth=found.scale.depth))) <= target + 1e-9


@given(st.floats(1.2, 5))
@settings(deadline=None, max_examples=15)
def test_a_corner_takes_the_nearest_whole_step(target: float) -> None:
    found = project(METER, Shares(1, 0, 0), target=target)
    blocks = found.size.depth
    errors = {n: abs(math.log(METER.ratio(METER.scaled(Scale(depth=n / 10))) / target)) for n in range(10, 3 * blocks)}
    assert errors[blocks] <= min(errors.values()) + 0.004  # closer than that is not looked for


def test_a_depth_that_overshoots_by_itself_gives_way_to_the_next_lower() -> None:
    # 0.9 of 1.5 x is 7.75 blocks: 8 cost 1.77 x, 7 cost 1.52 x, 6 cost 1.26 x and leave room for width
    found = project(Meter(toy(), ToySpec(), num_classes=4), Shares(0.9, 0.1, 0), target=1.5)
    assert found.size.depth == 6
    assert found.scale.width > 1


def test_width_absorbs_what_depth_leaves() -> None:
    found = project(METER, Shares(0.5, 0.5, 0))
    assert found.size.resolution == 40
    assert found.ratio == pytest.approx(2, rel=0.02)


def test_realised_shares_by_hand() -> None:
    scale = Scale(1.5, 1.25, 1.0)
    base, deep, wide, both = (
        math.log(METER.ratio(METER.scaled(by))) for by in (Scale(), Scale(depth=1.5), Scale(width=1.25), scale)
    )
    depth = ((deep - base) + (both - wide)) / 2
    found = realised_shares(METER, scale)
    assert (found.depth, found.width, found.resolution) == pytest.approx((depth / both, 1 - depth / both, 0))
    assert realised_shares(METER, Scale()) == NOTHING


def test_specs_met_twice_are_one_candidate_with_both_names() -> None:
    corner = Shares(1, 0, 0)
    found = candidates(
        METER, [("depth", corner), ("lattice 5/0/0", corner), ("width", Shares(0, 1, 0)), ("depth", corner)]
    )
    assert [c.names for c in found] == [("depth", "lattice 5/0/0"), ("width",)]
    assert len({c.key for c in found}) == 2


def test_progress_is_told_after_every_point() -> None:
    told: list[tuple[int, int, str]] = []
    candidates(METER, design(1), progress=lambda done, total, what: told.append((done, total, what)))
    assert told == [(1, 3, "lattice 1/0/0"), (2, 3, "lattice 0/1/0"), (3, 3, "lattice 0/0/1")]


def test_a_candidate_survives_a_file() -> None:
    found = project(METER, Shares(0.2, 0.3, 0.5), names=("somewhere",))
    assert from_plain(Candidate, to_plain(found), "candidates.jsonl") == found


def test_keys_follow_the_spec_and_the_name() -> None:
    spec = to_plain(ToySpec())
    assert key_of("toy", spec) == key_of("toy", dict(reversed(spec.items())))
    assert len({key_of("toy", spec), key_of("other", spec), key_of("toy", {**spec, "resolution": 25})}) == 3
    assert len(key_of("toy", spec)) == 12


def test_the_baseline_grew_nothing() -> None:
    found = baseline_candidate(METER)
    assert (found.names, found.ratio, found.shares, found.realised) == (("baseline",), 1, NOTHING, NOTHING)
    assert from_plain(ToySpec, found.spec, "baseline") == METER.baseline
    assert not found.off_target
    assert found.rejected is None


def test_a_candidate_off_by_more_than_ten_per_cent_is_rejected_with_its_numbers() -> None:
    # blocks of 2 in 4 and pixels in leaps: (1/2, 0, 1/2) of 1.35 x finds no step
    coarse = Meter(toy(), ToySpec((1, 1), (16, 32), 16), num_classes=4)
    found = project(coarse, Shares(0.5, 0, 0.5), target=1.2)
    assert found.rejected is not None
    assert f"{found.ratio:.2f} x" in found.rejected
    assert "target of 1.2 x" in found.rejected
    corner = project(coarse, Shares(0, 0, 1), target=1.2)
    assert corner.rejected is None
    assert corner.off_target


def test_the_papers_law_takes_literal_powers() -> None:
    found = project(METER, Shares(0.2, 0.4, 0.4), law=Law.PAPER)
    scale = Scale(2**0.2, 2**0.2, 2**0.2)
    assert (found.scale.depth, found.scale.width, found.scale.resolution) == pytest.approx((2**0.2,) * 3)
    assert from_plain(ToySpec, found.spec, "candidate") == toy().scale(ToySpec((4, 6), (16, 32), 40), scale, PAPER)
    assert found.rejected is None


def test_the_named_points() -> None:
    points = dict(named_points(METER))
    assert list(points) == ["depth", "width", "resolution", "equal", "paper", "dwr"]
    assert points["width"] == Shares(0, 1, 0)
    papers = dict(named_points(METER, Law.PAPER))["paper"]
    assert (papers.depth, papers.width, papers.resolution) == pytest.approx((0.279, 0.292, 0.428), abs=1e-3)
    # dWr of arXiv:2103.06877: 0.8 of the growth to width, the rest halved.
    assert points["dwr"] == Shares(0.1, 0.8, 0.1)
    found = project(METER, points["paper"])
    assert found.scale.depth == pytest.approx(1.2, abs=0.1)


@pytest.mark.parametrize(
    ("shares", "target", "message"),
    [(NOTHING, 2.0, "no direction"), (Shares(1, 0, 0), 1.0, "not 1"), (Shares(1, 0, 0), -2.0, "above 0")],
)
def test_bad_directions_and_targets(shares: Shares, target: float, message: str) -> None:
    with pytest.raises(ScalenetError, match=message):
        project(METER, shares, target=target)


@pytest.mark.parametrize("arch", [EfficientNet(), MobileNet(), MobileViT()], ids=lambda arch: arch.name)
def test_the_default_lattice_is_rich_enough_on_micro(arch: Architecture[Any]) -> None:
    micro = arch.variants["micro"]
    found = candidates(Meter(arch, micro.spec, num_classes=micro.num_classes), design())
    usable = [c for c in found if c.rejected is None]
    assert len(usable) >= 15
    assert len({c.size.depth for c in usable}) >= 4
    corners = [c for c in found if c.shares.single]
    assert len(corners) == 3
    assert all(c.rejected is None for c in corners)
