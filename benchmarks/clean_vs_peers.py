"""`scalenet data` against the usual ways of cleaning a folder, on planted defects whose truth is known.

    python benchmarks/clean_vs_peers.py [--quick] [--seed 0] [--pictures DIR ...] [--planted OUT] [--cifar DIR]
                                        [--peers-python PYTHON] [--details FILE]

makes the folder (`planted.py`; --planted OUT takes one that is there), lets each method look at it in a process of its
own, and prints one table: what each finds of every kind of defect with the right reason, how far its verdicts can be
trusted, pairs of copies, and what it costs. Pairs are those of files in one group, against those of an original and its
copies; two moments of a fixed camera are no pair. CPU seconds are user and system time of all its processes, memory is
the largest sum of their PSS (ten looks a second; Linux). --cifar adds a run on a folder of class folders of many small
pictures without known truth: pairs, and how many of them lie across classes. --quick takes about a minute on two cores.

Peers that are not installed are left out: pip install opencv-python-headless cleanvision imagehash czkawka.
--peers-python names the interpreter that has them. cleanvision is handed the files that load, since it stops at the
first that does not. Root may read everything: run by it, each method is started by `setpriv` without that right. The
last lines are the bars.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import planted
from clean_methods import METHODS
from clean_score import UNLOADABLE, Bar, Cost, Ran, Score, bars, score, share, truth_of

from scalenet.console import table

PACKAGES = {
    "script": ("cv2", "opencv-python-headless"), "cleanvision": ("cleanvision", "cleanvision"),
    "ImageHash": ("imagehash", "imagehash"), "czkawka": ("czkawka", "czkawka"),
}  # fmt: skip
LOOK_EVERY = 0.1  # seconds


def tree(pid: int) -> Iterator[int]:
    """The process and what it has started."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in thread.read_text().split():
                yield from tree(int(child))


def pss(pid: int) -> int:
    """KiB of the whole tree; what ends meanwhile counts nothing."""
    total = 0
    for one in tree(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def measured(command: Sequence[str], env: Mapping[str, str], log: Path) -> tuple[int, Cost]:
    """Runs it; its exit code and what it cost."""
    start, most = time.perf_counter(), 0
    with log.open("w") as output:
        child = subprocess.Popen(command, env=env, stdout=output, stderr=output)
        while True:
            ended, status, usage = os.wait4(child.pid, os.WNOHANG)
            if ended:
                break
            most = max(most, pss(child.pid))
            time.sleep(LOOK_EVERY)
    child.returncode = os.waitstatus_to_exitcode(status)
    cost = Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, most / 1024)
    return child.returncode, cost


@dataclass(frozen=True)
class Runner:
    """Runs methods, each in an empty home with an empty cache."""

    work: Path
    peers: str  # interpreter
    start: tuple[str, ...]  # what a method is started by

    def run(self, name: str, folder: Path, files: Sequence[str], again: int = 0) -> Ran:
        """`files` are those that load; `again` tells runs of one method apart."""
        python = sys.executable if name == "scalenet" else self.peers
        if name in PACKAGES:
            module, package = PACKAGES[name]
            if subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode:
                return Ran(name, why=f"not installed: pip install {package}")
        place = self.work / f"{name}{again}"
        place.mkdir()
        (place / "files.json").write_text(json.dumps(list(files)))
        if name == "script":
            shutil.copytree(folder, place / "copy", symlinks=True)
            folder = place / "copy"
        answer = place / "answer.json"
        command = [
            *self.start,
            python,
            str(Path(__file__).with_name("clean_methods.py")),
            name,
            str(folder),
            str(answer),
        ]
        env = {**os.environ, "SCALENET_CACHE": str(place / "cache"), "HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
        code, cost = measured([*command, str(place / "files.json")], env, place / "log")
        if code:
            last = (place / "log").read_text().strip().splitlines()[-1:]
            return Ran(name, cost=cost, why=f"stopped: {' '.join(last)[:100]}")
        made = json.loads(answer.read_text())
        shutil.rmtree(place)
        return Ran(name, made, cost)


WITHOUT = "-dac_override,-dac_read_search"  # root's right to read everything
DROPPED = ("setpriv", "--bounding-set", WITHOUT, "--inh-caps", WITHOUT)


def start_by() -> tuple[str, ...] | None:
    """What a method is started by, so that it may not read what nobody may; None where that cannot be had."""
    if os.geteuid():
        return ()
    try:
        subprocess.run([*DROPPED, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return DROPPED


def rows(scores: Mapping[str, Score], runs: Sequence[Ran], pictures: int) -> Iterator[list[str]]:
    first = next(iter(scores.values()))

    def line(title: str, cell: Any) -> list[str]:
        return [title, *(cell(scores[r.name], r) if r.name in scores else "-" for r in runs)]

    for family, (_, planted_) in first.families.items():
        yield line(f"{family} ({planted_})", lambda s, _, f=family: f"{s.families[f][0] / s.families[f][1]:.3f}")
    for rule in first.crossing:
        yield line(f"{rule} named, both sides shown", lambda s, _, r=rule: share(*s.crossing[r]))
    for rule in first.precision:
        yield line(f"precision: {rule}", lambda s, _, r=rule: share(*s.precision[r]))
    yield line("pairs of copies: precision", lambda s, _: share(s.pairs_right, s.pairs_found))
    yield line("pairs of copies: recall", lambda s, _: share(s.pairs_right, s.pairs_true))
    yield from costs(runs, pictures)


def costs(runs: Sequence[Ran], pictures: int) -> Iterator[list[str]]:
    yield ["CPU s, all processes", *(f"{r.cost.cpu:.1f}" if r.cost else "-" for r in runs)]
    yield ["pictures per CPU-s", *(f"{pictures / r.cost.cpu:.0f}" if r.cost and not r.why else "-" for r in runs)]
    yield ["peak memory, MiB (PSS)", *(f"{r.cost.memory:.0f}" if r.cost else "-" for r in runs)]
    yield ["wall s", *(f"{r.cost.wall:.1f}" if r.cost else "-" for r in runs)]


def small_pictures(runner: Runner, folder: Path) -> list[Bar]:
    """Many small pictures without known truth."""
    files = [os.path.relpath(p, folder) for p in folder.rglob("*.*") if p.is_file()]
    runs = [runner.run(name, folder, files, again=9) for name in METHODS]
    across = {r.name: sum(Path(a).parent.name != Path(b).parent.name for a, b in r.pairs) for r in runs if not r.why}
    print(f"\n{len(files)} small pictures")
    lines = [
        ["pairs of copies", *(str(len(r.pairs)) if not r.why else "-" for r in runs)],
        ["of them across classes", *(str(across.get(r.name, "-")) for r in runs)],
        *costs(runs, len(files)),
    ]
    table(["", *METHODS], lines)
    told(runs)
    ours = runs[0]
    if ours.why or ours.cost is None:
        return [("scalenet on small pictures", False)]
    rate, found = len(files) / ours.cost.cpu, len(ours.pairs)
    return [
        (f"small pictures per CPU-s {rate:.0f}, bar 2000", rate >= 2000),
        (
            f"pairs {found}, bar 700; across classes {across['scalenet']}, bar 0",
            found >= 700 and not across["scalenet"],
        ),
        (f"memory {ours.cost.memory:.0f} MiB, bar 400", ours.cost.memory <= 400),
    ]


def told(runs: Sequence[Ran]) -> None:
    for ran in runs:
        if ran.why:
            print(f"{ran.name}: {ran.why}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="an eighth of everything")
    parser.add_argument("--pictures", type=Path, nargs="+", default=[], metavar="DIR")
    parser.add_argument("--planted", type=Path, metavar="OUT", help="a folder that planted.py has made")
    parser.add_argument("--cifar", type=Path, metavar="DIR", help="class folders of many small pictures")
    parser.add_argument("--peers-python", default=sys.executable, metavar="PYTHON", help="that has the peers installed")
    parser.add_argument("--details", type=Path, metavar="FILE", help="what each got wrong, as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        work.chmod(0o755)
        out = given.planted or work / "planted"
        if not given.planted:
            arguments = [str(out), "--seed", str(given.seed), *(["--quick"] if given.quick else [])]
            arguments += ["--pictures", *map(str, given.pictures)] if given.pictures else []
            subprocess.run([sys.executable, planted.__file__, *arguments], check=True)
        results = compared(given, work, out.resolve())
    print()
    for what, met in results:
        print(f"{what}: {'met' if met else 'NOT MET'}")
    return int(not all(met for _, met in results))


def compared(given: argparse.Namespace, work: Path, out: Path) -> list[Bar]:
    start = start_by()
    if start is None:
        print("Root may read everything and there is no setpriv: files without permission are left out.")
    runner = Runner(work, given.peers_python, start or ())
    truth = truth_of(out, permissions=start is not None)
    files = sorted(set(truth.sound).union(d["path"] for d in truth.defects) - truth.of(*UNLOADABLE))
    pictures = len(files) + len(truth.of("broken"))
    runs = [runner.run(name, out, files) for name in METHODS]
    scores = {r.name: score(r, truth) for r in runs if not r.why}
    print(f"{len(truth.sound)} sound pictures, {len(truth.defects)} defects")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    if scores:
        table(["found with the right reason (planted)", *METHODS], list(rows(scores, runs, pictures)))
    told(runs)
    if given.details:
        given.details.write_text(json.dumps({name: s.wrong for name, s in scores.items()}, indent=1))
    results: list[Bar] = []
    if "scalenet" in scores:
        second = runner.run("scalenet", out, files, again=1)
        results += bars(runs[0], scores["scalenet"], truth, out, second.answer == runs[0].answer, pictures)
    return results + (small_pictures(runner, given.cifar.resolve()) if given.cifar else [])


if __name__ == "__main__":
    sys.exit(main())
