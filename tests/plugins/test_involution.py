from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from scalenet_plugins import involution
from scalenet_plugins.involution import MICRO, Bottleneck, Involution, RedNet, involve
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from scalenet.architecture import PAPER, Scale
from scalenet.complexity import charges
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath
from tests.plugins.references.involution import multiplied, reference, unfolded

ARCHITECTURE = RedNet()
RED26 = ARCHITECTURE.variants["rednet26"].spec

# The released code in its unfold form; multiply-adds of the convolutions, torch's FlopCounterMode / 2
PUBLISHED = {
    "rednet26": (9233166, 1650831360),
    "rednet38": (12386986, 2114056192),
    "rednet50": (15540806, 2577281024),
    "rednet101": (25652950, 4545986560),
    "rednet152": (33984582, 6514691072),
}
PRODUCTS = {"rednet26": 34.4e6, "rednet38": 52.8e6, "rednet50": 71.2e6}  # of the involutions themselves


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    params, macs = counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec)
    assert params == PUBLISHED[name][0]
    assert macs == pytest.approx(PUBLISHED[name][1], abs=0.5e6 if name == "rednet152" else 0)


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_products_are_counted_on_top(name):
    found = charges(ARCHITECTURE, ARCHITECTURE.variants[name].spec, num_classes=1000)
    assert sum(c.flops for c in found) - PUBLISHED[name][1] == pytest.approx(PRODUCTS[name], rel=2e-3)


@pytest.mark.parametrize(("channels", "kernel", "stride", "side"), [(32, 7, 1, 9), (32, 7, 2, 9), (16, 3, 1, 8)])
def test_a_product_costs_what_matrix_products_of_it_cost(channels, kernel, stride, side):
    module = Involution(channels, kernel, stride=stride, group_channels=16, reduction=4).eval()
    x = torch.randn(1, channels, side, side)
    out = module(x)
    kernels = torch.randn(1, channels // 16 * kernel**2, *out.shape[2:])
    with FlopCounterMode(display=False) as counter:
        multiplied(x, kernels, kernel, stride)
    assert ARCHITECTURE.flop_counts[Involution](module, (x,), out) == counter.get_total_flops() // 2
    torch.testing.assert_close(involve(x, kernels, kernel, stride), multiplied(x, kernels, kernel, stride))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (7, 1), (5, 2), (7, 2), (7, 3), (3, 2)])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10), (1, 3), (2, 1)])
def test_product_and_gradients_are_those_of_the_unfolded_form(kernel, stride, height, width):
    torch.manual_seed(0)
    out = (-(-height // stride), -(-width // stride))
    x = torch.randn(2, 6, height, width, dtype=torch.double, requires_grad=True)
    kernels = torch.randn(2, 2 * kernel**2, *out, dtype=torch.double, requires_grad=True)
    ours, theirs = involve(x, kernels, kernel, stride), unfolded(x, kernels, kernel, stride)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, (x, kernels), weights),
        torch.autograd.grad(theirs, (x, kernels), weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_bfloat16_is_summed_in_float32():
    x, kernels = torch.rand(2, 16, 6, 6).bfloat16(), torch.rand(2, 49, 6, 6).bfloat16()
    ours = involve(x, kernels, 7, 1)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, unfolded(x.float(), kernels.float(), 7, 1).bfloat16(), rtol=0.004, atol=0)


def test_memory_is_no_multiple_of_the_windows():
    x = torch.randn(2, 64, 16, 16, requires_grad=True)
    kernels = torch.randn(2, 4 * 49, 16, 16, requires_grad=True)
    largest = 0

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.untyped_storage().nbytes())
            return out

    with Largest():
        involve(x, kernels, 7, 1).sum().backward()
    assert largest < 2 * kernels.nbytes  # unfolded: 49 * x.nbytes, 16 times the kernels


@pytest.mark.parametrize(
    ("spec", "side"),
    [(RED26, 64), (RED26, 75), (MICRO, 32), (MICRO, 19), (replace(MICRO, pool=False, kernel=5), 18)],
)
def test_logits_are_the_references(spec, side, parity):
    parity(ARCHITECTURE.build(spec, num_classes=11), reference(spec, 11), side).check()


def groups_inside_of_the_window(p, monkeypatch):
    def wrong(x, kernels, kernel, stride):
        n, _, height, width = kernels.shape
        kernels = kernels.view(n, kernel**2, -1, height, width).transpose(1, 2).flatten(1, 2)
        return involve(x, kernels, kernel, stride)

    monkeypatch.setattr(involution, "involve", wrong)


def channels_interleaved(p, monkeypatch):
    def wrong(x, kernels, kernel, stride):
        n, _, height, width = x.shape
        groups = kernels.shape[1] // kernel**2
        mixed = x.view(n, -1, groups, height, width).transpose(1, 2).reshape(x.shape)
        return involve(mixed, kernels, kernel, stride)

    monkeypatch.setattr(involution, "involve", wrong)


def softmax_over_the_window(p, monkeypatch):
    def wrong(x, kernels, kernel, stride):
        n, _, height, width = kernels.shape
        kernels = kernels.view(n, -1, kernel**2, height, width).softmax(2).flatten(1, 2)
        return involve(x, kernels, kernel, stride)

    monkeypatch.setattr(involution, "involve", wrong)


def window_flipped(p, monkeypatch):
    def wrong(x, kernels, kernel, stride):
        n, _, height, width = kernels.shape
        kernels = kernels.view(n, -1, kernel**2, height, width).flip(2).flatten(1, 2)
        return involve(x, kernels, kernel, stride)

    monkeypatch.setattr(involution, "involve", wrong)


def maximum_for_the_mean(p, monkeypatch):
    p.swap(nn.AvgPool2d, lambda: nn.MaxPool2d(2, 2, ceil_mode=True))


def every_second_pixel_for_the_mean(p, monkeypatch):
    class Sampled(nn.Module):
        def forward(self, x):
            return x[..., ::2, ::2]

    p.swap(nn.AvgPool2d, Sampled)


def no_bias_in_the_span(p, monkeypatch):
    for module in p.model.modules():
        if isinstance(module, Involution):
            module.span.bias = None


def padded_with_the_border(p, monkeypatch):
    def wrong(x, kernels, kernel, stride):
        border = kernel // 2
        windows = F.pad(x, (border,) * 4, mode="replicate")
        n, channels = x.shape[:2]
        height, width = kernels.shape[2:]
        groups = kernels.shape[1] // kernel**2
        windows = F.unfold(windows, kernel, stride=stride).view(n, groups, -1, kernel**2, height, width)
        return (windows * kernels.view(n, groups, 1, kernel**2, height, width)).sum(3).view(n, channels, height, width)

    monkeypatch.setattr(involution, "involve", wrong)


@pytest.mark.parametrize(
    "mistake",
    [
        groups_inside_of_the_window,
        channels_interleaved,
        softmax_over_the_window,
        window_flipped,
        maximum_for_the_mean,
        every_second_pixel_for_the_mean,
        no_bias_in_the_span,
        padded_with_the_border,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    planted = parity(ARCHITECTURE.build(MICRO, num_classes=11), reference(MICRO, 11), 64)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def test_dropping_the_last_pixels_shows_in_the_logits(parity):
    planted = parity(ARCHITECTURE.build(MICRO, num_classes=11), reference(MICRO, 11), 19)
    planted.check()

    class Floored(nn.Module):
        def forward(self, x):
            means = F.avg_pool2d(x, 2)
            return F.pad(means, (0, x.shape[3] % 2, 0, x.shape[2] % 2))

    planted.swap(nn.AvgPool2d, Floored)
    planted.noticed()


@pytest.mark.parametrize("width", [0.3, 0.5, 0.77, 1.01, 1.1, 1.5, 2.3, 4.0])
@pytest.mark.parametrize("rounding", [None, PAPER])
def test_groups_divide_the_channels_at_any_width(width, rounding):
    for spec in (RED26, MICRO):
        scaled = ARCHITECTURE.scale(spec, Scale(width=width), *([rounding] if rounding else []))
        inside = (scaled.stem_middle, *(stage.middle for stage in scaled.stages))
        assert all(c % spec.group_channels == 0 for c in inside)
        assert (scaled.group_channels, scaled.kernel, scaled.resolution) == (
            16 if spec is RED26 else 4,
            spec.kernel,
            spec.resolution,
        )
        assert [s.blocks for s in scaled.stages] == [s.blocks for s in spec.stages]


def test_width_scales_every_channel_number():
    twice = ARCHITECTURE.scale(RED26, Scale(width=2.0))
    assert (twice.stem_middle, twice.stem) == (64, 128)
    assert [(s.middle, s.channels) for s in twice.stages] == [(128, 512), (256, 1024), (512, 2048), (1024, 4096)]
    with torch.device("meta"):
        model = ARCHITECTURE.build(twice, num_classes=5)
    assert model.blocks[0].involution[0].groups == 8


def test_paper_rounding_takes_multiples_of_16_and_of_the_total_stride():
    scaled = ARCHITECTURE.scale(RED26, Scale(1.2, 1.1, 1.15), PAPER)
    assert scaled.resolution == 256  # 257.6
    assert [s.blocks for s in scaled.stages] == [2, 3, 5, 2]
    assert scaled.stages[3].channels == 2256  # 2252.8


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kernel": 4}, "kernel must be odd, got 4"),
        ({"stem_middle": 10}, "multiple of 4 group_channels, got 10"),
        ({"kernel": 1}, "below the kernel's 1, got 1"),
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(change, sentence):
    with pytest.raises(ScalenetError, match=sentence):
        replace(MICRO, **change)


@pytest.mark.parametrize(("side", "layout"), list(product([16, 17, 23, 45], ["contiguous", "channels_last"])))
def test_odd_sides(side, layout):
    model = ARCHITECTURE.build(MICRO, num_classes=7).train()
    images = torch.randn(2, 3, side, side + 1)
    if layout == "channels_last":
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    logits = model(images)
    assert logits.shape == (2, 7)
    logits.sum().backward()


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(MICRO, num_classes=10, drop_path=0.7)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.7 * i / (len(rates) - 1) for i in range(len(rates))])


def test_exports_and_compiles_with_its_gradient():
    module = Involution(8, 3, stride=2, group_channels=4, reduction=4).eval()
    x = torch.randn(3, 8, 9, 9)
    batch = ({0: torch.export.Dim("batch", min=2, max=64)},)
    program = torch.export.export(module, (x[:2],), dynamic_shapes=batch)
    torch.testing.assert_close(program.module()(x), module(x))
    expected = torch.autograd.grad(module(x).square().sum(), list(module.parameters()))
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x).square().sum(), list(module.parameters()))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    involutions = [m for m in model.modules() if isinstance(m, Involution)]
    assert {m.stride for m in involutions} == {1, 2}
    assert max(m.groups for m in involutions) > 1
    assert {isinstance(m.shortcut, nn.Identity) for m in model.modules() if isinstance(m, Bottleneck)} == {True, False}
