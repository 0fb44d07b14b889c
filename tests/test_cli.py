"""The command line as a user meets it: what it prints, what it refuses, and how it exits."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from scalenet import cli
from scalenet.runs import RunDirectory
from tests.pictures import png_folder


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def scalenet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "show_warnings_plainly", lambda: None)  # would outlive the test

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["scalenet", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Done(code or 0, written.out, written.err)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return png_folder(tmp_path / "pictures")


def refused(done: Done, *says: str) -> None:
    assert done.code == 2, (done.out, done.err)
    assert "Traceback" not in done.err
    last = done.err.strip().splitlines()[-1]
    for text in says:
        assert text in last


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120)


def test_help_does_not_import_torch() -> None:
    script = "import sys; from scalenet.cli import cli; cli.main(['--help'], standalone_mode=False); print('torch' in sys.modules)"  # noqa: E501
    done = python("-c", script)
    assert "Commands:" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_module_runs_as_the_script_does() -> None:
    done = python("-m", "scalenet", "--version")
    assert done.returncode == 0
    assert "scalenet" in done.stdout


def test_unknown_command_gets_the_nearest(scalenet: Run) -> None:
    refused(scalenet("serch"), "No command 'serch'. Did you mean 'search'?")


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["scalenet", "info", "--plugin", "nothing", "--debug"])
    with pytest.raises(ValueError, match="No architecture 'nothing'"):
        cli.main()


def test_plugins_lists_what_is_installed(scalenet: Run) -> None:
    rows = {row["name"]: row for row in scalenet("plugins", "--json").json()}
    assert rows["efficientnet"]["variants"][:2] == ["b0", "b1"]
    assert rows["mobilevit"]["paper"].startswith("https://")
    assert rows["mobilenet"]["package"] == "scalenet"
    printed = scalenet("plugins")
    assert printed.code == 0
    assert "efficientnet" in printed.out


def test_info_sums_to_its_total(scalenet: Run) -> None:
    facts = scalenet("info", "--plugin", "efficientnet", "--variant", "b3", "--json").json()
    assert isinstance(facts, dict)
    assert {"architecture", "variant", "resolution", "params", "flops", "activations", "spec"} <= set(facts)
    assert (facts["resolution"], facts["params"], facts["flops"]) == (300, 12233232, 1827141392)  # timm efficientnet_b3
    for measure in ("params", "flops", "activations"):
        assert sum(row[measure] for row in facts["modules"]) == facts[measure]
    assert "12,233,232" in scalenet("info", "--plugin", "efficientnet", "--variant", "b3").out


def test_info_with_fvcore_explains_every_difference(scalenet: Run) -> None:
    done = scalenet("info", "--plugin", "mobilevit", "--variant", "micro", "--fvcore")
    assert done.code == 0
    assert "fvcore" in done.out
    assert "scaled_dot_product_attention" in done.out


def test_names_are_refused_with_the_nearest(scalenet: Run) -> None:
    refused(scalenet("info", "--plugin", "mobilvit"), "No architecture 'mobilvit'. Did you mean 'mobilevit'?")
    refused(scalenet("info", "--plugin", "efficientnet", "--variant", "b8"), "No variant of efficientnet 'b8'", "b7")
    refused(scalenet("search", "--plugin", "mobilvit"), "Did you mean 'mobilevit'?")
    refused(scalenet("search", "--plugin", "mobilevit", "--variant", "xxxs"), "Its variants:")
    refused(scalenet("search", "--plugin", "mobilevit", "--data", "shape"), "Did you mean 'shapes'?")
    refused(scalenet("search", "--plugin", "mobilevit", "--set", "recipe.epoch=2"), "Did you mean 'epochs'?")
    refused(scalenet("search"), "Give --plugin NAME")
    refused(scalenet("report", "nowhere"), "nowhere: not a run directory")
    refused(scalenet("train", "model.yaml"), "model.yaml: cannot be read")


def test_bad_folders_are_refused(scalenet: Run, pictures: Path, tmp_path: Path) -> None:
    search = ("search", "--plugin", "mobilenet", "--plan", "--data")
    (tmp_path / "empty").mkdir()
    refused(scalenet(*search, "empty/"), "empty")
    lonely = tmp_path / "lonely" / "only"
    lonely.mkdir(parents=True)
    Image.new("RGB", (24, 24)).save(lonely / "a.png")
    refused(scalenet(*search, "lonely/"), "one class")
    refused(scalenet(*search, "./missing"), "missing")
    refused(scalenet(*search, pictures, "--subset", "1"), "subset")


def test_scale_makes_a_family(scalenet: Run, tmp_path: Path) -> None:
    made = scalenet(
        "scale", "--plugin", "efficientnet", "--alpha", 1.2, "--beta", 1.1, "--gamma", 1.15, "--phi", "0..2",
        "--flops", "1G", "--params", "8M", "--out", tmp_path / "models", "--json",
    )  # fmt: skip
    rows = {row["name"]: row for row in made.json()}
    assert list(rows) == ["phi0", "phi1", "phi2", "1G", "8M-params"]
    assert rows["phi0"]["flops"] == 385814752  # timm efficientnet_b0
    assert rows["phi1"]["ratio"] == pytest.approx(2, rel=0.02)
    assert rows["phi2"]["ratio"] == pytest.approx(4, rel=0.02)
    assert 0.98e9 <= rows["1G"]["flops"] <= 1e9
    assert 7.84e6 <= rows["8M-params"]["params"] <= 8e6
    written = yaml.safe_load((tmp_path / "models" / "model_1G.yaml").read_text())
    assert written["plugin"] == "efficientnet"
    assert written["cost"]["flops"] == rows["1G"]["flops"]


def test_scale_by_the_papers_law_is_literal(scalenet: Run) -> None:
    # B1 is (width 1.0, depth 1.1, 240 px) of B0: published 7,794,184 parameters, which PAPER rounding gives.
    made = scalenet(
        "scale",
        "--plugin",
        "efficientnet",
        "--alpha",
        1.1,
        "--gamma",
        240 / 224,
        "--phi",
        1,
        "--law",
        "paper",
        "--json",
    )
    (row,) = made.json()
    assert (row["params"], row["flops"]) == (7794184, 686802832)


def test_scale_refuses_what_cannot_be(scalenet: Run) -> None:
    scale = ("scale", "--plugin", "efficientnet")
    refused(scalenet(*scale, "--phi", 1), "at least one must be above 1")
    refused(scalenet(*scale, "--alpha", 0.5, "--phi", 1), "at least 1")
    refused(scalenet(*scale, "--gamma", 1.2, "--params", "10M"), "resolution alone")
    refused(scalenet(*scale, "--alpha", 1.2, "--flops", "1M"), "out of reach")
    refused(scalenet(*scale, "--alpha", 1.2), "--phi")
    refused(scalenet("scale"), "Give a run directory, or --plugin")
    refused(scalenet("scale", "some", "--plugin", "x"), "one of the two")
    refused(scalenet(*scale, "--alpha", 1.2, "--flops", "2X"), "350M")


def test_plan_trains_nothing(scalenet: Run, pictures: Path, tmp_path: Path) -> None:
    planned = scalenet("search", "--plugin", "mobilenet", "--data", pictures, "--plan", "--json").json()
    assert isinstance(planned, dict)
    assert planned["data"]["classes"] == ["bright", "dark"]
    assert planned["baseline"]["names"] == ["baseline"]
    assert planned["seconds"] > 0
    assert not (tmp_path / "runs").exists()
    shown = scalenet("search", "--plugin", "mobilenet", "--data", pictures, "--plan")
    assert "lattice 0/0/5" in shown.out
    assert "Warning: The input side goes up to" in shown.err  # 24 px pictures, searched above their native size
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which two trials at a time train on a picture in a millisecond each."""
    from scalenet.device import Numerics
    from scalenet.experiment import Plan
    from scalenet.settle import Arrangement, Settled

    def settled(planned: Plan, *_: object) -> tuple[Plan, Settled]:
        return planned, Settled(Numerics(True, False), Arrangement(2, 1), 1e-3)

    monkeypatch.setattr("scalenet.settle.settled", settled)


def test_plan_shows_what_will_be_told_apart(scalenet: Run, pictures: Path, untimed: None) -> None:
    search = ("search", "--plugin", "mobilenet", "--data", pictures, "--lattice", 3, "--plan")
    power = scalenet(*search, "--json").json()["power"]
    resolved = power["comparison"]["resolved"]
    shown = scalenet(*search)
    assert f"resolves differences of about {100 * resolved:.1f} points" in shown.out
    assert "told apart in" in shown.out
    assert "told from a flat one" in shown.out
    assert "Assumed: one run varies by" in shown.out
    assert max(map(len, shown.out.split("candidate ")[0].splitlines())) <= 120
    alone = scalenet(*search, "--set", "confirm.seeds=1", "--set", "replicates=0")
    assert "resolves nothing" in alone.out
    assert (
        scalenet(*search, "--set", "confirm.seeds=1", "--set", "replicates=0", "--json").json()["power"]["comparison"]
        is None
    )


def test_a_budget_settles_what_is_not_given(scalenet: Run, pictures: Path, untimed: None) -> None:
    search = ("search", "--plugin", "mobilenet", "--data", pictures, "--plan", "--json", "--budget")
    plans = [scalenet(*search, budget).json() for budget in ("3m", "10m", "3000epochs")]
    assert plans[0]["seconds"] <= 180
    assert plans[1]["seconds"] <= 600
    assert plans[2]["trials"] * plans[2]["space"]["recipe"]["epochs"] <= 3000
    assert plans[0]["budget"] == {"amount": 180, "unit": "seconds"}
    assert plans[0]["space"]["lattice"] <= plans[1]["space"]["lattice"]
    assert plans[0]["power"]["comparison"]["resolved"] > plans[1]["power"]["comparison"]["resolved"]
    told = ("--lattice", 1, "--epochs", 7, "--subset", 30, "--set", "confirm.seeds=4")
    fixed = scalenet(*search, "10m", *told).json()["space"]
    assert (fixed["lattice"], fixed["recipe"]["epochs"], fixed["data"]["subset"], fixed["confirm"]["seeds"]) == (
        1, 7, 30, 4,
    )  # fmt: skip
    assert fixed["seeds"] == 3


@pytest.mark.slow
def test_a_budget_may_use_more_than_the_shipped_subset(scalenet: Run, untimed: None) -> None:
    planned = scalenet("search", "--plugin", "mobilenet", "--plan", "--json", "--budget", "400epochs").json()
    assert planned["trials"] * planned["space"]["recipe"]["epochs"] <= 400
    assert planned["space"]["data"]["subset"] is None  # pictures cost no epochs
    assert planned["data"]["pictures"] == 3000


def test_budgets_that_cannot_be_are_refused(scalenet: Run, pictures: Path, untimed: None) -> None:
    search = ("search", "--plugin", "mobilenet", "--data", pictures, "--budget")
    refused(scalenet(*search, "soon"), "4m", "200epochs", "got 'soon'")
    refused(scalenet(*search, "0m"), "above 0", "got '0m'")
    refused(scalenet(*search, "5s"), "A budget of 5 s is too little for mobilenet on pictures", "Give --budget ")
    refused(scalenet("search", "--resume", pictures, "--budget", "4m"), "leave out budget")


@pytest.mark.slow
def test_from_pictures_to_a_trained_model(scalenet: Run, pictures: Path, tmp_path: Path) -> None:
    done = scalenet(
        "search", "--plugin", "mobilenet", "--data", pictures, "--resolution", 16, "--space", "smoke",
        "--set", "data.subset=null", "--set", "recipe.batch_size=8", "--workers", 0, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "\x1b" not in done.err  # no bar on a pipe
    found = done.json()
    assert isinstance(found, dict)
    run = Path(found["run"])
    answer = json.loads((run / "coefficients.json").read_text())
    assert answer["data"]["name"] == "pictures"
    assert min(answer["alpha"], answer["beta"], answer["gamma"]) >= 1
    assert answer["demonstration"] is False
    assert found["verdict"]["sentence"] == answer["verdict"]
    assert (run / "report.html").is_file()

    again = scalenet("search", "--resume", run, "--workers", 0, "--json").json()
    assert again == found  # nothing was left to do, nothing was done twice

    made = scalenet("scale", run, "--phi", 1, "--json").json()
    model = Path(made[0]["file"])
    assert model.parent == run
    trained = scalenet("train", model, "--epochs", 2)
    assert trained.code == 0, trained.err
    assert (run / "model_phi1" / "weights.safetensors").is_file()
    assert len((run / "model_phi1" / "metrics.jsonl").read_text().splitlines()) == 2
    refused(scalenet("train", model, "--epochs", 2), "already holds a training")
    assert scalenet("train", model, "--epochs", 2, "--resume").code == 0

    printed = scalenet("report", run)
    assert "baseline" in printed.out
    assert "verdict" in scalenet("report", run, "--json").json()

    refused(scalenet("search", "--resume", run, "--plugin", "mobilenet"), "leave out plugin")
    for picture in (pictures / "dark").iterdir():
        if picture.stem in {"0", "1"}:
            picture.unlink()
    refused(scalenet("search", "--resume", run, "--workers", 0), "have changed since")
    env = json.loads((run / "env.json").read_text())
    (run / "env.json").write_text(json.dumps(env | {"schema_version": 99}))
    refused(scalenet("report", run), "version 99")


def test_ctrl_c_says_how_to_go_on(scalenet: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalenet import experiment
    from scalenet.search import SearchInterrupted

    def interrupted(planned: object, data: object, run: RunDirectory, **_: object) -> None:
        raise SearchInterrupted(run.path)

    monkeypatch.setattr(experiment, "execute", interrupted)
    done = scalenet("search", "--plugin", "mobilenet", "--data", pictures, "--resolution", 16, "--workers", 0)
    assert done.code == 130
    assert "scalenet search --resume runs/mobilenet/" in done.err


def test_ctrl_c_while_decoding_says_it_too(scalenet: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalenet import experiment

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "decode", interrupted)
    search = ("search", "--plugin", "mobilenet", "--data", pictures, "--resolution", 16, "--workers", 0)
    done = scalenet(*search, "--storage", "sqlite:///other.db")
    assert done.code == 130
    assert "--storage sqlite:///other.db` finishes it" in done.err


def test_a_search_in_which_all_fails_says_why(scalenet: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scalenet import trial

    def fail(job: dict[str, str]) -> None:
        raise RuntimeError("out of luck " + "abcdefghijklmnopqrstuvwxyz"[int(job["key"], 16) % 26])

    monkeypatch.setattr(trial, "run", fail)
    search = ("search", "--plugin", "mobilenet", "--data", pictures, "--resolution", 16, "--workers", 0, "--space")
    refused(scalenet(*search, "smoke", "--fresh", "--set", "data.subset=null"), "None of the", "out of luck")


def test_a_resumed_search_stays_on_its_device_and_is_not_settled_anew(
    scalenet: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalenet import experiment

    devices = []

    def interrupted(*_: object, device: str, **__: object) -> None:
        devices.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "execute", interrupted)
    search = ("search", "--plugin", "mobilenet", "--data", pictures, "--resolution", 16, "--workers", 0)
    assert scalenet(*search, "--device", "cpu").code == 130
    monkeypatch.setattr("scalenet.device.pick_device", lambda name="auto": "mps" if name == "auto" else name)
    (run,) = Path("runs/mobilenet").iterdir()
    space = yaml.safe_load((run / "space.yaml").read_text())
    assert space["threads"] >= 1
    assert "auto" not in (space["recipe"]["precision"], space["recipe"]["memory_format"])
    monkeypatch.setattr("scalenet.timing.estimate", lambda *_: 1.0)
    monkeypatch.setattr("scalenet.settle.settled", None)  # calling it would fail
    scalenet("search", "--resume", run, "--workers", 0)
    assert devices == ["cpu", "cpu"]


def test_in_process_search_leaves_ray_alone(pictures: Path, tmp_path: Path) -> None:
    script = f"""
import os, sys
os.environ["SCALENET_CACHE"] = {str(tmp_path / "cache")!r}
from scalenet.cli import cli
cli.main(["search", "--plugin", "mobilenet", "--data", {str(pictures)!r}, "--space", "smoke", "--set",
    "data.subset=null", "--resolution", "16", "--set", "recipe.batch_size=8", "--workers", "0",
    "--runs", {str(tmp_path / "runs")!r}], standalone_mode=False)
print("ray" in sys.modules)
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("False")


def test_a_plan_by_latency_says_how_well_it_is_predicted(
    scalenet: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalenet import calibrate

    def milliseconds(subject: calibrate.Subject, spec: Any) -> float:
        cost, size = subject.meter.cost(spec), subject.meter.arch.size(spec)
        return 0.5 + 0.1 * size.depth + cost.flops / 1e7 + cost.activations / 1e5

    monkeypatch.setattr(calibrate, "_milliseconds", milliseconds)
    monkeypatch.setattr("scalenet.settle.settled", lambda planned, *_: (planned, None))
    monkeypatch.setattr("scalenet.timing.baseline_seconds", lambda *_: 1e-3)
    search = ("search", "--plugin", "mobilenet", "--data", pictures, "--cost", "latency", "--lattice", 1, "--plan")
    shown = scalenet(*search)
    assert shown.code == 0, shown.err
    assert "candidates of about 2 x the latency" in shown.out
    assert re.search(r"latency +baseline .* ms: .*, [0-9]+ pictures at a time, fp32, ", shown.out)
    assert re.search(r"1[0-9] networks timed, leave-one-out R2 1\.000, median error 0\.0 %", shown.out)
    assert "x latency" in shown.out
    planned = scalenet(*search, "--json").json()
    assert planned["space"]["cost"] == "latency"
    assert planned["latency"]["r2"] == pytest.approx(1)
    assert planned["latency"]["setting"]["threads"] == 1
    kept = [c for c in planned["candidates"] if c["rejected"] is None and not c["off_target"]]
    assert kept
    assert all(c["ratio"] == pytest.approx(2, rel=0.1) for c in kept)
    refused(scalenet("search", "--plugin", "mobilenet", "--cost", "watts"), "watts")
