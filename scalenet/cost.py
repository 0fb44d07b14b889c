"""What a network costs, as plain values. `scalenet.complexity` measures them; this file needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CostName = Literal["flops", "activations", "latency"]  # what a search may call a candidate's cost


def label(name: str) -> str:
    """A cost as a sentence names it: "FLOPs", "activations", "latency"."""
    return "FLOPs" if name == "flops" else name


@dataclass(frozen=True)
class Cost:
    """The cost of one image, in eval mode.

    FLOPs are multiply-adds (1 MAC = 1 FLOP), as in the EfficientNet paper, pycls, fvcore and timm's tables.
    Activations are the output elements of convolutions and matrix products (RegNet, arXiv:2003.13678, section 3).
    """

    params: int  # every parameter once, frozen ones included, buffers excluded
    flops: int
    activations: int


@dataclass(frozen=True)
class ModuleCost:
    """One row of the per-module table: what this module does itself, outside of the modules with rows of their own."""

    name: str  # dotted path, "" for the model itself
    type: str
    params: int
    flops: int
    activations: int
    output: tuple[int, ...] | None  # shape of the first call's output; None where it is never called or no tensor
