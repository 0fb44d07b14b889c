"""How quickly pictures get into the cache, and how quickly a second start finds them there.

    python benchmarks/decoding.py --data FOLDER [--side 32] [--runs 3]

FOLDER holds class folders, or train/ and test/ with class folders. Each run begins with an empty cache, in a process of
its own: pictures are found, read and hashed (`survey`), then decoded into the cache (`prepare`); a second process does
the same again. Imports are left out. Bar: 6,000 pictures a second decoded on 2 CPUs (of 32 px), a second start under
1 s. Files come from the page cache, where the first run has put them. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median

from scalenet.data import DataRequest, prepare, survey
from scalenet.plugins import registry

RATE, AGAIN = 6000.0, 1.0  # pictures a second, seconds


def start(folder: str, side: int, cache: str) -> tuple[int, float, float]:
    """Pictures, seconds until they are known, seconds until they are in the cache."""
    os.environ["SCALENET_CACHE"] = cache
    registry()  # imports every plugin
    begun = time.perf_counter()
    found = survey(DataRequest(folder))
    known = time.perf_counter()
    prepare(DataRequest(folder), side, known=found)
    return found.pictures, known - begun, time.perf_counter() - known


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--runs", type=int, default=3)
    told = parser.parse_args()
    read, decoded, again = [], [], []
    for _ in range(told.runs):
        with tempfile.TemporaryDirectory() as cache:
            job = (str(told.data.resolve()), told.side, cache)
            found = []
            for _ in range(2):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    found.append(pool.apply(start, job))
        (pictures, known, stored), (_, *second) = found
        read.append(known)
        decoded.append(pictures / stored)
        again.append(sum(second))
    print(f"{pictures} pictures at {told.side} px, {platform.machine()}, {os.cpu_count()} CPUs, {told.runs} runs")
    for what, values, word in (
        ("found, read and hashed, s", read, ""),
        ("decoded, pictures/s", decoded, "ok" if median(decoded) >= RATE else "MISSED"),
        ("a second start, s", again, "ok" if median(again) <= AGAIN else "MISSED"),
    ):
        print(f"{what:<28} median {median(values):,.2f} ({min(values):,.2f} to {max(values):,.2f})  {word}")
    return int(median(decoded) < RATE or median(again) > AGAIN)


if __name__ == "__main__":
    raise SystemExit(main())
