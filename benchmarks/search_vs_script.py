"""A whole search by scalenet against the script a competent user would write: the same networks, pictures and epochs.

    python benchmarks/search_vs_script.py --data FOLDER --side 32 [--quick] [--variant micro --modules scalenet]

FOLDER holds class folders, or train/ and test/ with class folders; without it, pictures that scalenet draws. scalenet
runs first, with an empty cache, by its command line; then `script.py` trains the very trials that the search chose
(every candidate, seed and repeat) on the same pictures, judged on the same ones. A side's time is that of its whole
process, start-up and decoding included. Both train by SGD with Nesterov momentum 0.9, rate 0.1, a cosine and no
warm-up, in batches of 128.

The table says what each trained per second, the mean top-1 over all trials and its standard error, and the limit: what
scalenet would reach if its workers trained all the time. The last line is the ratio of the two rates. `--without-ray 4`
runs the script as four processes at a time, one candidate each: the peer on a GPU. Run it with nothing else on the
machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from PIL import Image

from scalenet.console import table

SUFFIXES = {".jpg", ".jpeg", ".png"}
RECIPE = {
    "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "warmup_epochs": 0.0, "clip_norm": 0.0,
    "label_smoothing": 0.0, "batch_size": 128,
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """What one of the two did."""

    name: str
    seconds: float
    images: int
    top1: list[float]

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds

    @property
    def error(self) -> float:
        """Standard error of the mean top-1."""
        return stdev(self.top1) / math.sqrt(len(self.top1)) if len(self.top1) > 1 else math.nan


def pictures_of(folder: Path) -> dict[str, list[Path]]:
    """Class -> its pictures, over train/ and test/ where there are such."""
    found: dict[str, list[Path]] = {}
    for root in [p for p in (folder / "train", folder / "test") if p.is_dir()] or [folder]:
        for path in sorted(root.glob("*/*")):
            if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
                found.setdefault(path.parent.name, []).append(path)
    return found


def drawn(folder: Path, count: int) -> Path:
    """So many of scalenet's embedded pictures as JPEG files."""
    from scalenet.data.shapes import CLASSES, draw

    for i in range(count):
        place = folder / CLASSES[i % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(i)).save(place / f"{i}.jpg", quality=92)
    return folder


def laid_out(found: dict[str, list[Path]], folder: Path, fit: int, judged: int) -> None:
    """train/, val/ and test/ of links: the same pictures for both sides, classes in turn."""
    draw = random.Random(0)
    for paths in found.values():
        draw.shuffle(paths)
    turns = [path for row in zip_longest(*found.values()) for path in row if path is not None]
    if len(turns) < fit + 2 * judged:
        raise SystemExit(f"{len(turns)} pictures are too few for {fit} to fit and twice {judged} to judge.")
    for part, chosen in (
        ("train", turns[:fit]), ("val", turns[fit : fit + judged]), ("test", turns[fit + judged : fit + 2 * judged]),
    ):  # fmt: skip
        for i, path in enumerate(chosen):
            place = folder / part / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i}{path.suffix}").symlink_to(path.resolve())


def scalenet(told: argparse.Namespace, pictures: Path, folder: Path) -> tuple[Side, float, list[dict[str, Any]]]:
    """The search, its limit in images per second, and its trials for the script."""
    settings = [f"recipe.{key}={value}" for key, value in RECIPE.items()]
    settings += [f"confirm.best={told.best}", f"confirm.seeds={told.seeds}", f"replicates={told.replicates}"]
    command = [sys.executable, "-m", "scalenet", "search", "--plugin", "efficientnet", "--variant", told.variant]
    command += ["--resolution", str(told.side), "--data", str(pictures), "--epochs", str(told.epochs)]
    command += [] if told.workers is None else ["--workers", str(told.workers)]
    command += ["--lattice", str(told.lattice), "--json", *(word for s in settings for word in ("--set", s))]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"SCALENET_CACHE": str(folder / "cache")}, stdout=subprocess.PIPE,
        text=True, check=True,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    run = folder / json.loads(done.stdout)["run"]
    specs = {c["key"]: c["spec"] for c in map(json.loads, (run / "candidates.jsonl").read_text().splitlines())}
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    (session,) = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    epochs = [epoch for trial in trials for epoch in trial["epochs"]]
    images = sum(epoch["images"] for epoch in epochs)
    limit = images / sum(epoch["seconds"] for epoch in epochs) * max(1, session["workers"])
    part = {"select": "val", "held": "test"}
    jobs = [{"spec": specs[t["key"]], "seed": t["seed"], "judged": part[t["judge"]]} for t in trials]
    return Side("scalenet", seconds, images, [trial["top1"] for trial in trials]), limit, jobs


def script(told: argparse.Namespace, pictures: Path, folder: Path, jobs: list[dict[str, Any]]) -> Side:
    """The script, on those trials."""
    (folder / "trials.json").write_text(json.dumps(jobs))
    command = [sys.executable, str(Path(__file__).with_name("script.py")), str(pictures), str(folder / "trials.json")]
    command += ["--epochs", str(told.epochs), "--n-train", str(told.fit), "--n-test", str(told.judged)]
    command += ["--modules", told.modules, "--without-ray", str(told.without_ray)]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - start
    found = json.loads(done.stdout.splitlines()[-1])
    return Side("script", seconds, found["images"], found["top1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="class folders, or train/ and test/ with such")
    parser.add_argument("--variant", default="b0")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--fit", type=int, default=5000, help="pictures trained on per epoch")
    parser.add_argument("--judged", type=int, default=1000, help="pictures judged on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lattice", type=int, default=1)
    parser.add_argument("--best", type=int, default=1, help="confirmed beside the named points")
    parser.add_argument("--seeds", type=int, default=1, help="of a confirmation")
    parser.add_argument("--replicates", type=int, default=0)
    parser.add_argument("--modules", choices=["torchvision", "scalenet"], default="torchvision")
    parser.add_argument("--workers", type=int, default=None, help="of scalenet; 0: one process, without Ray")
    parser.add_argument("--without-ray", type=int, default=0, metavar="N")
    parser.add_argument("--quick", action="store_true", help="one epoch of few pictures: about five minutes on 2 CPUs")
    told = parser.parse_args()
    if told.quick:
        told.epochs, told.fit, told.judged = 1, min(told.fit, 2000), min(told.judged, 300)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source = told.data or drawn(folder / "drawn", told.fit + 2 * told.judged)
        pictures = folder / "pictures"
        laid_out(pictures_of(source), pictures, told.fit, told.judged)
        ours, limit, jobs = scalenet(told, pictures, folder)
        peer = script(told, pictures, folder, jobs)
    print(f"efficientnet {told.variant} at {told.side} px, {len(jobs)} trials of {told.fit} pictures x {told.epochs}")
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    rows = [
        [side.name, f"{side.seconds:.1f}", f"{side.images}", f"{side.rate:.1f}", f"{100 * mean(side.top1):.2f}",
         f"{100 * side.error:.2f}"]
        for side in (ours, peer)
    ]  # fmt: skip
    table(["", "seconds", "images", "images/s", "top1 %", "+-"], rows, text_columns=1)
    print(f"\nlimit of scalenet's compute {limit:.1f} images/s: {100 * ours.rate / limit:.0f} % reached")
    gap = abs(mean(ours.top1) - mean(peer.top1)) / math.hypot(ours.error, peer.error)
    print(f"accuracies differ by {gap:.1f} standard errors of their difference")
    print(f"ratio {ours.rate / peer.rate:.2f}")


if __name__ == "__main__":
    main()
