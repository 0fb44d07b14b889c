"""What each operator costs: formulas for those that work, a list of those that are free, an error for the rest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

# (arguments, output) -> (multiply-adds, activations)
Formula = Callable[[Sequence[Any], Any], tuple[int, int]]


class Uncounted(Exception):
    """An operator that is neither counted nor known to be free."""


def _product(inner: Callable[[Sequence[Any]], int]) -> Formula:
    """A matrix product: every output element takes `inner` multiply-adds; complex ones take four real ones each."""

    def formula(args: Sequence[Any], out: Any) -> tuple[int, int]:
        return out.numel() * inner(args) * (4 if out.is_complex() else 1), out.numel()

    return formula


def _convolution(args: Sequence[Any], out: Any) -> tuple[int, int]:
    """Convolution in any number of dimensions, grouped or transposed. Padding is multiplied like any other pixel."""
    x, weight, transposed = args[0], args[1], args[6]
    # A weight is (out, in / groups, *kernel); transposed, it is (in, out / groups, *kernel) and read once per input.
    places = x.numel() if transposed else out.numel()
    return places * (weight.numel() // weight.shape[0]) * (4 if out.is_complex() else 1), out.numel()


def _attention(args: Sequence[Any], out: Any) -> tuple[int, int]:
    """Fused attention, counted as its two products QK^T and AV (the weights are a matmul's output too)."""
    query, key, value = args[0], args[1], args[2]
    weights = query.shape[:-1].numel() * key.shape[-2]
    return weights * (query.shape[-1] + value.shape[-1]), weights + out[0].numel()


def _transforms(elements: int, length: int) -> float:
    """`elements` / n transforms of length n, 2.5 n log2 n multiply-adds each: half the classical 5 n log2 n."""
    return 2.5 * elements * math.log2(length)


def _fft(args: Sequence[Any], out: Any) -> tuple[int, int]:
    """FFT over one or more dimensions, a length-n transform being 2.5 n log2 n multiply-adds.

    Convention: a real input (or output) is charged like a complex one, with no discount for its symmetry. An FFT is
    neither a convolution nor a matrix product, so it adds no activations.
    """
    x, dims = args[0], args[1]
    last = dims[-1]
    # Real data has its full length on one side only: r2c transforms the last dimension first, c2r last.
    full = x if x.numel() >= out.numel() else out
    half = out if full is x else x
    work = _transforms(full.numel(), full.shape[last])
    work += sum(_transforms(half.numel(), half.shape[dim]) for dim in dims[:-1])
    return round(work), 0


_COUNTED: dict[str, Formula] = {
    "aten::convolution": _convolution,
    "aten::mm": _product(lambda args: args[0].shape[1]),
    "aten::bmm": _product(lambda args: args[0].shape[2]),
    "aten::addmm": _product(lambda args: args[1].shape[1]),
    "aten::_addmm_activation": _product(lambda args: args[1].shape[1]),
    "aten::baddbmm": _product(lambda args: args[1].shape[2]),
    "aten::addbmm": _product(lambda args: args[1].shape[0] * args[1].shape[2]),
    "aten::mv": _product(lambda args: args[0].shape[1]),
    "aten::addmv": _product(lambda args: args[1].shape[1]),
    "aten::dot": _product(lambda args: args[0].numel()),
    "aten::vdot": _product(lambda args: args[0].numel()),
    "aten::_scaled_dot_product_flash_attention": _attention,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention,
    "aten::_scaled_dot_product_efficient_attention": _attention,
    "aten::_scaled_dot_product_cudnn_attention": _attention,
    "aten::_scaled_dot_product_fused_attention_overrideable": _attention,
    "aten::_scaled_dot_product_attention_math": _attention,
    "aten::_fft_c2c": _fft,
    "aten::_fft_r2c": _fft,
    "aten::_fft_c2r": _fft,
}

# Free besides views and whatever torch tags as pointwise (sums, products, activation functions, comparisons).
_FREE = frozenset(
    f"aten::{name}"
    for name in (
        # normalisation and softmax
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
        "native_layer_norm native_group_norm _fused_rms_norm _softmax _log_softmax _safe_softmax "
        "_weight_norm_interface "
        # activation functions that torch does not tag as pointwise
        "hardswish hardswish_ glu log_sigmoid_forward _prelu_kernel rrelu_with_noise "
        # reductions and sorting
        "mean sum prod amax amin aminmax max min argmax argmin all any var var_mean std std_mean norm "
        "linalg_vector_norm logsumexp cumsum cumprod topk sort median native_dropout "
        # pooling, resizing, padding
        "avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d "
        "_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d _upsample_nearest_exact2d "
        "upsample_linear1d upsample_trilinear3d grid_sampler_2d grid_sampler_3d "
        "upsample_bilinear2d upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa constant_pad_nd "
        "reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d "
        # moving elements
        "cat stack clone copy copy_ _to_copy index index_put index_put_ _unsafe_index index_select gather scatter "
        "scatter_ take_along_dim embedding roll flip repeat repeat_interleave im2col col2im tril triu pixel_shuffle "
        "pixel_unshuffle channel_shuffle rot90 _unsafe_view _reshape_alias _reshape_copy unsafe_split "
        "unsafe_split_with_sizes unsafe_chunk masked_fill masked_fill_ lift_fresh lift_fresh_copy slice_scatter "
        "select_scatter fill fill_ zero_ unfold_copy complex "
        # new tensors
        "empty empty_like empty_strided new_empty new_empty_strided zeros zeros_like new_zeros ones ones_like new_ones "
        "full full_like new_full scalar_tensor arange linspace eye tril_indices triu_indices rand rand_like randn "
        "randn_like randint randperm uniform_ normal_ bernoulli bernoulli_ "
        # questions about values, which the meta device refuses to answer
        "_local_scalar_dense equal nonzero"
    ).split()
)


@cache
def formula_of(operator: OpOverload) -> Formula | None:
    """The operator's formula, or None where it is free.

    Raises:
        Uncounted: the operator may do work that nobody has a formula for.
    """
    name = operator._schema.name
    if name in _COUNTED:
        return _COUNTED[name]
    if not {torch.Tag.pointwise, torch.Tag.inplace_view}.isdisjoint(operator.tags) or operator.is_view or name in _FREE:
        return None
    raise Uncounted(name)


@cache
def writes_in_place(operator: OpOverload) -> bool:
    """Whether the operator only overwrites the elements of its first argument, whose shape thus stays as it is."""
    return torch.Tag.pointwise in operator.tags and operator._schema.is_mutable and operator._schema.name.endswith("_")


@cache
def is_functional(operator: OpOverload) -> bool:
    """Whether the operator leaves its arguments alone, so that equal shapes in mean equal shapes out."""
    return not operator._schema.is_mutable


def _like_first(args: Sequence[Any]) -> Any:
    return torch.empty_like(args[0])


def _like_both(args: Sequence[Any]) -> Any:
    a, b = args[:2]
    alike = isinstance(b, Tensor) and (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
    return torch.empty_like(a) if alike else None


def _contiguous(x: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """A new tensor, channels last where `x` is and contiguous otherwise, as kernels lay out what they return."""
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(x.shape if shape is None else shape, dtype=x.dtype, device=x.device, memory_format=layout)


def _batch_norm(args: Sequence[Any]) -> Any:
    nobody_reads = args[0].new_empty(0)  # the batch's mean and deviation, for the backward pass
    return _contiguous(args[0]), nobody_reads, nobody_reads


def _layer_norm(args: Sequence[Any]) -> Any:
    nobody_reads = args[0].new_empty(0)
    return args[0].new_empty(args[0].shape), nobody_reads, nobody_reads


def _softmax(args: Sequence[Any]) -> Any:
    return args[0].new_empty(args[0].shape)


def _resized(args: Sequence[Any]) -> Any:
    x, size = args[:2]
    return None if size is None else _contiguous(x, (*x.shape[:2], *size))


_SHAPES: dict[str, Callable[[Sequence[Any]], Any]] = {
    "aten::native_batch_norm": _batch_norm,
    "aten::native_layer_norm": _layer_norm,
    "aten::_softmax": _softmax,
    "aten::_safe_softmax": _softmax,
    "aten::silu": _like_first,
    "aten::gelu": _like_first,
    "aten::relu": _like_first,
    "aten::sigmoid": _like_first,
    "aten::add": _like_both,
    "aten::upsample_bilinear2d": _resized,
    "aten::upsample_bicubic2d": _resized,
    "aten::upsample_nearest2d": _resized,
    "aten::addmm": lambda args: args[1].new_empty((args[1].shape[0], args[2].shape[1])),
}


def outputs_of(operator: OpOverload, args: Sequence[Any]) -> Any:
    """The operator's outputs on the meta device where a plain rule tells them; None where PyTorch has to work them out.

    Only for speed: PyTorch's own rules are decompositions in Python, half a millisecond for a BatchNorm.
    """
    rule = _SHAPES.get(operator._schema.name)
    return None if rule is None or not args[0].is_meta else rule(args)
