"""Every check lets a sound architecture pass, and has a broken one that trips it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional as F

from scalenet import plugins
from scalenet.architecture import FINE, Rounding, Scale, Size, Variant
from scalenet.cli import cli
from scalenet.conformance import CHECKS, SLOW_CHECKS, Violation
from scalenet.conformance.run import check, select
from scalenet.errors import ScalenetError
from scalenet.objectives import CrossEntropy
from tests.toy import Toy, ToyNet, ToySpec

MICRO = ToySpec((3, 4), (12, 16), 32)
SMALL = ToySpec((2, 3), (8, 16), 24)


class Net(ToyNet):
    """The toy's network with its last linear map under the contract's name."""

    def __init__(self, spec: ToySpec, num_classes: int, in_channels: int) -> None:
        super().__init__(spec, num_classes, in_channels)
        self.classifier = self.head
        del self.head

    def features(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x))
        return logits


class Sound(Toy):
    """Keeps every sentence of the contract."""

    # By hand: the convolutions have 3*8*9, 8*8*9, 8*16*9 and twice 16*16*9 weights, at 12 x 12 and 6 x 6 outputs.
    variants: Mapping[str, Variant[ToySpec]] = {
        "small": Variant(
            SMALL,
            4,
            "made for tests",
            params=216 + 576 + 1152 + 2 * 2304 + 2 * (8 + 8 + 16 + 16 + 16) + 16 * 4 + 4,
            flops=144 * (216 + 576) + 36 * (1152 + 2 * 2304) + 64,
        ),
        "micro": Variant(MICRO, 10, "made for tests"),
    }
    net: type[Net] = Net

    def build(self, spec: Any, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        return self.net(spec, num_classes, in_channels)


def with_net(name: str, **members: Any) -> Sound:
    """A sound architecture but for what its network does otherwise."""
    return type("Broken", (Sound,), {"net": type(name, (Net,), members)})()


def with_scale(scale: Any) -> Sound:
    return type("Broken", (Sound,), {"scale": scale})()


def with_variants(**changed: Variant[Any]) -> Sound:
    return type("Broken", (Sound,), {"variants": {**Sound.variants, **changed}})()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_sound_architecture_passes(check):
    check(Sound())


class Shout(Sound):
    name = "Toy!"


class Stray(Sound):
    paper = "a paper"


class Micro(Sound):
    baseline = "micro"


@dataclass(frozen=True)
class Listed(ToySpec):
    widths: Any = field(default_factory=lambda: [8, 16])


def grows_by_one(self, spec, by, rounding=FINE):
    return replace(Sound.scale(self, spec, by, rounding), resolution=spec.resolution + (rounding is not FINE))


def alternates(calls=itertools.count()):  # noqa: B008 (one counter for all calls is the mistake)
    def scale(self, spec, by, rounding=FINE):
        return replace(Toy.scale(self, spec, by, rounding), resolution=spec.resolution + 8 * next(calls))

    return scale


def depth_widens(self, spec, by, rounding=FINE):
    return Toy.scale(self, spec, replace(by, resolution=by.resolution * by.depth), rounding)


def backwards(self, spec, by, rounding=FINE):
    return Toy.scale(self, spec, replace(by, width=by.width if by.width < 1.3 else 1.3 / by.width), rounding)


def stuck(self, spec, by, rounding=FINE):
    return Toy.scale(self, spec, replace(by, depth=1.0), rounding)


def coarse(self, spec: ToySpec, by: Scale, rounding: Rounding = FINE) -> ToySpec:
    """Widths in steps of 64, sides in steps of 32."""
    scaled = Toy.scale(self, spec, by, rounding)
    if by.width != 1.0:
        scaled = replace(scaled, widths=tuple(max(64, w // 64 * 64) for w in scaled.widths))
    if by.resolution != 1.0:
        scaled = replace(scaled, resolution=max(32, scaled.resolution // 32 * 32))
    return scaled


def whole_stages(self, spec: ToySpec, by: Scale, rounding: Rounding = FINE) -> ToySpec:
    """Depth in steps of the whole network."""
    return Toy.scale(self, spec, replace(by, depth=float(max(1, round(by.depth)))), rounding)


def only_multiples_of_8(self, x: Tensor) -> Tensor:
    if x.shape[2] % 8:
        raise ValueError(f"a side of {x.shape[2]}")
    return Net.forward(self, x)


def drops_the_border(self, x: Tensor) -> Tensor:
    return Net.forward(self, x[:, :, : x.shape[2] // 16 * 16, : x.shape[3] // 16 * 16])


def unused_layer(self, spec, num_classes, in_channels):
    Net.__init__(self, spec, num_classes, in_channels)
    self.spare = nn.Linear(3, 3)


def mixes_the_batch(self, x: Tensor) -> Tensor:
    y = self.features(x)
    return self.classifier(y - y.mean(0))


def forgets_nothing(self, x: Tensor) -> Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return Net.forward(self, x) * self.calls


def blind(self, x: Tensor) -> Tensor:
    return self.classifier(self.features(x * 0.0))


def unseeded(self, spec, num_classes, in_channels):
    Net.__init__(self, spec, num_classes, in_channels)
    with torch.no_grad():
        self.classifier.weight.normal_(generator=torch.Generator().manual_seed(next(SEEDS)))


SEEDS = itertools.count()


def always_the_same(self, spec, num_classes, in_channels):
    torch.manual_seed(0)
    Net.__init__(self, spec, num_classes, in_channels)


def hides_a_weight(self, spec, num_classes, in_channels):
    Net.__init__(self, spec, num_classes, in_channels)
    self.hidden = [nn.Linear(spec.widths[-1], spec.widths[-1])]  # a list, not a ModuleList


def uses_the_hidden(self, x: Tensor) -> Tensor:
    return self.classifier(self.hidden[0](self.features(x)))


def table_of_positions(self, spec, num_classes, in_channels):
    Net.__init__(self, spec, num_classes, in_channels)
    self.positions = nn.Parameter(torch.randn(1, in_channels, spec.resolution, spec.resolution))


def adds_positions(self, x: Tensor) -> Tensor:
    return Net.forward(self, x + self.positions)


def mystery(self, x: Tensor) -> Tensor:
    return Net.forward(self, x) + torch.linalg.matrix_exp(torch.ones(2, 2, device=x.device)).sum()


def free_resolution(self, x: Tensor) -> Tensor:
    return Net.forward(self, F.interpolate(x, (16, 16)))


def overflows(self, x: Tensor) -> Tensor:
    logits = Net.forward(self, x)
    return logits * 1e30 * 1e30 if logits.dtype == torch.bfloat16 else logits


def asks_for_values(self, x: Tensor) -> Tensor:
    logits = Net.forward(self, x)
    return logits if float(x.detach().sum()) > -1e9 else -logits


def breaks_inductor(self, x: Tensor) -> Tensor:
    return Net.forward(self, x) * (2.0 if torch.compiler.is_compiling() else 1.0)


def not_named(self, x: Tensor) -> Tensor:
    return self.out(self.features(x))


def renamed(self, spec, num_classes, in_channels):
    Net.__init__(self, spec, num_classes, in_channels)
    self.out = self.classifier
    del self.classifier


class Judge(CrossEntropy):
    def evaluate(self, model, fit, held):
        return {"loss": 1.0}


class Judged(Sound):
    def objective(self, spec):
        return Judge()


class Excused(Sound):
    unlearned = {"spare.*": ""}  # noqa: RUF012


class ExcusedNobody(Sound):
    unlearned = {"nobody.*": "for a reason"}  # noqa: RUF012


BROKEN = [
    ("names", Shout(), "lower-case"),
    ("names", Stray(), "must be a URL"),
    ("names", Micro(), "baseline must be a published variant"),
    ("names", with_variants(large=Variant(SMALL, 4, " ")), "variant large: source"),
    ("names", with_variants(tiny=Variant(replace(SMALL, resolution=8), 4, "x")), "16 px or more"),
    ("plain_spec", with_variants(large=Variant(Listed(), 4, "x")), "hashable"),
    ("plain_spec", with_variants(large=Variant(replace(SMALL, depths=(2, 3.0)), 4, "x")), "plain data"),
    ("scale_identity", with_scale(grows_by_one), "must return it"),
    ("scale_purity", with_scale(alternates()), "the same spec every time"),
    ("knobs_move_alone", with_scale(depth_widens), "resolution moves along"),
    ("knobs_move_alone", with_scale(backwards), "a larger factor builds less"),
    ("knobs_move_alone", with_scale(stuck), "depth x 4 builds"),
    ("grid_builds", with_net("Picky", forward=only_multiples_of_8), "ValueError: a side of"),
    ("odd_sides_run", with_net("Cropper", forward=drops_the_border), "rows and columns of pixels never reach"),
    ("logits_shape", with_net("Two", forward=lambda self, x: Net.forward(self, x)[:, :2]), "logits (2, 10) asked"),
    ("logits_shape", with_net("Nan", forward=lambda self, x: Net.forward(self, x) * float("nan")), "not finite"),
    ("logits_shape", with_net("Anonymous", __init__=renamed, forward=not_named), "`classifier`"),
    ("parameters_learn", with_net("Spare", __init__=unused_layer), "spare.weight, spare.bias"),
    ("parameters_learn", Excused(), "needs a reason"),
    ("parameters_learn", ExcusedNobody(), "no parameter is called nobody"),
    ("lattice_distinct", with_scale(coarse), "keeps"),
    ("lattice_distinct", with_scale(whole_stages), "keeps"),
    ("samples_independent", with_net("Mixer", forward=mixes_the_batch), "one by one"),
    ("samples_independent", with_net("Counting", forward=forgets_nothing), "the same output twice"),
    ("samples_independent", with_net("Blind", forward=blind), "different pictures"),
    ("seed_fixes_init", with_net("Unseeded", __init__=unseeded), "classifier.weight"),
    ("seed_fixes_init", with_net("Fixed", __init__=always_the_same), "two seeds"),
    (
        "state_dict_round_trip",
        with_net("Hidden", __init__=hides_a_weight, forward=uses_the_hidden),
        "not in state_dict",
    ),
    ("resamples", with_net("Positions", __init__=table_of_positions, forward=adds_positions), "positions is"),
    ("flops_counted", with_net("Mystery", forward=mystery), "matrix_exp"),
    ("flops_can_double", with_net("Flat", forward=free_resolution), "resolution x 4 costs 1.00"),
    ("trains_in_bf16", with_net("Overflowing", forward=overflows), "in bfloat16 the losses"),
    ("objective_judges", Judged(), "must give top1"),
    ("exports", with_net("Asking", forward=asks_for_values), "cannot be exported"),
    ("matches_published", with_variants(small=replace(Sound.variants["small"], params=7000)), "published 7,000"),
    ("matches_published", with_variants(small=replace(Sound.variants["small"], flops=7000)), "published 7,000"),
]


@pytest.mark.parametrize(("name", "broken", "words"), BROKEN, ids=[f"{n}-{i}" for i, (n, _, _) in enumerate(BROKEN)])
def test_a_broken_one_trips_it(name, broken, words):
    [check] = select([name])
    with pytest.raises(Violation) as caught:
        check(broken)
    assert words in str(caught.value)


def test_every_check_has_a_broken_architecture():
    assert {name for name, _, _ in BROKEN} == {check.__name__ for check in CHECKS}


@pytest.mark.slow
@pytest.mark.parametrize("check", SLOW_CHECKS, ids=lambda check: check.__name__)
def test_compiling(check):
    check(Sound())
    with pytest.raises(Violation, match="compiled it gives another output"):
        check(with_net("Twofold", forward=breaks_inductor))


def test_what_a_plugin_raises_is_a_violation_and_the_other_checks_go_on():
    results = check(with_scale(lambda self, spec, by, rounding=FINE: 1 / 0), select(["scale_identity", "names"]))
    assert [result.check for result in results] == ["scale_identity", "names"]
    assert results[0].violation == "raised ZeroDivisionError: division by zero"
    assert results[1].violation is None


def test_an_unknown_check_gets_a_did_you_mean():
    with pytest.raises(ScalenetError, match="Did you mean 'exports'"):
        select(["export"])


def test_the_command(monkeypatch):
    registry = plugins.Registry({"toy": Sound(), "Toy!": Shout()}, {}, {}, {})
    monkeypatch.setattr(plugins, "registry", lambda: registry)
    told = CliRunner().invoke(cli, ["check", "--check", "names", "--check", "plain_spec", "--workers", "1"])
    assert told.exit_code == 1
    assert "2 of 2" in told.output
    assert "1 of 2" in told.output
    assert "Toy!: names: name must be lower-case" in told.output
    one = CliRunner().invoke(cli, ["check", "-p", "toy", "--check", "names", "--json"])
    assert one.exit_code == 0
    [result] = json.loads(one.output)
    assert (result["check"], result["violation"]) == ("names", None)


def test_the_list_says_what_each_check_asks():
    told = CliRunner().invoke(cli, ["check", "--list", "--all", "--json"])
    rows = json.loads(told.output)
    assert [row["check"] for row in rows] == [check.__name__ for check in (*CHECKS, *SLOW_CHECKS)]
    assert all(row["what"].endswith(".") for row in rows)


def test_sizes_are_the_toys():
    assert Sound().size(MICRO) == Size(7, (3 * 12 + 4 * 16) / 7, 32)
