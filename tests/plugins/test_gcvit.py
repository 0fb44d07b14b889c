from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import timm
import torch
from scalenet_plugins import gcvit
from scalenet_plugins.gcvit import (
    MICRO,
    VARIANTS,
    ChannelNorm,
    FusedMBConv,
    GCViT,
    GCViTSpec,
    LayerScale,
    QueryGenerator,
    WindowAttention,
    grids,
)
from torch import nn

from scalenet.architecture import PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

ARCHITECTURE = GCViT()
T = VARIANTS["t"]
SMALL = replace(T, channels=32, num_heads=2, blocks=(2, 3, 2, 2))

# timm 1.0, torch's FlopCounterMode / 2
PUBLISHED = {
    "xxt": (11995428, 2120792320),
    "xt": (19981294, 2912519424),
    "t": (28221974, 4761003264),
    "s": (51092173, 8529546624),
    "b": (90320836, 14816000000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    params, macs = counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec)
    assert params == PUBLISHED[name][0]
    assert round(macs / 1e6) * 10**6 == PUBLISHED[name][1] if name == "b" else macs == PUBLISHED[name][1]


def timms(spec):
    return timm.models.GlobalContextVit(
        img_size=spec.resolution,
        num_classes=11,
        embed_dim=spec.channels,
        depths=spec.blocks,
        num_heads=[spec.num_heads * 2**i for i in range(len(spec.blocks))],
        mlp_ratio=spec.mlp_ratio,
        layer_scale=spec.layer_scale or None,
    )


def by_name(reference, model):
    """timm's weights by the order of their shapes' owners: its bias tables precede the projections, as ours do."""
    theirs = {name: t for name, t in reference.state_dict().items() if not name.endswith("relative_position_index")}
    ours = model.state_dict()
    assert len(ours) == len(theirs)
    with torch.no_grad():
        for (name, old), (our_name, new) in zip(theirs.items(), ours.items(), strict=True):
            assert old.shape == new.shape, (name, our_name)
            new.copy_(old)


@pytest.mark.parametrize(
    "spec",
    [
        replace(SMALL, resolution=128),
        replace(SMALL, resolution=96, layer_scale=1e-5, mlp_ratio=2),
        replace(SMALL, resolution=160, blocks=(2, 2, 2, 2)),
    ],
)
def test_logits_are_timms(spec, parity):
    parity(ARCHITECTURE.build(spec, num_classes=11), timms(spec), spec.resolution, by_name).check()


def test_logits_of_the_smallest_variant_are_timms(parity):
    reference = timm.create_model("gcvit_xxtiny", pretrained=False, num_classes=11, img_size=128)
    spec = replace(VARIANTS["xxt"], resolution=128)
    parity(ARCHITECTURE.build(spec, num_classes=11), reference, 128, by_name).check()


def query_in_window_major_order(p, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "repeat_interleave", lambda t, count, dim: t.repeat(count, 1, 1, 1))


def biases_in_the_gate(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, FusedMBConv):
            module.gate[2].bias = nn.Parameter(torch.full((module.gate[2].out_channels,), 0.3))


def relu_in_the_gate(p, monkeypatch):
    p.swap(nn.GELU, nn.ReLU, within=".gate.")


def a_norm_in_the_mbconv(p, monkeypatch):
    for module in list(p.model.modules()):
        if isinstance(module, FusedMBConv):
            module.act = nn.Sequential(ChannelNorm(module.depthwise.out_channels), nn.GELU())


def queries_of_the_whole_stage_from_its_first_window(p, monkeypatch):
    def wrong(self, x):
        window = x.shape[2] >> (len(self.steps) // 2)
        y = x[:, :, :window, :window]
        return y.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3)

    monkeypatch.setattr(QueryGenerator, "forward", wrong)


def queries_made_anew_in_every_block(p, monkeypatch):
    for stage in p.model.stages:
        for block in stage.blocks[2:]:
            block.register_forward_pre_hook(
                lambda _, args, stage=stage: (*args[:2], stage.queries(args[0].permute(0, 3, 1, 2)))
            )


def global_first(p, monkeypatch):
    for stage in p.model.stages:
        blocks = list(stage.blocks)
        stage.blocks = nn.ModuleList([blocks[1], blocks[0], *blocks[2:]])


def no_final_norm(p, monkeypatch):
    p.model.norm = nn.Identity()


def transposed_bias(p, monkeypatch):
    for stage in p.model.stages:
        tokens = stage.blocks[0].attention.grid.window ** 2
        stage.pairs = stage.pairs.view(tokens, tokens).T.flatten()


def average_pooling_of_queries(p, monkeypatch):
    p.swap(nn.MaxPool2d, lambda: nn.AvgPool2d(3, 2, 1))


@pytest.mark.parametrize(
    "mistake",
    [
        query_in_window_major_order,
        biases_in_the_gate,
        relu_in_the_gate,
        a_norm_in_the_mbconv,
        queries_of_the_whole_stage_from_its_first_window,
        queries_made_anew_in_every_block,
        global_first,
        no_final_norm,
        transposed_bias,
        average_pooling_of_queries,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = replace(SMALL, resolution=64, blocks=(2, 4, 2, 2))
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), timms(spec), 64, by_name)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_padding_changes_nothing_but_what_is_attended_to():
    """A map of 5 in windows of 3 is the map padded with zeros to 6, window by window, cropped."""
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, gcvit.Grid(5, 3), has_global_query=False).eval()
    nn.init.normal_(attention.project.bias)
    whole = WindowAttention(8, 2, gcvit.Grid(6, 3), has_global_query=False).eval()
    whole.load_state_dict(attention.state_dict())
    x, pairs = torch.randn(2, 5, 5, 8), gcvit.relative_positions(3)
    with torch.no_grad():
        expected = whole(nn.functional.pad(x, (0, 0, 0, 1, 0, 1)), pairs, None)[:, :5, :5]
        torch.testing.assert_close(attention(x, pairs, None), expected, rtol=1e-4, atol=1e-5)


def test_a_training_step_computes_what_evaluation_does():
    """The two ways of attending, by formula where the bias learns and by the fused kernel, agree."""
    model = ARCHITECTURE.build(replace(MICRO, resolution=36), num_classes=10)
    images = torch.randn(3, 3, 36, 36)
    learning = model(images)
    assert learning.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model(images), learning.detach(), rtol=1e-4, atol=1e-5)


def test_windows_follow_the_side():
    assert [grid.window for grid in grids(T)] == [7, 7, 14, 7]
    assert [grid.window for grid in grids(replace(T, resolution=448))] == [14, 14, 28, 14]
    assert [grid.window for grid in grids(replace(T, resolution=228))] == [8, 8, 15, 8]
    assert [grid.window for grid in grids(replace(T, resolution=16))] == [1, 1, 1, 1]


@pytest.mark.parametrize("spec", [T, VARIANTS["s"], MICRO])
def test_heads_divide_channels_at_any_width_and_no_step_goes_back(spec):
    for rounding in ((), (PAPER,)):
        scaled = [ARCHITECTURE.scale(spec, Scale(width=w / 50), *rounding) for w in range(25, 201)]
        assert all(s.channels % s.num_heads == 0 for s in scaled)
        assert all(a.channels <= b.channels for a, b in pairwise(scaled))
        assert {(s.resolution, s.blocks) for s in scaled} == {(spec.resolution, spec.blocks)}


def test_cost_never_falls_as_the_side_grows(counts):
    start = (0, 0)
    for side in (16, 17, 33, 36, 37, 65, 96):
        found = counts(ARCHITECTURE, ARCHITECTURE.scale(MICRO, Scale(resolution=side / 32)), 10)
        assert found[0] >= start[0]
        assert found[1] >= start[1]
        start = found


def test_depth_width_and_side_by_the_paper_and_finely():
    assert sum(ARCHITECTURE.scale(T, Scale(depth=32 / 31)).blocks) == 32
    assert ARCHITECTURE.scale(T, Scale(1.2, 1.4, 1.2), PAPER) == replace(
        T, blocks=(4, 5, 23, 6), channels=96, num_heads=3, resolution=256
    )
    assert ARCHITECTURE.scale(T, Scale(resolution=1.2)).resolution == 269


def test_a_stage_of_one_block_has_no_queries():
    model = ARCHITECTURE.build(replace(MICRO, blocks=(1, 2)), num_classes=10)
    assert [stage.queries is None for stage in model.stages] == [True, False]
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


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


def test_published_windows_build_at_odd_sides():
    with torch.device("meta"):
        for side in (16, 45, 225, 300):
            model = ARCHITECTURE.build(replace(VARIANTS["xxt"], resolution=side), num_classes=5).eval()
            assert model(torch.empty(2, 3, side, side)).shape == (2, 5)


def test_resampling_stretches_the_bias_tables_alone():
    old, new = MICRO, ARCHITECTURE.scale(MICRO, Scale(resolution=1.5))
    weights = ARCHITECTURE.build(old, num_classes=10).state_dict()
    assert all(a is b for a, b in zip(ARCHITECTURE.resample(weights, old, old).values(), weights.values(), strict=True))
    for name, tensor in weights.items():
        if name.endswith("bias_table"):
            tensor.copy_(torch.arange(tensor.shape[1]).expand_as(tensor))  # a constant per head
    model = ARCHITECTURE.build(new, num_classes=10)
    model.load_state_dict(ARCHITECTURE.resample(weights, old, new))
    for name, tensor in model.state_dict().items():
        if name.endswith("bias_table"):
            assert tensor.shape[0] > weights[name].shape[0]
            torch.testing.assert_close(tensor, torch.arange(tensor.shape[1]).float().expand_as(tensor))
        else:
            torch.testing.assert_close(tensor, weights[name])


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ScalenetError, match="multiple of 3 heads, got 64"):
        replace(T, num_heads=3)
    with pytest.raises(ScalenetError, match="powers of two, got 3"):
        replace(T, windows=(8, 3, 1, 1))
    with pytest.raises(ScalenetError, match="each of 2 stages"):
        GCViTSpec(224, 64, 2, (2, 2))


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.7)
    blocks = sum(MICRO.blocks)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx(
        [0.7 * i / (blocks - 1) for i in range(blocks)]
    )


def test_layer_scale_starts_at_the_papers_value_in_s_and_b_alone():
    with torch.device("meta"):
        has = {
            name: any(isinstance(m, LayerScale) for m in ARCHITECTURE.build(v.spec, num_classes=5).modules())
            for name, v in ARCHITECTURE.variants.items()
        }
    assert has == {"xxt": False, "xt": False, "t": False, "s": True, "b": True, "micro": False}
    assert (LayerScale(3, VARIANTS["s"].layer_scale).factor == 1e-5).all()


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    assert [m.has_global_query for m in model.modules() if isinstance(m, WindowAttention)] == [False, True] * 4
    assert any(isinstance(m, nn.MaxPool2d) for m in model.modules())
    assert grids(MICRO)[0].window < grids(MICRO)[0].side
