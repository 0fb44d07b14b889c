from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scalenet_plugins.cct import CCT, TABLE, Block
from torch import nn

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath, SelfAttention
from tests.plugins.references.cct import reference

ARCHITECTURE = CCT()
BASELINE, MICRO = TABLE["14_7x2"].spec, TABLE["micro"].spec

# The authors' networks, torch's FlopCounterMode / 2
PUBLISHED = {
    "2_3x2": (10, 283723, 35341568),
    "4_3x2": (10, 482123, 50021632),
    "6_3x2": (10, 3326923, 253463040),
    "6_3x1": (10, 3233803, pytest.approx(1013.8e6, rel=1e-4)),
    "7_3x2": (10, 3853259, 289114624),
    "7_3x1": (10, 3760139, 1181616640),
    "14_7x2": (1000, 22367273, 5521901568),
    "14_7x2_384": (1000, 22513193, 18580282368),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    classes, *numbers = PUBLISHED[name]
    assert ARCHITECTURE.variants[name].num_classes == classes
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec, classes) == tuple(numbers)


def test_cct_7_7x2_is_cct_7_on_the_tokens_of_the_large_networks(counts):
    # CCT-7/3x2 with kernels of 7 for 3, 196 positions for 64, and 102 classes for 10
    params = 3853259 + (49 - 9) * 64 * (3 + 256) + (196 - 64) * 256 + (102 - 10) * (256 + 1)
    assert counts(ARCHITECTURE, TABLE["7_7x2"].spec, 102)[0] == params


@pytest.mark.parametrize(
    ("name", "side"), [("2_3x2", 32), ("2_3x2", 21), ("7_3x1", 16), ("7_7x2", 64), ("7_7x2", 45), ("14_7x2", 33)]
)
def test_logits_are_the_formulas(name, side, parity):
    spec = replace(TABLE[name].spec, resolution=side)
    parity(ARCHITECTURE.build(spec, num_classes=11), reference(spec, 11), side).check()


def test_norms_have_pytorchs_epsilon_as_the_authors_have():
    model = ARCHITECTURE.build(MICRO, num_classes=11)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert {m.eps for m in norms} == {1e-5}  # in the logits 1e-6 for 1e-5 would not show


def test_starts_as_in_the_released_code():
    torch.manual_seed(0)
    model = ARCHITECTURE.build(TABLE["7_3x2"].spec, num_classes=11)
    deviations = {"tokenizer.0": (2 / 27) ** 0.5, "tokenizer.3": (2 / (9 * 64)) ** 0.5, "blocks.0.attention.qkv": 0.02}
    for name, deviation in deviations.items():
        assert model.get_submodule(name).weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert model.positions.std().item() == pytest.approx(0.2, rel=0.03)


def summed_not_weighted(p, monkeypatch):
    softmax = torch.Tensor.softmax  # over the axis of length 1: every weight is 1
    monkeypatch.setattr(torch.Tensor, "softmax", lambda self, dim: softmax(self, -1))


def mean_over_the_tokens(p, monkeypatch):
    nn.init.zeros_(p.model.pool.weight)


def textbook_pre_norm(p, monkeypatch):
    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))

    monkeypatch.setattr(Block, "forward", forward)


def average_pooling(p, monkeypatch):
    p.swap(nn.MaxPool2d, lambda: nn.AvgPool2d(3, 2, 1))


def strides_for_pooling(p, monkeypatch):
    p.swap(nn.MaxPool2d, lambda: nn.MaxPool2d(1, 2))


def bias_in_the_tokenizer(p, monkeypatch):
    for module in p.model.tokenizer:
        if isinstance(module, nn.Conv2d):
            module.bias = nn.Parameter(torch.full((module.out_channels,), 0.1))


def no_relu_in_the_tokenizer(p, monkeypatch):
    p.swap(nn.ReLU, nn.Identity)


def twice_the_heads(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, SelfAttention):
            module.num_heads *= 2


def no_final_norm(p, monkeypatch):
    p.model.norm = nn.Identity()


def tokens_in_columns(p, monkeypatch):
    positions = p.model.positions.data.view(8, 8, -1)
    p.model.positions.data = positions.transpose(0, 1).reshape(1, 64, -1)


@pytest.mark.parametrize(
    "mistake",
    [
        summed_not_weighted,
        mean_over_the_tokens,
        textbook_pre_norm,
        average_pooling,
        strides_for_pooling,
        bias_in_the_tokenizer,
        no_relu_in_the_tokenizer,
        twice_the_heads,
        no_final_norm,
        tokens_in_columns,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = TABLE["2_3x2"].spec
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), reference(spec, 11), 32)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_the_tokenizer_gives_the_tokens_of_the_paper():
    tokens = {name: variant.spec.grid**2 for name, variant in TABLE.items() if name != "micro"}
    assert (tokens["7_3x1"], tokens["7_3x2"], tokens["14_7x2"], tokens["14_7x2_384"]) == (256, 64, 196, 576)


def test_width_moves_the_transformer_and_keeps_heads_and_planes():
    twice = ARCHITECTURE.scale(BASELINE, Scale(width=2.0))
    assert twice == replace(BASELINE, dim=768, num_heads=12)
    assert ARCHITECTURE.scale(BASELINE, Scale(width=1.1), PAPER) == replace(BASELINE, dim=448, num_heads=7)


@pytest.mark.parametrize("rounding", [None, PAPER])
@pytest.mark.parametrize("spec", [BASELINE, MICRO])
def test_heads_divide_at_any_width_and_a_larger_width_is_never_smaller(rounding, spec):
    before = 0
    for percent in range(30, 401):
        scaled = ARCHITECTURE.scale(spec, Scale(width=percent / 100), *([rounding] if rounding else []))
        assert scaled.dim % scaled.num_heads == 0
        assert scaled.dim >= before
        before = scaled.dim


def test_sides_move_by_the_first_stride_and_on_paper_by_the_whole_one():
    assert ARCHITECTURE.scale(BASELINE, Scale(resolution=1.15)).resolution == 258  # 257.6
    assert ARCHITECTURE.scale(BASELINE, Scale(resolution=1.15), PAPER).resolution == 256
    assert ARCHITECTURE.scale(MICRO, Scale(resolution=33 / 32)).resolution == 33
    assert ARCHITECTURE.scale(MICRO, Scale(resolution=0.1)).resolution == 16
    assert [ARCHITECTURE.scale(MICRO, Scale(depth=d / MICRO.depth)).depth for d in (1, 5, 13)] == [1, 5, 13]


def test_a_side_between_the_steps_grows_from_the_next_one():
    odd = replace(BASELINE, resolution=225)  # 15 tokens a side, as 240 px have
    for rounding, sides in ((FINE, [204, 225, 226, 248]), (PAPER, [224, 225, 240, 272])):
        scaled = [ARCHITECTURE.scale(odd, Scale(resolution=by), rounding).resolution for by in (0.9, 1.0, 1.001, 1.1)]
        assert scaled == sides


def test_no_pixel_is_dropped_at_odd_sides():
    torch.manual_seed(0)
    for side in (16, 17, 23, 45):
        model = ARCHITECTURE.build(replace(MICRO, resolution=side), num_classes=7, in_channels=1)
        images = torch.randn(8, 1, side, side, requires_grad=True)
        model(images).square().sum().backward()
        assert (images.grad != 0).any(0).all()  # of one image, some lose every pooling


def test_images_of_another_side_are_refused():
    model = ARCHITECTURE.build(MICRO, num_classes=7)
    with pytest.raises(ScalenetError, match="32 x 32 px, got 32 x 31"):
        model(torch.randn(1, 3, 32, 31))


def test_bad_specs_are_refused():
    with pytest.raises(ScalenetError, match="multiple of 6 heads, got 385"):
        replace(BASELINE, dim=385)
    with pytest.raises(ScalenetError, match="kernel must be odd, got 4"):
        replace(BASELINE, kernel=4)


def test_positions_are_resampled_in_two_dimensions():
    larger = replace(MICRO, resolution=45)
    weights = ARCHITECTURE.build(MICRO, num_classes=10).state_dict()
    assert ARCHITECTURE.resample(weights, MICRO, MICRO) == weights
    rows = torch.arange(4.0).repeat_interleave(4)
    weights["positions"] = rows[None, :, None].expand(1, 16, MICRO.dim)
    moved = ARCHITECTURE.resample(weights, MICRO, larger)
    ARCHITECTURE.build(larger, num_classes=10).load_state_dict(moved)
    table = moved["positions"].view(6, 6, -1)  # 45, 23, 12, 6
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
    x = torch.randn(4, 64, MICRO.dim)
    assert torch.equal(block(x), block.mlp_norm(x))


def test_micro_has_every_part():
    assert (MICRO.resolution, MICRO.convolutions, MICRO.grid) == (32, 3, 4)
    assert MICRO.num_heads > 1
