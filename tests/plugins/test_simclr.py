from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch
import torchvision
from scalenet_plugins import simclr
from scalenet_plugins.simclr import DRAWS, MICRO, Contrastive, Other, SimCLR, SimCLRSpec, augment, knn, nt_xent, probe
from torch import nn
from torch.nn import functional as F

from scalenet import plugins
from scalenet.architecture import PAPER, Scale
from scalenet.complexity import measure
from scalenet.errors import ScalenetError
from scalenet.layers import DropPath
from scalenet.objectives import CrossEntropy
from scalenet.plain import from_plain, to_plain
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


def test_views_follow_from_the_generator_differ_and_stay_within_range():
    objective = Contrastive(0.5, 1.0)
    images = torch.rand(16, 3, 24, 20).contiguous(memory_format=torch.channels_last)
    a, b = objective.views(images, torch.Generator().manual_seed(3))
    c, d = objective.views(images, torch.Generator().manual_seed(3))
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert (a - b).abs().flatten(1).mean(1).min() > 0.01
    assert a.min() >= 0
    assert a.max() <= 1 + 1e-5
    assert a.is_contiguous(memory_format=torch.channels_last)


NOTHING = {  # what each number of a draw is for, and a value with which nothing happens
    "area": 1.0, "aspect": 0.5, "across": 0.5, "down": 0.5, "mirrored": 0.9, "jitters": 0.9,
    "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5, "grey": 0.9, "blurs": 0.9, "sigma": 1.0,
}  # fmt: skip


def view(images, strength=1.0, **draws):
    row = torch.tensor(list({**NOTHING, **draws}.values()))
    assert len(row) == DRAWS
    return augment(images, row.repeat(len(images), 1), strength)


def test_draws_of_nothing_leave_a_picture_alone():
    images = torch.rand(3, 3, 24, 17)
    torch.testing.assert_close(view(images), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(view(images, jitters=0.1), images, atol=1e-5, rtol=0)


def test_crop_and_mirror():
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(view(images, mirrored=0.1), images.flip(3), atol=1e-5, rtol=0)
    # a quarter of the area from the lower left: a square of half the side, magnified twice
    corner = view(images, area=(0.25 - 0.08) / 0.92, across=0.0, down=1.0)
    expected = F.interpolate(images[..., 16:, :16], scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(corner[..., 2:, :-2], expected[..., 2:, :-2], atol=1e-4, rtol=0)
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    spans = [view(ramp, area=0.3, aspect=a)[0, 0, 0, [0, -1]].diff().item() for a in (0.0, 1.0)]
    assert spans[1] / spans[0] == pytest.approx(4 / 3, rel=0.02)  # widths of aspects 4/3 and 3/4


def test_colours_are_torchvisions():
    images = torch.rand(4, 3, 8, 8)
    functional = torchvision.transforms.functional
    for strength, draw in ((1.0, 0.2), (0.5, 0.85)):
        shift = 2 * draw - 1
        factor = 1 + 0.8 * strength * shift
        pairs = {
            "brightness": functional.adjust_brightness(images, factor),
            "contrast": functional.adjust_contrast(images, factor),
            "saturation": functional.adjust_saturation(images, factor),
            "hue": functional.adjust_hue(images, 0.2 * strength * shift),
        }
        for name, expected in pairs.items():
            ours = view(images, strength, jitters=0.1, **{name: draw})
            torch.testing.assert_close(ours, expected, atol=2e-3, rtol=0)  # luma of 0.2989, 0.587 and 0.114 there
            torch.testing.assert_close(view(images, strength, jitters=0.81, **{name: draw}), images, atol=1e-5, rtol=0)
    grey = view(images, grey=0.1)
    torch.testing.assert_close(grey, functional.rgb_to_grayscale(images, 3), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("side", "kernel"), [(32, 3), (64, 7), (224, 23)])
def test_blur_is_torchvisions_with_a_kernel_of_a_tenth_of_the_side(side, kernel):
    images = torch.rand(2, 3, side, side)
    expected = torchvision.transforms.functional.gaussian_blur(images, kernel, 0.1 + 1.9 * 0.6)
    torch.testing.assert_close(view(images, blurs=0.4, sigma=0.6), expected, atol=1e-5, rtol=0)


def test_pictures_are_changed_as_often_as_the_paper_says():
    draws = torch.rand(2000, DRAWS, generator=torch.Generator().manual_seed(0))
    draws[:, :5] = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.9])
    images = torch.rand(1, 3, 4, 4).expand(2000, 3, 4, 4).contiguous()
    blurred, jittered = draws.clone(), draws.clone()
    blurred[:, 5], blurred[:, 10] = 0.9, 0.9  # no jitter, no greyscale
    jittered[:, 10], jittered[:, 11] = 0.9, 0.9
    grey = draws.clone()
    grey[:, 5], grey[:, 11] = 0.9, 0.9
    for changed, share in ((blurred, 0.5), (jittered, 0.8), (grey, 0.2)):
        seen = (augment(images, changed, 1.0) - images).abs().amax((1, 2, 3)) > 1e-4
        assert seen.float().mean().item() == pytest.approx(share, abs=0.04)


def clusters(n, d, classes, noise, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(n) % classes
    return centres[labels] + noise * torch.randn(n, d, generator=generator), labels


def test_probe_and_neighbours_name_clusters_and_guess_on_noise():
    known, labels = clusters(300, 16, 10, 0.3)
    asked, truth = clusters(100, 16, 10, 0.3, seed=1)
    for judge in (probe, knn):
        assert (judge(known, labels, asked, 10) == truth).float().mean() > 0.95
        blind = judge(torch.randn(300, 16, generator=torch.Generator().manual_seed(2)), labels, asked, 10)
        assert (blind == truth).float().mean() < 0.4


def test_probe_is_the_optimum_of_its_loss():
    known, labels = clusters(200, 6, 4, 1.5)
    asked, _ = clusters(400, 6, 4, 1.5, seed=1)
    z, q = ((x - known.mean(0)) / known.std(0, correction=0) for x in (known, asked))
    weight, bias = torch.zeros(4, 6, requires_grad=True), torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.SGD([weight, bias], lr=0.5)
    for _ in range(1500):
        optimizer.zero_grad()
        (F.cross_entropy(z @ weight.T + bias, labels) + 0.5e-3 * weight.square().sum()).backward()
        optimizer.step()
    slow = (q @ weight.T + bias).argmax(1)
    assert (probe(known, labels, asked, 4) == slow).float().mean() > 0.99


def test_few_pictures_have_fewer_neighbours():
    known, labels = clusters(3, 8, 3, 0.1)
    assert knn(known, labels, known, 3).tolist() == [0, 1, 2]


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
    features, labels = clusters(n, 48, 10, 0.5, seed)
    return [(f.view(-1, 3, 4, 4), y) for f, y in zip(features.split(32), labels.split(32), strict=True)]


def test_evaluation_judges_h_and_not_z():
    objective, model = Contrastive(0.5, 0.5), Lookup().eval()
    scores = objective.evaluate(model, batches(200, 0), batches(90, 1))
    assert list(scores) == ["top1", "knn_top1"]
    assert min(scores.values()) > 0.9
    assert scores == objective.evaluate(model, batches(200, 0), batches(90, 1))
    model.encoder = nn.Sequential(nn.Flatten(), model.head)  # the classic mistake: a probe on z
    assert max(objective.evaluate(model, batches(200, 0), batches(90, 1)).values()) < 0.3
    with pytest.raises(ScalenetError, match="no pictures"):
        objective.evaluate(model, [], batches(90, 1))


def test_evaluation_is_cheap():
    features, labels = clusters(1440, 32, 10, 2.0)
    start = time.process_time()
    probe(features, labels, features[:480], 10)
    knn(features, labels, features[:480], 10)
    assert time.process_time() - start < 1.0


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
    assert pretrained(torch.randn(2, 3, 32, 32)).shape == (2, 128)
    part = ARCHITECTURE.encoder(spec, pretrained.state_dict())
    assert (part.plugin, part.spec) == ("mobilevit", inner)
    model = other.build(part.spec, num_classes=5)
    missing = model.load_state_dict(part.weights, strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == (["classifier.weight", "classifier.bias"], [])
    assert ARCHITECTURE.variant("mobilevit").spec.other.spec == to_plain(other.variants[other.baseline].spec)
    whole = measure(other, inner, num_classes=0 + 1)
    ours = measure(ARCHITECTURE, spec, num_classes=0)
    width = model.classifier.in_features
    assert ours.flops - whole.flops == width * width + width * 128 - width


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
    views = Contrastive(0.5, 0.5).views(torch.rand(2, 3, side, side), torch.Generator())
    assert views[0].shape == (2, 3, side, side)


def test_drop_path_rises_linearly():
    model = ARCHITECTURE.build(MICRO, num_classes=0, drop_path=0.6)
    assert [m.rate for m in model.modules() if isinstance(m, DropPath)] == pytest.approx([0.1 * i for i in range(7)])
