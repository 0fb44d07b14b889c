from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from scalenet_plugins import perceiver
from scalenet_plugins.perceiver import (
    IO_FOURIER,
    IO_LEARNED,
    MICRO,
    V1_1CROSS,
    V1_IO_TABLE,
    V1_PAPER,
    CrossAttend,
    Perceiver,
    SelfAttend,
    attend,
    fourier_features,
)
from torch import nn
from torch.nn import functional as F

from scalenet.architecture import PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

from .references import perceiver as slow
from .references.perceiver import SMALL

ARCHITECTURE = Perceiver()

# published.csv: DeepMind's modules and transformers', torch's FlopCounterMode / 2
PUBLISHED = {
    "v1_paper": (44912254, 353139548160),
    "v1_io_table": (42135859, 201983387648),
    "io_fourier": (48440627, 203062372352),
    "io_learned": (62255848, 239019466752),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    variant = ARCHITECTURE.variants[name]
    assert counts(ARCHITECTURE, variant.spec) == PUBLISHED[name] == (variant.params, variant.flops)


@pytest.mark.parametrize("spec", [V1_PAPER, V1_IO_TABLE, V1_1CROSS])
def test_logits_are_those_of_the_papers_formula(spec, parity):
    small = SMALL | {"num_heads": spec.num_heads, "rounds": min(spec.rounds, 3)}
    spec = replace(spec, resolution=16, **small)
    parity(ARCHITECTURE.build(spec, num_classes=11), slow.reference(spec, 11), 16, slow.move).check()


def positions_from_0_to_1(p, monkeypatch):
    colours = 3
    places = (p.model.pixels.features[:, :2] + 1) / 2
    p.model.pixels.features = torch.cat((places, p.model.pixels.features[:, 2:]), 1)
    assert p.model.pixels.channels == colours + p.model.pixels.features.shape[1]


def fourier_of_positions_from_0_to_1(p, monkeypatch):
    linspace = torch.linspace

    def wrong(start, end, count, device=None):
        return linspace(0.0 if start == -1.0 else start, end, count, device=device)

    monkeypatch.setattr(perceiver.torch, "linspace", wrong)
    p.model.pixels.features = fourier_features(16, 16, 16, 64)


def twice_the_frequencies(p, monkeypatch):
    p.model.pixels.features = fourier_features(16, 16, 32, 64)


def sines_and_cosines_in_turn(p, monkeypatch):
    table = p.model.pixels.features
    sines, cosines = table[:, 2:].chunk(2, 1)
    p.model.pixels.features = torch.cat((table[:, :2], torch.stack((sines, cosines), 2).flatten(1)), 1)


def x_before_y(p, monkeypatch):
    p.model.pixels.features = p.model.pixels.features.view(16, 16, -1).transpose(0, 1).reshape(256, -1)


def no_residual_of_the_query(p, monkeypatch):
    original = CrossAttend.forward

    def forward(self, x, source, drop_path):
        branches = iter((lambda y: y - x, lambda y: y))  # the query is taken off again
        return original(self, x, source, next(branches))

    monkeypatch.setattr(CrossAttend, "forward", forward)


def pixels_not_normed(p, monkeypatch):
    for cross in (p.model.first, p.model.again):
        cross.source_norm = nn.Identity()


def first_cross_attend_shared(p, monkeypatch):
    p.model.again = p.model.first


def cross_attend_once(p, monkeypatch):
    p.model.again = None


def self_attends_not_repeated(p, monkeypatch):
    p.model.rounds = 1


def another_number_of_heads(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, SelfAttend):
            module.attention.num_heads = 2


def scaled_by_the_latents_width(p, monkeypatch):
    def wrong(query, key, value):
        return attend(query * (query.shape[-1] / 32) ** 0.5, key, value)

    monkeypatch.setattr(perceiver, "attend", wrong)


def first_latent_instead_of_the_mean(p, monkeypatch):
    p.model.decoder = lambda latents: latents[:, 0]


@pytest.mark.parametrize(
    "mistake",
    [
        positions_from_0_to_1,
        fourier_of_positions_from_0_to_1,
        twice_the_frequencies,
        sines_and_cosines_in_turn,
        x_before_y,
        no_residual_of_the_query,
        pixels_not_normed,
        first_cross_attend_shared,
        cross_attend_once,
        self_attends_not_repeated,
        another_number_of_heads,
        scaled_by_the_latents_width,
        first_latent_instead_of_the_mean,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = replace(V1_PAPER, resolution=16, **SMALL)
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), slow.reference(spec, 11), 16, slow.move)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_a_cross_attend_in_every_round_shows_where_the_paper_has_one(parity):
    spec = replace(V1_IO_TABLE, resolution=16, **SMALL)
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), slow.reference(spec, 11), 16, slow.move)
    planted.check()
    planted.model.again = planted.model.first
    planted.model.drop_paths.extend(DropPath(0.0) for _ in range(2))
    planted.noticed()


def test_unshared_weights_show_in_the_parameters_only(parity):
    spec = replace(V1_IO_TABLE, resolution=16, **SMALL)
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), slow.reference(spec, 11), 16, slow.move)
    params = sum(p.numel() for p in planted.model.parameters())
    assert params == sum(p.numel() for p in planted.reference.parameters())
    blocks = planted.model.blocks
    blocks.extend(copy.deepcopy(blocks[i % 2]) for i in range(4))
    planted.model.rounds = 1
    planted.check()  # three rounds of weights of their own that are alike: nothing to see
    assert sum(p.numel() for p in planted.model.parameters()) > 1.1 * params


def test_fourier_features_by_hand():
    table = fourier_features(2, 3, 8, 2)  # frequencies 1 and 4
    assert table.shape == (6, 10)
    y, x = -1.0, 0.0  # the second pixel
    expected = [y, x, *(math.sin(math.pi * f * p) for p in (y, x) for f in (1, 4))]
    expected += [math.cos(math.pi * f * p) for p in (y, x) for f in (1, 4)]
    torch.testing.assert_close(table[1], torch.tensor(expected), atol=1e-5, rtol=0)


def test_channels_filled_for_the_kernel_change_nothing():
    g = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, tokens, 13, generator=g, requires_grad=True) for tokens in (3, 7, 7))
    filled = attend(query, F.pad(key, (0, 3)), F.pad(value, (0, 3)))
    expected = torch.softmax(query @ key.transpose(1, 2) / 13**0.5, -1) @ value
    torch.testing.assert_close(filled, expected)
    torch.testing.assert_close(
        torch.autograd.grad(filled.square().sum(), key), torch.autograd.grad(expected.square().sum(), key)
    )


def test_depth_repeats_rounds_without_new_parameters():
    for spec in (V1_PAPER, IO_FOURIER, MICRO):
        twice = ARCHITECTURE.scale(spec, Scale(depth=2.0))
        assert twice == replace(spec, rounds=2 * spec.rounds)
        assert ARCHITECTURE.size(twice).depth == 2 * spec.rounds * spec.self_attends
        with torch.device("meta"):
            once, again = (ARCHITECTURE.build(s, num_classes=5) for s in (spec, twice))
        assert [p.shape for p in once.parameters()] == [p.shape for p in again.parameters()]
    assert ARCHITECTURE.scale(V1_PAPER, Scale(depth=10 / 8)).rounds == 10
    assert ARCHITECTURE.scale(V1_PAPER, Scale(depth=1.07)).rounds == 9
    assert ARCHITECTURE.scale(V1_PAPER, Scale(depth=1.01), PAPER).rounds == 9
    assert ARCHITECTURE.scale(V1_PAPER, Scale(depth=1.01)).rounds == 8


def test_depth_of_a_single_round_is_its_self_attends():
    assert ARCHITECTURE.scale(V1_1CROSS, Scale(depth=1.5)) == replace(V1_1CROSS, self_attends=9)
    assert ARCHITECTURE.scale(V1_1CROSS, Scale(depth=0.01)) == replace(V1_1CROSS, self_attends=1)
    assert ARCHITECTURE.scale(V1_PAPER, Scale(depth=0.01)) == replace(V1_PAPER, rounds=1)
    with torch.device("meta"):
        assert ARCHITECTURE.build(V1_1CROSS, num_classes=2).again is None


@pytest.mark.parametrize("width", [0.5, 0.77, 1.01, 1.1, 1.5, 2.3, 4.0])
@pytest.mark.parametrize("rounding", [None, PAPER])
def test_width_is_that_of_the_latents_and_heads_divide_it(width, rounding):
    for spec in (V1_PAPER, MICRO):
        scaled = ARCHITECTURE.scale(spec, Scale(width=width), *([rounding] if rounding else []))
        assert scaled.dim % scaled.num_heads == 0
        step = 8 * spec.num_heads if rounding else scaled.num_heads
        assert abs(scaled.dim - spec.dim * width) <= step
        assert replace(scaled, dim=spec.dim, num_heads=spec.num_heads) == spec
    with torch.device("meta"):
        wide = ARCHITECTURE.build(ARCHITECTURE.scale(IO_FOURIER, Scale(width=width)), num_classes=5)
    assert wide.first.query.out_features == 261
    assert wide.decoder.query.shape == (1, wide.latents.shape[1])


def test_paper_rounding():
    scaled = ARCHITECTURE.scale(V1_PAPER, Scale(1.2, 1.1, 1.15), PAPER)
    assert scaled == replace(V1_PAPER, rounds=10, dim=1152, resolution=256)


def test_resolution_goes_by_pixels_and_moves_the_frequencies():
    scaled = ARCHITECTURE.scale(V1_PAPER, Scale(resolution=0.1))
    assert scaled == replace(V1_PAPER, resolution=22)
    table = ARCHITECTURE.build(replace(scaled, **SMALL), num_classes=5).pixels.features
    # the highest frequency of x, the last of the sines, 11 half-turns from the centre to the border
    torch.testing.assert_close(
        table[:22, 2 + 127],
        torch.tensor([math.sin(math.pi * 11 * (2 * i / 21 - 1)) for i in range(22)]),
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("side", [16, 17, 23, 45])
def test_odd_sides(side):
    for base in (MICRO, replace(IO_LEARNED, position_channels=4, **SMALL), replace(V1_PAPER, bands=2, **SMALL)):
        model = ARCHITECTURE.build(replace(base, resolution=side), num_classes=5).eval()
        with torch.no_grad():
            assert model(torch.randn(2, 3, side, side)).shape == (2, 5)
            if not base.position_channels:
                assert model(torch.randn(2, 3, side, 31)).shape == (2, 5)


@pytest.mark.parametrize("side", [29, 30, 31, 32])
@pytest.mark.parametrize("last", [(..., -1, slice(None)), (..., slice(None), -1)])
def test_no_pixel_is_dropped(side, last):
    model = ARCHITECTURE.build(replace(MICRO, resolution=side), num_classes=5).eval()
    nn.init.normal_(model.classifier.weight)
    images = torch.zeros(2, 3, side, side)
    images[1][last] = 10.0
    with torch.no_grad():
        dark, bright = model(images)
    assert not torch.allclose(dark, bright, rtol=1e-3)


def test_learned_positions_refuse_another_side():
    model = ARCHITECTURE.build(replace(IO_LEARNED, resolution=16, **SMALL), num_classes=5)
    with pytest.raises(ScalenetError, match="built for 16 x 16 px, got 16 x 17"):
        model(torch.zeros(1, 3, 16, 17))


def test_learned_positions_are_resampled():
    old = replace(IO_LEARNED, resolution=16, **SMALL)
    new = replace(old, resolution=21)
    weights = ARCHITECTURE.build(old, num_classes=5).state_dict()
    assert ARCHITECTURE.resample(weights, old, old) is weights
    weights["pixels.table"] = torch.linspace(-1, 1, 256)[None].expand(256, -1)  # the same everywhere
    moved = ARCHITECTURE.resample(weights, old, new)
    ARCHITECTURE.build(new, num_classes=5).load_state_dict(dict(moved))
    torch.testing.assert_close(moved["pixels.table"], weights["pixels.table"][:1].expand(441, -1))
    fourier = ARCHITECTURE.build(MICRO, num_classes=5).state_dict()
    assert not any("features" in name for name in fourier)
    assert ARCHITECTURE.resample(fourier, MICRO, replace(MICRO, resolution=40)) is fourier


def test_specs_that_cannot_be_built_are_refused():
    with pytest.raises(ScalenetError, match="multiple of 8 heads, got 1020"):
        replace(V1_PAPER, dim=1020)
    with pytest.raises(ScalenetError, match="got bands 0 and position_channels 0"):
        replace(V1_PAPER, bands=0)
    with pytest.raises(ScalenetError, match="got bands 64 and position_channels 8"):
        replace(V1_PAPER, position_channels=8)
    with pytest.raises(ScalenetError, match="stem must be 0 with learned positions, got 16"):
        replace(IO_LEARNED, stem=16)


def test_drop_path_rises_linearly_over_the_blocks_as_they_are_passed():
    model = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.9)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * i for i in range(10)])
    nn.init.normal_(model.classifier.weight)
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    assert isinstance(model.again, CrossAttend)
    assert model.again is not model.first
    assert MICRO.rounds >= 5
    assert MICRO.num_heads > 1
    assert model.pixels.channels == 16 + 2 + 4 * 4
