"""A process that times training steps when it is told to: `settle` starts several, to time them side by side.

Reads lines of JSON and answers each by a line with a number: first the job (answered by 0 when the network stands),
then ways to compute it, answered by the seconds per picture, or "inf" where that fails. Ends with its input.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys

import torch

from scalenet import plugins
from scalenet.allocator import keep_freed_memory
from scalenet.device import Numerics, isolated, pick_device
from scalenet.plain import from_plain
from scalenet.recipe import Recipe
from scalenet.timing import Subject, seconds_per_image


def main() -> None:
    """Serves standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an architecture prints is no answer
    keep_freed_memory()
    job = json.loads(sys.stdin.readline())
    arch = plugins.architecture(job["plugin"])
    spec = from_plain(arch.spec_type(), job["spec"], f"spec of {job['plugin']}")
    subject = Subject(arch, spec, job["num_classes"], from_plain(Recipe, job["recipe"], "recipe"), job["batch"])
    device = pick_device(job["device"])
    with isolated(0, device):
        model = subject.build().to(device)
    print(0, file=answers, flush=True)
    for line in sys.stdin:
        way = json.loads(line)
        hopeless = math.inf if way["hopeless"] is None else way["hopeless"]
        how, seconds = Numerics(way["channels_last"], way["bf16"]), math.inf
        try:
            with isolated(0, device, way["threads"]):
                seconds = seconds_per_image(subject, model, how, device, longest=way["longest"], hopeless=hopeless)
        except Exception:  # no kernel for this way, or too little memory beside so many: the others may do
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        print(seconds, file=answers, flush=True)
