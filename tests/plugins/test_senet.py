from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from scalenet_plugins import senet
from scalenet_plugins.senet import MICRO, SE_RESNEXT_50, SENET_154, Bottleneck, Gate, SENet
from torch import nn

from scalenet.architecture import PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

ARCHITECTURE = SENet()

PUBLISHED = {  # timm 1.0, torch's FlopCounterMode / 2; the last two as the same counter counts timm's networks
    "se_resnet50": (28088024, 4091699200),
    "se_resnet50_caffe": (28088024, 3860488192),
    "se_resnet101": (49326872, 7806148608),
    "se_resnet152": (66821848, 11520204800),
    "se_resnext50_32x4d": (27559896, 4232994816),
    "senet154": (115088984, 20688363520),
}
TIMM = {
    "se_resnet50": "seresnet50",
    "se_resnet50_caffe": "legacy_seresnet50",
    "se_resnext50_32x4d": "seresnext50_32x4d",
    "senet154": "legacy_senet154",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


def move(reference, model):
    """By the names of parts: timm registers a block's gate before or after its projection."""
    stem = [m for part in (reference.layer0,) for m in part] if hasattr(reference, "layer0") else None
    theirs = [m for m in stem or [reference.conv1, reference.bn1] if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        for block in layer:
            gate = block.se if hasattr(block, "se") else block.se_module
            theirs += [block.conv1, block.bn1, block.conv2, block.bn2, block.conv3, block.bn3, gate.fc1, gate.fc2]
            theirs += list(block.downsample) if block.downsample is not None else []
    theirs.append(reference.fc if hasattr(reference, "fc") else reference.last_linear)
    ours = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))]
    assert len(ours) == len(theirs)
    with torch.no_grad():
        for source, target in zip(theirs, ours, strict=True):
            for key, value in source.state_dict().items():
                target.state_dict()[key].copy_(value.reshape(target.state_dict()[key].shape))


def timms(name):
    return timm.create_model(TIMM[name], pretrained=False, num_classes=11)


@pytest.mark.parametrize(
    ("name", "side"), [("se_resnet50", 64), ("se_resnet50", 70), ("se_resnet50_caffe", 77), ("se_resnext50_32x4d", 64)]
)
def test_logits_are_timms(name, side, parity):
    model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=11)
    parity(model, timms(name), side, move).check()


def test_logits_of_senet154_are_timms(parity):
    spec = replace(SENET_154, stages=tuple(replace(stage, blocks=1) for stage in SENET_154.stages))
    reference = timms("senet154")
    for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        del layer[1:]
    parity(ARCHITECTURE.build(spec, num_classes=11), reference, 64, move).check()


def softmax_for_sigmoid(p, monkeypatch):
    p.swap(nn.Sigmoid, lambda: nn.Softmax(dim=1), within="gate")


def gate_after_the_addition(p, monkeypatch):
    def forward(self, x):
        y = self.expand(self.middle(self.reduce(x))) + self.shortcut(x)
        return self.act(y * self.gate(y))

    monkeypatch.setattr(Bottleneck, "forward", forward)


def gated_shortcut(p, monkeypatch):
    def forward(self, x):
        y = self.expand(self.middle(self.reduce(x)))
        return self.act((y + self.shortcut(x)) * self.gate(y))

    monkeypatch.setattr(Bottleneck, "forward", forward)


def gate_before_the_last_norm(p, monkeypatch):
    def forward(self, x):
        y = self.expand[0](self.middle(self.reduce(x)))
        return self.act(self.expand[1](y * self.gate(y)) + self.shortcut(x))

    monkeypatch.setattr(Bottleneck, "forward", forward)


def squeezed_by_the_maximum(p, monkeypatch):
    monkeypatch.setattr(Gate, "forward", lambda self, x: self.excite(x.amax((2, 3)))[:, :, None, None])


def no_biases_in_the_gate(p, monkeypatch):
    for gate in p.model.modules():
        if isinstance(gate, Gate):
            for module in gate.excite:
                if isinstance(module, nn.Linear):
                    module.bias = None


def stride_in_the_first_convolution(p, monkeypatch):
    for block in p.model.modules():
        if isinstance(block, Bottleneck):
            block.reduce[0].stride, block.middle[0].stride = block.middle[0].stride, (1, 1)


def pooling_not_padded(p, monkeypatch):
    p.swap(nn.MaxPool2d, lambda: nn.MaxPool2d(3, 2, ceil_mode=True))


@pytest.mark.parametrize(
    "mistake",
    [
        softmax_for_sigmoid,
        gate_after_the_addition,
        gated_shortcut,
        gate_before_the_last_norm,
        squeezed_by_the_maximum,
        no_biases_in_the_gate,
        stride_in_the_first_convolution,
        pooling_not_padded,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = ARCHITECTURE.variants["se_resnet50"].spec
    spec = replace(spec, stages=tuple(replace(stage, blocks=1) for stage in spec.stages))
    reference = timms("se_resnet50")
    for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        del layer[1:]
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), reference, 64, move)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


@pytest.mark.parametrize("width", [0.3, 0.5, 0.77, 1.01, 1.1, 1.5, 2.3, 4.0])
@pytest.mark.parametrize("rounding", [None, PAPER])
def test_groups_divide_the_channels_at_any_width(width, rounding):
    for spec in (SE_RESNEXT_50, SENET_154, MICRO):
        scaled = ARCHITECTURE.scale(spec, Scale(width=width), *([rounding] if rounding else []))
        assert all(s.reduce % spec.groups == s.middle % spec.groups == 0 for s in scaled.stages)
        assert [s.blocks for s in scaled.stages] == [s.blocks for s in spec.stages]
        assert scaled.resolution == spec.resolution
        assert (scaled.groups, scaled.reduction) == (spec.groups, spec.reduction)


def test_width_scales_every_channel_number():
    twice = ARCHITECTURE.scale(SENET_154, Scale(width=2.0))
    assert twice.stem == (128, 128, 256)
    assert [(s.reduce, s.middle, s.channels) for s in twice.stages] == [
        (256, 512, 512), (512, 1024, 1024), (1024, 2048, 2048), (2048, 4096, 4096)
    ]  # fmt: skip
    with torch.device("meta"):
        model = ARCHITECTURE.build(twice, num_classes=5)
    assert model.classifier.in_features == 4096
    assert model.blocks[0].gate.excite[0].out_features == 512 // 16


def test_paper_rounding_takes_multiples_of_16_and_of_the_total_stride():
    scaled = ARCHITECTURE.scale(ARCHITECTURE.variants["se_resnet50"].spec, Scale(1.2, 1.1, 1.15), PAPER)
    assert scaled.resolution == 256  # 257.6
    assert scaled.stages[0].channels == 288  # 281.6
    assert [s.blocks for s in scaled.stages] == [4, 5, 8, 4]


def test_channels_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(ScalenetError, match="multiple of 32 groups, got 130"):
        replace(SE_RESNEXT_50, stages=(replace(SE_RESNEXT_50.stages[0], middle=130),))


def test_a_dropped_branch_leaves_the_shortcut():
    model = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.7)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * i for i in range(8)])
    block = model.blocks[1]
    block.drop_path.rate = 0.5
    x = torch.rand(64, 32, 4, 4)
    torch.manual_seed(0)
    kept = [not torch.equal(y, image) for y, image in zip(block.train()(x), x, strict=True)]
    assert 20 < sum(kept) < 44  # the others are the shortcut itself


@pytest.mark.parametrize("side", [16, 17, 23, 45])
@pytest.mark.parametrize("pool", ["padded", "ceil", "none"])
def test_odd_sides(side, pool):
    model = ARCHITECTURE.build(replace(MICRO, pool=pool), num_classes=7).eval()
    assert model(torch.randn(2, 3, side, side + 1)).shape == (2, 7)


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    blocks = [m for m in model.modules() if isinstance(m, Bottleneck)]
    assert {isinstance(block.shortcut, nn.Identity) for block in blocks} == {True, False}
    assert all(block.gate.excite[0].out_features == block.gate.excite[2].out_features // 8 for block in blocks)
    assert senet.MICRO.stages[0].channels == 4 * senet.MICRO.stages[0].middle
