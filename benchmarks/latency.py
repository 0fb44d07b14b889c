"""How well latency is predicted: networks of a family that the calibration has not timed, timed and compared.

    python benchmarks/latency.py [--architectures efficientnet,vit] [--variant NAME] [--device cuda] [--batch 1]

For each architecture the device is calibrated as `scalenet search --cost latency` does it, nothing taken from the
cache. Then the same seven directions at 1.4 and 2.8 x the baseline's FLOPs are timed, networks that lie between those
of the calibration (which are at 2 and 4 x), in turns with the calibration's own, to which the law is fitted again: what
all networks share of a better or a worse minute is no error of a search, which compares them with one another. R2 and
the median error are of these. Beside the prediction in use: its law without a factor of each width, FLOPs alone (a
line), and logarithms of FLOPs and activations (a plane), all fitted to the same timings.

Bar: R2 0.93, median error 19 %, calibrated within 30 s. Run it with nothing else on the machine; the load is printed.
Where that cannot be had, `--cpu-clock` counts the seconds that the one thread computed, which leaves out waiting for a
core, though not what neighbours do to caches and clock rates; the calibration's seconds are then of the process.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from scalenet.architecture import Size
from scalenet.calibrate import Subject, design, measured, milliseconds, subject_of, timed
from scalenet.console import bar
from scalenet.cost import Cost
from scalenet.latency import (
    LEAST_R2,
    MOST_ERROR,
    Calibration,
    FloatArray,
    calibration,
    fit,
    median_error,
    r_squared,
)
from scalenet.meter import Meter
from scalenet.plugins import architecture
from scalenet.space import resolve

BETWEEN = (1.4, 2.8)  # FLOPs of the networks that are foretold, over the baseline's
LONGEST = 30.0  # seconds of a calibration


def by_counts(found: Calibration, specs: Sequence[tuple[Cost, Size]]) -> FloatArray:
    """The law in use without the factors of widths."""
    law = fit([(t.cost, t.size) for t in found.timings], [t.milliseconds for t in found.timings])
    return np.array([law.of(cost, size) for cost, size in specs])


def by_flops(found: Calibration, specs: Sequence[tuple[Cost, Size]]) -> FloatArray:
    """A line through the calibration's timings over FLOPs, relative errors least."""
    taken = np.array([t.milliseconds for t in found.timings])
    line = np.polyfit([t.cost.flops / 1e9 for t in found.timings], taken, 1, w=1 / taken)
    return np.asarray(np.polyval(line, [cost.flops / 1e9 for cost, _ in specs]))


def by_logarithms(found: Calibration, specs: Sequence[tuple[Cost, Size]]) -> FloatArray:
    """A plane through the logarithms of FLOPs and activations."""

    def rows(costs: Sequence[Cost]) -> FloatArray:
        return np.array([[1.0, math.log(cost.flops), math.log(cost.activations)] for cost in costs])

    taken = np.log([t.milliseconds for t in found.timings])
    plane = np.linalg.lstsq(rows([t.cost for t in found.timings]), taken, rcond=None)[0]
    return np.asarray(np.exp(rows([cost for cost, _ in specs]) @ plane))


def compare(subject: Subject) -> tuple[int, list[tuple[float, float]]]:
    """How many networks were foretold, and R2 and median error of the prediction in use and of the three others."""
    meter = subject.meter
    known, by_width = timed(meter)
    others = [spec for spec in design(meter, BETWEEN) if spec not in known]
    pairs = [(meter.cost(spec), meter.arch.size(spec)) for spec in (*known, *others)]
    with bar("timing networks that are to be foretold") as report:
        taken = milliseconds(subject, [*known, *others], report)
    found = calibration(subject.setting, pairs[: len(known)], taken[: len(known)], by_width=by_width)
    pairs, truly = pairs[len(known) :], np.array(taken[len(known) :])
    ours = np.array([found.of(cost, size) for cost, size in pairs])
    said = (ours, by_counts(found, pairs), by_flops(found, pairs), by_logarithms(found, pairs))
    return len(others), [(r_squared(truly, p), median_error(truly, p)) for p in said]


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", default="efficientnet,mobilevit,vit,senet,convmixer")
    parser.add_argument("--variant", default="micro")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--cpu-clock", action="store_true", help="count CPU time, where the machine is not quiet")
    parser.add_argument("--batch", type=int, help="pictures of a pass; default: the search's")
    told = parser.parse_args()
    if told.cpu_clock and (told.threads != 1 or told.device != "cpu"):
        parser.error(
            "--cpu-clock counts what one thread of the CPU computed: it goes with --threads 1 and --device cpu."
        )
    unit = "CPU time" if told.cpu_clock else "wall time"
    print(f"torch {torch.__version__}, {told.device}, {told.threads} CPU threads, {unit}, load {_load()}")
    print(f"{'':<14}{'batch':>6}{'baseline':>12}{'calibrated':>14}{'leave one out':>16}{'foretold':>10}", end="")
    print(f"{'predicted':>16}{'counts alone':>16}{'FLOPs alone':>16}{'logarithms':>16}   (R2, median error)")
    missed = []
    for name in told.architectures.split(","):
        arch = architecture(name)
        chosen = arch.variant(told.variant)
        meter = Meter(arch, chosen.spec, num_classes=max(1, chosen.num_classes))
        settings = [f"latency.threads={told.threads}", f"latency.batch_size={told.batch or 'null'}"]
        space = resolve(name, None, settings, {"cost": "latency"})
        subject = subject_of(meter, space, told.device)
        if told.cpu_clock:
            subject = replace(subject, clock=time.thread_time)
        clock = time.process_time if told.cpu_clock else time.perf_counter
        start = clock()
        with bar("calibrating") as report:
            found = measured(subject, space.target, report)
        took = clock() - start
        foretold, figures = compare(subject)
        (r2, error), *_ = figures
        if r2 < LEAST_R2 or error > MOST_ERROR or (told.variant == "micro" and took > LONGEST):
            missed.append(name)
        columns = [f"{r2:>9.3f}{100 * error:>5.1f} %" for r2, error in [(found.r2, found.median_error), *figures]]
        print(
            f"{name:<14}{found.setting.batch_size:>6}{found.text(found.timings[0].milliseconds):>12}"
            f"{f'{len(found.timings)} in {took:.0f} s':>14}{columns[0]:>16}{foretold:>10}{''.join(columns[1:])}",
            flush=True,
        )
    print(f"load {_load()}; missed: {', '.join(missed) or 'none'}")
    return len(missed)


if __name__ == "__main__":
    raise SystemExit(min(1, main()))
