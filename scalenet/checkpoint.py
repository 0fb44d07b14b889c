"""An unfinished training on disk: one safetensors file with the weights, the optimiser's state and the history.

The metric history lies inside the file, so that an epoch that was checkpointed but not yet reported when its worker
died is reported again on resume.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalenet.errors import ScalenetError
from scalenet.optimise import Average
from scalenet.weights import DAMAGE, compare_names, read_tensors, write_tensors

SCHEMA_VERSION = 1
MODEL, AVERAGE, OPTIMIZER = "model/", "average/", "optimizer/"


class DamagedCheckpoint(UserWarning):
    """A checkpoint cannot be read; the training starts again from its beginning."""


@dataclass(frozen=True)
class State:
    """What a training changes: everything that a checkpoint must hold beside the metrics."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None


def save(path: Path, job: Mapping[str, Any], state: State, history: Sequence[Mapping[str, Any]]) -> None:
    """Replaces the file at `path`, atomically. `job` is plain: what is trained, on what and how."""
    tensors = _weights(state)
    for name, parameter in state.model.named_parameters():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{name}/{key}"] = value
    updates = state.average.updates if state.average else 0
    header = {"schema_version": SCHEMA_VERSION, "job": job, "history": list(history), "updates": updates}
    write_tensors(path, tensors, header)


def load(path: Path, job: Mapping[str, Any], state: State) -> list[dict[str, Any]]:
    """Brings `state` to where the file left it and returns the metrics of its epochs; [] where there is no file.

    A file that cannot be read is a DamagedCheckpoint warning and [], and leaves `state` untouched.

    Raises:
        ScalenetError: the file belongs to another job; the first difference is named.
    """
    if not path.exists():
        return []
    try:
        tensors, header = read_tensors(path)
        version = header["schema_version"]
        if version == SCHEMA_VERSION:
            their_job, history, updates = dict(header["job"]), list(header["history"]), int(header["updates"])
    except DAMAGE as error:
        warnings.warn(
            f"The checkpoint {path} cannot be read ({error}); the training starts again.",
            DamagedCheckpoint,
            stacklevel=3,
        )
        return []
    if version != SCHEMA_VERSION:
        raise ScalenetError(f"{path}: is a checkpoint of version {version}; this scalenet reads {SCHEMA_VERSION}.")
    _compare_jobs(dict(job), their_job, path)
    own = _weights(state)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(OPTIMIZER)}
    compare_names(own, weights, str(path))
    for name, tensor in own.items():
        if tensor.dtype != weights[name].dtype:
            raise ScalenetError(f"{path}: {name} is {weights[name].dtype} there, and {tensor.dtype} in this model.")
        if tensor.shape != weights[name].shape:
            raise ScalenetError(
                f"{path}: {name} is {list(weights[name].shape)} there, and {list(tensor.shape)} in this model."
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])  # in place: keeps device and memory layout
    _load_optimizer(state, tensors)
    if state.average:
        state.average.updates = updates
    return history


def _weights(state: State) -> dict[str, Tensor]:
    named = {f"{MODEL}{name}": tensor for name, tensor in state.model.state_dict().items()}
    if state.average:
        named |= {f"{AVERAGE}{name}": tensor for name, tensor in state.average.model.state_dict().items()}
    return named


def _load_optimizer(state: State, tensors: Mapping[str, Tensor]) -> None:
    """By way of `load_state_dict`, which knows where each optimiser wants its step counts."""
    names = {parameter: name for name, parameter in state.model.named_parameters()}
    order = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for i, parameter in enumerate(order):
        prefix = f"{OPTIMIZER}{names[parameter]}/"
        found = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if found:
            states[i] = {key: _laid_out_as(parameter, value) for key, value in found.items()}
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": states, "param_groups": groups})


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """With the parameter's strides: fused kernels walk both through memory side by side."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, device="cpu", dtype=value.dtype, requires_grad=False).copy_(value)


def _compare_jobs(own: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    ours, given = _flat(own), _flat(theirs)
    for key in [*ours, *given]:
        here, there = ours.get(key), given.get(key)
        if here != there:
            raise ScalenetError(
                f"{path}: is the checkpoint of another job ({key} is {there!r} there and {here!r} here);"
                " take another place, or remove the file to start anew."
            )


def _flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"recipe": {"lr": 1}} as {"recipe.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
