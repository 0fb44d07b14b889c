"""How long `scalenet --help` and `scalenet plugins` take, start to exit: medians of fresh processes.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

BARS = {"--help": 0.5, "plugins": 3.0}  # seconds
RUNS = 7


def main() -> None:
    for argument, bar in BARS.items():
        took = []
        for _ in range(RUNS + 1):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "scalenet", argument], check=True, capture_output=True)
            took.append(time.perf_counter() - start)
        kept = took[1:]  # the first one warms the page cache
        word = "ok" if median(kept) <= bar else "MISSED"
        spread = f"from {min(kept):.2f} to {max(kept):.2f}, {RUNS} runs"
        print(f"scalenet {argument:<8} median {median(kept):.2f} s  ({spread})  bar {bar} s  {word}")


if __name__ == "__main__":
    main()
