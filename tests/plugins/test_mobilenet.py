from __future__ import annotations

import pytest
import timm.models.efficientnet
import torch
from scalenet_plugins.mobilenet import FULL, MICRO, MobileNet
from torch import nn

from scalenet.architecture import PAPER, Scale

ARCHITECTURE = MobileNet()

# timm 1.0, torch's FlopCounterMode / 2; the paper: 569, 325, 149 and 41 million multiply-adds
PUBLISHED = {
    "1x": (4231976, 568740352),
    "0.75x": (2585560, 325400448),
    "0.5x": (1331592, 149497088),
    "0.25x": (470072, None),
}
ALPHAS = {"1x": 1.0, "0.75x": 0.75, "0.5x": 0.5, "0.25x": 0.25}


def reference(alpha):
    # as timm.create_model makes it, but with the paper's ReLU where timm's registered ones have ReLU6
    build = timm.models.efficientnet._gen_mobilenet_v1
    return build("mobilenetv1_100", alpha, pretrained=False, act_layer="relu", num_classes=11)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    params, macs = counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec)
    assert params == PUBLISHED[name][0]
    assert macs == PUBLISHED[name][1] or (PUBLISHED[name][1] is None and round(macs / 1e6) == 41)


@pytest.mark.parametrize("name", PUBLISHED)
def test_paper_rounding_makes_every_width_from_the_full_one(name):
    spec = ARCHITECTURE.variants[name].spec
    assert ARCHITECTURE.scale(FULL, Scale(width=ALPHAS[name]), PAPER) == spec
    assert (spec.stem, *(stage.channels for stage in spec.stages)) == tuple(
        int(c * ALPHAS[name]) for c in (32, 64, 128, 256, 512, 1024)
    )


def test_paper_rounding_keeps_channels_above_nine_tenths_and_sides_whole_maps():
    spec = ARCHITECTURE.scale(FULL, Scale(width=0.35, resolution=0.9), PAPER)
    assert (spec.stem, spec.stages[0].channels) == (16, 24)  # 11.2 -> 8 would be 71 %; 22.4 -> 24
    assert spec.resolution == 192  # 201.6


@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_are_timms(name, parity):
    model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=11)
    parity(model, reference(ALPHAS[name]), 64).check()


def relu6_for_relu(p):
    p.swap(nn.ReLU, nn.ReLU6)


def no_relu_between(p):
    p.model.blocks[5][0][2] = nn.Identity()


def no_norm_between(p):
    p.model.blocks[5][0][1] = nn.Identity()


def padded_like_tensorflow(p):
    conv = p.model.blocks[1][0][0]
    p.model.blocks[1][0][0] = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv)
    conv.padding = (0, 0)


def last_stage_strided_twice(p):
    p.model.blocks[12][0][0].stride = (2, 2)


def stride_one_block_late(p):
    p.model.blocks[3][0][0].stride, p.model.blocks[4][0][0].stride = (1, 1), (2, 2)


@pytest.mark.parametrize(
    "mistake",
    [
        relu6_for_relu,
        no_relu_between,
        no_norm_between,
        padded_like_tensorflow,
        last_stage_strided_twice,
        stride_one_block_late,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity):
    planted = parity(ARCHITECTURE.build(FULL, num_classes=11), reference(1.0), 64)
    planted.check()
    mistake(planted)
    planted.noticed()


def test_what_depth_adds_are_stride_1_repeats():
    deeper = ARCHITECTURE.scale(FULL, Scale(depth=2.0))
    assert [s.blocks for s in deeper.stages] == [2, 4, 4, 12, 4]
    with torch.device("meta"):
        once, twice = (ARCHITECTURE.build(s, num_classes=10) for s in (FULL, deeper))
    strides = [[b[0][0].stride[0] for b in model.blocks] for model in (once, twice)]
    assert sorted(strides[0])[-4:] == sorted(strides[1])[-4:] == [2, 2, 2, 2]
    assert strides[1].count(1) == strides[0].count(1) + 13


@pytest.mark.parametrize("spec", [FULL, MICRO])
def test_every_channel_number_scales(spec):
    twice = ARCHITECTURE.scale(spec, Scale(width=2.0))
    assert twice.stem == 2 * spec.stem
    assert [s.channels for s in twice.stages] == [2 * s.channels for s in spec.stages]
    assert ARCHITECTURE.build(MICRO, num_classes=10).classifier.in_features == MICRO.stages[-1].channels


def test_fine_rounding_takes_single_blocks_channels_and_pixels():
    assert ARCHITECTURE.size(ARCHITECTURE.scale(FULL, Scale(depth=14 / 13))).depth == 14
    assert ARCHITECTURE.scale(FULL, Scale(width=33 / 32)).stem == 33
    assert ARCHITECTURE.scale(FULL, Scale(resolution=225 / 224)).resolution == 225
