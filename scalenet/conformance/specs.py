"""Checks of what an architecture says of itself: names, specs and how they scale. Costs are counted on meta."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from itertools import product
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from scalenet.architecture import FINE, PAPER, Architecture, Scale
from scalenet.complexity import build_on_meta, charges, measure
from scalenet.conformance.values import require
from scalenet.errors import ScalenetError, one_line
from scalenet.experiment import at_side
from scalenet.meter import Meter
from scalenet.mixture import lattice, lattice_name
from scalenet.plain import from_plain, to_plain
from scalenet.projection import candidates
from scalenet.shares import FACTORS

LATTICE, TARGET = 5, 2.0  # the default search's: 21 points, twice the FLOPs
DISTINCT, DEPTHS = 15, 4  # candidates and depths that it must keep on micro
STEPS = (0.5, 0.77, 1.0, 1.3, 2.0, 4.0)  # multipliers of the grid
CLASSES = 10


def names(arch: Architecture[Any]) -> None:
    """Name, paper, baseline and micro are there, and every variant says where its numbers come from."""
    require(
        re.fullmatch(r"[a-z][a-z0-9_]*", arch.name) is not None,
        f"name must be lower-case letters, digits and _, beginning with a letter, got {arch.name!r}",
    )
    require(arch.paper.startswith(("https://", "http://")), f"paper must be a URL, got {arch.paper!r}")
    for name in (arch.baseline, "micro"):
        require(name in arch.variants, f"variants must hold {name!r}, got {', '.join(arch.variants)}")
    require(arch.baseline != "micro", "baseline must be a published variant, got 'micro'")
    for name, variant in arch.variants.items():
        require(bool(variant.source.strip()), f"variant {name}: source must say where its numbers come from")
        require(variant.num_classes >= 0, f"variant {name}: num_classes must be 0 or more, got {variant.num_classes}")
        require(variant.spec.resolution >= 16, f"variant {name}: resolution must be 16 px or more")


def plain_spec(arch: Architecture[Any]) -> None:
    """Specs are frozen, hashable dataclasses that survive the way to a file and back."""
    for name, spec in _specs(arch):
        kind = type(spec)
        frozen = is_dataclass(spec) and kind.__dataclass_params__.frozen
        require(frozen, f"variant {name}: its spec must be a frozen dataclass, got {kind.__name__}")
        try:
            hash(spec)
        except TypeError as error:
            require(False, f"variant {name}: its spec must be hashable ({error})")
        require(kind is arch.spec_type(), f"variant {name}: its spec is a {kind.__name__}, not {arch.spec_type()}")
        try:
            back = from_plain(kind, to_plain(spec), "spec")
        except (ScalenetError, TypeError, ValueError) as error:
            require(False, f"variant {name}: its spec must be plain data ({error})")
        require(back == spec, f"variant {name}: its spec comes back from plain data as {back}")


def scale_identity(arch: Architecture[Any]) -> None:
    """Scale() returns every spec unchanged, under both roundings."""
    for (name, spec), rounding in product(_specs(arch), (FINE, PAPER)):
        scaled = arch.scale(spec, Scale(), rounding)
        require(scaled == spec, f"variant {name}: scale by 1 ({rounding.value} rounding) must return it, got {scaled}")


def scale_purity(arch: Architecture[Any]) -> None:
    """Scaling depends on its arguments alone, leaves them as they were and returns plain data of the same kind."""
    for name, spec in _specs(arch):
        before = copy.deepcopy(spec)
        by = [Scale(*steps) for steps in ((1.3, 1.1, 1.2), (0.5, 2.0, 1.0))]
        for rounding in (FINE, PAPER):
            first = [arch.scale(spec, each, rounding) for each in by]
            again = [arch.scale(spec, each, rounding) for each in reversed(by)][::-1]
            require(first == again, f"variant {name}: scale must return the same spec every time")
            for scaled in first:
                require(type(scaled) is type(spec), f"variant {name}: scale must return a {type(spec).__name__}")
                back = from_plain(type(spec), to_plain(scaled), "scaled spec")
                require(back == scaled, f"variant {name}: a scaled spec must be plain data, got {scaled}")
        require(spec == before, f"variant {name}: scale must leave its argument as it was")


def knobs_move_alone(arch: Architecture[Any]) -> None:
    """Each of depth, width and resolution moves by itself from 0.5 to 4, and a larger factor never builds less."""
    for name, spec in ((name, arch.variants[name].spec) for name in (arch.baseline, "micro")):
        start = arch.size(spec)
        for factor in FACTORS:
            before = 0.0
            for step in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 4.0):
                told = f"variant {name}, {factor} x {step:g}"
                size = arch.size(arch.scale(spec, replace(Scale(), **{factor: step})))
                reached = float(getattr(size, factor))
                require(reached >= before, f"{told}: a larger factor builds less ({reached:g} after {before:g})")
                before = reached
                for other in set(FACTORS) - {factor}:
                    was, now = float(getattr(start, other)), float(getattr(size, other))
                    # The mean width moves a little where depth adds blocks to wider or narrower stages.
                    alone = was == now if (factor, other) != ("depth", "width") else 0.5 < now / was < 2.0
                    require(alone, f"{told}: {other} moves along, from {was:g} to {now:g}")
            least, most = (
                float(getattr(arch.size(arch.scale(spec, replace(Scale(), **{factor: step}))), factor))
                for step in (0.5, 4.0)
            )
            was = float(getattr(start, factor))
            require(3 * was <= most <= 5 * was, f"variant {name}: {factor} x 4 builds {most:g} from {was:g}")
            floor = least == 16 and factor == "resolution"
            require(least < was or floor or was <= 1, f"variant {name}: {factor} x 0.5 builds {least:g} from {was:g}")


def grid_builds(arch: Architecture[Any]) -> None:
    """Every point of a grid of scales from 0.5 to 4 builds and runs, and so does any side from 16 px."""
    micro, baseline = arch.variants["micro"].spec, arch.variants[arch.baseline].spec
    points = [(micro, Scale(*steps)) for steps in product((0.5, 1.0, 1.3, 4.0), repeat=3)]
    points += [(baseline, replace(Scale(), **{factor: step})) for factor in FACTORS for step in STEPS if step != 1]
    meters = {spec: Meter(arch, spec, num_classes=CLASSES) for spec in (micro, baseline)}
    for spec, by in points:
        try:
            flops = meters[spec].cost(arch.scale(spec, by)).flops
        except Exception as error:
            require(False, f"{by} of the spec at {spec.resolution} px does not build and run ({one_line(error)})")
        require(flops > 0, f"{by} of the spec at {spec.resolution} px builds a network without work")
    for side in (*range(16, 50), 63, 65, 71):
        try:
            meters[micro].cost(at_side(arch, micro, side))
        except Exception as error:
            require(False, f"micro at {side} px does not build and run ({one_line(error)})")


def lattice_distinct(arch: Architecture[Any]) -> None:
    """The default lattice keeps at least 15 distinct candidates and 4 distinct depths on micro."""
    meter = Meter(arch, arch.variants["micro"].spec, num_classes=CLASSES)
    points = [(lattice_name(shares, LATTICE), shares) for shares in lattice(LATTICE)]
    kept = [c for c in candidates(meter, points, TARGET) if c.rejected is None]
    require(
        len(kept) >= DISTINCT, f"the default lattice keeps {len(kept)} candidates of micro, at least {DISTINCT} asked"
    )
    depths = {c.size.depth for c in kept}
    require(len(depths) >= DEPTHS, f"the default lattice keeps depths {sorted(depths)} of micro, {DEPTHS} asked")


def flops_can_double(arch: Architecture[Any]) -> None:
    """Depth, width and resolution can each double the FLOPs by themselves, of micro and of the baseline."""
    for name in (arch.baseline, "micro"):
        meter = Meter(arch, arch.variants[name].spec, num_classes=CLASSES)
        for factor in FACTORS:
            for step in (1.1, 1.2, 1.4, 1.6, 2.0, 2.5, 3.0, 4.0):
                ratio = meter.ratio(meter.scaled(replace(Scale(), **{factor: step})))
                if ratio >= TARGET:
                    break
            require(ratio >= TARGET, f"variant {name}: {factor} x 4 costs {ratio:.2f} x the FLOPs, at least 2 asked")


def flops_counted(arch: Architecture[Any]) -> None:
    """Every operator of every variant is counted or known to be free, and torch's own counter sees no more."""
    for name, variant in arch.variants.items():
        try:
            cost = measure(arch, variant.spec, num_classes=max(1, variant.num_classes))
        except ScalenetError as error:
            require(False, f"variant {name}: {error}")
        require(cost.params > 0 and cost.activations > 0, f"variant {name}: counts as {cost}")
    for name in (arch.baseline, "micro"):
        variant = arch.variants[name]
        ours = published_flops(arch, variant.spec, max(1, variant.num_classes))
        model = build_on_meta(arch, variant.spec, num_classes=max(1, variant.num_classes))
        with FlopCounterMode(display=False) as counter:  # with autograd on: without, it fails on some attention
            model(torch.empty(1, 3, variant.spec.resolution, variant.spec.resolution, device="meta"))
        theirs = counter.get_total_flops() // 2
        require(ours >= theirs, f"variant {name}: {ours:,} FLOPs counted, {theirs:,} by torch's counter")


def matches_published(arch: Architecture[Any]) -> None:
    """Parameters and FLOPs of every variant are the published ones, to the last."""
    for name, variant in arch.variants.items():
        classes = max(1, variant.num_classes)
        if variant.params is not None:
            params = measure(arch, variant.spec, num_classes=classes).params
            require(params == variant.params, f"variant {name}: {params:,} parameters, published {variant.params:,}")
        if variant.flops is not None:
            flops = published_flops(arch, variant.spec, classes)
            require(flops == variant.flops, f"variant {name}: {flops:,} FLOPs, published {variant.flops:,}")


def published_flops(arch: Architecture[Any], spec: Any, num_classes: int) -> int:
    """FLOPs as public counters see them: without FFT, and without what `flop_counts` declares."""
    found = charges(arch, spec, num_classes=num_classes)
    return sum(c.flops for c in found if c.operator != "flop_counts" and not c.operator.startswith("aten::_fft"))


def _specs(arch: Architecture[Any]) -> Iterator[tuple[str, Any]]:
    return ((name, variant.spec) for name, variant in arch.variants.items())
