"""The quick forms of convolutions give what nn.Conv2d gives, outputs and gradients, wherever they stand in."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scalenet import convolutions
from scalenet.convolutions import DepthwiseConv2d, PointwiseConv2d, quicken


@dataclass(frozen=True)
class Case:
    batch: int
    channels: int
    height: int
    width: int
    kernel: int
    stride: int
    padding: int
    bias: bool
    channels_last: bool


cases = st.builds(
    Case,
    batch=st.integers(1, 3),
    channels=st.integers(2, 5),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    kernel=st.sampled_from([2, 3, 5, 7, 9]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 5),
    bias=st.booleans(),
    channels_last=st.booleans(),
).filter(lambda c: min(c.height, c.width) + 2 * c.padding >= c.kernel)


def both(conv: nn.Conv2d, x: Tensor) -> list[list[Tensor]]:
    """Output and gradients (input, weight, bias) of a convolution and of its quick form."""
    found = []
    for module in (conv, quick(conv)):
        given_x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        out = module(given_x)
        weights = torch.linspace(-1, 1, out.numel()).view(out.shape)
        gradients = torch.autograd.grad((out * weights).sum(), [given_x, *module.parameters()])
        found.append([out.detach(), *gradients])
    return found


def quick(conv: nn.Conv2d) -> nn.Module:
    holder = nn.Sequential(copy.deepcopy(conv))
    quicken(holder)
    return holder[0]


def assert_alike(conv: nn.Conv2d, x: Tensor) -> None:
    plain, other = both(conv, x)
    for a, b in zip(plain, other, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def image(case: Case) -> Tensor:
    x = torch.randn(case.batch, case.channels, case.height, case.width)
    return x.contiguous(memory_format=torch.channels_last if case.channels_last else torch.contiguous_format)


@given(case=cases)
@settings(max_examples=150, deadline=None)
def test_depthwise_of_any_shape(case: Case) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(
        case.channels, case.channels, case.kernel, case.stride, case.padding, groups=case.channels, bias=case.bias
    )
    assert type(quick(conv)) is DepthwiseConv2d
    assert_alike(conv, image(case))


@pytest.mark.parametrize(("kernel", "size"), [(3, 2), (5, 4), (5, 8), (7, 12)])
def test_the_products_are_what_is_tested(kernel: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps of a search's networks do take the other way, and a fault in it would show."""
    conv = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=4)
    x = torch.randn(2, 4, size, size)
    assert_alike(conv, x)
    monkeypatch.setattr(convolutions, "_met", lambda *_: torch.zeros(size, size, kernel))
    convolutions._diagonals.cache_clear()
    with pytest.raises(AssertionError, match="not close"):
        assert_alike(conv, x)
    convolutions._diagonals.cache_clear()


@given(
    batch=st.integers(1, 4), channels=st.integers(1, 6), outputs=st.integers(1, 6), side=st.integers(1, 24),
    bias=st.booleans(), last=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_pointwise_of_any_shape(batch: int, channels: int, outputs: int, side: int, bias: bool, last: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, outputs, 1, bias=bias)
    assert type(quick(conv)) is PointwiseConv2d
    x = torch.randn(batch, channels, side, side)
    assert_alike(conv, x.contiguous(memory_format=torch.channels_last) if last else x)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 8, 3, groups=4),  # a channel multiplier
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(4, 4, 3),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    assert type(quick(conv)) is nn.Conv2d


def test_a_class_of_ones_own_stays() -> None:
    class Own(nn.Conv2d):
        pass

    assert type(quick(Own(4, 4, 1))) is Own


def test_names_parameters_and_buffers_stay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 4, 1)))
    before = dict(model.named_parameters())
    quicken(model)
    after = dict(model.named_parameters())
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    quicken(model)  # a second time changes nothing
    assert dict(model.named_parameters()).keys() == before.keys()


def test_bfloat16_under_autocast_and_other_types_still_run() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 4, 1))
    quicken(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(2, 8, 4, 4))
    assert out.dtype is torch.bfloat16
    out.float().sum().backward()
    assert model.double()(torch.randn(2, 8, 4, 4, dtype=torch.float64)).dtype is torch.float64
