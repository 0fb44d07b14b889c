"""Tensors on disk: safetensors with a JSON header, never pickle; written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from scalenet.data.batches import MEAN, STD
from scalenet.errors import ScalenetError

HEADER = "scalenet"  # the key of the file's metadata that holds our JSON
DAMAGE = (SafetensorError, OSError, ValueError, KeyError, TypeError)  # what reading a broken file may raise


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """One file with all tensors and a JSON header; a reader sees the old file or the new one, never a part."""
    # Copies, as safetensors refuses tensors that share memory (tied weights) and layouts such as channels_last.
    rows = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    content = save(rows, metadata={HEADER: json.dumps(header)})
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave the new name on an empty file
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote, on the CPU. Raises one of DAMAGE for a file that it did not write or that broke."""
    with safe_open(path, framework="pt", device="cpu") as file:
        header = json.loads((file.metadata() or {})[HEADER])
        return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (not a dict)


def save_weights(model: nn.Module, path: Path, *, plugin: str, spec: Any, classes: tuple[str, ...], side: int) -> None:
    """A trained model's state dict, with what is needed to build it and to feed it.

    The header holds plugin, spec (plain), classes in the order of the logits, side in pixels, and the mean and std of
    the normalisation of RGB in [0, 1].
    """
    header = {"plugin": plugin, "spec": spec, "classes": list(classes), "side": side, "mean": MEAN, "std": STD}
    write_tensors(path, model.state_dict(), header)


def load_weights(model: nn.Module, path: Path) -> None:
    """Fills `model` from a file of `save_weights`.

    Raises:
        ScalenetError: no such file, a damaged one, or another model's; the first tensor that differs is named.
    """
    tensors, _ = read_weights(path)
    fill(model, tensors, str(path))


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file of `save_weights`.

    Raises:
        ScalenetError: no such file, a damaged one, or one of another kind.
    """
    try:
        tensors, header = read_tensors(path)
        header["plugin"], header["spec"], len(header["classes"])
    except FileNotFoundError as error:
        raise ScalenetError(f"{path}: no such file; it must be a weights file that `scalenet train` wrote.") from error
    except DAMAGE as error:
        raise ScalenetError(f"{path}: is damaged or is no weights file that `scalenet train` wrote.") from error
    return tensors, header


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Sets all of a model's tensors from ones of the same names and shapes, in whatever precision.

    Raises:
        ScalenetError: the first name, type or shape that differs, with `where`.
    """
    own = model.state_dict()
    compare_names(own, tensors, where)
    for name, tensor in own.items():
        if tensors[name].is_floating_point() != tensor.is_floating_point():
            raise ScalenetError(f"{where}: {name} is {tensors[name].dtype} there, and {tensor.dtype} in this model.")
        if tensors[name].shape != tensor.shape:
            there, here = list(tensors[name].shape), list(tensor.shape)
            raise ScalenetError(f"{where}: {name} is {there} there, and {here} in this model.")
    with torch.no_grad():
        model.load_state_dict(dict(tensors))


def compare_names(own: Mapping[str, Tensor], given: Mapping[str, Tensor], where: str) -> None:
    """Raises ScalenetError for the first tensor that only one side has."""
    for name in own:
        if name not in given:
            raise ScalenetError(f"{where}: holds another model's weights; it has no {name}, which this model has.")
    for name in given:
        if name not in own:
            raise ScalenetError(f"{where}: holds another model's weights; it has {name}, which this model has not.")
