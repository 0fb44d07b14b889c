from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scalenet_plugins import eanet
from scalenet_plugins.eanet import T2T, TABLE, EANet, MultiHeadExternalAttention, Split, TokenAttention, soft_split
from torch import nn

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath
from tests.plugins.conftest import transplant
from tests.plugins.references.eanet import reference

ARCHITECTURE = EANet()
BASELINE, MICRO = TABLE["eamlp14"].spec, TABLE["micro"].spec
SHORT = replace(TABLE["eamlp7"].spec, depth=2)  # of the seven equal blocks

# The authors' networks, torch's FlopCounterMode / 2; params with the frozen table
PUBLISHED = {
    "eamlp7": (6146638, 1465194496),
    "eamlp14": (29877070, 6450351104),
    "eamlp19": (54559054, pytest.approx(11.598e9, rel=1e-4)),
}
TABLES = {"eamlp7": 50432, "eamlp14": 75648, "eamlp19": 88256}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]
    with torch.device("meta"):
        model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=1000)
    frozen = {n: p.numel() for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"positions": TABLES[name]}


def move(theirs, model):
    """The class token sees an image only in what tells the averages over a memory apart: small, and here made large."""
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if name.endswith(("memory_v.weight", "memory_k.weight")):
                weight.mul_(8.0 if "memory_v" in name else 1.5)
    transplant(theirs, model)


@pytest.mark.parametrize("side", [64, 45, 34])  # 34: the last pixel needs a window that the released code lacks
def test_logits_are_the_formulas(side, parity):
    spec = replace(SHORT, resolution=side)
    parity(ARCHITECTURE.build(spec, num_classes=11), reference(spec, 11), side, move).check()


def test_logits_are_the_formulas_with_six_heads_and_ratio_3(parity):
    spec = replace(BASELINE, depth=1, resolution=32)
    parity(ARCHITECTURE.build(spec, num_classes=11), reference(spec, 11), 32, move).check()


def test_positions_are_the_sinusoids_of_the_formula():
    spec = replace(SHORT, resolution=64)  # the logits are compared with the reference's table in both
    table = reference(spec, 11).table
    torch.testing.assert_close(ARCHITECTURE.build(spec, num_classes=11).positions[0], table)


def test_norms_have_pytorchs_epsilon_as_the_authors_have():
    model = ARCHITECTURE.build(MICRO, num_classes=11)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert {m.eps for m in norms} == {1e-5}  # in the logits 1e-6 for 1e-5 would not show


def axes_the_wrong_way_round(p, monkeypatch):
    def wrong(scores):
        weights = scores.softmax(-1)
        return weights / (1e-9 + weights.sum(1, keepdim=True))

    monkeypatch.setattr(eanet, "double_normalised", wrong)


def softmax_over_slots_only(p, monkeypatch):
    monkeypatch.setattr(eanet, "double_normalised", lambda scores: scores.softmax(-1))


def softmax_over_tokens_only(p, monkeypatch):
    monkeypatch.setattr(eanet, "double_normalised", lambda scores: scores.softmax(1))


def normalised_over_heads(p, monkeypatch):
    def wrong(scores):
        weights = scores.softmax(1)
        return weights / (1e-9 + weights.sum(2, keepdim=True))  # in a token block, which has no heads: the slots

    monkeypatch.setattr(eanet, "double_normalised", wrong)


def a_memory_for_every_head(p, monkeypatch):
    class PerHead(nn.Module):
        def __init__(self, shared, heads):
            super().__init__()
            self.weights = torch.stack([shared.weight.roll(h, 0) for h in range(heads)])
            self.bias = shared.bias

        def forward(self, x):
            return torch.einsum("nthd,hsd->nths", x, self.weights) + self.bias

    for module in p.model.modules():
        if isinstance(module, MultiHeadExternalAttention):
            module.keys = PerHead(module.keys, module.num_heads)


def heads_of_the_block_without_expansion(p, monkeypatch):
    def forward(self, x):
        x = self.query(x).unflatten(2, (-1, self.num_heads)).transpose(2, 3)  # channels dealt out, not cut
        return self.out(self.values(eanet.double_normalised(self.keys(x))).flatten(2))

    monkeypatch.setattr(MultiHeadExternalAttention, "forward", forward)


def no_skip_from_the_query(p, monkeypatch):
    def forward(self, x):
        return self.out(self.values(eanet.double_normalised(self.keys(self.query(x)))))

    monkeypatch.setattr(TokenAttention, "forward", forward)


def windows_pixel_by_pixel(p, monkeypatch):
    def wrong(x, split):
        tokens = soft_split(x, split)
        return tokens.unflatten(2, (x.shape[1], -1)).transpose(2, 3).flatten(2)

    monkeypatch.setattr(eanet, "soft_split", wrong)


def no_positions(p, monkeypatch):
    p.model.positions.data.zero_()


def mean_over_the_tokens(p, monkeypatch):
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True)

    p.model.blocks.append(Mean())


@pytest.mark.parametrize(
    "mistake",
    [
        axes_the_wrong_way_round,
        softmax_over_slots_only,
        softmax_over_tokens_only,
        normalised_over_heads,
        a_memory_for_every_head,
        heads_of_the_block_without_expansion,
        no_skip_from_the_query,
        windows_pixel_by_pixel,
        no_positions,
        mean_over_the_tokens,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = replace(SHORT, resolution=32)
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), reference(spec, 11), 32, move)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_tokens_learn_of_each_other_and_only_through_the_softmax(monkeypatch):
    torch.manual_seed(0)
    attention = MultiHeadExternalAttention(8, 2, 4)
    tokens = torch.randn(1, 5, 8)
    other = torch.cat((tokens[:, :4], torch.randn(1, 1, 8)), 1)
    assert (attention(tokens) - attention(other))[:, :4].abs().max() > 1e-4
    softmax_over_slots_only(None, monkeypatch)
    torch.testing.assert_close(attention(tokens)[:, :4], attention(other)[:, :4])


def test_weights_of_a_token_sum_to_1_and_samples_stay_apart():
    scores = torch.randn(2, 5, 3, 4)
    weights = eanet.double_normalised(scores)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5, 3))
    torch.testing.assert_close(eanet.double_normalised(scores[:1]), weights[:1])
    # What is added to a slot of every token changes nothing: so the bias of M_k cannot learn.
    torch.testing.assert_close(eanet.double_normalised(scores + torch.randn(4)), weights)


def test_memories_of_the_token_blocks_start_tied_and_are_two_parameters():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    blocks = [module for module in model.modules() if isinstance(module, TokenAttention)]
    assert len(blocks) == 2
    for block in blocks:
        assert torch.equal(block.values.weight, block.keys.weight.T)
        assert block.values.weight.data_ptr() != block.keys.weight.data_ptr()


@pytest.mark.parametrize("split", [*T2T[:2], Split(3, 1, 1)])
def test_every_pixel_is_in_a_window(split):
    for side in range(7, 40):
        image = torch.ones(1, 1, side, side, requires_grad=True)
        windows = soft_split(image, split)
        assert windows.shape[1] == split.tokens(side) ** 2
        windows.sum().backward()
        assert (image.grad > 0).all()
    assert [Split(7, 4, 2).tokens(side) for side in (224, 225, 226, 227, 384)] == [56, 56, 57, 57, 96]


def test_width_moves_the_blocks_and_keeps_heads_token_blocks_and_slots():
    assert ARCHITECTURE.scale(BASELINE, Scale(width=2.0)) == replace(BASELINE, dim=768, num_heads=12)
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
    assert ARCHITECTURE.scale(BASELINE, Scale(resolution=1.17)).resolution == 264  # 262.1
    assert ARCHITECTURE.scale(BASELINE, Scale(resolution=1.17), PAPER).resolution == 256
    assert ARCHITECTURE.scale(MICRO, Scale(resolution=0.1)).resolution == 16
    assert [ARCHITECTURE.scale(MICRO, Scale(depth=d / MICRO.depth)).depth for d in (1, 5, 13)] == [1, 5, 13]


def test_a_side_between_the_steps_grows_from_that_of_as_many_tokens():
    odd = replace(BASELINE, resolution=103)  # 26 windows a side, then 13, then 7 tokens
    for rounding, sides in ((FINE, [92, 103, 104, 116]), (PAPER, [96, 103, 112, 128])):
        scaled = [ARCHITECTURE.scale(odd, Scale(resolution=by), rounding).resolution for by in (0.9, 1.0, 1.001, 1.1)]
        assert scaled == sides


def test_a_batch_may_be_empty():
    assert ARCHITECTURE.build(MICRO, num_classes=7)(torch.empty(0, 3, 32, 32)).shape == (0, 7)


def test_no_pixel_is_dropped_at_odd_sides():
    torch.manual_seed(0)
    for side in (16, 17, 23, 34, 45):
        model = ARCHITECTURE.build(replace(MICRO, resolution=side), num_classes=7, in_channels=1)
        images = torch.randn(1, 1, side, side, requires_grad=True)
        model(images).square().sum().backward()
        assert (images.grad != 0).all()


def test_images_of_another_side_are_refused():
    model = ARCHITECTURE.build(MICRO, num_classes=7)
    with pytest.raises(ScalenetError, match="32 x 32 px, got 31 x 32"):
        model(torch.randn(1, 3, 31, 32))


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ScalenetError, match="multiple of 6 heads, got 385"):
        replace(BASELINE, dim=385)


def test_the_position_table_is_that_of_the_new_size():
    larger = replace(MICRO, resolution=45)
    weights = ARCHITECTURE.build(MICRO, num_classes=10).state_dict()
    assert ARCHITECTURE.resample(weights, MICRO, MICRO) == weights
    moved = ARCHITECTURE.resample(weights, MICRO, larger)
    model = ARCHITECTURE.build(larger, num_classes=10)
    table = model.positions.detach().clone()
    model.load_state_dict(moved)
    assert torch.equal(model.positions, table)
    n = MICRO.grid**2
    torch.testing.assert_close(table[:, : 1 + n], weights["positions"])  # rows of a longer table, not stretched


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
    assert (MICRO.resolution, len(MICRO.splits)) == (32, 3)
    assert MICRO.num_heads > 1
