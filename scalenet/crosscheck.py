"""fvcore's independent count, on real weights, with every difference to ours explained by name."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from scalenet.architecture import Architecture
from scalenet.complexity import charges
from scalenet.errors import ScalenetError

# What fvcore counts as we do, by its own names. Everything else that it counts is free here.
_SHARED = frozenset({"conv", "linear", "addmm", "mm", "bmm", "matmul", "einsum"})
_SKIPPED = "skipped: "


@dataclass(frozen=True)
class Difference:
    """One reason why the two counts differ, and by how much: fvcore's is `flops` higher (below 0: lower) for it."""

    reason: str
    flops: int


@dataclass(frozen=True)
class FvcoreReport:
    """Two independent counts of one image. ours + differences + unexplained = fvcore's."""

    ours: int
    fvcore: int
    differences: tuple[Difference, ...]
    unexplained: int

    def text(self) -> str:
        """The comparison as lines: our count, the reasons, fvcore's count, and what no reason covers."""
        lines = [f"{self.ours:>16,}  scalenet"]
        lines += [f"{d.flops:>+16,}  {d.reason}" for d in self.differences]
        lines += [f"{self.unexplained:>+16,}  unexplained"] if self.unexplained else []
        end = "every difference explained" if not self.unexplained else f"unexplained {self.unexplained:+,}"
        return "\n".join([*lines, f"{self.fvcore:>16,}  fvcore: {end}"])


def fvcore_check(arch: Architecture[Any], spec: Any, *, num_classes: int, in_channels: int = 3) -> FvcoreReport:
    """Counts one image with fvcore and explains the differences.

    The weights are real and on the CPU, since fvcore raises on the meta device for any convolution. It counts norms and
    some pooling and resizing, which are free here, and silently skips fused attention, convolutions with
    padding="same", FFT and whatever a formula in `flop_counts` stands for.

    Raises:
        ScalenetError: fvcore is not installed.
    """
    ours = charges(arch, spec, num_classes=num_classes, in_channels=in_channels)
    model = arch.build(spec, num_classes=num_classes, in_channels=in_channels).eval()
    image = torch.zeros(1, in_channels, spec.resolution, spec.resolution)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch.jit, which fvcore is built on
        try:
            from fvcore.nn import FlopCountAnalysis
        except ImportError as error:
            raise ScalenetError("fvcore is not installed; `pip install fvcore`.") from error
        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        analysis.set_op_handle("aten::scaled_dot_product_attention", _attention)
        analysis.set_op_handle("aten::_convolution_mode", _same_convolution)
        counted = {name: round(flops) for name, flops in analysis.by_operator().items()}
        missed = analysis.unsupported_ops()
    differences = [
        Difference(f"{name} is counted by fvcore and free here", flops)
        for name, flops in sorted(counted.items())
        if name not in _SHARED and not name.startswith(_SKIPPED)
    ]
    differences += [
        Difference(f"{name.removeprefix(_SKIPPED)} is skipped by fvcore", -flops)
        for name, flops in sorted(counted.items())
        if name.startswith(_SKIPPED)
    ]
    by_name: Counter[str] = Counter()
    for charge in ours:
        if charge.operator.startswith("aten::_fft") or charge.operator == "flop_counts" or charge.operator in missed:
            by_name[charge.operator] += charge.flops
    differences += [Difference(f"{name} is skipped by fvcore", -flops) for name, flops in sorted(by_name.items())]
    total = sum(charge.flops for charge in ours)
    theirs = sum(flops for name, flops in counted.items() if not name.startswith(_SKIPPED))
    explained = tuple(d for d in differences if d.flops)
    return FvcoreReport(total, theirs, explained, theirs - total - sum(d.flops for d in explained))


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    query, key, value = (_shape(v) for v in inputs[:3])
    flops = prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return Counter({f"{_SKIPPED}scaled_dot_product_attention": flops})


def _same_convolution(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    return Counter({f'{_SKIPPED}conv with padding="same"': prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])})


def _shape(value: Any) -> list[int]:
    sizes: list[int] = value.type().sizes()
    return sizes
