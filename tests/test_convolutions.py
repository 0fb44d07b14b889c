"""The quick forms of convolutions give what nn.Conv2d gives, outputs and gradients, wherever they stand in."""

from __future__ import annotations

from dataclasses import dataclass
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from scalenet import convolutions
from scalenet.convolutions import DepthwiseConv2d, PointwiseConv2d, quick_convolutions

CPU = torch.device("cpu")


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


def outcome(conv: nn.Conv2d, x: Tensor) -> list[Tensor]:
    """Output and gradients: input, weight, bias."""
    given_x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = conv(given_x)
    weights = torch.arange(out.numel()).cos().view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [given_x, *conv.parameters()])]


def quick_kind(model: nn.Module) -> type[nn.Module]:
    with quick_convolutions(model, CPU, channels_last=False):
        return type(model)


def assert_alike(conv: nn.Conv2d, x: Tensor) -> None:
    plain = outcome(conv, x)
    with quick_convolutions(conv, CPU, channels_last=x.is_contiguous(memory_format=torch.channels_last)):
        quick = outcome(conv, x)
    for a, b in zip(plain, quick, strict=True):
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
    assert quick_kind(conv) is DepthwiseConv2d
    with patch.object(convolutions, "_pays", return_value=True):
        assert_alike(conv, image(case))
    assert_alike(conv, image(case))


@pytest.mark.parametrize(("kernel", "size"), [(3, 2), (5, 4), (5, 8), (7, 8)])
def test_the_products_are_what_is_tested(kernel: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps of a search's networks do take the other way, and a fault in it would show."""
    conv = nn.Conv2d(4, 4, kernel, padding=kernel // 2, groups=4)
    x = torch.randn(64, 4, size, size)
    assert_alike(conv, x)
    monkeypatch.setattr(convolutions, "_met", lambda *_: torch.zeros(size, size, kernel))
    convolutions._diagonals.cache_clear()
    with pytest.raises(AssertionError, match="not close"):
        assert_alike(conv, x)
    convolutions._diagonals.cache_clear()


@pytest.mark.parametrize(
    ("pictures", "kernel", "size", "stride", "quick"),
    [(8, 5, 8, 1, False), (64, 5, 8, 1, True), (8, 7, 12, 2, False), (64, 7, 12, 2, True), (999, 9, 16, 1, False)],
)
def test_more_pictures_make_up_for_a_larger_map(
    pictures: int, kernel: int, size: int, stride: int, quick: bool
) -> None:
    conv = nn.Conv2d(2, 2, kernel, stride, kernel // 2, groups=2, bias=False)
    with quick_convolutions(conv, CPU, channels_last=False):
        out = conv(torch.randn(pictures, 2, size, size))
    assert ("_Depthwise" in type(out.grad_fn).__name__) == quick


@given(
    batch=st.integers(1, 4), channels=st.integers(1, 6), outputs=st.integers(1, 6), side=st.integers(1, 24),
    bias=st.booleans(), last=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_pointwise_of_any_shape(batch: int, channels: int, outputs: int, side: int, bias: bool, last: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, outputs, 1, bias=bias)
    assert quick_kind(conv) is PointwiseConv2d
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
    assert quick_kind(conv) is nn.Conv2d


def test_a_class_of_ones_own_stays() -> None:
    class Own(nn.Conv2d):
        pass

    assert quick_kind(Own(4, 4, 1)) is Own


def nested() -> nn.Sequential:
    shared = nn.Conv2d(8, 8, 5, padding=2, groups=8)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(shared, nn.ReLU(), shared), nn.Conv2d(8, 4, 1))


def kinds(model: nn.Module) -> list[type[nn.Module]]:
    return [type(module) for module in model.modules() if isinstance(module, nn.Conv2d)]


QUICK, PLAIN = [nn.Conv2d, DepthwiseConv2d, PointwiseConv2d], [nn.Conv2d] * 3


def test_modules_parameters_and_names_are_the_same_within_and_afterwards() -> None:
    model = nested()
    modules, parameters, names = list(model.modules()), list(model.parameters()), list(model.state_dict())
    model.eval()
    with quick_convolutions(model, CPU, channels_last=True):
        assert kinds(model) == QUICK
        assert list(model.state_dict()) == names
        assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
        model.train()
    assert kinds(model) == PLAIN
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(modules, model.modules(), strict=True))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(module.training for module in model.modules())


def test_hooks_are_called_within_and_afterwards() -> None:
    model, seen = nested(), []
    model[2].register_forward_hook(lambda module, *_: seen.append(type(module)))
    with quick_convolutions(model, CPU, channels_last=True):
        model(torch.randn(1, 3, 6, 6))
    model(torch.randn(1, 3, 6, 6))
    assert seen == [PointwiseConv2d, nn.Conv2d]


def test_they_are_plain_again_after_an_error_too() -> None:
    model = nested()
    with pytest.raises(KeyError), quick_convolutions(model, CPU, channels_last=False):
        raise KeyError
    assert kinds(model) == PLAIN


def test_who_made_them_quick_makes_them_plain() -> None:
    model = nested()
    with quick_convolutions(model, CPU, channels_last=False):
        with quick_convolutions(model, CPU, channels_last=False):
            pass
        assert kinds(model) == QUICK
    assert kinds(model) == PLAIN


def test_other_devices_have_no_quick_ones() -> None:
    model = nested()
    with quick_convolutions(model, torch.device("cuda"), channels_last=True):
        assert kinds(model) == PLAIN


def test_kernels_are_laid_out_and_tables_are_not() -> None:
    model = nested()
    model.table = nn.Parameter(torch.zeros(1, 4, 3, 3))
    for last in (True, False):
        with quick_convolutions(model, CPU, channels_last=last):
            pass
        assert model[0].weight.is_contiguous(memory_format=torch.channels_last) == last
        assert model[0].weight.is_contiguous() != last
        assert model.table.is_contiguous()


def test_bfloat16_under_autocast_and_other_types_still_run() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.Conv2d(8, 4, 1))
    with quick_convolutions(model, CPU, channels_last=False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(torch.randn(2, 8, 4, 4))
        assert out.dtype is torch.bfloat16
        out.float().sum().backward()
        assert model.double()(torch.randn(2, 8, 4, 4, dtype=torch.float64)).dtype is torch.float64
