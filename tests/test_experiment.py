"""From what is asked for to a plan: trials counted, warnings given, the default lattice wide enough."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scalenet.architecture import FINE, Rounding, Scale
from scalenet.errors import ScalenetError
from scalenet.experiment import at_side, plan
from scalenet.plugins import architecture
from scalenet.space import resolve
from scalenet.timing import baseline_seconds, estimate
from tests.pictures import png_folder
from tests.toy import Toy, ToySpec


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    return png_folder(tmp_path / "pictures")


def test_trials_are_counted_as_the_search_runs_them(folder: Path) -> None:
    # Lattice 1 is the three corners; with equal shares and the paper's point: 5 candidates and the baseline, 3
    # replicates, then 2 seeds each of these candidates (all are named: the best are among them) and of the baseline.
    planned = plan("mobilenet", resolve("mobilenet", None, ["lattice=1"], {"data.source": str(folder)}))
    assert len(planned.candidates) == 6
    assert planned.trials == 6 + 3 + 2 * 6


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
