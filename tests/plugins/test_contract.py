"""What the contract asks of every architecture, of the three mobile ones."""

from __future__ import annotations

import pytest
import torch
from scalenet_plugins.efficientnet import EfficientNet
from scalenet_plugins.mobilenet import MobileNet
from scalenet_plugins.mobilevit import MobileViT

from scalenet.architecture import FINE, PAPER, Scale
from scalenet.plain import from_plain, to_plain

ARCHITECTURES = {a.name: a for a in (EfficientNet(), MobileNet(), MobileViT())}
VARIANTS = [(name, variant) for name, a in ARCHITECTURES.items() for variant in (a.baseline, "micro")]
KNOBS = ("depth", "width", "resolution")

each = pytest.mark.parametrize("name", ARCHITECTURES)
each_variant = pytest.mark.parametrize(("name", "variant"), VARIANTS)


@each
@pytest.mark.parametrize("rounding", [FINE, PAPER])
def test_scale_of_one_is_the_identity(name, rounding):
    for variant in ARCHITECTURES[name].variants.values():
        assert ARCHITECTURES[name].scale(variant.spec, Scale(), rounding) == variant.spec


@each_variant
@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_moves_alone(name, variant, knob, counts):
    architecture = ARCHITECTURES[name]
    spec = architecture.variants[variant].spec
    start = architecture.size(spec)
    params, macs = counts(architecture, spec, 10)
    for factor in (0.5, 4.0):
        scaled = architecture.scale(spec, Scale(**{knob: factor}))
        size = architecture.size(scaled)
        assert (size.depth != start.depth) == (knob == "depth")
        assert (size.resolution != start.resolution) == (knob == "resolution")
        if knob == "width":  # the mean over blocks moves a little with depth, whose stages round by themselves
            assert size.width == pytest.approx(start.width * factor, rel=0.1)
        grown, paid = counts(architecture, scaled, 10)
        assert (grown == params) == (knob == "resolution")
        assert (paid > macs) == (factor > 1)


@each_variant
def test_depth_has_as_many_steps_as_blocks(name, variant):
    architecture = ARCHITECTURES[name]
    spec = architecture.variants[variant].spec
    start = architecture.size(spec).depth
    for extra in range(start + 1):
        assert architecture.size(architecture.scale(spec, Scale(depth=(start + extra) / start))).depth == start + extra


@each
@pytest.mark.parametrize("side", [16, 17, 23, 32, 45])
def test_builds_what_it_is_given_at_any_side_from_16_pixels(name, side):
    architecture = ARCHITECTURES[name]
    model = architecture.build(architecture.variants["micro"].spec, num_classes=7, in_channels=1).eval()
    assert model(torch.randn(2, 1, side, side + 1)).shape == (2, 7)


@each
def test_the_baseline_takes_16_pixels(name):
    architecture = ARCHITECTURES[name]
    with torch.device("meta"):
        model = architecture.build(architecture.variants[architecture.baseline].spec, num_classes=7).eval()
        assert model(torch.empty(2, 3, 16, 16)).shape == (2, 7)


@each
def test_a_spec_is_plain_data(name):
    architecture = ARCHITECTURES[name]
    for variant in architecture.variants.values():
        assert from_plain(architecture.spec_type(), to_plain(variant.spec), "here") == variant.spec


@each
def test_micro_suits_a_laptop(name, counts):
    variant = ARCHITECTURES[name].variants["micro"]
    params, macs = counts(ARCHITECTURES[name], variant.spec, variant.num_classes)
    assert (variant.spec.resolution, variant.num_classes) == (32, 10)
    assert "ours" in variant.source
    assert 0.5e6 < macs < 2e6
    assert params < 1e5
    model = ARCHITECTURES[name].build(variant.spec, num_classes=10)
    assert model.blocks(model.stem(torch.randn(2, 3, 32, 32))).shape[2:] == (4, 4)


@each
def test_micro_trains(name):
    # Ten classes of one colour each: a few steps suffice unless a gradient is cut or the start is off.
    torch.manual_seed(0)
    model = ARCHITECTURES[name].build(ARCHITECTURES[name].variants["micro"].spec, num_classes=10)
    colours, noise = torch.randn(10, 3, 1, 1), 0.2 * torch.randn(40, 3, 32, 32)
    labels = torch.arange(40) % 10
    images = colours[labels] + noise
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert 1.0 < losses[0] < 5.0  # ln 10 is 2.3
    assert losses[-1] < 0.5


@each
def test_exports_with_any_batch_and_traces_without_a_break(name):
    architecture = ARCHITECTURES[name]
    model = architecture.build(architecture.variants["micro"].spec, num_classes=10).eval()
    images = torch.randn(3, 3, 33, 33)  # odd: the resizing and padding paths
    with torch.no_grad():
        expected = model(images)
        batch = ({0: torch.export.Dim("batch", min=2, max=64)},)
        program = torch.export.export(model, (images[:2],), dynamic_shapes=batch)
        torch.testing.assert_close(program.module()(images), expected)
        torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(images), expected)
