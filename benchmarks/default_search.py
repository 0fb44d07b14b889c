"""The default search as a stranger runs it: wall time, memory of all its processes, and how clear of chance it ends.

    python benchmarks/default_search.py [--plugin mobilevit]

Memory is the peak of the sum of PSS (each page divided among those who share it) over the search's process group,
sampled every two seconds; it needs Linux. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

MINUTES, GIB, CLEAR = 5.0, 4.0, 5.0


def pss(processes: list[psutil.Process]) -> int:
    """Bytes of proportional set size."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plugin", default="mobilevit")
    parser.add_argument("--workers", default=None)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workers = ["--workers", told.workers] if told.workers else []
        command = [sys.executable, "-m", "scalenet", "search", "--fresh", "--plugin", told.plugin, "--json", *workers]
        environ = os.environ | {"SCALENET_CACHE": f"{folder}/cache"}  # a first start: pictures are drawn and decoded
        start = time.perf_counter()
        with subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as search:
            peak, me = 0, psutil.Process(search.pid)
            while search.poll() is None:
                try:
                    peak = max(peak, pss([me, *me.children(recursive=True)]))
                except psutil.NoSuchProcess:
                    break
                time.sleep(2.0)
            assert search.stdout is not None
            found = json.loads(search.stdout.read())
        seconds = time.perf_counter() - start
        run = Path(folder) / found["run"]
        sessions = [json.loads(line) for line in (run / "sessions.jsonl").read_text().splitlines()]
        trials = [json.loads(line) for line in (run / "trials.jsonl").read_text().splitlines()]
    verdict = found["verdict"]
    best = max(e["mean"] for e in verdict["estimates"])
    clear = (best - 1 / 10) / verdict["noise_sd"]
    training = sum(t["seconds"] for t in trials)
    share = 1 - training / sum(s["seconds"] * s["workers"] for s in sessions)
    print(f"{told.plugin}: {len(trials)} trials, {os.cpu_count()} CPUs")
    print(
        f"wall time          {seconds / 60:.2f} min   bar {MINUTES:g}   {'ok' if seconds <= 60 * MINUTES else 'MISSED'}"
    )
    print(f"peak sum of PSS    {peak / 2**30:.2f} GiB   bar {GIB:g}   {'ok' if peak <= GIB * 2**30 else 'MISSED'}")
    print(
        f"winner over chance {clear:.1f} noise sd (top1 {100 * best:.1f} %, noise {100 * verdict['noise_sd']:.1f})   "
        f"bar {CLEAR:g}   {'ok' if clear >= CLEAR else 'MISSED'}"
    )
    print(f"not training       {100 * share:.0f} % of the workers' time")
    print(verdict["sentence"])


if __name__ == "__main__":
    main()
