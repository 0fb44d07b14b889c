from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from scalenet_plugins.convmixer import MICRO, ConvMixer, ConvMixerBlock
from timm.models.convmixer import ConvMixer as Reference
from torch import nn

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

ARCHITECTURE = ConvMixer()
BASELINE = ARCHITECTURE.variants["768_32"].spec
LIGHT = ARCHITECTURE.variants["1024_20"].spec

# timm 1.0, torch's FlopCounterMode / 2 (fvcore's figures lack the depthwise convolutions)
PUBLISHED = {
    "768_32": (21110248, 20676851712),
    "1024_20": (24383464, 5948547072),
    "1536_20": (51625960, 51099168768),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "theirs"), [("768_32", "convmixer_768_32"), ("1024_20", "convmixer_1024_20_ks9_p14")])
def test_logits_of_whole_networks_are_timms(name, theirs, parity):
    model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=11)
    parity(model, timm.create_model(theirs, pretrained=False, num_classes=11), 42).check()


def small(activation="gelu"):
    """Three blocks of 96 channels and timm's of the same size, for 56 px."""
    spec = replace(LIGHT, patch_size=7, blocks=3, dim=96, activation=activation)
    act = {"gelu": nn.GELU, "relu": nn.ReLU}[activation]
    reference = Reference(96, 3, kernel_size=9, patch_size=7, num_classes=11, act_layer=act)
    return ARCHITECTURE.build(spec, num_classes=11), reference, 56


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_logits_are_timms(activation, parity):
    parity(*small(activation)).check()


def batch_norm_before_the_activation(p, monkeypatch):
    for block in p.model.blocks:
        for part in (block.depthwise, block.pointwise):
            part[1], part[2] = part[2], part[1]


def second_skip(p, monkeypatch):
    def forward(block, x):
        x = x + block.depthwise(x)
        return x + block.pointwise(x)

    monkeypatch.setattr(ConvMixerBlock, "forward", forward)


def skip_around_the_whole_block(p, monkeypatch):
    monkeypatch.setattr(ConvMixerBlock, "forward", lambda block, x: x + block.pointwise(block.depthwise(x)))


def no_skip(p, monkeypatch):
    monkeypatch.setattr(ConvMixerBlock, "forward", lambda block, x: block.pointwise(block.depthwise(x)))


def no_biases(p, monkeypatch):
    for block in p.model.blocks:
        block.depthwise[0].bias = None
        block.pointwise[0].bias = None


def no_activation_after_the_patches(p, monkeypatch):
    p.model.stem[1] = nn.Identity()


def padded_by_reflection(p, monkeypatch):
    for block in p.model.blocks:
        block.depthwise[0].padding_mode = "circular"
        block.depthwise[0]._reversed_padding_repeated_twice = [4, 4, 4, 4]


def relu_for_gelu(p, monkeypatch):
    p.swap(nn.GELU, nn.ReLU)


@pytest.mark.parametrize(
    "mistake",
    [
        batch_norm_before_the_activation,
        second_skip,
        skip_around_the_whole_block,
        no_skip,
        no_biases,
        no_activation_after_the_patches,
        padded_by_reflection,
        relu_for_gelu,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    planted = parity(*small())
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_each_knob_moves_its_own_number():
    assert ARCHITECTURE.scale(BASELINE, Scale(depth=1.2)) == replace(BASELINE, blocks=38)  # 38.4
    assert ARCHITECTURE.scale(BASELINE, Scale(depth=1.2), PAPER) == replace(BASELINE, blocks=39)
    assert ARCHITECTURE.scale(BASELINE, Scale(width=1.1)) == replace(BASELINE, dim=845)  # 844.8
    assert ARCHITECTURE.scale(BASELINE, Scale(width=1.1), PAPER) == replace(BASELINE, dim=848)
    assert ARCHITECTURE.scale(BASELINE, Scale(resolution=1.15)) == replace(BASELINE, resolution=259)  # 257.6
    assert ARCHITECTURE.scale(LIGHT, Scale(resolution=1.15)) == replace(LIGHT, resolution=252)


@pytest.mark.parametrize("rounding", [FINE, PAPER])
def test_a_padded_side_grows_from_its_padded_size(rounding):
    odd = replace(MICRO, resolution=45, patch_size=4)  # 12 patches
    sides = [ARCHITECTURE.scale(odd, Scale(resolution=by), rounding).resolution for by in (0.3, 0.9, 1.0, 1.01, 1.1)]
    assert sides == [16, 44, 45, 48, 52]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 17), (23, 23), (45, 45), (20, 37)])
def test_any_side_is_padded_to_whole_patches(height, width):
    model = ARCHITECTURE.build(MICRO, num_classes=10).eval()
    images = torch.randn(2, 3, height, width)
    logits = model(images)
    assert logits.shape == (2, 10)
    images[:, :, -1, -1] += 10  # the last pixel counts
    assert not torch.allclose(model(images), logits)


def test_even_kernels_and_other_activations_are_refused():
    with pytest.raises(ScalenetError, match="kernel must be odd, to be padded alike on all sides, got 8"):
        replace(MICRO, kernel=8)
    with pytest.raises(ScalenetError, match="activation must be gelu or relu, got 'silu'"):
        replace(MICRO, activation="silu")


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(replace(MICRO, blocks=4), num_classes=10, drop_path=0.3)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_a_dropped_branch_leaves_what_the_skip_carries():
    block = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.5).blocks[1]
    block.drop_path.rate = 1 - 1e-12  # all of them
    x = torch.randn(4, MICRO.dim, 8, 8)
    assert torch.equal(block(x), block.pointwise(x))


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 * MICRO.blocks
    assert all(m.bias is not None for m in convolutions)
    assert MICRO.kernel > 1
