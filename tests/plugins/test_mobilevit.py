from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from scalenet_plugins import mobilevit
from scalenet_plugins.mobilevit import MICRO, MV2, MobileViT, MobileViTBlock, S, fold, unfold
from torch import nn
from torch.nn import functional as F

from scalenet import layers
from scalenet.architecture import PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath, SelfAttention

ARCHITECTURE = MobileViT()

# timm 1.0, torch's FlopCounterMode / 2 (the paper's figures also count norms)
PUBLISHED = {"xxs": (1272024, 407364096), "xs": (2317848, 1025911808), "s": (5578632, 2000831488)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("side", [128, 96, 70])  # maps 16, 8, 4; 12, 6, 3; 9, 5, 3: even ones and odd, resized ones
def test_logits_are_timms(name, side, parity):
    model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=11)
    parity(model, timm.create_model(f"mobilevit_{name}", pretrained=False, num_classes=11), side).check()


def attention_over_all_pixels(p, monkeypatch):
    def whole(x, rows, columns):
        return x.flatten(2).transpose(1, 2)

    def back(x, n, rows, columns):
        return x.transpose(1, 2).reshape(n, -1, 2 * rows, 2 * columns)

    monkeypatch.setattr(mobilevit, "unfold", whole)
    monkeypatch.setattr(mobilevit, "fold", back)


def attention_within_a_patch(p, monkeypatch):
    def within(x, rows, columns):
        return unfold(x, rows, columns).view(len(x), 4, rows * columns, -1).transpose(1, 2).flatten(0, 1)

    def back(x, n, rows, columns):
        return fold(x.view(n, rows * columns, 4, -1).transpose(1, 2).contiguous(), n, rows, columns)

    monkeypatch.setattr(mobilevit, "unfold", within)
    monkeypatch.setattr(mobilevit, "fold", back)


def fold_not_the_inverse(p, monkeypatch):
    monkeypatch.setattr(
        mobilevit, "fold", lambda x, n, rows, columns: fold(x, n, rows, columns).transpose(2, 3).contiguous()
    )


def twice_the_heads(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, SelfAttention):
            module.num_heads = 8


def no_final_norm(p, monkeypatch):
    p.swap(nn.LayerNorm, nn.Identity, within="blocks.5.norm")


def wrong_order_of_fusion(p, monkeypatch):
    for block in p.model.modules():
        if isinstance(block, MobileViTBlock):
            weight = block.fuse[0].weight.data
            block.fuse[0].weight.data = torch.cat(weight.chunk(2, 1)[::-1], 1)


def relu6_for_silu(p, monkeypatch):
    p.swap(nn.SiLU, nn.ReLU6)


def gelu_in_the_transformer(p, monkeypatch):
    p.swap(nn.SiLU, nn.GELU, within=".mlp.")


def scaled_by_the_width(p, monkeypatch):
    def wrong(query, key, value):
        return F.scaled_dot_product_attention(query, key, value, scale=(4 * query.shape[-1]) ** -0.5)

    monkeypatch.setattr(layers, "F", type("F", (), {"scaled_dot_product_attention": staticmethod(wrong)}))


@pytest.mark.parametrize(
    "mistake",
    [
        attention_over_all_pixels,
        attention_within_a_patch,
        fold_not_the_inverse,
        twice_the_heads,
        no_final_norm,
        wrong_order_of_fusion,
        relu6_for_silu,
        gelu_in_the_transformer,
        scaled_by_the_width,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = ARCHITECTURE.variants["xxs"].spec
    model = ARCHITECTURE.build(spec, num_classes=11)
    planted = parity(model, timm.create_model("mobilevit_xxs", pretrained=False, num_classes=11), 128)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_padding_instead_of_resizing_shows_in_the_logits(parity, monkeypatch):
    model = ARCHITECTURE.build(ARCHITECTURE.variants["xxs"].spec, num_classes=11)
    planted = parity(model, timm.create_model("mobilevit_xxs", pretrained=False, num_classes=11), 96)
    planted.check()

    def pad(x, size, mode, align_corners):
        height, width = size
        return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))  # a negative pad crops

    monkeypatch.setattr(mobilevit, "F", type("F", (), {"interpolate": staticmethod(pad)}))
    planted.noticed()


def test_fold_inverts_unfold_and_a_sequence_holds_one_place_of_every_patch():
    x = torch.arange(2 * 3 * 4 * 6, dtype=torch.float).view(2, 3, 4, 6)
    sequences = unfold(x, 2, 3)
    assert sequences.shape == (8, 6, 3)
    torch.testing.assert_close(sequences[1], x[0, :, 0::2, 1::2].flatten(1).T)  # image 0, upper right pixels
    torch.testing.assert_close(fold(sequences, 2, 2, 3), x)


@pytest.mark.parametrize("width", [0.3, 0.5, 0.77, 1.01, 1.1, 1.5, 2.3])
@pytest.mark.parametrize("rounding", [None, PAPER])
def test_heads_divide_d_at_any_width(width, rounding):
    for spec in (S, MICRO):
        scaled = ARCHITECTURE.scale(spec, Scale(width=width), *([rounding] if rounding else []))
        assert all(stage.dim % spec.num_heads == 0 for stage in scaled.stages)
        assert [bool(stage.dim) for stage in scaled.stages] == [bool(stage.dim) for stage in spec.stages]


def test_width_scales_every_channel_number_and_depth_both_kinds_of_blocks():
    twice = ARCHITECTURE.scale(S, Scale(depth=2.0, width=2.0))
    assert twice.stem == 32
    assert [(s.channels, s.dim) for s in twice.stages] == [(64, 0), (128, 0), (192, 288), (256, 384), (320, 480)]
    assert [(s.blocks, s.layers) for s in twice.stages] == [(2, 0), (6, 0), (2, 4), (2, 8), (2, 6)]
    with torch.device("meta"):
        assert ARCHITECTURE.build(twice, num_classes=5).classifier.in_features == 4 * 320


def test_paper_rounding_takes_multiples_of_8_and_of_the_total_stride():
    scaled = ARCHITECTURE.scale(S, Scale(1.2, 1.1, 1.15), PAPER)
    assert scaled.resolution == 288  # 294.4
    assert all(c % 8 == 0 for stage in scaled.stages for c in (stage.channels, stage.dim))
    assert [s.layers for s in scaled.stages] == [0, 0, 3, 5, 4]


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ScalenetError, match="multiple of 4 heads, got 146"):
        replace(S, stages=(replace(S.stages[2], dim=146),))


def test_drop_path_rises_linearly_over_both_kinds_of_blocks():
    model = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.6)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * i for i in range(7)])
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    assert sum(isinstance(m, MobileViTBlock) for m in model.modules()) == 2
    assert any(m.residual for m in model.modules() if isinstance(m, MV2))
    assert MICRO.num_heads > 1
