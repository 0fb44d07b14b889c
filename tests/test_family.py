"""A finished search's direction made into models, along the cost that the search was for."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scalenet_plugins.mobilenet import MobileNet

from scalenet.architecture import Scale
from scalenet.cli import cli
from scalenet.coefficients import CoefficientsFile, DataUsed, conclude, parse
from scalenet.cost import CostName
from scalenet.latency import Coefficients, Setting, calibration
from scalenet.meter import Meter
from scalenet.plain import to_plain
from scalenet.ranking import read
from scalenet.runs import RunDirectory
from scalenet.shares import Shares
from tests.synthetic import make_run

MICRO = MobileNet().variants["micro"].spec
METER = Meter(MobileNet(), MICRO, num_classes=10)
LAW = Coefficients(fixed=0.2, block=0.05, gflop=150.0, mactivation=20.0, spill=40.0)
GROWN = [METER.scaled(Scale(*by)) for by in product((1.0, 1.6), (1.0, 1.3, 1.7), (1.0, 1.3))]
NETWORKS = [(METER.cost(spec), METER.arch.size(spec)) for spec in GROWN]
LATENCY = calibration(
    Setting("a device", 8, 1, "fp32", "channels_last"), NETWORKS, [LAW.of(*network) for network in NETWORKS]
)


def finished(root: Path, cost: CostName) -> RunDirectory:
    """A run of mobilenet micro with an answer; only its direction and its cost matter."""
    run = make_run(root)
    answer = run.coefficients()
    assert answer is not None
    shares = Shares(0.3, 0.4, 0.3)
    metered = METER.priced(LATENCY if cost == "latency" else run.metric(cost))
    mine: CoefficientsFile = replace(
        answer, plugin="mobilenet", baseline=to_plain(MICRO), num_classes=10, shares=shares,
        exponents=metered.exponents, cost_metric=cost,
    )  # fmt: skip
    run.write_coefficients(mine)
    if cost == "latency":
        run.write_latency(LATENCY)
    return run


def scaled(run: RunDirectory, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["scale", str(run.path), *arguments, "--json"], catch_exceptions=False)
    return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("cost", ["flops", "activations", "latency"])
def test_phi_is_of_what_the_search_called_cost(cost: CostName, tmp_path: Path) -> None:
    run = finished(tmp_path, cost)
    budget = int(2.7 * METER.cost(MICRO).flops)
    rows = scaled(run, "--phi", "1", "--flops", str(budget))
    base = METER.cost(MICRO)
    for row in rows.values():
        truly = {
            "flops": row["flops"] / base.flops,
            "activations": row["activations"] / base.activations,
            "latency": (
                0.2 + 0.05 * row["size"]["depth"] + 0.15 * row["flops"] / 1e6 + 20e-6 * row["activations"]
                + 40e-12 * row["activations"] * row["size"]["width"] * row["size"]["resolution"] ** 2
            ) / LAW.of(base, METER.size),
        }  # fmt: skip
        assert row["cost_metric"] == cost
        assert row["ratio"] == pytest.approx(truly[cost], rel=1e-3)
    assert rows["phi1"]["ratio"] == pytest.approx(2, rel=0.02)
    (met,) = (row for name, row in rows.items() if name != "phi1")
    assert 0.98 * budget <= met["flops"] <= budget


def test_the_metric_is_named_where_it_is_not_flops(tmp_path: Path) -> None:
    told = {}
    for cost in ("flops", "latency"):
        run = finished(tmp_path / cost, cost)  # type: ignore[arg-type]
        told[cost] = CliRunner().invoke(cli, ["scale", str(run.path), "--phi", "1"], catch_exceptions=False).stdout
    assert "phi and x baseline are of latency" in told["latency"]
    assert f"{LAW.of(METER.cost(MICRO), METER.size):.3g} ms" in told["latency"]
    assert "phi and x baseline" not in told["flops"]


def test_latencies_cannot_be_told_without_their_file(tmp_path: Path) -> None:
    run = finished(tmp_path, "latency")
    (run.path / "latency.json").unlink()
    done = CliRunner().invoke(cli, ["scale", str(run.path), "--phi", "1"])
    assert "has no latency.json" in str(done.exception)


def test_answers_from_before_there_was_a_choice_are_of_flops(tmp_path: Path) -> None:
    run = finished(tmp_path, "flops")
    plain = json.loads((run.path / "coefficients.json").read_text())
    del plain["cost_metric"]
    assert parse(plain, "an old file").cost_metric == "flops"
    with pytest.raises(ValueError, match="cost_metric must be one of flops, activations, latency, got 'watts'"):
        parse({**plain, "cost_metric": "watts"}, "a file")


def test_an_answer_says_what_its_cost_is_of(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    found, data = read(run), run.data()
    assert found.verdict is not None
    assert data is not None
    answer = conclude(
        found.verdict, found.candidates, plugin="toy", space=replace(run.space(), cost="activations"),
        exponents=METER.exponents, data=DataUsed(data.name, data.fingerprint, 40), num_classes=10, demonstration=False,
    )  # fmt: skip
    assert answer.cost_metric == "activations"
    run.write_coefficients(answer)
    assert run.coefficients() == answer
