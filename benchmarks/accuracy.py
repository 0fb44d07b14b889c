"""Does scalenet's training learn as well as the script's? The same network, pictures, epochs, rate and seeds in both.

    python benchmarks/accuracy.py --data FOLDER [--variant b0] [--side 32] [--fit 5000] [--epochs 10] [--seeds 4]

FOLDER holds class folders, or train/ and test/ with class folders. Both train the baseline with every seed, one process
per CPU and one thread each, by the recipe of `search_vs_script.py`, and are judged on the same pictures after the last
epoch. What differs is what either does by itself: scalenet draws other crops and decays no norms and biases. Long
enough that the network learns; a search's speed is `search_vs_script.py`'s business. Bar: scalenet's mean top-1 is at
most one standard error of the difference below the script's. On 2 CPUs about half an hour for B0.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from search_vs_script import RECIPE, Side, laid_out, pictures_of, script

from scalenet.console import table
from scalenet.data import DataRequest, prepare
from scalenet.experiment import at_side
from scalenet.plain import to_plain
from scalenet.plugins import architecture
from scalenet.space import resolve


def trained(job: dict[str, Any]) -> float:
    """The last epoch's top-1."""
    from scalenet.trial import run

    *_, last = run(job)
    return float(last["top1"])


def scalenet(told: argparse.Namespace, pictures: Path, spec: object) -> list[float]:
    """Top-1 with each seed, on the pictures in val/."""
    data = prepare(DataRequest(str(pictures)), told.side)
    recipe = replace(resolve("efficientnet").recipe, epochs=told.epochs, **RECIPE)
    common = {
        "plugin": "efficientnet", "spec": to_plain(spec), "num_classes": len(data.classes), "data": to_plain(data),
        "recipe": to_plain(recipe), "key": "accuracy", "threads": 1,
    }  # fmt: skip
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(trained, ({**common, "seed": seed} for seed in range(told.seeds))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, metavar="FOLDER", required=True)
    parser.add_argument("--variant", default="b0")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--fit", type=int, default=5000, help="pictures trained on per epoch")
    parser.add_argument("--judged", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=4)
    told = parser.parse_args()
    told.modules, told.without_ray = "torchvision" if told.variant == "b0" else "scalenet", 0
    arch = architecture("efficientnet")
    spec = at_side(arch, arch.variant(told.variant).spec, told.side)
    with tempfile.TemporaryDirectory() as place:
        os.environ["SCALENET_CACHE"] = f"{place}/cache"
        pictures = Path(place) / "pictures"
        laid_out(pictures_of(told.data), pictures, told.fit, told.judged)
        ours = Side("scalenet", 0.0, 0, scalenet(told, pictures, spec))
        jobs = [{"spec": to_plain(spec), "seed": seed, "judged": "val"} for seed in range(told.seeds)]
        peer = script(told, pictures, Path(place), jobs)
    print(
        f"efficientnet {told.variant}, {told.side} px, {told.epochs} epochs of {told.fit} pictures, {told.seeds} seeds"
    )
    rows = []
    for side in (ours, peer):
        each = " ".join(f"{100 * top1:.1f}" for top1 in side.top1)
        rows.append([side.name, f"{100 * mean(side.top1):.2f}", f"{100 * side.error:.2f}", each])
    table(["", "top1 %", "+-", "each seed"], rows, text_columns=1)
    gap = (mean(ours.top1) - mean(peer.top1)) / math.hypot(ours.error, peer.error)
    print(f"scalenet above the script by {gap:.1f} standard errors of the difference")
    return 1 if gap < -1 else 0


if __name__ == "__main__":
    raise SystemExit(main())
