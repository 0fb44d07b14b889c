"""Where a training runs and in which arithmetic, and how it leaves no trace in its process."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from scalenet.environment import cpus
from scalenet.errors import ScalenetError
from scalenet.recipe import Recipe


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        ScalenetError: a name that means nothing, or a device that this machine lacks.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ScalenetError(f"No device {name!r}; it must be auto, cpu, cuda, cuda:N or mps.") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count() if cuda else 0, "mps": int(mps)}.get(device.type)
    if count is None:
        raise ScalenetError(f"No device {name!r}; it must be auto, cpu, cuda, cuda:N or mps.")
    if (device.index or 0) >= count:
        has = ", ".join(["cpu"] + ["mps"] * mps + [f"cuda:{i}" for i in range(torch.cuda.device_count())])
        raise ScalenetError(f"Device {name!r} is not here; this machine has {has}.")
    return device


def device_name(device: torch.device) -> str:
    """What the maker calls it; the CPU's architecture where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_name() or platform.processor() or platform.machine()


def machine(device: torch.device) -> list[Any]:
    """What the timings of one machine depend on, plain: two lists that are equal are of the same machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return [name, torch.cuda.device_count(), cpus(), platform.machine(), torch.__version__]


@cache
def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


@dataclass(frozen=True)
class Numerics:
    """The arithmetic of a training: memory layout of convolutions and pictures, whether autocast uses bfloat16, and
    whether steps are replays of a recorded one (`step.Replayed`)."""

    channels_last: bool
    bf16: bool
    recorded: bool = False


def numerics(recipe: Recipe, device: torch.device) -> Numerics:
    """What the recipe's "auto" means on a device.

    A rule: `scalenet search` settles all by stopwatch (`settle`) before it begins, and records what it chose; this is
    for whatever is trained without that. channels_last is on but for MPS: on a CPU it takes a
    training step of EfficientNet-B0 at 48 px from 0.33 to 0.24 s and of MobileNetV2 from 0.20 to 0.11 s, and on CUDA
    it is what tensor cores read. bfloat16 is on for CUDA devices that compute in it (compute capability 8.0 or later)
    and off elsewhere: on a CPU the same two steps took twice as long with it. Steps are recorded only where the
    recipe says so, and on CUDA: not every model can be, and a short training is over before that pays.
    """
    bf16 = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return Numerics(
        channels_last=device.type != "mps" if recipe.memory_format == "auto" else recipe.memory_format != "contiguous",
        bf16=bf16 if recipe.precision == "auto" else recipe.precision == "bf16",
        recorded=recipe.execution == "cuda_graphs" and device.type == "cuda",
    )


def seed_of(*parts: str | int) -> int:
    """A 63-bit seed that depends on all parts and their order, the same on every machine and in every process."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch takes 64 bits, its generators want a non-negative int


@contextmanager
def isolated(seed: int, device: torch.device, threads: int | None = None) -> Iterator[None]:
    """Torch's generators seeded and its thread count set inside; both as they were outside.

    A reused worker keeps whatever the trial before it left behind, its thread count included (OMP_NUM_THREADS is read
    only once), so every piece of work says what it needs and puts it back.

    On one thread, numbers below 1.2e-38 count as 0: a CPU takes many times as long with them, and a softmax that is
    sure of itself yields them, so that some networks would train a fifth to a third more slowly. With more threads
    they stay, as those that torch has started before would not be told, and the result depend on it.
    """
    before, flushed = torch.get_num_threads(), _flushes_denormals()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed or torch.get_num_threads() == 1)
        devices = [] if device.type == "cpu" else [_index(device)]
        with torch.random.fork_rng(devices=devices, device_type=device.type):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(before)


def _flushes_denormals() -> bool:
    """Whether this thread does; torch can be told, but not asked."""
    return sys.float_info.min / 2 == 0.0  # Python's own, as no setting of torch's or NumPy's changes what it does


def _index(device: torch.device) -> int:
    if device.index is not None:
        return device.index
    return torch.cuda.current_device() if device.type == "cuda" else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whichever device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # MPS and the CPU allocator (whose words depend on the system) raise plain RuntimeErrors.
    words = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
