from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import timm
import torch
import torchvision
from scalenet_plugins import swin
from scalenet_plugins.swin import MICRO, VARIANTS, Grid, PatchMerging, Swin, SwinSpec, WindowAttention, grids
from torch import nn
from torch.nn import functional as F

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

ARCHITECTURE = Swin()
T = VARIANTS["t"]
SMALL = replace(T, channels=24, blocks=(1, 2, 3, 1))  # odd depths too

# timm 1.0, torch's FlopCounterMode / 2
PUBLISHED = {
    "t": (28288354, 4490566656),
    "s": (49606258, 8740875264),
    "b": (87768224, 15430946816),
    "b_384": (87903584, 47083000000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    params, macs = counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec)
    assert params == PUBLISHED[name][0]
    assert round(macs / 1e6) * 10**6 == PUBLISHED[name][1] if name == "b_384" else macs == PUBLISHED[name][1]


def timms(spec, classes=11):
    return timm.models.SwinTransformer(
        img_size=spec.resolution,
        num_classes=classes,
        embed_dim=spec.channels,
        depths=spec.blocks,
        num_heads=[spec.num_heads * 2**i for i in range(len(spec.blocks))],
        window_size=spec.window_size,
    )


def at(spec, side):
    return ARCHITECTURE.scale(spec, Scale(resolution=side / spec.resolution))


# 224: windows of 7, the last map is one; 128: of 4; 112 with 7: the last map is smaller than the window
@pytest.mark.parametrize("spec", [at(SMALL, 128), replace(SMALL, resolution=112), replace(SMALL, resolution=224)])
def test_logits_are_timms(spec, parity):
    parity(ARCHITECTURE.build(spec, num_classes=11), timms(spec), spec.resolution).check()


def test_logits_of_the_baseline_are_timms(parity):
    reference = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, num_classes=11)
    parity(ARCHITECTURE.build(T, num_classes=11), reference, 224).check()


def from_torchvision(reference, model):
    """torchvision holds merging at the end of a stage, its projection before its norm, and indices as buffers."""
    theirs = {name: t for name, t in reference.state_dict().items() if "relative_position_index" not in name}
    ours = iter(model.state_dict().values())
    names = list(theirs)
    for prefix in [n.removesuffix("reduction.weight") for n in names if n.endswith("reduction.weight")]:
        i = names.index(f"{prefix}reduction.weight")
        names[i : i + 3] = [f"{prefix}norm.weight", f"{prefix}norm.bias", f"{prefix}reduction.weight"]
    with torch.no_grad():
        for name, ours_tensor in zip(names, ours, strict=True):
            assert theirs[name].shape == ours_tensor.shape
            ours_tensor.copy_(theirs[name])


# Maps that the windows do not divide, and odd ones: 40, 20, 10, 5 in windows of 5; 25, 13, 7, 4 in windows of 4
@pytest.mark.parametrize("side", [160, 100])
def test_logits_are_torchvisions_with_padding(side, parity):
    spec = at(SMALL, side)
    heads = [3 * 2**i for i in range(4)]
    reference = torchvision.models.SwinTransformer(
        [4, 4], SMALL.channels, list(SMALL.blocks), heads, [spec.window_size] * 2, num_classes=11
    )
    parity(ARCHITECTURE.build(spec, num_classes=11), reference, side, from_torchvision).check()


def no_mask(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, swin.Stage):
            module.mask = None


def no_shift(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, WindowAttention):
            module.shift = 0


def reversed_roll(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, WindowAttention):
            module.shift = -module.shift


def even_blocks_shift(p, monkeypatch):
    for stage in p.model.stages:
        for i, block in enumerate(stage.blocks):
            block.attention.shift = block.attention.grid.shift if i % 2 == 0 else 0


def row_major_merging(p, monkeypatch):
    def wrong(self, x):
        n, side, _, dim = x.shape
        x = x.view(n, side // 2, 2, side // 2, 2, dim).permute(0, 1, 3, 2, 4, 5).flatten(3)
        return self.reduction(self.norm(x))

    monkeypatch.setattr(PatchMerging, "forward", wrong)


def transposed_bias(p, monkeypatch):
    for stage in p.model.stages:
        tokens = stage.blocks[0].attention.grid.window ** 2
        stage.pairs = stage.pairs.view(tokens, tokens).T.flatten()


def no_patch_norm(p, monkeypatch):
    p.model.patch_norm = nn.Identity()


def norm_after_the_merging(p, monkeypatch):
    def wrong(self, x):
        n, side, _, dim = x.shape
        x = x.view(n, side // 2, 2, side // 2, 2, dim).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return F.layer_norm(self.reduction(x), (2 * dim,))

    monkeypatch.setattr(PatchMerging, "forward", wrong)


@pytest.mark.parametrize(
    "mistake",
    [
        no_mask,
        no_shift,
        reversed_roll,
        even_blocks_shift,
        row_major_merging,
        transposed_bias,
        no_patch_norm,
        norm_after_the_merging,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = at(SMALL, 128)
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), timms(spec), 128)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_a_training_step_computes_what_evaluation_does():
    """The two ways of attending, by formula where the bias learns and by the fused kernel, agree."""
    model = ARCHITECTURE.build(replace(MICRO, resolution=36, window_size=5), num_classes=10)
    images = torch.randn(3, 3, 36, 36)
    learning = model(images)
    assert learning.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model(images), learning.detach(), rtol=1e-4, atol=1e-5)


def test_the_window_follows_the_side_and_gives_the_papers_own_384_pixels():
    assert at(VARIANTS["b"], 384) == VARIANTS["b_384"]
    assert [at(T, side).window_size for side in (112, 224, 228, 256, 448, 896)] == [4, 7, 8, 8, 14, 28]
    assert ARCHITECTURE.scale(VARIANTS["b"], Scale(resolution=384 / 224), PAPER) == VARIANTS["b_384"]
    two = replace(T, resolution=448)  # two windows of 7 per side in the last stage
    assert at(two, 512).window_size == 8


def test_no_shift_where_one_window_is_the_whole_map():
    assert [grid.shift for grid in grids(T)] == [3, 3, 3, 0]
    assert grids(replace(T, resolution=112)) == [Grid(28, 7), Grid(14, 7), Grid(7, 7), Grid(4, 4)]
    assert [grid.shift for grid in grids(replace(T, resolution=112))] == [3, 3, 0, 0]


@pytest.mark.parametrize("spec", [T, VARIANTS["b_384"], MICRO])
def test_heads_divide_channels_at_any_width_and_no_step_goes_back(spec):
    for rounding in ((), (PAPER,)):
        scaled = [ARCHITECTURE.scale(spec, Scale(width=w / 50), *rounding) for w in range(25, 201)]
        assert all(s.channels % s.num_heads == 0 for s in scaled)
        assert all(a.channels <= b.channels for a, b in pairwise(scaled))
        assert {(s.resolution, s.blocks, s.window_size) for s in scaled} == {
            (spec.resolution, spec.blocks, spec.window_size)
        }


def test_cost_never_falls_as_the_side_grows(counts):
    start = (0, 0)
    for side in (16, 18, 30, 34, 38, 40, 42, 64, 66, 70, 96, 98):
        found = counts(ARCHITECTURE, at(MICRO, side), 10)
        assert found[0] >= start[0]
        assert found[1] >= start[1]
        start = found


def test_depth_takes_single_blocks_or_by_the_paper_pairs():
    assert ARCHITECTURE.scale(T, Scale(depth=13 / 12)).blocks in {(2, 2, 7, 2), (3, 2, 6, 2)}
    assert ARCHITECTURE.scale(T, Scale(depth=13 / 12), PAPER).blocks == (4, 4, 8, 4)
    assert ARCHITECTURE.scale(T, Scale(width=1.3), PAPER).channels == 128
    assert ARCHITECTURE.scale(T, Scale(width=1.3), PAPER).num_heads == 4


@pytest.mark.parametrize("side", [16, 17, 23, 32, 45])
def test_any_side_builds_and_every_pixel_counts(side):
    torch.manual_seed(0)
    model = ARCHITECTURE.build(replace(MICRO, resolution=side), num_classes=5, in_channels=1).eval()
    images = torch.randn(2, 1, side, side).to(memory_format=torch.channels_last).requires_grad_()
    logits = model(images)
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert (images.grad != 0).all()
    with pytest.raises(ScalenetError, match=f"built for {side} x {side} px"):
        model(torch.randn(2, 1, side + 1, side))


def test_resampling_stretches_the_bias_tables_alone():
    old, new = MICRO, at(MICRO, 48)
    weights = ARCHITECTURE.build(old, num_classes=10).state_dict()
    assert all(a is b for a, b in zip(ARCHITECTURE.resample(weights, old, old).values(), weights.values(), strict=True))
    for name, tensor in weights.items():
        if name.endswith("bias_table"):
            tensor.copy_(torch.arange(tensor.shape[1]).expand_as(tensor))  # a constant per head
    resampled = ARCHITECTURE.resample(weights, old, new)
    model = ARCHITECTURE.build(new, num_classes=10)
    model.load_state_dict(resampled)
    for name, tensor in model.state_dict().items():
        if name.endswith("bias_table"):
            assert tensor.shape[0] == (2 * new.window_size - 1) ** 2
            torch.testing.assert_close(tensor, torch.arange(tensor.shape[1]).float().expand_as(tensor))
        else:
            torch.testing.assert_close(tensor, weights[name])


def test_channels_that_the_heads_do_not_divide_are_refused():
    with pytest.raises(ScalenetError, match="multiple of 3 heads, got 97"):
        SwinSpec(224, 97, 3, (2, 2), 7)


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.5)
    blocks = sum(MICRO.blocks)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx(
        [0.5 * i / (blocks - 1) for i in range(blocks)]
    )


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    shifts = [m.shift for m in model.modules() if isinstance(m, WindowAttention)]
    assert 0 in shifts
    assert any(shifts)
    assert model.stages[0].mask is not None
    assert any(isinstance(m, PatchMerging) for m in model.modules())
    assert [m.num_heads for m in model.modules() if isinstance(m, WindowAttention)][-1] > 1


@pytest.mark.parametrize("rounding", [FINE, PAPER])
@pytest.mark.parametrize("side", [17, 45, 97])
def test_a_little_more_than_a_side_between_two_steps_is_not_less(side, rounding):
    spec = replace(MICRO, resolution=side)
    for by in (1.001, 1.01, 1.02):
        assert ARCHITECTURE.scale(spec, Scale(resolution=by), rounding).resolution >= side
