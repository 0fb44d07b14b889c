from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
import torchvision
from scalenet_plugins import simclr
from scalenet_plugins.simclr import MICRO, Contrastive, Other, SimCLR, SimCLRSpec, nt_xent
from torch import nn
from torch.nn import functional as F

from scalenet import plugins
from scalenet.architecture import PAPER, Scale
from scalenet.cli import cli
from scalenet.complexity import measure
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath
from scalenet.objectives import CrossEntropy
from scalenet.plain import from_plain, to_plain
from tests.pictures import png_folder
from tests.plugins.references.simclr import slow_nt_xent

ARCHITECTURE = SimCLR()

PUBLISHED = {  # torchvision's encoders with a head, torch's FlopCounterMode / 2
    "r50_v1head": (27966656, 4091592704, 128),
    "r50_tfhead": (27968832, 4091592704, 128),
    "r50_linear": (30015656, 4089184256, 1000),
    "r18_v1head": (11504832, 1813889024, 128),
}

# n, d, temperature: three public implementations agree
GOLDEN = {
    (2, 4, 0.5): 1.6590193204,
    (4, 8, 0.5): 2.3139405273,
    (8, 128, 0.1): 3.2461325018,
    (32, 128, 0.5): 4.1626573873,
    (16, 128, 1.0): 3.4190083048,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_are_the_published_ones(name):
    cost = measure(ARCHITECTURE, ARCHITECTURE.variants[name].spec, num_classes=1000)
    assert (cost.params, cost.flops) == PUBLISHED[name][:2]
    with torch.device("meta"):
        model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=1000)
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, PUBLISHED[name][2])


@pytest.mark.parametrize(("name", "peer", "side"), [("r50_v1head", "resnet50", 64), ("r18_v1head", "resnet18", 75)])
def test_features_are_torchvisions(name, peer, side, parity):
    reference = getattr(torchvision.models, peer)()
    reference.fc = nn.Identity()
    model = ARCHITECTURE.build(ARCHITECTURE.variants[name].spec, num_classes=0)
    parity(model.encoder, reference, side).check()


def test_a_stride_on_the_first_convolution_shows_in_the_features(parity):
    reference = torchvision.models.resnet50()
    reference.fc = nn.Identity()
    model = ARCHITECTURE.build(ARCHITECTURE.variants["r50_v1head"].spec, num_classes=0)
    planted = parity(model.encoder, reference, 64)
    for block in model.encoder.blocks:
        block.branch[0][0].stride, block.branch[1][0].stride = block.branch[1][0].stride, (1, 1)
    planted.noticed()


def drawn(n, d):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, d, generator=generator), torch.randn(n, d, generator=generator)


@pytest.mark.parametrize("case", GOLDEN)
def test_the_loss_has_the_golden_values(case):
    n, d, temperature = case
    first, second = drawn(n, d)
    assert nt_xent(first, second, temperature).item() == pytest.approx(GOLDEN[case], abs=1e-6)
    assert slow_nt_xent(first, second, temperature) == pytest.approx(GOLDEN[case], abs=1e-6)


def test_the_loss_is_computed_in_float32_whatever_surrounds_it():
    for n, d, temperature in ((1, 4, 0.1), (2, 3, 0.01), (7, 8, 100.0), (3, 4, 1e6)):
        first, second = drawn(n, d)
        first.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nt_xent(first, second, temperature)
        loss.backward()
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(slow_nt_xent(first.detach(), second, temperature), abs=1e-5)
        assert first.grad.isfinite().all()


def test_the_loss_of_equal_embeddings_and_of_any_length():
    same = torch.ones(8, 16)
    assert nt_xent(same, same, 0.3).item() == pytest.approx(math.log(15), abs=1e-6)
    first, second = drawn(4, 8)
    assert nt_xent(3 * first, second / 7, 0.5).item() == pytest.approx(GOLDEN[4, 8, 0.5], abs=1e-6)


def self_similarity_in_the_denominator(z1, z2, temperature):
    z = F.normalize(torch.cat((z1, z2)))
    return F.cross_entropy(z @ z.T / temperature, torch.arange(len(z)).roll(len(z1)))


def one_direction_only(z1, z2, temperature):
    z = F.normalize(torch.cat((z1, z2)))
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity[: len(z1)], torch.arange(len(z)).roll(len(z1))[: len(z1)])


def summed_over_the_directions(z1, z2, temperature):
    return 2 * nt_xent(z1, z2, temperature)


def not_normalised(z1, z2, temperature):
    z = torch.cat((z1, z2))
    similarity = (z @ z.T / temperature).fill_diagonal_(-math.inf)
    return F.cross_entropy(similarity, torch.arange(len(z)).roll(len(z1)))


def wrongly_paired(z1, z2, temperature):
    z = torch.cat((z1, z2))
    return nt_xent(z[0::2], z[1::2], temperature)


def without_the_positive_in_the_denominator(z1, z2, temperature):
    z = F.normalize(torch.cat((z1, z2)))
    similarity = z @ z.T / temperature
    at = torch.arange(len(z))
    positives = similarity[at, at.roll(len(z1))]
    similarity = similarity.fill_diagonal_(-math.inf).index_put((at, at.roll(len(z1))), torch.tensor(-math.inf))
    return (similarity.logsumexp(1) - positives).mean()


@pytest.mark.parametrize(
    "mistake",
    [
        self_similarity_in_the_denominator,
        one_direction_only,
        summed_over_the_directions,
        not_normalised,
        wrongly_paired,
        without_the_positive_in_the_denominator,
    ],
)
def test_the_golden_values_show_the_classic_mistakes(mistake):
    n, d, temperature = 4, 8, 0.5
    assert abs(mistake(*drawn(n, d), temperature).item() - GOLDEN[n, d, temperature]) > 1e-3


def test_the_objective_shows_both_views_to_the_model_in_one_batch_and_computes_in_float32():
    objective = ARCHITECTURE.objective(MICRO)
    model = ARCHITECTURE.build(MICRO, num_classes=0)
    views = objective.views(torch.rand(6, 3, 32, 32), torch.Generator().manual_seed(1))
    assert [view.shape for view in views] == [(6, 3, 32, 32)] * 2
    z = model(torch.cat(views))
    loss = objective.loss(model, views, torch.zeros(6, dtype=torch.long))
    assert loss.item() == pytest.approx(slow_nt_xent(z[:6], z[6:], 0.5), abs=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = objective.loss(model, views, torch.zeros(6, dtype=torch.long))
        z = model(torch.cat(views))
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(slow_nt_xent(z[:6].float(), z[6:].float(), 0.5), abs=1e-4)


class Lookup(nn.Module):
    """An encoder whose features are the pictures' first numbers, and a head that destroys them."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Flatten()
        self.head = nn.Linear(48, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(self.encoder(x))


def batches(n, seed):
    centres = torch.randn(10, 48, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % 10
    features = centres[labels] + 0.5 * torch.randn(n, 48, generator=torch.Generator().manual_seed(seed))
    return [(f.view(-1, 3, 4, 4), y) for f, y in zip(features.split(32), labels.split(32), strict=True)]


def test_evaluation_judges_h_and_not_z():
    objective, model = Contrastive(0.5, 0.5, 0.5), Lookup().eval()
    scores = objective.evaluate(model, batches(200, 0), batches(90, 1))
    assert list(scores) == ["top1", "knn_top1"]
    assert min(scores.values()) > 0.9
    assert scores == objective.evaluate(model, batches(200, 0), batches(90, 1))
    model.encoder = nn.Sequential(nn.Flatten(), model.head)  # the classic mistake: a probe on z
    assert max(objective.evaluate(model, batches(200, 0), batches(90, 1)).values()) < 0.3
    with pytest.raises(ScalenetError, match="no pictures"):
        objective.evaluate(model, [], batches(90, 1))


def test_the_tasks():
    linear = ARCHITECTURE.variants["r50_linear"].spec
    assert isinstance(ARCHITECTURE.objective(linear), CrossEntropy)
    assert isinstance(ARCHITECTURE.objective(MICRO), Contrastive)
    model = ARCHITECTURE.build(replace(MICRO, task="linear"), num_classes=7)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    dead = {name for name, p in model.named_parameters() if p.grad is None}
    assert dead == {name for name, _ in model.named_parameters() if name.startswith("idle_head.")}
    released = ARCHITECTURE.build(replace(MICRO, head="tf"), num_classes=0)
    assert [n for n, p in released.named_parameters() if not p.requires_grad] == ["head.4.bias"]


def test_the_pretrained_encoder_fits_the_linear_task():
    torch.manual_seed(0)
    pretrained = ARCHITECTURE.build(MICRO, num_classes=0).eval()
    part = ARCHITECTURE.encoder(MICRO, pretrained.state_dict())
    assert part.plugin == "simclr"
    model = ARCHITECTURE.build(part.spec, num_classes=5).eval()
    missing = model.load_state_dict(part.weights, strict=False)
    assert missing.unexpected_keys == []
    assert missing.missing_keys == ["classifier.weight", "classifier.bias"]
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model.encoder(images), pretrained.encoder(images))
    assert ARCHITECTURE.encoder(part.spec, model.state_dict()) is None


def test_another_plugin_is_the_encoder():
    variant = ARCHITECTURE.variant("mobilevit/micro")
    spec, other = variant.spec, plugins.architecture("mobilevit")
    assert variant.num_classes == 0
    assert hash(spec) == hash(from_plain(SimCLRSpec, to_plain(spec), "here"))
    assert from_plain(SimCLRSpec, to_plain(spec), "here") == spec
    inner = other.variants["micro"].spec
    assert ARCHITECTURE.scale(spec, Scale()) == spec
    for by in (Scale(depth=2.0), Scale(width=1.5), Scale(resolution=1.3)):
        scaled = ARCHITECTURE.scale(spec, by)
        assert scaled.other.spec == to_plain(other.scale(inner, by))
        assert ARCHITECTURE.size(scaled) == other.size(other.scale(inner, by))
    pretrained = ARCHITECTURE.build(spec, num_classes=0, in_channels=3, drop_path=0.1).eval()
    assert pretrained(torch.randn(2, 3, 32, 32)).shape == (2, 32)
    part = ARCHITECTURE.encoder(spec, pretrained.state_dict())
    assert (part.plugin, part.spec) == ("mobilevit", inner)
    model = other.build(part.spec, num_classes=5)
    missing = model.load_state_dict(part.weights, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["classifier.weight", "classifier.bias"], [])
    assert ARCHITECTURE.variant("mobilevit").spec.other.spec == to_plain(other.variants[other.baseline].spec)
    whole = measure(other, inner, num_classes=0 + 1)
    ours = measure(ARCHITECTURE, spec, num_classes=0)
    width = model.classifier.in_features
    assert ours.flops - whole.flops == width * width + width * 32 - width


def test_another_plugins_formulas_are_counted():
    spec = ARCHITECTURE.variant("involution/micro").spec
    assert (
        measure(ARCHITECTURE, spec, num_classes=0).flops
        > measure(
            plugins.architecture("involution"), plugins.architecture("involution").variants["micro"].spec, num_classes=1
        ).flops
    )
    assert set(plugins.architecture("involution").flop_counts) <= set(ARCHITECTURE.flop_counts)


def test_another_plugins_tables_are_resampled():
    class Table(type(plugins.architecture("mobilevit"))):
        def resample(self, weights, old, new):
            return {name: weight + new.resolution - old.resolution for name, weight in weights.items()}

    spec = ARCHITECTURE.variant("mobilevit/micro").spec
    larger = ARCHITECTURE.scale(spec, Scale(resolution=1.5))
    weights = {"encoder.table": torch.zeros(2), "head.0.weight": torch.ones(2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simclr.plugins, "architecture", lambda name: Table())
        moved = ARCHITECTURE.resample(weights, spec, larger)
    assert {name: weight.tolist() for name, weight in moved.items()} == {
        "encoder.table": [16.0, 16.0],
        "head.0.weight": [1.0, 1.0],
    }


def test_weights_of_another_plugins_network_are_left_to_be_refused():
    vit, mobilevit = (ARCHITECTURE.variant(f"{name}/micro").spec for name in ("vit", "mobilevit"))
    weights = ARCHITECTURE.build(vit, num_classes=0).state_dict()
    other = ARCHITECTURE.scale(mobilevit, Scale(resolution=1.5))
    assert dict(ARCHITECTURE.resample(weights, vit, other)) == weights


def test_other_encoders_are_trained_as_the_own_of_their_size():
    small, large = (ARCHITECTURE.variant(f"mobilevit/{name}").spec for name in ("micro", "xs"))
    for spec, own in ((small, MICRO), (large, ARCHITECTURE.variants["r50_v1head"].spec)):
        for key in ("temperature", "strength", "crop", "projection"):
            assert getattr(spec, key) == getattr(own, key)


def test_bad_encoders_and_specs_are_refused(monkeypatch):
    for name in ("simclr", "simclr/micro"):
        with pytest.raises(ScalenetError, match="network of another plugin, got simclr"):
            ARCHITECTURE.variant(name)
    with pytest.raises(ScalenetError, match="Did you mean 'mobilevit'"):
        ARCHITECTURE.variant("mobilvit/micro")
    with pytest.raises(ScalenetError, match="variant of simclr"):
        ARCHITECTURE.variant("r51")
    with pytest.raises(ScalenetError, match="either resnet or other"):
        replace(MICRO, resnet=None)
    with pytest.raises(ScalenetError, match="above 0, got 0"):
        replace(MICRO, temperature=0.0)
    with pytest.raises(ScalenetError, match="above 0 and at most 1, got 0"):
        replace(MICRO, crop=0.0)
    spec = ARCHITECTURE.variant("mobilevit/micro").spec
    with pytest.raises(ScalenetError, match="must be contrastive"):
        replace(spec, task="linear")
    with pytest.raises(ScalenetError, match="its encoder's 32, got 64"):
        replace(spec, resolution=64)
    with pytest.raises(ScalenetError, match="another plugin, got simclr"):
        ARCHITECTURE.build(SimCLRSpec(32, other=Other("simclr", to_plain(MICRO))), num_classes=0)
    monkeypatch.setattr(type(plugins.architecture("mobilevit")), "build", lambda self, spec, **_: nn.Flatten())
    with pytest.raises(ScalenetError, match=r"must be an nn\.Linear, got NoneType of mobilevit"):
        ARCHITECTURE.build(spec, num_classes=0)


def test_width_scales_every_channel_number_and_the_head():
    spec = ARCHITECTURE.variants["r50_v1head"].spec
    twice = ARCHITECTURE.scale(spec, Scale(width=2.0))
    cost = measure(ARCHITECTURE, twice, num_classes=0)
    assert cost.params == 111212800  # the paper's 2x
    assert cost.flops == pytest.approx(16.13e9, rel=1e-3)
    assert ARCHITECTURE.scale(spec, Scale(1.2, 1.1, 1.15), PAPER).resolution == 256


@pytest.mark.parametrize("side", [16, 17, 23, 45])
def test_odd_sides(side):
    model = ARCHITECTURE.build(MICRO, num_classes=0).eval()
    assert model(torch.randn(2, 3, side, side + 1)).shape == (2, 32)
    views = Contrastive(0.5, 0.5, 0.5).views(torch.rand(2, 3, side, side), torch.Generator())
    assert views[0].shape == (2, 3, side, side)


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(MICRO, num_classes=0, drop_path=0.6)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx([0.1 * i for i in range(7)])


def top1s(out):
    return [json.loads(line)["top1"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("variant", "supervised", "side"),
    [
        ("micro", ("--plugin", "simclr", "--variant", "micro_linear"), 16),
        ("mobilevit/micro", ("--plugin", "mobilevit"), 16),
        ("vit/micro", ("--plugin", "vit"), 20),  # its table of positions is resampled
    ],
)
def test_pretrained_weights_start_a_supervised_run(variant, supervised, side, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    few = ("--data", str(png_folder(tmp_path / "pictures")), "--epochs", "1", "--set", "batch_size=8", "--threads", "1")

    def train(*arguments):
        cli.main(["train", *arguments, *few], standalone_mode=False)
        return capsys.readouterr().out

    pre, tuned = tmp_path / "pre", tmp_path / "tuned"
    said = train("--plugin", "simclr", "--variant", variant, "--resolution", "16", "--out", str(pre))
    assert "encoder.yaml" in said
    weights = str(pre / "weights.safetensors")
    said = train(*supervised, "--resolution", str(side), "--init-from", weights, "--out", str(tuned))
    assert "classifier.weight, classifier.bias start afresh" in said
    assert "encoder.yaml" not in said
    assert all(0 <= top1 <= 1 for top1 in top1s(tuned))
    train(str(pre / "encoder.yaml"), "--init-from", weights)  # the same model, at the pretraining's side
    if side == 16:
        assert top1s(pre / "encoder") == top1s(tuned)
    on = ("--out", str(tmp_path / "on"))
    train("--plugin", "simclr", "--variant", variant, "--resolution", str(side), "--init-from", weights, *on)
    with pytest.raises(ScalenetError, match="this model is a fnet"):
        train("--plugin", "fnet", "--resolution", "16", "--init-from", weights, "--out", str(tmp_path / "other"))
