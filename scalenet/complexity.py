"""FLOPs, parameters and activations of a network, counted on the meta device: no weights, no arithmetic.

FLOPs are multiply-adds (1 MAC = 1 FLOP), as in the EfficientNet paper, pycls, fvcore and timm's tables. Convolutions,
linear maps, matrix products, attention (fused or not), einsum and FFT count; BatchNorm, LayerNorm, softmax, activation
functions, pooling, resizing and element-wise arithmetic do not. `scalenet.operators` holds both lists; an operator on
neither is an error that names it. All figures are of one image, in eval mode, `model(x)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from scalenet.architecture import Architecture, Spec
from scalenet.cost import Cost, ModuleCost
from scalenet.errors import ScalenetError
from scalenet.operators import Uncounted, formula_of, is_functional, outputs_of, writes_in_place

__all__ = ["Charge", "Cost", "Memory", "ModuleCost", "build_on_meta", "charges", "measure", "table"]

S = TypeVar("S", bound=Spec)

# What an operator gave for arguments of these shapes: its outputs' shapes (one tensor or a list), FLOPs, activations.
_Shape = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]
_Known = tuple["_Shape | list[_Shape]", int, int]
Memory = dict[Any, _Known]


def measure(
    arch: Architecture[S], spec: S, *, num_classes: int, in_channels: int = 3, memory: Memory | None = None
) -> Cost:
    """The cost of one image through the network of `spec`.

    Modules named in `arch.flop_counts` are charged their formula on top of the operators counted inside them: the
    formula stands for the work that those operators cannot show (involution's multiply and sum), adds no activations,
    and lets operators without a formula of their own pass there.

    Args:
        memory: shapes seen before, shared between counts to make the next one faster.

    Raises:
        ScalenetError: an operator without a formula, or a network that cannot run on the meta device.
    """
    model = build_on_meta(arch, spec, num_classes=num_classes, in_channels=in_channels)
    found = _count(arch, spec, model, in_channels, {} if memory is None else memory)
    params = sum(p.numel() for p in model.parameters())
    return Cost(params, sum(charge.flops for charge in found), sum(charge.activations for charge in found))


def table(
    arch: Architecture[S], spec: S, *, num_classes: int, in_channels: int = 3, level: int | None = None
) -> list[ModuleCost]:
    """The same cost by module, in order of definition; the rows are disjoint and sum to `measure` exactly.

    A row holds what a module does itself, so work that a parent does outside of its children is in the parent's row. A
    module or parameter used in several places appears once, under its first name. Modules without parameters or work
    have no row.

    Args:
        level: fold modules into their ancestors this many names deep; None: every module by itself.
    """
    model = build_on_meta(arch, spec, num_classes=num_classes, in_channels=in_channels)
    outputs: dict[str, tuple[int, ...]] = {}
    found = _count(arch, spec, model, in_channels, {}, outputs)
    types = {name: type(module).__name__ for name, module in model.named_modules()}
    sums: dict[str, list[int]] = {}
    for name in types:  # gives the rows their order
        sums.setdefault(_fold(name, level), [0, 0, 0])
    for name, parameter in model.named_parameters():
        sums[_fold(name.rpartition(".")[0], level)][0] += parameter.numel()
    for charge in found:
        row = sums[_fold(charge.module, level)]
        row[1] += charge.flops
        row[2] += charge.activations
    return [
        ModuleCost(name, types[name], params, flops, activations, outputs.get(name))
        for name, (params, flops, activations) in sums.items()
        if params or flops or activations
    ]


def charges(arch: Architecture[S], spec: S, *, num_classes: int, in_channels: int = 3) -> list[Charge]:
    """The same cost by operator call, in order of execution, with the module that each was called in."""
    model = build_on_meta(arch, spec, num_classes=num_classes, in_channels=in_channels)
    return _count(arch, spec, model, in_channels, {}, {})


def build_on_meta(arch: Architecture[S], spec: S, *, num_classes: int, in_channels: int = 3) -> nn.Module:
    """The network of `spec` in eval mode on the meta device: shapes only, its weights neither allocated nor drawn.

    Raises:
        ScalenetError: its constructor asks for a tensor's values, which meta tensors do not have.
    """
    with _explained(arch), torch.device("meta"), _NoInitialisation():
        model = arch.build(spec, num_classes=num_classes, in_channels=in_channels)
    if any(not t.is_meta for t in (*model.parameters(), *model.buffers())):  # tables that came from numpy
        model = model.to("meta")
    return model.eval()


class Charge(NamedTuple):
    """The work of one call of an operator, or of a formula in `flop_counts`."""

    module: str
    operator: str
    flops: int
    activations: int


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Charges every operator that passes, to the module that `path` ends with.

    Shapes met before are not worked out again: the output is made anew from `memory`, in a tenth of the time that
    PyTorch's own shape rules take. That needs no_grad, where nobody asks what an output is a view of.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.charges: list[Charge] = []
        self.path: list[str] = [""]
        self.excused = 0  # modules now running whose formula in flop_counts speaks for operators without one
        self.memory = memory

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if writes_in_place(func) and args[0].is_meta:
            return args[0]
        try:
            key = (func, _signature(args), _signature(kwargs) if kwargs else None) if is_functional(func) else None
            known = self.memory.get(key)
        except TypeError:  # a tensor with values or another argument that cannot be looked up
            key = known = None
        if known is not None:
            made, flops, activations = known
            if flops or activations:
                self.charges.append(Charge(self.path[-1], func._schema.name, flops, activations))
            return _empty(made) if isinstance(made, tuple) else [_empty(shape) for shape in made]
        try:
            formula = formula_of(func)
        except Uncounted:
            if not self.excused:
                raise
            formula = key = None
        out = outputs_of(func, args) if key is not None else None
        if out is None:
            out = func(*args, **(kwargs or {}))
        flops = activations = 0
        if formula is not None:
            flops, activations = formula(args, out)
            self.charges.append(Charge(self.path[-1], func._schema.name, flops, activations))
        if key is not None:
            tensors = out if isinstance(out, (tuple, list)) else [out]
            if all(isinstance(t, Tensor) and t.is_meta for t in tensors):
                shapes = [(tuple(t.shape), t.stride(), t.dtype) for t in tensors]
                self.memory[key] = (shapes[0] if isinstance(out, Tensor) else shapes, flops, activations)
        return out


def _empty(shape: _Shape) -> Tensor:
    return torch.empty_strided(shape[0], shape[1], dtype=shape[2], device="meta")


def _signature(value: Any) -> Any:
    """What the shapes of an operator's outputs depend on, hashable. (True, 1 and 1.0 are equal but not alike.)"""
    if isinstance(value, Tensor):
        if not value.is_meta:  # made in forward, such as a mask: its values may decide the shapes
            raise TypeError("the output may depend on this tensor's values")
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (tuple, list)):
        return tuple([_signature(v) for v in value])
    if isinstance(value, dict):
        return tuple([(k, _signature(v)) for k, v in value.items()])
    return type(value), value


def _count(
    arch: Architecture[Any],
    spec: Spec,
    model: nn.Module,
    in_channels: int,
    memory: Memory,
    outputs: dict[str, tuple[int, ...]] | None = None,
) -> list[Charge]:
    """The charges of one image. With `outputs`, modules are told apart and their output shapes noted in it."""
    counter = Counter(memory)
    side = spec.resolution
    try:
        with _hooked(model, counter, arch.flop_counts, outputs), _explained(arch), torch.no_grad():
            image = torch.empty(1, in_channels, side, side, device="meta")
            with counter:
                model(image)
    except Uncounted as error:
        if outputs is None:  # once more, now noting where
            return _count(arch, spec, model, in_channels, memory, {})
        name = counter.path[-1]
        where = f"module {name!r} ({type(model.get_submodule(name)).__name__})" if name else type(model).__name__
        raise ScalenetError(
            f"{arch.name}: operator {error} in {where} may do work that is not counted; "
            "declare a formula for the module's type in flop_counts."
        ) from error
    return counter.charges


@contextmanager
def _hooked(
    model: nn.Module,
    counter: Counter,
    formulas: Mapping[type, Callable[..., int]],
    outputs: dict[str, tuple[int, ...]] | None,
) -> Iterator[None]:
    """Hooks that charge formulas and, with `outputs`, keep the counter's path; without either nothing is hooked."""

    def enter(name: str, formula: Callable[..., int] | None, module: nn.Module, inputs: Any) -> None:
        counter.path.append(name)
        counter.excused += formula is not None

    def leave(name: str, formula: Callable[..., int] | None, module: nn.Module, inputs: Any, output: Any) -> None:
        if formula is not None:
            counter.charges.append(Charge(name, "flop_counts", int(formula(module, inputs, output)), 0))
        counter.excused -= formula is not None
        counter.path.pop()
        if outputs is not None and isinstance(output, Tensor):
            outputs.setdefault(name, tuple(output.shape))

    handles = []
    if formulas or outputs is not None:
        for name, module in model.named_modules():
            formula = next((f for kind, f in formulas.items() if isinstance(module, kind)), None)
            if formula is not None or outputs is not None:
                handles.append(module.register_forward_pre_hook(partial(enter, name, formula)))
                handles.append(module.register_forward_hook(partial(leave, name, formula)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _fold(name: str, level: int | None) -> str:
    return name if level is None else ".".join(name.split(".")[:level])


@contextmanager
def _explained(arch: Architecture[Any]) -> Iterator[None]:
    """Turns what PyTorch says when a network cannot live on the meta device into one sentence."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ScalenetError(
            f"{arch.name}: cannot be built and run on the meta device, where costs are counted: {reason[0]}"
        ) from error


class _NoInitialisation(TorchFunctionMode):
    """Leaves meta tensors as they are where a constructor would fill them: half of the time of building is that."""

    FILLING = frozenset(
        getattr(nn.init, name) for name in vars(nn.init) if name.endswith("_") and not name.startswith("_")
    ) | {Tensor.fill_, Tensor.zero_, Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.clamp_}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.FILLING:
            target = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(target, Tensor) and target.is_meta:
                return target
        return func(*args, **(kwargs or {}))
