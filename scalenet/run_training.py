"""`scalenet train`: the trials' own loop in a directory of its own, resumable, with the weights at the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch

from scalenet import plugins
from scalenet.data import DataRequest, prepare, resolution_warning
from scalenet.device import is_out_of_memory, isolated, pick_device, seed_of
from scalenet.errors import ScalenetError
from scalenet.experiment import at_side
from scalenet.modelfile import ModelFile, write_model_file
from scalenet.plain import from_plain, to_plain
from scalenet.recipe import Recipe
from scalenet.space import resolve
from scalenet.train import NonFiniteLoss, train
from scalenet.transfer import start_from
from scalenet.weights import save_weights

WEIGHTS, METRICS, CHECKPOINT, MODEL = "weights.safetensors", "metrics.jsonl", "checkpoint.safetensors", "model.yaml"
ENCODER = "encoder.yaml"


def train_model(
    model_file: ModelFile,
    request: DataRequest,
    recipe: Recipe,
    *,
    out: Path,
    seed: int = 0,
    judge: Literal["select", "held"] = "held",
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    init_from: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    announce: Callable[[str], None] = print,
) -> Generator[dict[str, Any], None, None]:
    """Trains a model in the directory `out` and yields every epoch's metrics, as `train` does.

    Leaves there model.yaml, metrics.jsonl (one line per epoch) and, after the last epoch, weights.safetensors; until
    then checkpoint.safetensors. A pretraining also leaves encoder.yaml, the model that may start from its weights.
    Nothing is checked or written before the first epoch is asked for.

    Args:
        seed: of the initial weights, the order and the augmentation.
        resume: go on where `out` left off; the epochs done are yielded again first.
        init_from: weights to start from (see `start_from`); a classifier for other classes starts afresh.
        progress, announce: as for `prepare`; `announce` also gets the warnings about the pictures and what
            `init_from` left untouched.

    Raises:
        ScalenetError: bad input, a training already in `out` without `resume`, NaN or infinity, memory or disk full.
    """
    architecture = plugins.architecture(model_file.plugin)
    spec = from_plain(architecture.spec_type(), model_file.spec, f"spec of {model_file.plugin}")
    where = pick_device(device)
    taken = [name for name in (WEIGHTS, METRICS, CHECKPOINT) if (out / name).exists()]
    if taken and not resume:
        raise ScalenetError(f"{out} already holds a training ({', '.join(taken)}); --resume it, or take another --out.")
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True)
    data = prepare(request, spec.resolution, progress=progress, announce=announce)
    for warning in (*data.warnings, resolution_warning(data, spec.resolution)):
        if warning:
            announce(f"Warning: {warning}")
    with isolated(seed_of(model_file.plugin, seed), where, threads):
        model = architecture.build(spec, num_classes=len(data.classes), drop_path=recipe.drop_path)
    identity = [model_file.plugin, json.dumps(to_plain(spec), sort_keys=True)]
    if init_from is not None:
        fresh = start_from(model, init_from, architecture, spec)
        if fresh:
            announce(f"{init_from} was not trained for these classes: {', '.join(fresh)} start afresh.")
        identity.append(hashlib.sha256(init_from.read_bytes()).hexdigest())
    epochs = train(
        model,
        architecture.objective(spec),
        data,
        recipe,
        side=spec.resolution,
        seed=seed,
        judge=judge,
        device=where,
        threads=threads,
        checkpoint=out / CHECKPOINT,
        identity=" ".join(identity),
    )
    with _writing(out), _one_sentence(where, recipe, spec.resolution):
        first = next(epochs)  # before anything in `out` is replaced: a checkpoint there may be another training's
        write_model_file(out / MODEL, model_file)
        part = architecture.encoder(spec, model.state_dict())
        if part is not None:
            source = f"the encoder of {model_file.plugin}, {model_file.source}"
            write_model_file(out / ENCODER, ModelFile(part.plugin, to_plain(part.spec), source=source))
        with (out / METRICS).open("w", encoding="utf-8") as metrics_file:
            for metrics in chain([first], epochs):
                metrics_file.write(json.dumps(metrics) + "\n")
                metrics_file.flush()
                yield metrics
        save_weights(
            model,
            out / WEIGHTS,
            plugin=model_file.plugin,
            spec=to_plain(spec),
            classes=data.classes,
            side=spec.resolution,
        )


def of_variant(plugin: str, variant: str | None, resolution: int | None) -> tuple[ModelFile, str]:
    """A variant as a model file, at its own resolution or another one, and its name (default: what a search takes).

    Raises:
        ScalenetError: an unknown name.
    """
    architecture = plugins.architecture(plugin)
    name = variant or resolve(plugin).variant
    chosen = architecture.variant(name)
    spec = at_side(architecture, chosen.spec, resolution)
    source = f"{name} at {spec.resolution} px ({chosen.source})"
    return ModelFile(plugin, to_plain(spec), source=source), name


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ScalenetError(f"The folder {out} cannot be written ({error.strerror or error}).") from error


@contextmanager
def _one_sentence(device: torch.device, recipe: Recipe, side: int) -> Iterator[None]:
    """What a user can mend by another recipe, as an error that says so."""
    try:
        yield
    except NonFiniteLoss as error:
        raise ScalenetError(f"{str(error).rstrip('.')}; lower lr, or set clip_norm to 1 or less.") from error
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise ScalenetError(
            f"Out of memory on {device} with batches of {recipe.batch_size} at {side} px; lower batch_size."
        ) from error
