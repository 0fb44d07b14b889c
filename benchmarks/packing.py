"""What the stopwatch of a search measures: every way to compute a trial's steps, and every way to share the machine.

    python benchmarks/packing.py [--plugin efficientnet] [--variant b0] [--side 32] [--set recipe.batch_size=128]

First a table of the ways (memory format, arithmetic, on CUDA recorded steps too), each timed in one process per GPU or
CPU, with the one that a search would take; then, computed that way, trials at a time, each in a process of its own.
Rates are of training the baseline, all trials together; recording is spread over a training's pictures. Pictures are
scalenet's embedded ones, whose content makes no difference. Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse

from scalenet.console import table
from scalenet.device import device_name, numerics, pick_device
from scalenet.experiment import plan
from scalenet.settle import quickest, timings
from scalenet.space import resolve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", default="efficientnet")
    parser.add_argument("--variant", default="micro")
    parser.add_argument("--side", type=int, default=None, help="pixels; default: the variant's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    told = parser.parse_args()
    device = pick_device(told.device)
    flags = {"variant": told.variant, "resolution": told.side}
    planned = plan(told.plugin, resolve(told.plugin, None, told.settings, flags))
    found = timings(planned, device, numerics(planned.space.recipe, device), planned.trials)
    print(f"{told.plugin} {told.variant}, {device_name(device)}, {planned.trials} trials\n")
    first, best = next(iter(found.shapes)), quickest(found.shapes, planned.trials)
    rows = [
        ["channels last" if how.channels_last else "contiguous", "bf16" if how.bf16 else "fp32",
         "recorded" if how.recorded else "eager", f"{first.workers / seconds:.0f}", "taken" * (how == found.how)]
        for how, seconds in found.ways.items()
    ]  # fmt: skip
    table(["memory", "arithmetic", "steps", "images/s", ""], rows, text_columns=3)
    print()
    shapes = [
        [f"{shape.workers}", f"{shape.threads}", f"{shape.workers / seconds:.0f}", "taken" * (shape == best)]
        for shape, seconds in found.shapes.items()
    ]
    table(["trials", "threads each", "images/s", ""], shapes, text_columns=0)


if __name__ == "__main__":
    main()
