from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from scalenet_plugins.efficientnet import B0, COEFFICIENTS, MICRO, EfficientNet, MBConv
from torch import nn

from scalenet.architecture import PAPER, Scale
from scalenet.layers import DropPath

ARCHITECTURE = EfficientNet()

# timm 1.0, torch's FlopCounterMode / 2; the paper's Table 2 has them rounded
PUBLISHED = {
    "b0": (5288548, 385814752),
    "b1": (7794184, 686802832),
    "b2": (9109994, 993561872),
    "b3": (12233232, 1827141392),
    "b4": (19341616, 4393771024),
    "b5": (30389784, 10266384752),
    "b6": (43040704, 19067593536),
    "b7": (66347960, 37745884192),
}
# the same networks' stages as timm builds them
DEPTHS = {
    "b0": (1, 2, 2, 3, 3, 4, 1),
    "b1": (2, 3, 3, 4, 4, 5, 2),
    "b4": (2, 4, 4, 6, 6, 8, 2),
    "b7": (4, 7, 7, 10, 10, 13, 4),
}
WIDTHS = {
    "b1": (32, 16, 24, 40, 80, 112, 192, 320, 1280),
    "b4": (48, 24, 32, 56, 112, 160, 272, 448, 1792),
    "b7": (64, 32, 48, 80, 160, 224, 384, 640, 2560),
}
SIDES = {"b0": 224, "b1": 240, "b2": 260, "b3": 300, "b4": 380, "b5": 456, "b6": 528, "b7": 600}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_paper_rounding_makes_every_row_from_b0(name):
    width, depth, side, *_ = COEFFICIENTS[name]
    variant = ARCHITECTURE.variants[name].spec
    scaled = ARCHITECTURE.scale(B0, Scale(depth, width, side / 224), PAPER)
    assert replace(scaled, dropout=variant.dropout) == variant  # dropout is no part of the compound rule
    assert variant.resolution == SIDES[name]
    if name in DEPTHS:
        assert tuple(stage.blocks for stage in variant.stages) == DEPTHS[name]
    if name in WIDTHS:
        assert (variant.stem, *(stage.channels for stage in variant.stages), variant.head) == WIDTHS[name]


@pytest.mark.parametrize("name", ["b0", "b2", "b5"])
def test_logits_are_timms(name, parity):
    model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=11)
    parity(model, timm.create_model(f"efficientnet_{name}", pretrained=False, num_classes=11), 64).check()


def hard_gate(p):
    p.swap(nn.Sigmoid, nn.Hardsigmoid)


def relu6_for_silu(p):
    p.swap(nn.SiLU, nn.ReLU6)


def relu_in_se(p):
    p.swap(nn.SiLU, nn.ReLU, within=".se.")


def tensorflow_eps(p):
    for module in p.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3


def a_skip_forgotten(p):
    next(m for m in p.model.modules() if isinstance(m, MBConv) and m.residual).residual = False


def padded_like_tensorflow(p):
    conv = p.model.stem[0]
    p.model.stem[0] = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv)
    conv.padding = (0, 0)


def gate_forgotten(p):
    p.model.blocks[3].se = nn.Identity()


@pytest.mark.parametrize(
    "mistake",
    [
        hard_gate,
        relu6_for_silu,
        relu_in_se,
        tensorflow_eps,
        a_skip_forgotten,
        padded_like_tensorflow,
        gate_forgotten,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity):
    model = ARCHITECTURE.build(B0, num_classes=11)
    planted = parity(model, timm.create_model("efficientnet_b0", pretrained=False, num_classes=11), 48)
    planted.check()
    mistake(planted)
    planted.noticed()


def test_fine_rounding_takes_single_blocks_channels_and_pixels():
    deeper = ARCHITECTURE.scale(B0, Scale(depth=17 / 16))
    assert ARCHITECTURE.size(deeper).depth == 17
    assert ARCHITECTURE.scale(B0, Scale(width=33 / 32)).stem == 33
    assert ARCHITECTURE.scale(B0, Scale(resolution=225 / 224)).resolution == 225


@pytest.mark.parametrize("spec", [B0, MICRO])
def test_every_channel_number_scales(spec):
    twice = ARCHITECTURE.scale(spec, Scale(width=2.0))
    assert (twice.stem, twice.head) == (2 * spec.stem, 2 * spec.head)
    assert [s.channels for s in twice.stages] == [2 * s.channels for s in spec.stages]
    with torch.device("meta"):
        once, double = (ARCHITECTURE.build(s, num_classes=10) for s in (spec, twice))
    squeezed = [
        [m.out_channels for n, m in model.named_modules() if n.endswith("se.gate.0")] for model in (once, double)
    ]
    assert all(abs(b - 2 * a) <= 1 for a, b in zip(*squeezed, strict=True))


def test_drop_path_rises_linearly_to_the_last_block_and_spares_evaluation():
    model = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.6)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * i for i in range(7)])
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_micro_has_every_part():
    assert {stage.kernel for stage in MICRO.stages} == {3, 5}
    assert {stage.expand_ratio > 1 for stage in MICRO.stages} == {False, True}
    assert {stage.stride for stage in MICRO.stages} == {1, 2}
    assert any(m.residual for m in ARCHITECTURE.build(MICRO, num_classes=10).modules() if isinstance(m, MBConv))
