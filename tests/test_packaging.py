"""What a stranger installs works: editable, wheel, wheel from sdist, third parties, and inside a Ray worker.

Every environment here sees the outer one's packages through a .pth line (so no network and no second torch), but not
its scalenet: a plain path in a .pth does not run the outer editable install's own .pth.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[1]
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "scalenet", "plugins", "searchspaces")


@dataclass(frozen=True)
class Environment:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def install(self, *what: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-index"]
        _run([*command, "--no-deps", "--no-build-isolation", *what], self.folder)

    def run(self, *arguments: str, fails: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
        return _run([str(self.python), *arguments], self.folder, fails=fails, **environ)

    def plugins(self, **environ: str) -> dict[str, dict[str, object]]:
        listed = self.run("-m", "scalenet", "plugins", "--json", **environ)
        return {row["name"]: row for row in json.loads(listed.stdout)}


def _run(command: Sequence[str], cwd: Path, fails: bool = False, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "SCALENET", "PIP_"))}
    pip = {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
    done = subprocess.run(
        command, cwd=cwd, env={**clean, **pip, **environ}, capture_output=True, text=True, timeout=300, check=False
    )
    if (done.returncode != 0) != fails:
        pytest.fail(f"{' '.join(command)} exited with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = Environment(tmp_path / "env")
    venv.create(made.folder, with_pip=False, symlinks=os.name != "nt")
    inner = made.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    outer = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    Path(inner, "outer.pth").write_text("\n".join(outer), encoding="utf-8")
    return made


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A clean copy of what is shipped: a build in the checkout would pick up its leftovers, and leave some."""
    made = tmp_path / "copy"
    made.mkdir()
    for name in SHIPPED:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, made / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, made / name)
    return made


def _backend(copy: Path, call: str) -> Path:
    """The file that setuptools' build backend makes in `copy`, as a PEP 517 front end would ask for it."""
    script = f"import setuptools.build_meta as backend; print(backend.{call}({str(copy.parent)!r}))"
    name = _run([sys.executable, "-c", script], copy).stdout.strip().splitlines()[-1]
    return copy.parent / name


def test_editable_install_sees_a_file_newly_dropped_into_plugins(environment: Environment, copy: Path) -> None:
    environment.install("-e", str(copy))
    before = environment.plugins()
    assert {"efficientnet", "mobilenet", "mobilevit"} <= set(before)
    shutil.copy(CHECKOUT / "tests/third_party/scalenet_tiny.py", copy / "plugins/tiny.py")
    after = environment.plugins()
    assert set(after) - set(before) == {"tiny"}
    assert after["tiny"]["package"] == "scalenet"


@pytest.mark.parametrize("through_sdist", [False, True], ids=["wheel", "wheel-from-sdist"])
def test_wheel_works_outside_the_checkout(environment: Environment, copy: Path, through_sdist: bool) -> None:
    if through_sdist:
        sdist = _backend(copy, "build_sdist")
        shutil.rmtree(copy)
        environment.install(str(sdist))
    else:
        wheel = _backend(copy, "build_wheel")
        shutil.rmtree(copy)
        environment.install(str(wheel))
    where = environment.run("-c", "import scalenet, scalenet_plugins; print(scalenet_plugins.__file__)").stdout
    assert Path(where.strip()).is_relative_to(environment.folder)
    assert {"efficientnet", "mobilenet", "mobilevit"} <= set(environment.plugins())
    plan = environment.run(
        "-m", "scalenet", "search", "--plugin", "mobilenet", "--plan", "--json", "--lattice", "1",
        SCALENET_CACHE=str(environment.folder / "cache"),
    )  # fmt: skip
    assert len(json.loads(plan.stdout)["candidates"]) >= 3  # the YAML came along, and so did the embedded pictures


@pytest.mark.ray
def test_ray_worker_finds_the_plugins_of_a_wheel(environment: Environment, copy: Path) -> None:
    environment.install(str(_backend(copy, "build_wheel")))
    script = environment.folder / "ask.py"
    script.write_text(
        """
import os
os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
import ray

@ray.remote
def names():
    from scalenet import plugins
    return list(plugins.architectures())

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(",".join(ray.get(names.remote())))
""",
        encoding="utf-8",
    )
    found = environment.run(str(script)).stdout.strip().splitlines()[-1].split(",")
    assert {"efficientnet", "mobilenet", "mobilevit"} <= set(found)


def test_third_party_is_found_and_a_broken_one_is_a_warning(
    environment: Environment, copy: Path, tmp_path: Path
) -> None:
    environment.install(str(_backend(copy, "build_wheel")))
    environment.install(str(shutil.copytree(CHECKOUT / "tests/third_party", tmp_path / "tiny")))
    broken = shutil.copytree(CHECKOUT / "tests/third_party", tmp_path / "broken")
    project = (broken / "pyproject.toml").read_text().replace('"scalenet-tiny"', '"scalenet-broken"')
    project = project.replace('tiny = "scalenet_tiny"', 'snapped = "scalenet_broken"').replace(
        "scalenet_tiny", "scalenet_broken"
    )
    (broken / "pyproject.toml").write_text(project)
    (broken / "scalenet_tiny.py").unlink()
    (broken / "scalenet_broken.py").write_text("import no_such_module\n")
    environment.install(str(broken))

    listed = environment.run("-m", "scalenet", "plugins", "--json")
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["tiny"]["package"] == "scalenet-tiny"
    assert rows["tiny"]["version"] == "0.0.1"
    assert "scalenet-broken" in listed.stderr
    assert "no_such_module" in listed.stderr

    asked = environment.run("-m", "scalenet", "info", "--plugin", "snapped", fails=True)
    assert asked.returncode == 2
    assert "scalenet-broken" in asked.stderr
    assert "Traceback" not in asked.stderr

    assert "tiny" not in environment.plugins(SCALENET_PLUGINS="")
    rescued = environment.run("-m", "scalenet", "plugins", "--json", SCALENET_PLUGINS="scalenet-tiny")
    assert "scalenet-broken" not in rescued.stderr
    assert "tiny" in {row["name"] for row in json.loads(rescued.stdout)}


def test_a_plugin_that_scalenet_wrote_is_checked_and_searched(environment: Environment, copy: Path) -> None:
    environment.install(str(_backend(copy, "build_wheel")))
    written = environment.run("-m", "scalenet", "plugins", "new", "tiny", "--out", "mine").stdout
    assert "scalenet check --plugin tiny" in written
    mine = environment.folder / "mine"
    # tests/third_party is what it writes: the page on adding an architecture points there
    theirs = CHECKOUT / "tests/third_party"
    assert {f.name for f in mine.iterdir()} == {f.name for f in theirs.iterdir() if f.is_file()}
    assert all(f.read_text() == (theirs / f.name).read_text() for f in mine.iterdir())
    environment.install(str(mine))
    environment.run("-m", "scalenet", "check", "--plugin", "tiny")
    environment.run(
        "-m", "scalenet", "search", "--plugin", "tiny", "--space", "smoke", "--workers", "0",
        SCALENET_CACHE=str(environment.folder / "cache"),
    )  # fmt: skip
    [answer] = environment.folder.glob("runs/tiny/*/coefficients.json")
    assert json.loads(answer.read_text())["plugin"] == "tiny"


def test_bad_names_and_taken_ones_are_refused(environment: Environment, copy: Path) -> None:
    environment.install(str(_backend(copy, "build_wheel")))
    for name, words in (("Tiny", "must be lower-case"), ("mobilevit", "is installed already")):
        told = environment.run("-m", "scalenet", "plugins", "new", name, fails=True)
        assert told.returncode == 2
        assert words in told.stderr
    (environment.folder / "scalenet-mine").mkdir()
    (environment.folder / "scalenet-mine" / "notes.txt").write_text("mine")
    assert "is there already" in environment.run("-m", "scalenet", "plugins", "new", "mine", fails=True).stderr
