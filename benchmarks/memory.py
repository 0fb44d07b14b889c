"""Private memory of a trial's process, with few pictures and with many, alone and beside a second trial.

    python benchmarks/memory.py [--data FOLDER] [--plugin mobilenet] [--side 32]

Private memory is what the process alone has written (Private_Dirty of /proc/PID/smaps_rollup: pages of the mapped
pictures are none of it), sampled five times a second over two epochs, the largest kept. Bar: with all the pictures it
is no more than with a few, but for a tenth of what the pictures take. Needs Linux.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from scalenet.data import DataRequest, Prepared, prepare
from scalenet.experiment import at_side
from scalenet.plain import to_plain
from scalenet.plugins import architecture
from scalenet.space import resolve

ALLOWED = 0.1  # of the pictures' size
FEW = 200


def trial(job: dict[str, Any]) -> None:
    """What a worker does."""
    from scalenet.trial import run

    for _ in run(job):
        pass


def largest(job: dict[str, Any], at_once: int) -> list[tuple[int, int]]:
    """Each process's largest private memory and PSS, bytes."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=trial, args=(job,)) for _ in range(at_once)]
    for process in processes:
        process.start()
    found = [(0, 0)] * at_once
    while any(process.is_alive() for process in processes):
        for i, process in enumerate(processes):
            try:
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
            except OSError:  # ended meanwhile
                continue
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
            found[i] = max(found[i][0], sizes["Private_Dirty"]), max(found[i][1], sizes["Pss"])
        time.sleep(0.2)
    if any(process.exitcode for process in processes):
        raise SystemExit("a trial failed; its traceback is above")
    return found


def job_of(told: argparse.Namespace, data: Prepared) -> dict[str, Any]:
    """Two epochs of the micro variant."""
    arch = architecture(told.plugin)
    spec = at_side(arch, arch.variant("micro").spec, told.side)
    recipe = replace(resolve(told.plugin).recipe, epochs=2, warmup_epochs=0.0)
    return {
        "plugin": told.plugin, "spec": to_plain(spec), "num_classes": len(data.classes), "data": to_plain(data),
        "recipe": to_plain(recipe), "seed": 0, "key": "memory", "threads": 1, "device": "cpu",
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="shapes")
    parser.add_argument("--plugin", default="mobilenet")
    parser.add_argument("--side", type=int, default=32)
    told = parser.parse_args()
    few = prepare(DataRequest(told.data, subset=FEW), told.side)
    many = prepare(DataRequest(told.data), told.side)
    size = many.pictures * 3 * many.side**2
    print(f"{many.pictures} pictures at {many.side} px take {size / 2**20:.0f} MiB; {told.plugin} at {told.side} px")
    print(f"{'':<24}{'private MiB':>12}{'PSS MiB':>10}")
    worst = 0
    rows = {"few pictures, alone": (few, 1), "all pictures, alone": (many, 1), "all pictures, two": (many, 2)}
    least = 0
    for name, (data, at_once) in rows.items():
        for uss, pss in largest(job_of(told, data), at_once):
            print(f"{name:<24}{uss / 2**20:>12.0f}{pss / 2**20:>10.0f}", flush=True)
            least, worst = least or uss, max(worst, uss)
    added = worst - least
    bar = ALLOWED * size
    word = "ok" if added <= bar else "MISSED"
    print(f"the pictures add {added / 2**20:.0f} MiB of private memory to a trial   bar {bar / 2**20:.0f}   {word}")
    return added > bar


if __name__ == "__main__":
    raise SystemExit(main())
