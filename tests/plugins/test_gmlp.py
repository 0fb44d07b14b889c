from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from scalenet_plugins import gmlp
from scalenet_plugins.gmlp import GMLP, MICRO, GMLPBlock, GMLPSpec, SpatialLinear
from timm.layers import GatedMlp
from timm.models.mlp_mixer import MlpMixer, SpatialGatingBlock
from torch import nn
from torch.nn import functional as F

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

ARCHITECTURE = GMLP()
TI16 = ARCHITECTURE.variants["ti16"].spec
S16 = ARCHITECTURE.variants["s16"].spec

# timm 1.0, torch's FlopCounterMode / 2
PUBLISHED = {"ti16": (5867328, 1328989184), "s16": (19422656, 4392060928)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


def test_counts_of_b16(counts):
    params, flops = counts(ARCHITECTURE, ARCHITECTURE.variants["b16"].spec)
    assert (params, round(flops / 1e9, 3)) == (73075392, 15.720)


def move(reference, model):
    """timm's blocks hold norm, fc1, gate.norm, gate.proj, fc2; fc1 is u above v."""
    theirs = dict(reference.state_dict())
    moved = {}
    for name in ("weight", "bias"):
        moved[f"stem.projection.{name}"] = theirs[f"stem.proj.{name}"]
        moved[f"norm.{name}"] = theirs[f"norm.{name}"]
        moved[f"classifier.{name}"] = theirs[f"head.{name}"]
        for i in range(len(model.blocks)):
            ours, block = f"blocks.{i}", f"blocks.{i}.mlp_channels"
            moved[f"{ours}.norm.{name}"] = theirs[f"{ours}.norm.{name}"]
            moved[f"{ours}.u.{name}"], moved[f"{ours}.v.{name}"] = theirs[f"{block}.fc1.{name}"].chunk(2)
            moved[f"{ours}.gate_norm.{name}"] = theirs[f"{block}.gate.norm.{name}"]
            moved[f"{ours}.spatial.{name}"] = theirs[f"{block}.gate.proj.{name}"]
            moved[f"{ours}.project.{name}"] = theirs[f"{block}.fc2.{name}"]
    model.load_state_dict(moved)
    assert sum(t.numel() for t in moved.values()) == sum(t.numel() for t in theirs.values())


def small(side):
    """Ti/16 with four blocks and timm's of the same size."""
    model = ARCHITECTURE.build(replace(TI16, resolution=side, blocks=4), num_classes=11)
    reference = MlpMixer(
        num_classes=11,
        img_size=side,
        num_blocks=4,
        embed_dim=128,
        mlp_ratio=6,
        block_layer=SpatialGatingBlock,
        mlp_layer=GatedMlp,
    )
    return model, reference, side, move


@pytest.mark.parametrize("side", [224, 96])
def test_logits_are_timms(side, parity):
    parity(*small(side)).check()


def test_logits_of_a_whole_network_are_timms(parity):
    model = ARCHITECTURE.build(replace(S16, resolution=64), num_classes=11)
    reference = timm.create_model("gmlp_s16_224", pretrained=False, num_classes=11, img_size=64)
    parity(model, reference, 64, move).check()


def replaced_forward(monkeypatch, gate):
    def forward(block, x):
        y = block.norm(x)
        return x + block.project(gate(block, F.gelu(block.u(y)), F.gelu(block.v(y))))

    monkeypatch.setattr(GMLPBlock, "forward", forward)


def no_norm_on_the_gate(p, monkeypatch):
    p.swap(nn.LayerNorm, nn.Identity, within="gate_norm")


def norm_on_the_other_half(p, monkeypatch):
    replaced_forward(monkeypatch, lambda block, u, v: block.gate_norm(u) * block.spatial(v))


def halves_swapped(p, monkeypatch):
    replaced_forward(monkeypatch, lambda block, u, v: v * block.spatial(block.gate_norm(u)))


def gate_before_the_projection(p, monkeypatch):
    replaced_forward(monkeypatch, lambda block, u, v: block.spatial(u * block.gate_norm(v)))


def bias_of_the_gate_off(p, monkeypatch):
    for block in p.model.blocks:
        nn.init.zeros_(block.spatial.bias)


def one_spatial_weight_for_all(p, monkeypatch):
    for block in p.model.blocks:
        block.spatial = p.model.blocks[0].spatial


def gelu_after_the_split_forgotten(p, monkeypatch):
    monkeypatch.setattr(gmlp, "F", type("F", (), {"gelu": staticmethod(lambda x: x)}))


def spatial_weights_transposed(p, monkeypatch):
    for block in p.model.blocks:
        block.spatial.weight.data = block.spatial.weight.data.T.contiguous()


@pytest.mark.parametrize(
    "mistake",
    [
        no_norm_on_the_gate,
        norm_on_the_other_half,
        halves_swapped,
        gate_before_the_projection,
        bias_of_the_gate_off,
        one_spatial_weight_for_all,
        gelu_after_the_split_forgotten,
        spatial_weights_transposed,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    planted = parity(*small(96))
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_blocks_begin_as_plain_perceptrons():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    for module in model.modules():
        if isinstance(module, SpatialLinear):
            assert module.weight.abs().max() < 1e-4
            assert (module.bias == 1).all()


def test_each_knob_moves_its_own_number():
    assert ARCHITECTURE.scale(S16, Scale(depth=1.26)) == replace(S16, blocks=38)  # 37.8
    assert ARCHITECTURE.scale(S16, Scale(depth=1.21), PAPER) == replace(S16, blocks=37)  # 36.3
    assert ARCHITECTURE.scale(S16, Scale(width=1.1)) == replace(S16, dim=282)  # 281.6
    assert ARCHITECTURE.scale(S16, Scale(width=1.1), PAPER) == replace(S16, dim=280)
    assert ARCHITECTURE.scale(S16, Scale(resolution=1.15)) == replace(S16, resolution=256)  # 257.6
    assert ARCHITECTURE.scale(MICRO, Scale(0.01, 0.01, 0.5)).blocks == 1
    assert ARCHITECTURE.scale(MICRO, Scale(0.01, 0.01, 0.5)).dim == 1


@pytest.mark.parametrize("rounding", [FINE, PAPER])
def test_a_padded_side_grows_from_its_padded_size(rounding):
    odd = replace(MICRO, resolution=45, patch_size=4)  # 12 patches
    sides = [ARCHITECTURE.scale(odd, Scale(resolution=by), rounding).resolution for by in (0.3, 0.9, 1.0, 1.01, 1.1)]
    assert sides == [16, 44, 45, 48, 52]


@pytest.mark.parametrize("side", [16, 17, 23, 45])
def test_odd_sides_are_padded_to_whole_patches(side):
    model = ARCHITECTURE.build(replace(MICRO, resolution=side), num_classes=10).eval()
    nn.init.normal_(model.classifier.weight)
    images = torch.randn(2, 3, side, side)
    logits = model(images)
    images[:, :, -1, -1] += 10  # the last pixel counts
    assert not torch.allclose(model(images), logits)
    with pytest.raises(ScalenetError, match=f"{side} x {side} px, got {side + 1} x {side}"):
        model(torch.randn(1, 3, side + 1, side))


def test_a_ratio_that_cannot_be_halved_is_refused():
    with pytest.raises(ScalenetError, match="must be even, for d_ffn is split in halves, got 5"):
        replace(MICRO, mlp_ratio=5)


def test_resampled_spatial_weights_keep_their_sums_and_places():
    old, new = GMLPSpec(32, 4, 1, 8), GMLPSpec(48, 4, 1, 8)
    before, after = ARCHITECTURE.build(old, num_classes=3), ARCHITECTURE.build(new, num_classes=3)
    weights = dict(before.state_dict())
    assert ARCHITECTURE.resample(weights, old, replace(old, resolution=31)) is weights  # as many patches
    ramp = torch.linspace(0.0, 1.0, 8)[:, None].expand(8, 8).reshape(64)  # of the outputs, downwards
    weights["blocks.0.spatial.weight"] = ramp[:, None].repeat(1, 64)
    weights["blocks.0.spatial.bias"] = 1 + ramp
    resampled = ARCHITECTURE.resample(weights, old, new)
    after.load_state_dict(resampled)
    # 64 equal weights are 64 in sum; so are the 144.
    sums = resampled["blocks.0.spatial.weight"].sum(1).view(12, 12)
    bias = resampled["blocks.0.spatial.bias"].view(12, 12)
    torch.testing.assert_close(sums / 64, bias - 1)
    torch.testing.assert_close(bias, bias[:, :1].expand(12, 12))
    assert (bias[3:-3, 0].diff() > 0.05).all()
    # A token that looks only at itself looks around the same place afterwards.
    weights["blocks.0.spatial.weight"] = torch.eye(64)
    seen = ARCHITECTURE.resample(weights, old, new)["blocks.0.spatial.weight"].view(12, 12, 144)
    assert seen[7, 2].argmax() == 7 * 12 + 2
    torch.testing.assert_close(seen.sum(2)[3:-3, 3:-3], torch.ones(6, 6), atol=0.1, rtol=0)


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(replace(MICRO, blocks=4), num_classes=10, drop_path=0.3)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    nn.init.normal_(model.classifier.weight)
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    spatial = [m for m in model.modules() if isinstance(m, SpatialLinear)]
    assert len(spatial) == MICRO.blocks
    assert all(m.weight.shape == (MICRO.grid**2, MICRO.grid**2) for m in spatial)
