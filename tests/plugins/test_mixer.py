from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from scalenet_plugins.mixer import MICRO, Mixer, MixerBlock, MixerSpec, TokenLinear
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from torch.nn import functional as F

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

ARCHITECTURE = Mixer()
S16 = ARCHITECTURE.variants["s16"].spec
S32 = ARCHITECTURE.variants["s32"].spec

# timm 1.0, torch's FlopCounterMode / 2
PUBLISHED = {"s32": (19104624, 1002426368), "s16": (18528264, 3776958464), "b16": (59880472, 12601767936)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "params", "giga"), [("b32", 60293428, 3.238), ("l16", 208196168, 44.548)])
def test_counts_of_the_other_rows(name, params, giga, counts):
    counted, flops = counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec)
    assert (counted, round(flops / 1e9, 3)) == (params, giga)


def small(side):
    """S/32 with three blocks and timm's of the same size."""
    model = ARCHITECTURE.build(replace(S32, resolution=side, blocks=3), num_classes=11)
    reference = MlpMixer(num_classes=11, img_size=side, patch_size=32, num_blocks=3, embed_dim=512)
    return model, reference


@pytest.mark.parametrize("side", [224, 96])
def test_logits_are_timms(side, parity):
    parity(*small(side), side).check()


def test_logits_of_a_whole_network_are_timms(parity):
    model = ARCHITECTURE.build(replace(S16, resolution=64), num_classes=11)
    parity(model, timm.create_model("mixer_s16_224", pretrained=False, num_classes=11, img_size=64), 64).check()


def test_norms_have_timms_epsilon():
    def epsilons(model):
        return [m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)]

    model, reference = small(32)
    assert epsilons(model) == epsilons(reference)  # in the logits 1e-5 for 1e-6 would not show


def test_starts_as_in_the_released_code():
    torch.manual_seed(0)
    model, _ = small(224)
    block = model.blocks[1]
    for layer, inputs in (
        (model.stem.projection, 3 * 32 * 32),
        (block.token_mlp[0], 49),
        (block.token_mlp[2], 256),
        (block.channel_mlp[0], 512),
        (block.channel_mlp[2], 2048),
    ):
        assert layer.weight.std().item() == pytest.approx(inputs**-0.5, rel=0.02)  # LeCun normal
        assert not layer.bias.any()
    assert not model.classifier.weight.any()
    assert not model.classifier.bias.any()


def one_norm_for_both_halves(p, monkeypatch):
    for block in p.model.blocks:
        block.channel_norm = block.token_norm


def transposed_before_the_norm(p, monkeypatch):
    def norm_over_the_tokens(block, x):
        y = F.layer_norm(x.mT, x.shape[1:2]).mT
        x = x + block.token_mlp(y * block.token_norm.weight + block.token_norm.bias)
        return x + block.channel_mlp(block.channel_norm(x))

    monkeypatch.setattr(MixerBlock, "forward", norm_over_the_tokens)


def no_skip_around_the_tokens(p, monkeypatch):
    def without(block, x):
        x = block.token_mlp(block.token_norm(x))
        return x + block.channel_mlp(block.channel_norm(x))

    monkeypatch.setattr(MixerBlock, "forward", without)


def no_skip_around_the_channels(p, monkeypatch):
    def without(block, x):
        x = x + block.token_mlp(block.token_norm(x))
        return block.channel_mlp(block.channel_norm(x))

    monkeypatch.setattr(MixerBlock, "forward", without)


def channels_first(p, monkeypatch):
    def swapped(block, x):
        x = x + block.channel_mlp(block.channel_norm(x))
        return x + block.token_mlp(block.token_norm(x))

    monkeypatch.setattr(MixerBlock, "forward", swapped)


def no_final_norm(p, monkeypatch):
    p.model.norm = nn.Identity()


def tokens_in_columns(p, monkeypatch):
    p.model.stem.register_forward_hook(lambda module, inputs, output: output.transpose(2, 3))


def relu_for_gelu(p, monkeypatch):
    p.swap(nn.GELU, nn.ReLU)


@pytest.mark.parametrize(
    "mistake",
    [
        one_norm_for_both_halves,
        transposed_before_the_norm,
        no_skip_around_the_tokens,
        no_skip_around_the_channels,
        channels_first,
        no_final_norm,
        tokens_in_columns,
        relu_for_gelu,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    planted = parity(*small(96), 96)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_perceptrons_follow_the_width_and_not_the_tokens():
    for side in (224, 448):
        with torch.device("meta"):
            block = ARCHITECTURE.build(replace(S16, resolution=side), num_classes=5).blocks[0]
        assert [m.out_features for m in block.modules() if isinstance(m, nn.Linear)][0::2] == [256, 2048]


def test_each_knob_moves_its_own_number():
    assert ARCHITECTURE.scale(S16, Scale(depth=1.3)) == replace(S16, blocks=10)
    assert ARCHITECTURE.scale(S16, Scale(depth=1.3), PAPER) == replace(S16, blocks=11)
    assert ARCHITECTURE.scale(S16, Scale(width=1.1)) == replace(S16, dim=564)  # 563.2
    assert ARCHITECTURE.scale(S16, Scale(width=1.1), PAPER) == replace(S16, dim=560)
    assert ARCHITECTURE.scale(S16, Scale(resolution=1.15)) == replace(S16, resolution=256)  # 257.6
    assert ARCHITECTURE.scale(MICRO, Scale(resolution=1.15)) == replace(MICRO, resolution=36)
    assert ARCHITECTURE.scale(MICRO, Scale(0.01, 0.01, 0.01)) == replace(MICRO, resolution=16, blocks=1, dim=2)


@pytest.mark.parametrize("rounding", [FINE, PAPER])
def test_a_padded_side_grows_from_its_padded_size(rounding):
    odd = replace(MICRO, resolution=45)  # 12 patches of 4
    sides = [ARCHITECTURE.scale(odd, Scale(resolution=by), rounding).resolution for by in (0.9, 1.0, 1.01, 1.1)]
    assert sides == [44, 45, 48, 52]


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


def test_an_odd_width_is_refused():
    with pytest.raises(ScalenetError, match="must be even, for D_S is half of it, got 25"):
        replace(MICRO, dim=25)


def test_resampled_token_weights_keep_their_sums():
    old, new = MixerSpec(32, 4, 2, 8), MixerSpec(48, 4, 2, 8)
    before = ARCHITECTURE.build(old, num_classes=3)
    after = ARCHITECTURE.build(new, num_classes=3)
    weights = before.state_dict()
    assert ARCHITECTURE.resample(weights, old, replace(old, resolution=31)) is weights  # as many patches
    block = before.blocks[0].token_mlp
    with torch.no_grad():
        block[0].weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5])[:, None].expand(4, 64))  # alike for all tokens
        block[2].weight.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]).expand(64, 4))
        block[2].bias.fill_(0.3)
    after.load_state_dict(ARCHITECTURE.resample(before.state_dict(), old, new))
    image = torch.rand(1, 1, 8).expand(1, 64, 8)  # one patch, everywhere
    bigger = torch.cat((image, image, image[:, :16]), 1)
    torch.testing.assert_close(after.blocks[0].token_mlp(bigger)[:, :64], block(image), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(after.blocks[0].token_mlp(bigger)[:, -16:], block(image)[:, :16], rtol=1e-4, atol=1e-3)


def test_resampled_weights_keep_their_places():
    old, new = MixerSpec(32, 4, 1, 8), MixerSpec(64, 4, 1, 8)
    weights = dict(ARCHITECTURE.build(old, num_classes=3).state_dict())
    ramp = torch.linspace(0.0, 1.0, 8)[:, None].expand(8, 8)  # grows downwards
    weights["blocks.0.token_mlp.0.weight"] = ramp.reshape(1, 64).repeat(4, 1)
    weights["blocks.0.token_mlp.2.weight"] = ramp.reshape(64, 1).repeat(1, 4)
    weights["blocks.0.token_mlp.2.bias"] = ramp.reshape(64)
    resampled = ARCHITECTURE.resample(weights, old, new)
    rows = [
        4 * resampled["blocks.0.token_mlp.0.weight"][0].view(16, 16),
        resampled["blocks.0.token_mlp.2.weight"][:, 0].view(16, 16),
        resampled["blocks.0.token_mlp.2.bias"].view(16, 16),
    ]
    for picture in rows:
        torch.testing.assert_close(picture, picture[:, :1].expand(16, 16))  # still alike along a row
        assert (picture[3:-3, 0].diff() > 0.05).all()
        torch.testing.assert_close(picture.mean(), torch.tensor(0.5))


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(replace(MICRO, blocks=4), num_classes=10, drop_path=0.3)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    nn.init.normal_(model.classifier.weight)
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_a_dropped_branch_leaves_what_the_skip_carries():
    block = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.5).blocks[1]
    block.drop_path.rate = 1 - 1e-12  # all of them
    x = torch.randn(4, 64, MICRO.dim)
    assert torch.equal(block(x), x)


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    token_linears = [m for m in model.modules() if isinstance(m, TokenLinear)]
    assert len(token_linears) == 2 * MICRO.blocks
    assert {m.in_features for m in token_linears} == {64, MICRO.dim // 2}
