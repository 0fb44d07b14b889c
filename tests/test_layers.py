from __future__ import annotations

import pytest
import torch
from torch import nn

from scalenet.layers import DropPath, conv_bn, drop_path_rates, init_convolutions


def test_drop_path_keeps_whole_samples_and_the_mean():
    torch.manual_seed(0)
    x = torch.ones(4000, 2, 3)
    y = DropPath(0.25)(x)
    per_sample = y.flatten(1)
    assert (per_sample == per_sample[:, :1]).all()
    assert sorted(set(per_sample[:, 0].tolist())) == pytest.approx([0.0, 4 / 3])
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)


def test_drop_path_is_the_identity_in_evaluation_and_at_rate_0():
    x = torch.randn(5, 3)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_rates_rise_linearly_to_the_last_block():
    assert drop_path_rates(0.2, 5) == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])
    assert drop_path_rates(0.2, 1) == [0.0]


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_bn_halves_upwards(kernel, stride):
    block = conv_bn(4, 6, kernel, stride=stride, act=nn.ReLU())
    side = -(-7 // stride)
    assert block(torch.randn(2, 4, 7, 7)).shape == (2, 6, side, side)
    assert block[0].bias is None


def test_initialisation_counts_a_group_by_itself():
    torch.manual_seed(0)
    plain, depthwise = nn.Conv2d(64, 128, 3), nn.Conv2d(512, 512, 3, groups=512)
    init_convolutions(nn.Sequential(plain, depthwise))
    assert plain.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.05)
    assert depthwise.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert not plain.bias.any()
