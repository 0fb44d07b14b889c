"""`--init-from`: weights trained on other classes, at another resolution or for another objective, as a start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scalenet import plugins
from scalenet.architecture import Architecture, Part
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain
from scalenet.weights import fill, read_weights

CLASSIFIER = "classifier."  # the contract's name for the last linear map


def start_from(model: nn.Module, path: Path, arch: Architecture[Any], spec: Any) -> tuple[str, ...]:
    """Fills `model`, that of `spec`, from a file of `scalenet train`; returns the tensors left as they were built.

    The file may hold the same network, trained at another resolution (tables of positions and token-mixing weights are
    then resampled) or for another number of classes (the classifier is left), or a pretraining with this network as
    its encoder.

    Raises:
        ScalenetError: no such file, a damaged one, or another network's.
    """
    tensors, header = read_weights(path)
    theirs = plugins.architecture(str(header["plugin"]))
    trained = from_plain(theirs.spec_type(), header["spec"], f"{path}: the spec of {theirs.name}")
    weights: Mapping[str, Tensor] = tensors
    part = theirs.encoder(trained, tensors)
    pretrained = part is not None and (arch.name != theirs.name or arch.encoder(spec, model.state_dict()) is None)
    if part is not None and pretrained:
        theirs, trained, weights = _part(part)
    if theirs.name != arch.name:
        raise ScalenetError(f"{path}: holds a {theirs.name}, and this model is a {arch.name}; it must be of the same.")
    if trained != spec and trained.resolution != spec.resolution:
        weights = arch.resample(weights, trained, spec)
    own, classes = model.state_dict(), len(header["classes"])
    fresh = {
        name
        for name, tensor in own.items()
        if (pretrained and name.startswith(CLASSIFIER) and name not in weights)
        or (name in weights and _differ_in_classes(tuple(weights[name].shape), tuple(tensor.shape), classes))
    }
    fill(model, {**weights, **{name: own[name] for name in fresh}}, str(path))
    return tuple(name for name in own if name in fresh)


def _part(part: Part) -> tuple[Architecture[Any], Any, Mapping[str, Tensor]]:
    return plugins.architecture(part.plugin), part.spec, part.weights


def _differ_in_classes(given: tuple[int, ...], own: tuple[int, ...], theirs: int) -> bool:
    """Whether two shapes agree but for one axis, which in the file counts its classes."""
    axes = [i for i, (a, b) in enumerate(zip(given, own, strict=False)) if a != b]
    return len(given) == len(own) and len(axes) == 1 and given[axes[0]] == theirs
