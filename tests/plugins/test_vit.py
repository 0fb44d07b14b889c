from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from scalenet_plugins.vit import TABLE, Block, ViT, ViTModel
from torch import nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from scalenet import layers
from scalenet.architecture import FINE, PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath, SelfAttention

ARCHITECTURE = ViT()
TI16, S16, MICRO = (TABLE[name].spec for name in ("ti16", "s16", "micro"))

# timm 1.0, torch's FlopCounterMode / 2; the sheet gives the last two in G only
PUBLISHED = {
    "ti16": (5717416, 1253683200),
    "s16": (22050664, 4598882304),
    "b16": (86567656, 17563828224),
    "b32": (88224232, pytest.approx(4.409e9, rel=2e-4)),
    "b16_384": (86859496, pytest.approx(55.484e9, rel=2e-5)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


def ours(side, spec=TI16):
    return ARCHITECTURE.build(replace(spec, resolution=side), num_classes=11)


def timms(side, name="vit_tiny_patch16_224", depth=12):
    return timm.create_model(name, pretrained=False, num_classes=11, img_size=side, depth=depth)


@pytest.mark.parametrize("side", [64, 112])
def test_logits_are_timms(side, parity):
    parity(ours(side), timms(side), side).check()


def test_logits_are_timms_with_more_heads(parity):
    parity(ours(48, replace(S16, depth=2)), timms(48, "vit_small_patch16_224", depth=2), 48).check()


def test_logits_are_torchvisions(parity):
    def move(theirs, model):
        weights = theirs.state_dict()
        for name, weight in weights.items():
            if "in_proj" in name:
                weight.mul_(0.3)  # drawn for a table: far too large for a linear map
        positions = weights.pop("encoder.pos_embedding")
        in_our_order = [weights.pop("class_token"), positions, *weights.values()]
        with torch.no_grad():
            for weight, moved in zip(model.state_dict().values(), in_our_order, strict=True):
                weight.copy_(moved)

    spec = replace(MICRO, resolution=64, patch_size=16, dim=64, depth=3, num_heads=4)
    theirs = VisionTransformer(64, 16, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=256, num_classes=11)
    parity(ARCHITECTURE.build(spec, num_classes=11), theirs, 64, move).check()


def test_norms_have_timms_epsilon():
    def epsilons(model):
        return [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)]

    assert epsilons(ours(32)) == epsilons(timms(32))  # in the logits 1e-5 for 1e-6 would not show


def test_starts_as_in_the_released_code():
    torch.manual_seed(0)
    model = ours(224)
    deviations = {
        "patches.projection": (3 * 16 * 16) ** -0.5,  # LeCun normal
        "blocks.0.attention.qkv": (2 / (192 + 192)) ** 0.5,  # Xavier, each of the three by itself
        "blocks.0.attention.out": (2 / (192 + 192)) ** 0.5,
        "blocks.0.mlp.0": (2 / (192 + 768)) ** 0.5,
        "blocks.0.mlp.2": (2 / (192 + 768)) ** 0.5,
    }
    for name, deviation in deviations.items():
        layer = model.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.02)
        assert not layer.bias.any()
    assert model.positions.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.class_token.any()


def scaled_by_the_width(p, monkeypatch):
    def wrong(query, key, value):
        return F.scaled_dot_product_attention(query, key, value, scale=(3 * query.shape[-1]) ** -0.5)

    monkeypatch.setattr(layers, "F", type("F", (), {"scaled_dot_product_attention": staticmethod(wrong)}))


def twice_the_heads(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, SelfAttention):
            module.num_heads *= 2


def post_norm(p, monkeypatch):
    def forward(self, x):
        x = self.attention_norm(x + self.attention(x))
        return self.mlp_norm(x + self.mlp(x))

    monkeypatch.setattr(Block, "forward", forward)


def no_final_norm(p, monkeypatch):
    p.model.norm = nn.Identity()


def mean_instead_of_the_class_token(p, monkeypatch):
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True)

    p.model.blocks.append(Mean())


def class_token_without_a_position(p, monkeypatch):
    p.model.positions.data[:, 0] = 0


def class_token_last(p, monkeypatch):
    p.model.positions.data = p.model.positions.data.roll(-1, 1)


def no_bias_in_query_key_and_value(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, SelfAttention):
            module.qkv.bias = None


def relu(p, monkeypatch):
    p.swap(nn.GELU, nn.ReLU)


@pytest.mark.parametrize(
    "mistake",
    [
        scaled_by_the_width,
        twice_the_heads,
        post_norm,
        no_final_norm,
        mean_instead_of_the_class_token,
        class_token_without_a_position,
        class_token_last,
        no_bias_in_query_key_and_value,
        relu,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    planted = parity(ours(64, replace(TI16, depth=3)), timms(64, depth=3), 64)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_heads_keep_their_size_and_follow_the_width():
    assert ARCHITECTURE.scale(TI16, Scale(width=2.0)) == S16
    assert ARCHITECTURE.scale(S16, Scale(width=2.0)) == TABLE["b16"].spec
    assert ARCHITECTURE.scale(S16, Scale(width=1.01)).dim == 390  # 387.84, in steps of 6 heads
    assert ARCHITECTURE.scale(S16, Scale(width=1.01), PAPER) == S16
    assert ARCHITECTURE.scale(S16, Scale(width=1.1), PAPER).num_heads == 7  # 6.6


@pytest.mark.parametrize("rounding", [None, PAPER])
@pytest.mark.parametrize("spec", [S16, MICRO])
def test_heads_divide_at_any_width_and_a_larger_width_is_never_smaller(rounding, spec):
    before = 0
    for percent in range(30, 401):
        scaled = ARCHITECTURE.scale(spec, Scale(width=percent / 100), *([rounding] if rounding else []))
        assert scaled.dim % scaled.num_heads == 0
        assert scaled.dim >= before
        assert scaled.dim / scaled.num_heads == pytest.approx(spec.dim / spec.num_heads, rel=0.5)
        before = scaled.dim


def test_sides_are_whole_patches_and_depth_is_single_blocks():
    assert ARCHITECTURE.scale(S16, Scale(resolution=1.15)).resolution == 256  # 257.6
    assert ARCHITECTURE.scale(MICRO, Scale(resolution=1.1)).resolution == 36
    assert ARCHITECTURE.scale(MICRO, Scale(resolution=0.01)).resolution == 16
    assert [ARCHITECTURE.scale(S16, Scale(depth=d / 12)).depth for d in range(1, 25)] == list(range(1, 25))
    assert ARCHITECTURE.scale(S16, Scale(depth=1.1), PAPER).depth == 14  # 13.2, up


@pytest.mark.parametrize("rounding", [FINE, PAPER])
def test_a_padded_side_grows_from_its_padded_size(rounding):
    odd = replace(S16, resolution=100)  # 7 patches of 16
    sides = [ARCHITECTURE.scale(odd, Scale(resolution=by), rounding).resolution for by in (0.9, 1.0, 1.01, 1.1)]
    assert sides == [96, 100, 112, 128]


def test_no_pixel_is_dropped_at_odd_sides():
    torch.manual_seed(0)
    for side, tokens in ((16, 17), (17, 26), (23, 37), (45, 145)):
        model = ARCHITECTURE.build(replace(MICRO, resolution=side), num_classes=7, in_channels=1)
        assert model.positions.shape[1] == tokens
        images = torch.randn(1, 1, side, side, requires_grad=True)
        model(images).square().sum().backward()
        assert (images.grad != 0).all()


def test_images_of_another_side_are_refused():
    model = ARCHITECTURE.build(MICRO, num_classes=7)
    with pytest.raises(ScalenetError, match="32 x 32 px, got 36 x 32"):
        model(torch.randn(1, 3, 36, 32))


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ScalenetError, match="multiple of 6 heads, got 385"):
        replace(S16, dim=385)


def test_positions_are_resampled_in_two_dimensions():
    larger = replace(MICRO, resolution=48)
    weights = ARCHITECTURE.build(MICRO, num_classes=10).state_dict()
    assert ARCHITECTURE.resample(weights, MICRO, MICRO) == weights
    rows = torch.arange(8.0).repeat_interleave(8)[:, None].expand(64, MICRO.dim)
    weights["positions"] = torch.cat((torch.full((1, MICRO.dim), 100.0), rows))[None]
    moved = ARCHITECTURE.resample(weights, MICRO, larger)
    ARCHITECTURE.build(larger, num_classes=10).load_state_dict(moved)
    assert (moved["positions"][0, 0] == 100.0).all()  # the class token's is no part of the map
    table = moved["positions"][0, 1:].view(12, 12, -1)
    torch.testing.assert_close(table, table[:, :1].expand_as(table))  # nothing from row to column
    assert (table[1:, 0] - table[:-1, 0] > 0.3).all()


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(replace(MICRO, depth=6), num_classes=10, drop_path=0.5)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1 * i for i in range(6)])
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_a_dropped_branch_leaves_what_the_skip_carries():
    block = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.5).blocks[1]
    block.drop_path.rate = 1 - 1e-12  # all of them
    x = torch.randn(4, 65, MICRO.dim)
    assert torch.equal(block(x), x)


def test_micro_has_every_part():
    assert (MICRO.resolution, MICRO.mlp_ratio) == (32, 4)
    assert MICRO.num_heads > 1
    assert MICRO.grid > 1
    assert isinstance(ARCHITECTURE.build(MICRO, num_classes=10), ViTModel)
