"""A process that times training steps when it is told to: `settle` starts several, to time them side by side.

It is told the job (and answers 0 when the network stands), then ways to compute it, and answers each by the seconds per
picture, infinite where that fails.
"""

from __future__ import annotations

import gc
import math

import torch

from scalenet import plugins
from scalenet.allocator import keep_freed_memory
from scalenet.children import conversation
from scalenet.device import Numerics, isolated, pick_device
from scalenet.plain import from_plain
from scalenet.recipe import Recipe
from scalenet.timing import Subject, seconds_per_image


def main() -> None:
    """Times what it is told to until it is told no more."""
    told, reply = conversation()
    keep_freed_memory()
    job = next(told)
    arch = plugins.architecture(job["plugin"])
    spec = from_plain(arch.spec_type(), job["spec"], f"spec of {job['plugin']}")
    subject = Subject(arch, spec, job["num_classes"], from_plain(Recipe, job["recipe"], "recipe"), job["batch"])
    device = pick_device(job["device"])
    with isolated(0, device):
        model = subject.build().to(device)
    reply(0)
    for way in told:
        how, seconds = Numerics(way["channels_last"], way["bf16"]), math.inf
        longest, hopeless = way["longest"], way["hopeless"]
        try:
            with isolated(0, device, way["threads"]):
                seconds = seconds_per_image(subject, model, how, device, longest=longest, hopeless=hopeless)
        except Exception:  # no kernel for this way, or too little memory beside so many: the others may do
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        reply(seconds)
