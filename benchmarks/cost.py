"""Times counting and projecting: `python benchmarks/cost.py [--repeats N]`.

Counts every variant of every installed architecture, and projects the 21 candidates of the default lattice for `micro`
and for the baseline, each time from a new Meter. Medians and ranges of wall time in a warm process (PyTorch imported,
one count of each architecture behind it), on one thread. The last lines compare with the bars and set the exit code.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch

from scalenet.architecture import Architecture
from scalenet.complexity import measure
from scalenet.meter import Meter
from scalenet.mixture import lattice, lattice_name
from scalenet.plugins import architectures
from scalenet.projection import candidates

COUNT_BAR = 0.5  # seconds for one count of any variant up to EfficientNet-B7
MICRO_BAR = 3.0  # seconds for the lattice of a micro variant
BASELINE_BAR = 20.0  # seconds for the lattice of EfficientNet-B0
LATTICE = 5


def timed(action: Callable[[], Any], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)


def project_lattice(arch: Architecture[Any], variant: str) -> tuple[int, int, int]:
    """Specs counted, candidates that are not rejected, and their distinct depths."""
    chosen = arch.variants[variant]
    meter = Meter(arch, chosen.spec, num_classes=chosen.num_classes)
    found = candidates(meter, [(lattice_name(point, LATTICE), point) for point in lattice(LATTICE)])
    usable = [candidate for candidate in found if candidate.rejected is None]
    return meter.counted, len(usable), len({candidate.size.depth for candidate in usable})


def row(name: str, seconds: list[float], rest: str) -> str:
    low, middle, high = (1e3 * s for s in (seconds[0], median(seconds), seconds[-1]))
    return f"{name:<28} {middle:>9.1f} ms  [{low:.1f} .. {high:.1f}]".ljust(66) + rest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    counts: dict[str, float] = {}
    lattices: dict[tuple[str, str], float] = {}

    print(f"one count, median of {repeats} [range]")
    for arch in architectures().values():
        for name, variant in arch.variants.items():
            cost = measure(arch, variant.spec, num_classes=variant.num_classes)
            seconds = timed(lambda a=arch, v=variant: measure(a, v.spec, num_classes=v.num_classes), repeats)  # type: ignore[misc]
            label = f"{arch.name} {name}"
            counts[label] = median(seconds)
            print(row(label, seconds, f"{cost.flops / 1e6:>12,.1f} M FLOPs {cost.params / 1e6:>9,.2f} M params"))

    print(f"\nprojection of the {{3, {LATTICE}}} lattice, median of {repeats} [range]")
    for arch in architectures().values():
        for name in ("micro", arch.baseline):
            counted, usable, depths = project_lattice(arch, name)
            seconds = timed(lambda a=arch, n=name: project_lattice(a, n), repeats)  # type: ignore[misc]
            lattices[arch.name, name] = median(seconds)
            print(row(f"{arch.name} {name}", seconds, f"{counted:>5} counts, {usable} candidates, {depths} depths"))

    slowest = max(counts, key=counts.__getitem__)
    slowest_micro = max((key for key in lattices if key[1] == "micro"), key=lattices.__getitem__)
    bars = [
        (f"slowest count: {slowest}", counts[slowest], COUNT_BAR),
        (f"slowest micro lattice: {slowest_micro[0]}", lattices[slowest_micro], MICRO_BAR),
    ]
    if ("efficientnet", "b0") in lattices:
        bars.append(("lattice of efficientnet b0", lattices["efficientnet", "b0"], BASELINE_BAR))
    print()
    for what, taken, bar in bars:
        print(f"{what}: {taken:.2f} s, bar {bar:g} s: {'met' if taken <= bar else 'MISSED'}")
    return int(any(taken > bar for _, taken, bar in bars))


if __name__ == "__main__":
    sys.exit(main())
