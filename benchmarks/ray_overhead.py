"""The share of a search's wall time that is not spent training, for trials of about ten seconds, under Ray.

    python benchmarks/ray_overhead.py [--epochs N]

Ray's start, the workers' imports, everything the driver and the study do between trials, and the time in which a
worker has nothing left to do at the end all count as overhead. Choose --epochs so that a trial takes ten seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

BAR = 0.15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plugin", default="mobilenet")
    parser.add_argument("--epochs", default="6")
    parser.add_argument("--workers", default="2")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "scalenet",
            "search",
            "--fresh",
            "--plugin",
            told.plugin,
            "--epochs",
            told.epochs,
        ]
        done = subprocess.run(
            [*command, "--workers", told.workers, "--json"], cwd=folder, check=True, capture_output=True, text=True
        )
        run = Path(folder) / json.loads(done.stdout)["run"]
        (session,) = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
        trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    seconds = [t["seconds"] for t in trials]
    share = 1 - sum(seconds) / (session["seconds"] * session["workers"])
    print(f"{told.plugin}: {len(trials)} trials of {median(seconds):.1f} s (median), {session['workers']} at a time")
    word = "ok" if share < BAR else "MISSED"
    print(f"not training {100 * share:.1f} % of the workers' time   bar {100 * BAR:g} %   {word}")


if __name__ == "__main__":
    main()
