from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet.architecture import FINE, Architecture, Rounding, Scale, Size, Variant
from scalenet.complexity import Cost, build_on_meta, measure, table
from scalenet.crosscheck import fvcore_check
from scalenet.errors import ScalenetError
from scalenet.operators import formula_of, outputs_of
from tests.toy import ToySpec, toy


@dataclass(frozen=True)
class Side:
    resolution: int


class Handmade(Architecture[Side]):
    """An architecture around one module, made anew for every count."""

    name = "handmade"
    paper = "none"
    baseline = "only"
    variants: Mapping[str, Variant[Side]] = {"only": Variant(Side(8), 1, "made for tests")}

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self.make = make

    def scale(self, spec: Side, by: Scale, rounding: Rounding = FINE) -> Side:
        return spec

    def size(self, spec: Side) -> Size:
        return Size(1, 1.0, spec.resolution)

    def build(self, spec: Side, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        return self.make()


class Apply(nn.Module):
    """A function of the image, shape (1, 3, 8, 8), as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def cost(make: Callable[[], nn.Module], side: int = 8) -> Cost:
    return measure(Handmade(make), Side(side), num_classes=1)


def flops_of(function: Callable[[Tensor], Any]) -> int:
    return cost(lambda: Apply(function)).flops


def test_convolution_with_groups_stride_and_bias() -> None:
    found = cost(lambda: nn.Conv2d(3, 12, 5, stride=2, padding=2, groups=3))
    assert found == Cost(params=12 * 25 + 12, flops=12 * 4 * 4 * 25, activations=12 * 4 * 4)


def test_same_and_transposed_convolutions() -> None:
    assert cost(lambda: nn.Conv2d(3, 4, 5, padding="same")).flops == 4 * 64 * 3 * 25
    found = cost(lambda: nn.ConvTranspose2d(3, 6, 2, stride=2, groups=3))
    assert (found.flops, found.activations) == (3 * 64 * 2 * 4, 6 * 256)


def test_linear_over_tokens() -> None:
    found = cost(lambda: nn.Sequential(nn.Flatten(2), nn.Linear(64, 10)))
    assert found == Cost(params=650, flops=3 * 64 * 10, activations=30)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_costs_the_same_fused_or_written_out(causal: bool) -> None:
    def fused(x: Tensor) -> Tensor:
        q, k = x.flatten(2)[:, :, :40].view(1, 3, 5, 8), x.flatten(2)[:, :, :56].view(1, 3, 7, 8)
        return F.scaled_dot_product_attention(q, k, k, is_causal=causal)

    def written_out(x: Tensor) -> Tensor:
        q, k = x.flatten(2)[:, :, :40].view(1, 3, 5, 8), x.flatten(2)[:, :, :56].view(1, 3, 7, 8)
        return (q @ k.transpose(-1, -2)).softmax(-1) @ k

    expected = Cost(0, 2 * 3 * 5 * 7 * 8, 3 * 5 * 7 + 3 * 5 * 8)
    assert cost(lambda: Apply(fused)) == cost(lambda: Apply(written_out)) == expected


def test_a_fused_kernel_is_counted_as_its_two_products() -> None:
    # the meta device takes attention apart, so the fused operators are asked for directly
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    q, k, v = torch.zeros(1, 3, 5, 8), torch.zeros(1, 3, 7, 8), torch.zeros(1, 3, 7, 8)
    formula = formula_of(fused)
    assert formula is not None
    assert formula((q, k, v), fused(q, k, v)) == (2 * 3 * 5 * 7 * 8, 3 * 5 * 7 + 3 * 5 * 8)


def test_multi_head_attention_counts_projections_and_products() -> None:
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(2)
            attended: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
            return attended

    assert cost(Attend).flops == 4 * 3 * 64 * 64 + 2 * 3 * 3 * 64


def test_matrix_products_of_every_rank() -> None:
    assert flops_of(lambda x: x @ x) == 3 * 8 * 8 * 8
    assert flops_of(lambda x: x[0, 0] @ x[0, 0]) == 512
    assert flops_of(lambda x: x[0, 0] @ x[0, 0, 0]) == 64
    assert flops_of(lambda x: x[0, 0, 0] @ x[0, 0, 0]) == 8
    assert flops_of(lambda x: torch.baddbmm(x[0], x[0], x[0])) == 3 * 512
    assert flops_of(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)) == 3 * 3 * 64


def test_complex_products_are_four_real_ones() -> None:
    assert flops_of(lambda x: torch.complex(x[0, 0], x[0, 0]) @ torch.complex(x[0, 0], x[0, 0])) == 4 * 512


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.fft.fft, 2.5 * 192 * 3),
        (lambda x: torch.fft.fft2(x).real, 2.5 * 192 * 6),
        (lambda x: torch.fft.fftn(x, dim=(1, 3)), 2.5 * 192 * (3 + 1.584962500721156)),
        (torch.fft.rfft, 2.5 * 192 * 3),
        # of the 8 x 8 map, the second dimension is transformed on 5 columns only
        (torch.fft.rfft2, 2.5 * (192 * 3 + 120 * 3)),
        (lambda x: torch.fft.irfft2(torch.fft.rfft2(x), s=(8, 8)), 2 * 2.5 * (192 * 3 + 120 * 3)),
    ],
)
def test_fft_costs_two_and_a_half_n_log_n(function: Callable[[Tensor], Tensor], expected: float) -> None:
    found = cost(lambda: Apply(function))
    assert (found.flops, found.activations) == (round(expected), 0)


def test_what_is_free_is_free() -> None:
    layers = [
        nn.BatchNorm2d(3),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Softmax(1),
    ]
    found = cost(
        lambda: nn.Sequential(*layers, nn.LayerNorm(8), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(0.5))
    )
    assert found == Cost(params=6 + 16, flops=0, activations=0)


@pytest.mark.parametrize("kind", [nn.Hardswish, nn.GLU, nn.LogSigmoid, nn.PReLU, nn.RReLU])
def test_activation_functions_that_torch_does_not_call_pointwise_are_free(kind: Callable[[], nn.Module]) -> None:
    assert cost(lambda: nn.Sequential(nn.Flatten(2), kind())).flops == 0


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_cost_two_products_per_gate_and_step(kind: type[nn.RNNBase], gates: int) -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(8, 16, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            read: Tensor = self.layer(x[:, 0])[0]
            return read

    assert cost(Read).flops == 8 * gates * 16 * (8 + 16)


class Distances(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x[0], x[0])


def test_an_uncounted_operator_is_named_with_its_module() -> None:
    with pytest.raises(ScalenetError, match=r"handmade: operator aten::_cdist_forward in module '1.0' \(Distances\)"):
        cost(lambda: nn.Sequential(nn.Identity(), nn.Sequential(Distances())))


def test_a_formula_is_charged_on_top_and_speaks_for_what_is_inside() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cdist(self.conv(x)[0], x[0, :2])

    class WithFormula(Handmade):
        flop_counts: ClassVar[Mapping[type, Callable[..., int]]] = {
            Inner: lambda module, inputs, output: inputs[0].numel() + output.numel()
        }

    arch = WithFormula(lambda: nn.Sequential(Inner()))
    assert measure(arch, Side(8), num_classes=1).flops == 2 * 3 * 64 + 192 + 128
    rows = table(arch, Side(8), num_classes=1)
    assert [(r.name, r.flops) for r in rows] == [("0", 320), ("0.conv", 384)]


def test_values_asked_of_the_meta_device_are_explained() -> None:
    with pytest.raises(ScalenetError, match="handmade: cannot be built and run on the meta device"):
        cost(lambda: Apply(lambda x: x.sum().item()))


def test_toy_by_hand() -> None:
    spec = ToySpec()  # stages of 2 and 3 blocks, 8 and 16 channels, 24 px -> 12 -> 6
    weights = (3 * 8 + 8 * 8 + 8 * 16 + 2 * 16 * 16) * 9
    flops = (3 * 8 + 8 * 8) * 9 * 144 + (8 * 16 + 2 * 16 * 16) * 9 * 36 + 16 * 4
    expected = Cost(weights + 2 * (2 * 8 + 3 * 16) + 68, flops, 2 * 8 * 144 + 3 * 16 * 36 + 4)
    assert measure(toy(), spec, num_classes=4) == expected


def test_more_classes_and_channels_are_counted() -> None:
    before, after = (measure(toy(), ToySpec(), num_classes=n, in_channels=c) for n, c in ((4, 3), (10, 1)))
    assert after.flops - before.flops == 6 * 16 - 2 * 8 * 9 * 144
    assert after.params - before.params == 6 * 17 - 2 * 8 * 9


@pytest.mark.parametrize("level", [None, 1, 2, 0])
def test_table_sums_to_the_total(level: int | None) -> None:
    rows = table(toy(), ToySpec(), num_classes=4, level=level)
    total = Cost(sum(r.params for r in rows), sum(r.flops for r in rows), sum(r.activations for r in rows))
    assert total == measure(toy(), ToySpec(), num_classes=4)
    assert len({r.name for r in rows}) == len(rows) == {None: 11, 1: 2, 2: 6, 0: 1}[level]
    assert [r.output for r in rows if r.name == "head"] == ([(1, 4)] if level != 0 else [])


def test_shared_modules_are_one_row_and_their_parent_has_its_own_work() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 1, bias=False)
            self.second = self.first

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.second(self.first(x)), self.first.weight[:, :, 0, 0].new_ones(2, 8))

    rows = table(Handmade(Shared), Side(8), num_classes=1)
    assert [(r.name, r.type, r.params, r.flops) for r in rows] == [
        ("", "Shared", 0, 192 * 2),
        ("first", "Conv2d", 9, 2 * 9 * 64),
    ]


def test_counting_neither_allocates_nor_draws() -> None:
    before = torch.get_rng_state()
    model = build_on_meta(toy(), ToySpec((2, 3), (1 << 14, 1 << 14), 24), num_classes=4)  # 50 GB of weights
    assert all(p.is_meta for p in model.parameters())
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_tables_made_by_numpy_do_not_hinder() -> None:
    class Table(nn.Module):
        scale: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor([2.0], device="cpu"))

        def forward(self, x: Tensor) -> Tensor:
            return x[0, 0] @ x[0, 0] * self.scale

    assert cost(Table).flops == 512


def test_a_shared_memory_changes_no_count() -> None:
    memory: dict[Any, Any] = {}
    specs = [ToySpec(), ToySpec((2, 4)), ToySpec(resolution=25), ToySpec()]
    for spec in specs:
        alone = measure(toy(), spec, num_classes=4)
        assert measure(toy(), spec, num_classes=4, memory=memory) == alone


def test_a_shared_memory_is_not_fooled_by_values() -> None:
    class Masked(nn.Module):
        def __init__(self, kept: int) -> None:
            super().__init__()
            self.kept = kept

        def forward(self, x: Tensor) -> Tensor:
            rows = x[0, 0][:, torch.arange(8) < self.kept]  # equal shapes in, but how many are kept is in the values
            return rows @ rows.t()

    memory: dict[Any, Any] = {}
    for kept in (2, 5, 7):
        arch = Handmade(lambda kept=kept: Masked(kept))
        assert measure(arch, Side(8), num_classes=1, memory=memory).flops == 64 * kept


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.layer_norm(x.flatten(2).transpose(1, 2), (3,)).view(-1),
        lambda x: F.batch_norm(x.permute(0, 2, 1, 3), x[0, 0, 0], x[0, 0, 0]).view(-1),
        lambda x: x.permute(0, 2, 3, 1).softmax(-1).view(-1),
    ],
)
def test_what_can_be_viewed_on_the_cpu_can_be_counted(function: Callable[[Tensor], Tensor]) -> None:
    assert function(torch.rand(1, 3, 8, 8)).shape == (192,)
    assert flops_of(function) == 0


def test_shape_rules_agree_with_torch() -> None:
    aten = torch.ops.aten
    x, w = torch.empty(2, 4, 6, 6, device="meta"), torch.empty(4, device="meta")
    channels_last = x.to(memory_format=torch.channels_last)
    rows, columns = torch.empty(5, 6, device="meta"), torch.empty(6, 7, device="meta")
    for operator, args in (
        (aten.native_batch_norm.default, (x, w, w, w, w, False, 0.1, 1e-5)),
        (aten.native_layer_norm.default, (x, [6], None, None, 1e-5)),
        (aten._softmax.default, (x, 1, False)),
        (aten.silu.default, (channels_last,)),
        (aten.native_batch_norm.default, (channels_last, w, w, w, w, False, 0.1, 1e-5)),
        (aten._softmax.default, (channels_last, 1, False)),
        (aten.upsample_bilinear2d.default, (channels_last, [3, 9], False)),
        (aten.add.Tensor, (x, x)),
        (aten.upsample_bilinear2d.default, (x, [3, 9], False)),
        (aten.addmm.default, (torch.empty(7, device="meta"), rows, columns)),
    ):
        ours, theirs = outputs_of(operator, args), operator(*args)
        first, expected = (ours[0], theirs[0]) if isinstance(ours, tuple) else (ours, theirs)
        assert (first.shape, first.stride(), first.dtype) == (expected.shape, expected.stride(), expected.dtype)
    assert outputs_of(aten.add.Tensor, (x, w.view(4, 1, 1))) is None


def test_fvcore_agrees_once_its_norms_are_taken_off() -> None:
    report = fvcore_check(toy(), ToySpec(), num_classes=4)
    assert report.unexplained == 0
    assert [d.reason for d in report.differences] == ["batch_norm is counted by fvcore and free here"]
    assert report.fvcore - report.ours == report.differences[0].flops == 2 * (2 * 8 * 144 + 3 * 16 * 36)
    assert "every difference explained" in report.text()


def test_what_fvcore_skips_is_named() -> None:
    def attend(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    layers: list[nn.Module] = [
        nn.Conv2d(3, 3, 3, padding="same"),
        Apply(attend),
        Apply(lambda x: torch.fft.fft2(x).real),
    ]
    report = fvcore_check(Handmade(lambda: nn.Sequential(*layers)), Side(8), num_classes=1)
    assert {d.reason: d.flops for d in report.differences} == {
        'conv with padding="same" is skipped by fvcore': -3 * 64 * 27,
        "scaled_dot_product_attention is skipped by fvcore": -2 * 3 * 512,
        "aten::_fft_c2c is skipped by fvcore": -2880,
    }
    assert (report.fvcore, report.unexplained) == (0, 0)


def test_what_nothing_explains_is_said() -> None:
    calls = iter(range(9))  # a network that grows between the two counts

    class Growing(Handmade):
        def build(self, spec: Side, **kwargs: Any) -> nn.Module:
            return nn.Conv2d(3, 1 + next(calls), 1, bias=False)

    report = fvcore_check(Growing(nn.Identity), Side(8), num_classes=1)
    assert report.unexplained == 192
    assert "unexplained +192" in report.text()
