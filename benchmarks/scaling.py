"""Throughput of a whole search at 1, 2, 4 ... workers, up to one per CPU.

    python benchmarks/scaling.py [--plugin mobilenet] [--epochs 4] [--data FOLDER]

The same search at every number of workers; start-up is included, decoding is not (the first run fills the cache).
`efficiency` is the rate per worker over that of one worker. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from scalenet.search.driver import default_workers


def measured(told: argparse.Namespace, workers: int, folder: str) -> tuple[float, float, float]:
    """Images per second of the search, of its training alone, and the share of time not spent training."""
    command = [
        sys.executable,
        "-m",
        "scalenet",
        "search",
        "--fresh",
        "--plugin",
        told.plugin,
        "--epochs",
        str(told.epochs),
    ]
    command += ["--lattice", str(told.lattice), "--workers", str(workers), "--json"]
    if told.data:
        command += ["--data", str(told.data.resolve())]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    run = Path(folder) / json.loads(done.stdout)["run"]
    (session,) = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    images = sum(epoch["images"] for trial in trials for epoch in trial["epochs"])
    training = sum(epoch["seconds"] for trial in trials for epoch in trial["epochs"])
    busy = sum(trial["seconds"] for trial in trials)
    return images / session["seconds"], images / training * workers, 1 - busy / (session["seconds"] * workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plugin", default="mobilenet")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lattice", type=int, default=3)
    parser.add_argument("--data", type=Path, default=None)
    told = parser.parse_args()
    most, counts = default_workers(), [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    print(f"{told.plugin}, {platform.machine()}, {most} CPUs")
    print(f"{'workers':>8}{'images/s':>10}{'efficiency %':>14}{'training alone':>16}{'not training %':>16}")
    with tempfile.TemporaryDirectory() as folder:
        first = 0.0
        for workers in counts:
            rate, training, idle = measured(told, workers, folder)
            first = first or rate
            efficiency = 100 * rate / (first * workers)
            print(f"{workers:>8}{rate:>10.1f}{efficiency:>14.0f}{training:>16.1f}{100 * idle:>16.0f}", flush=True)


if __name__ == "__main__":
    main()
