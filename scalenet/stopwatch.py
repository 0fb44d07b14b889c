"""A process that times training steps when it is told to: `settle` starts several, to time them side by side.

It is told the job (and answers 0 when the network stands), then ways to compute it, and answers each by the seconds per
picture, infinite where that fails.
"""

from __future__ import annotations

import copy
import gc
import math

import torch

from scalenet import plugins
from scalenet.allocator import keep_freed_memory
from scalenet.children import conversation
from scalenet.device import Numerics, isolated, pick_device
from scalenet.plain import from_plain
from scalenet.recipe import Recipe
from scalenet.timing import Subject, replays_faithfully, seconds_per_image


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
        untrained = subject.build().to(device)
    model = copy.deepcopy(untrained)
    faithful: dict[Numerics, bool] = {}
    reply(0)
    for way in told:
        how, seconds = Numerics(way["channels_last"], way["bf16"], way["recorded"]), math.inf
        limits = {"longest": way["longest"], "hopeless": way["hopeless"], **job["spread"]}
        failed = False
        try:
            with isolated(0, device, way["threads"]):
                if how.recorded and how not in faithful:
                    faithful[how] = replays_faithfully(subject, untrained, how, device)
                if faithful.get(how, True):
                    seconds = seconds_per_image(subject, model, how, device, **limits)
        except Exception:  # no kernel for this way, no recording of it, or too little memory beside so many
            failed = True
        if failed:  # outside of the handler: the exception held the frames, and with them the tensors, that must go
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        reply(seconds)
