"""A device that is timed: by a made-up stopwatch whose law is known, and once by the real one."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from scalenet import calibrate
from scalenet.architecture import FINE, Rounding, Scale
from scalenet.calibrate import Subject, calibrated, design, timed, usual_batch
from scalenet.device import Numerics
from scalenet.errors import ScalenetError
from scalenet.latency import Coefficients, Setting
from scalenet.meter import Meter
from scalenet.projection import candidates, project
from scalenet.shares import Shares
from scalenet.space import Latency, SearchSpace
from tests.test_projection import design as lattice_points
from tests.toy import Toy, ToyNet, ToySpec

METER = Meter(Toy(), ToySpec((4, 6), (16, 32), 40), num_classes=4)
TRUTH = Coefficients(fixed=0.1, block=0.02, gflop=40.0, mactivation=5.0, spill=20.0)
SPACE = SearchSpace(cost="latency")


class Watch:
    """A stopwatch whose times follow a law; remembers what it was asked for."""

    def __init__(self, law: Coefficients) -> None:
        self.law = law
        self.asked: list[Any] = []

    def __call__(self, subject: Subject, spec: Any) -> float:
        self.asked.append(spec)
        disturbed = {2: 3.0, 5: 0.6, 6: 1.7}.get(self.asked.count(spec), 1.0)  # some rounds do not show the law
        return disturbed * self.law.of(subject.meter.cost(spec), subject.meter.arch.size(spec))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Watch:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path))
    made = Watch(TRUTH)
    monkeypatch.setattr(calibrate, "_milliseconds", made)
    return made


def test_the_law_of_a_device_is_found(watch: Watch) -> None:
    told: list[tuple[int, int, str]] = []
    found = calibrated(METER, SPACE, "cpu", lambda *told_now: told.append(told_now))
    for by in (Scale(), Scale(1.5, 1.2, 1.0), Scale(1.0, 1.3, 1.4)):
        spec = METER.scaled(by)
        at = METER.cost(spec), METER.arch.size(spec)
        assert found.of(*at) == pytest.approx(TRUTH.of(*at), rel=1e-4)
    assert found.r2 > 0.999
    assert found.timings[0].cost == METER.cost(METER.baseline)
    assert 12 <= len(found.timings) <= 20
    assert found.widths == ()  # too many to time them all
    assert watch.asked == [*watch.asked[: len(watch.asked) // 2], *watch.asked[len(watch.asked) // 2 - 1 :: -1]]
    assert [done for done, _, _ in told] == list(range(len(watch.asked)))
    assert {total for _, total, _ in told} == {len(watch.asked)}


def test_the_networks_spread_over_the_family() -> None:
    specs = design(METER)
    assert specs[0] == METER.baseline
    assert len(set(specs)) == len(specs) == 15
    sizes = [METER.arch.size(spec) for spec in specs]
    ratios = [METER.ratio(spec) for spec in specs]
    assert 3.3 < max(ratios) < 5
    for factor in ("depth", "width", "resolution"):
        alone = [
            s
            for s in sizes
            if all(getattr(s, f) == getattr(sizes[0], f) for f in ("depth", "resolution") if f != factor)
        ]
        assert max(getattr(s, factor) for s in alone) > 1.8 * getattr(sizes[0], factor)
    assert sum(s.depth > 10 and s.resolution > 40 for s in sizes) >= 4


class Coarse(Toy):
    """In steps of eight channels."""

    def scale(self, spec: ToySpec, by: Scale, rounding: Rounding = FINE) -> ToySpec:
        scaled = super().scale(spec, by, rounding)
        return replace(scaled, widths=tuple(max(8, 8 * round(width / 8)) for width in scaled.widths))


COARSE = Meter(Coarse(), ToySpec((4, 6), (16, 32), 40), num_classes=4)


def test_where_there_are_few_widths_each_is_timed() -> None:
    specs, by_width = timed(COARSE)
    assert by_width
    assert specs[:15] == design(COARSE)[:15]
    assert len(set(specs)) == len(specs)
    every = {COARSE.scaled(Scale(width=1 + i / 200)) for i in range(190)}
    assert len(every) > 5
    assert every <= set(specs)
    assert timed(METER) == (design(METER), False)


def test_what_a_device_makes_of_a_width_is_foretold(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def slower(spec: ToySpec) -> float:
        return 1.3 if spec.widths[0] % 16 else 1.0

    def milliseconds(subject: Subject, spec: Any) -> float:
        return slower(spec) * watch(subject, spec)

    monkeypatch.setattr(calibrate, "_milliseconds", milliseconds)
    found = calibrated(COARSE, SPACE, "cpu")
    for by in (Scale(1.5, 1.5, 1.0), Scale(1.0, 1.5, 1.4), Scale(1.5, 1.0, 1.2)):  # depths that keep the mean width
        spec = COARSE.scaled(by)
        at = COARSE.cost(spec), COARSE.arch.size(spec)
        assert found.of(*at) == pytest.approx(slower(spec) * TRUTH.of(*at), rel=0.05)
    assert {slower(COARSE.scaled(Scale(width=by))) for by in (1.0, 1.5)} == {1.0, 1.3}


def test_what_was_timed_is_remembered_by_setting(watch: Watch) -> None:
    first = calibrated(METER, SPACE, "cpu")
    seen = len(watch.asked)
    assert calibrated(METER, SPACE, "cpu") == first
    assert len(watch.asked) == seen
    calibrated(METER, replace(SPACE, latency=Latency(threads=2)), "cpu")
    assert len(watch.asked) == 2 * seen
    calibrated(METER, replace(SPACE, latency=Latency(batch_size=3)), "cpu")
    assert len(watch.asked) == 3 * seen
    (calibrate.cache_root() / "latencies").joinpath("other").write_text("")
    for file in (calibrate.cache_root() / "latencies").glob("*.json"):
        file.write_text('{"setting": 3}')  # damaged
    assert calibrated(METER, SPACE, "cpu").coefficients == first.coefficients
    assert len(watch.asked) == 4 * seen


def test_timings_that_are_all_noise_are_not_kept(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def noise(subject: Subject, spec: Any) -> float:
        return (1 + hash(spec) % 100 / 70) * TRUTH.of(METER.cost(spec), METER.arch.size(spec))

    monkeypatch.setattr(calibrate, "_milliseconds", noise)
    assert not calibrated(METER, SPACE, "cpu").good
    assert not list((calibrate.cache_root()).glob("latencies/*"))


def test_corners_that_lie_beyond_the_design_are_timed_too(watch: Watch) -> None:
    watch.law = Coefficients(fixed=2.0, block=0.01, gflop=60.0, mactivation=5.0, spill=0.0)
    found = calibrated(METER, SPACE, "cpu")
    base = METER.cost(METER.baseline).flops
    furthest = max(t.cost.flops for t in found.timings) / base
    assert furthest > 4.6
    priced = METER.priced(found)
    for corner in (Shares(0, 1, 0), Shares(0, 0, 1)):
        made = project(priced, corner)
        assert made.ratio == pytest.approx(2, rel=0.02)
        assert made.cost.flops / base <= 1.02 * furthest


@pytest.mark.parametrize("gflop", [1.0, 12.0])  # the corner cannot be reached; or with over 20 x the FLOPs
def test_a_device_that_is_not_busy_is_refused_with_what_to_do(watch: Watch, gflop: float) -> None:
    watch.law = Coefficients(fixed=1.0, block=0.1, gflop=gflop, mactivation=0.0, spill=0.0)
    with pytest.raises(
        ScalenetError, match=r"doubling width costs 3\.\d+ x the FLOPs but only 1\.\d+ x the latency .*batch_size"
    ):
        calibrated(METER, SPACE, "cpu")


@pytest.mark.parametrize(
    ("flops", "device", "pictures"),
    [(400e6, "cpu", 1), (30e6, "cpu", 1), (14e6, "cpu", 4), (1e6, "cpu", 32), (1.0, "cpu", 1024), (400e6, "cuda", 128)],
)
def test_small_networks_are_given_pictures_until_the_device_is_busy(flops: float, device: str, pictures: int) -> None:
    assert usual_batch(flops, torch.device(device)) == pictures


class Witness(ToyNet):
    seen: ClassVar[list[tuple[bool, bool, int, tuple[int, ...], bool]]] = []

    def forward(self, x: Tensor) -> Tensor:
        last = x.is_contiguous(memory_format=torch.channels_last)
        self.seen.append(
            (self.training, torch.is_inference_mode_enabled(), torch.get_num_threads(), tuple(x.shape), last)
        )
        return super().forward(x)


class Watched(Toy):
    def build(self, spec: ToySpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        return Witness(spec, num_classes, in_channels)


def test_a_pass_is_timed_as_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    Witness.seen = []
    monkeypatch.setattr(calibrate, "SECONDS", 0.001)
    setting = Setting("cpu", 5, 2, "fp32", "channels_last")
    meter = Meter(Watched(), ToySpec(), num_classes=4)
    subject = Subject(meter, torch.device("cpu"), Numerics(channels_last=True, bf16=False), setting)
    before = torch.get_num_threads()
    assert calibrate.milliseconds(subject, [ToySpec()])[0] > 0
    assert set(Witness.seen) == {(False, True, 2, (5, 3, 24, 24), True)}
    assert len(Witness.seen) >= 2 * (calibrate.WARM_UP + calibrate.LEAST)
    assert torch.get_num_threads() == before


class Large(ToyNet):
    """Every pass needs 96 MiB for a moment, beyond what glibc keeps of its own accord; notes the pages it was given."""

    pages: ClassVar[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        import resource  # not on Windows

        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(24 << 20).add_(1)
        self.pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        return super().forward(x)


class OfLarge(Toy):
    def build(self, spec: ToySpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        return Large(spec, num_classes, in_channels)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_no_pass_that_is_timed_waits_for_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "SECONDS", 0.001)
    monkeypatch.setattr(calibrate, "ROUNDS", 2)
    Large.pages = []
    meter = Meter(OfLarge(), ToySpec(), num_classes=4)
    setting = Setting("cpu", 1, 1, "fp32", "channels_last")
    calibrate.milliseconds(Subject(meter, torch.device("cpu"), Numerics(True, False), setting), [ToySpec()])
    a_round = calibrate.WARM_UP + calibrate.LEAST
    timed = [pages for i, pages in enumerate(Large.pages) if i % a_round >= calibrate.WARM_UP]
    assert timed
    assert max(timed) < 1000  # of 24,576


def test_a_network_that_cannot_be_run_is_one_sentence(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(subject: Subject, spec: Any) -> float:
        raise RuntimeError("no kernel\nfor this")

    monkeypatch.setattr(calibrate, "_milliseconds", fail)
    with pytest.raises(
        ScalenetError, match=r"network of toy at 40 px cannot be run on .*: RuntimeError: no kernel for"
    ):
        calibrated(METER, SPACE, "cpu")


def test_the_default_lattice_meets_the_predicted_latency(watch: Watch) -> None:
    found = calibrated(METER, SPACE, "cpu")
    made = [c for c in candidates(METER.priced(found), lattice_points()) if c.rejected is None]
    base = TRUTH.of(METER.cost(METER.baseline), METER.size)
    assert len(made) >= 15
    for candidate in made:
        truly = TRUTH.of(candidate.cost, candidate.size) / base
        assert candidate.ratio == pytest.approx(truly, rel=1e-3)
        assert candidate.off_target or truly == pytest.approx(2, rel=0.1)
