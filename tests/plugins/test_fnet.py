from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scalenet_plugins import fnet
from scalenet_plugins.fnet import MICRO, FNet, FNetBlock, FNetSpec, real_fourier
from torch import nn
from transformers.models.fnet.configuration_fnet import FNetConfig
from transformers.models.fnet.modeling_fnet import FNetEncoder

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.complexity import measure
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath

ARCHITECTURE = FNet()
TI16 = ARCHITECTURE.variants["ti16"].spec
S16 = ARCHITECTURE.variants["s16"].spec

# transformers' FNetEncoder on patches, torch's FlopCounterMode / 2, which sees no transforms
PUBLISHED = {"ti16": (3975400, 729951744), "s16": (15101416, 2861620224), "b16": (58808296, 11330107392)}


class Reference(nn.Module):
    """Transformers' encoder between patches with positions, LayerNorm and projection, and a linear head on the mean."""

    def __init__(self, spec, num_classes):
        super().__init__()
        config = FNetConfig(
            hidden_size=spec.dim,
            num_hidden_layers=spec.blocks,
            intermediate_size=4 * spec.dim,
            hidden_dropout_prob=0.0,
        )
        self.positions = nn.Parameter(torch.randn((spec.resolution // spec.patch_size) ** 2, spec.dim))
        self.patches = nn.Conv2d(3, spec.dim, spec.patch_size, spec.patch_size)
        self.norm = nn.LayerNorm(spec.dim, eps=config.layer_norm_eps)
        self.projection = nn.Linear(spec.dim, spec.dim)
        self.encoder = FNetEncoder(config)
        self.head = nn.Linear(spec.dim, num_classes)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        x = self.encoder(self.projection(self.norm(x))).last_hidden_state
        return self.head(x.mean(1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name, counts):
    assert counts(ARCHITECTURE, ARCHITECTURE.variants[name].spec) == PUBLISHED[name]


def test_counts_of_b32(counts):
    params, flops = counts(ARCHITECTURE, ARCHITECTURE.variants["b32"].spec)
    assert (params, round(flops / 1e9, 3)) == (60464872, 2.920)


@pytest.mark.parametrize(("name", "percent"), [("ti16", 2.4), ("s16", 1.3), ("b16", 0.7)])
def test_our_counter_adds_the_transforms(name, percent):
    flops = measure(ARCHITECTURE, ARCHITECTURE.variants[name].spec, num_classes=1000).flops
    assert round(100 * (flops / PUBLISHED[name][1] - 1), 1) == percent  # 2.5 N D log2(N D) per layer


@pytest.mark.parametrize("side", [224, 80])
def test_logits_are_transformers(side, parity):
    spec = replace(TI16, resolution=side)
    model = ARCHITECTURE.build(spec, num_classes=11)
    parity(model, Reference(spec, 11), side).check()


def transforms(monkeypatch, wrong):
    monkeypatch.setattr(fnet, "real_fourier", wrong)


def one_axis_only(p, monkeypatch):
    transforms(monkeypatch, lambda x: torch.fft.fft(x, dim=1).real)


def magnitude(p, monkeypatch):
    transforms(monkeypatch, lambda x: torch.fft.fft2(x).abs())


def orthonormal(p, monkeypatch):
    transforms(monkeypatch, lambda x: torch.fft.fft2(x, norm="ortho").real)


def over_the_batch_too(p, monkeypatch):
    transforms(monkeypatch, lambda x: torch.fft.fftn(x).real)


def inner_real_part(p, monkeypatch):
    transforms(monkeypatch, lambda x: torch.fft.fft(torch.fft.fft(x, dim=2).real, dim=1).real)


def pre_norm(p, monkeypatch):
    def forward(block, x):
        x = x + real_fourier(block.mixing_norm(x))
        return x + block.mlp(block.mlp_norm(x))

    monkeypatch.setattr(FNetBlock, "forward", forward)


def no_skip_around_the_transform(p, monkeypatch):
    def forward(block, x):
        x = block.mixing_norm(real_fourier(x))
        return block.mlp_norm(x + block.mlp(x))

    monkeypatch.setattr(FNetBlock, "forward", forward)


def no_embedding_projection(p, monkeypatch):
    p.model.projection = nn.Identity()


def positions_after_the_norm(p, monkeypatch):
    def forward(model, x):
        x = model.norm(model.stem(x).flatten(2).transpose(1, 2)) + model.positions
        return model.classifier(model.blocks(model.projection(x)).mean(1))

    monkeypatch.setattr(fnet.FNetModel, "forward", forward)


@pytest.mark.parametrize(
    "mistake",
    [
        one_axis_only,
        magnitude,
        orthonormal,
        over_the_batch_too,
        inner_real_part,
        pre_norm,
        no_skip_around_the_transform,
        no_embedding_projection,
        positions_after_the_norm,
    ],
)
def test_logits_show_the_classic_mistakes(mistake, parity, monkeypatch):
    spec = replace(TI16, resolution=80, blocks=4)
    planted = parity(ARCHITECTURE.build(spec, num_classes=11), Reference(spec, 11), 80)
    planted.check()
    mistake(planted, monkeypatch)
    planted.noticed()


def by_the_formula(x):
    """Equation (3) with matrices of cosines and sines, in float64."""
    tokens, dim = x.shape[1:]
    t, d = torch.arange(tokens).double(), torch.arange(dim).double()
    along, across = 2 * torch.pi * torch.outer(t, t) / tokens, 2 * torch.pi * torch.outer(d, d) / dim
    return along.cos() @ x.double() @ across.cos() - along.sin() @ x.double() @ across.sin()


@pytest.mark.parametrize("shape", [(2, 1, 1), (2, 1, 5), (2, 6, 1), (2, 2, 2), (2, 3, 4), (2, 4, 3), (2, 25, 18)])
def test_transform_and_its_gradient_are_the_formula_at_any_size(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = real_fourier(x)
    torch.testing.assert_close(y.double(), by_the_formula(x), atol=1e-4, rtol=1e-4)
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((y * weights).sum(), x)
    again = x.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad((by_the_formula(again) * weights).sum(), again)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)


def test_half_precision_is_transformed_in_float32():
    spec = replace(MICRO, blocks=2)
    model = ARCHITECTURE.build(spec, num_classes=10).eval()
    images = torch.randn(4, 3, 32, 32)
    exact = model(images).detach()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(images)
    torch.testing.assert_close(mixed.detach().float(), exact, atol=0.05 * float(exact.abs().max()), rtol=0)
    halved = model.bfloat16()(images.bfloat16())
    assert halved.dtype is torch.bfloat16
    torch.testing.assert_close(halved.detach().float(), exact, atol=0.1 * float(exact.abs().max()), rtol=0)


def test_double_precision_stays_double():
    block = FNetBlock(6, 24, drop_path=0.0).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    mixed = block.mixing_norm(x + by_the_formula(x))
    expected = block.mlp_norm(mixed + block.mlp(mixed))
    torch.testing.assert_close(block(x), expected, atol=1e-12, rtol=1e-12)


def test_each_knob_moves_its_own_number():
    assert ARCHITECTURE.scale(S16, Scale(depth=1.2)) == replace(S16, blocks=14)  # 14.4
    assert ARCHITECTURE.scale(S16, Scale(depth=1.2), PAPER) == replace(S16, blocks=15)
    assert ARCHITECTURE.scale(S16, Scale(width=1.1)) == replace(S16, dim=422)  # 422.4
    assert ARCHITECTURE.scale(S16, Scale(width=1.1), PAPER) == replace(S16, dim=424)
    assert ARCHITECTURE.scale(S16, Scale(resolution=1.15)) == replace(S16, resolution=256)  # 257.6


@pytest.mark.parametrize("rounding", [FINE, PAPER])
def test_a_padded_side_grows_from_its_padded_size(rounding):
    odd = replace(MICRO, resolution=45, patch_size=4)  # 12 patches
    sides = [ARCHITECTURE.scale(odd, Scale(resolution=by), rounding).resolution for by in (0.3, 0.9, 1.0, 1.01, 1.1)]
    assert sides == [16, 44, 45, 48, 52]


@pytest.mark.parametrize("side", [16, 17, 23, 45])
def test_odd_sides_are_padded_to_whole_patches(side):
    model = ARCHITECTURE.build(replace(MICRO, resolution=side, dim=23), num_classes=10).eval()
    images = torch.randn(2, 3, side, side)
    logits = model(images)
    images[:, :, -1, -1] += 10  # the last pixel counts
    assert not torch.allclose(model(images), logits)
    with pytest.raises(ScalenetError, match=f"{side} x {side} px, got {side + 1} x {side}"):
        model(torch.randn(1, 3, side + 1, side))


def test_positions_are_resampled():
    old, new = FNetSpec(32, 4, 1, 8), FNetSpec(48, 4, 1, 8)
    weights = dict(ARCHITECTURE.build(old, num_classes=3).state_dict())
    assert ARCHITECTURE.resample(weights, old, replace(old, resolution=31)) is weights  # as many patches
    weights["positions"] = torch.linspace(0.0, 1.0, 8)[:, None, None].expand(8, 8, 8).reshape(64, 8)  # downwards
    resampled = ARCHITECTURE.resample(weights, old, new)
    ARCHITECTURE.build(new, num_classes=3).load_state_dict(resampled)
    positions = resampled["positions"].view(12, 12, 8)
    torch.testing.assert_close(positions, positions[:, :1, :1].expand(12, 12, 8))
    assert (positions[3:-3, 0, 0].diff() > 0.05).all()


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(replace(MICRO, blocks=4), num_classes=10, drop_path=0.3)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    images = torch.randn(8, 3, 32, 32)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_micro_has_every_part():
    model = ARCHITECTURE.build(MICRO, num_classes=10)
    assert sum(isinstance(m, FNetBlock) for m in model.modules()) == MICRO.blocks
    assert model.positions.shape == (MICRO.grid**2, MICRO.dim)
