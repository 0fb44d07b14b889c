"""From what is asked for to a plan: trials counted, warnings given, the default lattice wide enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalenet import calibrate, show
from scalenet.architecture import FINE, Rounding, Scale
from scalenet.errors import ScalenetError
from scalenet.experiment import at_side, plan, reopen, replan, start
from scalenet.latency import Coefficients
from scalenet.metric import FLOPS
from scalenet.plugins import architecture
from scalenet.power import Power
from scalenet.projection import project
from scalenet.shares import Shares
from scalenet.space import resolve
from scalenet.timing import baseline_seconds, estimate
from tests.pictures import png_folder
from tests.toy import Toy, ToySpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    return png_folder(tmp_path / "pictures")


def test_trials_are_counted_as_the_search_runs_them(folder: Path) -> None:
    # Lattice 1 is the three corners; with equal shares (which build the paper's point too) and dWr's: 5 candidates, and
    # the baseline, each with 2 seeds; 3 further ones for baseline, corners and equal shares; all are confirmed, being
    # named, with 2 seeds, and so is the surface's optimum.
    settings = ["lattice=1", "seeds=2", "replicates=3"]
    planned = plan("mobilenet", resolve("mobilenet", None, settings, {"data.source": str(folder)}))
    assert len(planned.candidates) == 6
    assert planned.trials == 2 * 6 + 3 * 5 + 2 * (6 + 1)
    assert plan("mobilenet", replace(planned.space, replicates=0)).trials == 2 * 6 + 2 * (6 + 1)


def test_the_best_and_the_surfaces_optimum_are_counted_as_confirmed(folder: Path) -> None:
    flags = {"data.source": str(folder)}
    planned = plan("mobilenet", resolve("mobilenet", None, ["lattice=2", "confirm.best=2"], flags))
    tried = [c for c in planned.candidates[1:] if c.rejected is None]
    named = [c for c in tried if set(c.names) & {"depth", "width", "resolution", "equal", "paper", "dwr"}]
    assert planned.confirmed == min(len(named) + 2, len(tried)) + 1
    drawing = plan("mobilenet", resolve("mobilenet", None, ["sampler=random", "trials=9", "confirm.best=2"], flags))
    assert drawing.confirmed == len(drawing.contestants) + 2 + 1
    assert drawing.trials == 1 + len(drawing.contestants) + 9 + 5 + 2 * (1 + drawing.confirmed)


def test_another_space_for_the_same_baseline_counts_nothing_twice(folder: Path) -> None:
    flags = {"data.source": str(folder)}
    planned = plan("mobilenet", resolve("mobilenet", None, ["lattice=2"], flags))
    counted = planned.meter.counted
    other = replan(planned, resolve("mobilenet", None, ["lattice=1", "data.subset=20"], flags))
    assert planned.meter.counted == counted
    assert other.data.pictures == 20
    assert {c.key for c in other.candidates} < {c.key for c in planned.candidates}


def test_named_points_alone_are_counted_too(folder: Path) -> None:
    settings = ["sampler=named", "points=[{depth: 0.6, width: 0.4, resolution: 0}]", "confirm.seeds=3"]
    planned = plan("mobilenet", resolve("mobilenet", None, settings, {"data.source": str(folder)}))
    *_, last = planned.candidates
    assert last.names == ("point 0.60/0.40/0.00",)
    assert last.shares == Shares(0.6, 0.4, 0.0)
    assert planned.trials == 3 * len(planned.candidates) == 3 * 7
    settings[0] = "lattice=1"  # the baseline and 6 candidates; with the replicates and the surface's optimum
    planned = plan("mobilenet", resolve("mobilenet", None, settings, {"data.source": str(folder)}))
    assert planned.trials == 7 + 5 * planned.space.replicates + 3 * (7 + 1)


def test_a_guided_search_is_counted_as_it_runs(folder: Path) -> None:
    """All candidates have one seed, half of them a second, a quarter a third; the baseline has each."""
    settings = ["sampler=guided", "lattice=3", "confirm.seeds=3"]
    planned = plan("mobilenet", resolve("mobilenet", None, settings, {"data.source": str(folder)}))
    grid = plan("mobilenet", resolve("mobilenet", None, ["lattice=3"], {"data.source": str(folder)}))
    number = len(planned.contestants)
    assert planned.candidates == grid.candidates
    assert planned.confirmed == number > 8
    assert planned.trials == (1 + number) + (1 + number // 2) + (1 + number // 2 // 2)
    assert planned.repeated == ()


def test_so_few_that_no_surface_chooses_have_all_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan(
        "mobilenet", resolve("mobilenet", None, ["sampler=guided", "lattice=1"], {"data.source": str(folder)})
    )
    number = len(planned.contestants)
    assert number <= 6
    assert planned.trials == 2 * (1 + number)
    show.plan(planned, 1.0, 1, Power(0.8, None, None), to_stderr=False)
    assert f"design    {number} candidates of about 2 x the FLOPs, 2 seeds each, held out\n" in capsys.readouterr().out
    one = replace(planned, candidates=planned.candidates[:2])
    show.plan(one, 1.0, 1, Power(0.8, None, None), to_stderr=False)
    assert "design    1 candidate of about 2 x the FLOPs, 1 seed each, held out\n" in capsys.readouterr().out


def test_a_last_map_of_one_point_is_warned_about(folder: Path) -> None:
    flags: dict[str, Any] = {"data.source": str(folder), "variant": "xxs", "resolution": 32, "lattice": 1}
    assert any(
        "last feature map of mobilevit is 1 x 1" in w
        for w in plan("mobilevit", resolve("mobilevit", None, (), flags)).warnings
    )
    flags["resolution"] = 128
    assert not any("last feature map" in w for w in plan("mobilevit", resolve("mobilevit", None, (), flags)).warnings)


def test_a_baseline_that_cannot_be_trained_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan("mobilenet", resolve("mobilenet", None, ["lattice=1"], {"data.source": str(folder)}))

    def build(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck\nand more")

    monkeypatch.setattr(type(planned.meter.arch), "build", build)
    with pytest.raises(ScalenetError, match=r"^The baseline of mobilenet .* on cpu .*: RuntimeError: out of luck and"):
        baseline_seconds(planned, "cpu")


def test_estimate_grows_with_epochs(folder: Path) -> None:
    few = plan("mobilenet", resolve("mobilenet", None, ["lattice=1"], {"data.source": str(folder), "recipe.epochs": 1}))
    many = plan(
        "mobilenet", resolve("mobilenet", None, ["lattice=1"], {"data.source": str(folder), "recipe.epochs": 500})
    )
    assert estimate(many, 0, 0.01) == pytest.approx(500 * estimate(few, 0, 0.01))


def test_another_side_leaves_everything_else() -> None:
    arch = architecture("efficientnet")
    b0 = arch.variants["b0"].spec
    assert at_side(arch, b0, None) is b0
    grown = at_side(arch, b0, 260)
    assert grown.resolution == 260
    assert arch.size(grown).depth == arch.size(b0).depth
    assert arch.size(grown).width == arch.size(b0).width


def test_a_side_between_the_steps_of_an_architecture_is_built_all_the_same() -> None:
    class Patched(Toy):
        def scale(self, spec: ToySpec, by: Scale, rounding: Rounding = FINE) -> ToySpec:
            return replace(spec, resolution=round(spec.resolution * by.resolution / 16) * 16)

    assert at_side(Patched(), ToySpec(resolution=32), 40).resolution == 40


LAW = Coefficients(fixed=0.2, block=0.05, gflop=150.0, mactivation=20.0, spill=40.0)


def stopwatch(monkeypatch: pytest.MonkeyPatch, law: Coefficients) -> None:
    def milliseconds(subject: calibrate.Subject, spec: Any) -> float:
        return law.of(subject.meter.cost(spec), subject.meter.arch.size(spec))

    monkeypatch.setattr(calibrate, "_milliseconds", milliseconds)


def test_a_resume_goes_by_the_latency_that_was_recorded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopwatch(monkeypatch, LAW)
    flags = {"data.source": str(folder), "cost": "latency"}
    planned = plan("mobilenet", resolve("mobilenet", None, ["lattice=1"], flags), device="cpu")
    assert planned.calibration is not None
    meter = planned.meter
    base = LAW.of(meter.cost(meter.baseline), meter.size)
    for candidate in planned.candidates:
        assert candidate.ratio == pytest.approx(LAW.of(candidate.cost, candidate.size) / base, rel=1e-4)
    flops = [c.cost.flops / planned.baseline.cost.flops for c in planned.candidates]
    assert planned.growth == pytest.approx(sum(flops) / len(flops))  # training time goes with FLOPs all the same
    assert not any("predicted poorly" in warning for warning in planned.warnings)
    assert planned.calibration.median_error < 1e-3

    run = start(planned, tmp_path / "runs", "cpu")
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(calibrate, "_milliseconds", None)  # a second timing would fail
    again = reopen(run)
    assert again.calibration == planned.calibration
    assert again.exponents == planned.exponents
    inner = Shares(0.2, 0.5, 0.3)
    assert project(again.meter, inner) == project(planned.meter, inner)

    other = replace(planned.calibration, coefficients=replace(planned.calibration.coefficients, gflop=900.0))
    run.write_latency(other)
    assert reopen(run).meter.metric == other  # the file it is, and nothing else
    (run.path / "latency.json").unlink()
    with pytest.raises(ScalenetError, match=r"has no latency\.json"):
        reopen(run)


def test_a_poor_prediction_is_warned_about(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(subject: calibrate.Subject, spec: Any) -> float:
        return (1 + hash(spec) % 7 / 4) * LAW.of(subject.meter.cost(spec), subject.meter.arch.size(spec))

    monkeypatch.setattr(calibrate, "_milliseconds", noisy)
    space = resolve("mobilenet", None, ["lattice=1"], {"data.source": str(folder), "cost": "latency"})
    assert any("Latency is predicted poorly (R2 0." in warning for warning in plan("mobilenet", space).warnings)


def test_flops_are_the_cost_unless_another_is_asked_for(folder: Path, tmp_path: Path) -> None:
    flags = {"data.source": str(folder)}
    planned = plan("mobilenet", resolve("mobilenet", None, ["lattice=1"], flags))
    assert planned.calibration is None
    assert [c.ratio for c in planned.candidates] == [
        c.cost.flops / planned.baseline.cost.flops for c in planned.candidates
    ]
    run = start(planned, tmp_path / "runs", "cpu")
    assert run.latency() is None
    assert run.metric("flops") == reopen(run).meter.metric == FLOPS
    counted = plan("mobilenet", resolve("mobilenet", None, ["lattice=1"], flags | {"cost": "activations"}))
    assert [c.ratio for c in counted.candidates] == [
        c.cost.activations / counted.baseline.cost.activations for c in counted.candidates
    ]
