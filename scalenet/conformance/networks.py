"""Checks of the networks that an architecture builds: run on the CPU, on `micro`, with random weights."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalenet.architecture import Architecture, Scale
from scalenet.complexity import build_on_meta
from scalenet.conformance.values import require
from scalenet.errors import one_line
from scalenet.experiment import at_side
from scalenet.objectives import CrossEntropy
from scalenet.plain import to_plain
from scalenet.weights import load_weights, save_weights

CLASSES = 10
SAME = 1e-4  # relative: sums in another order differ by less, a sample that sees another one by far more
STEPS = 8  # of the small trainings


def logits_shape(arch: Architecture[Any]) -> None:
    """Images (n, c, h, w) become finite logits (n, num_classes), from a linear map named `classifier`."""
    spec = arch.variants["micro"].spec
    for classes, channels in ((CLASSES, 3), (1, 3), (7, 1)):
        model = _build(arch, classes=classes, channels=channels).eval()
        images = torch.randn(2, channels, spec.resolution, spec.resolution)
        with torch.no_grad():
            logits = model(images)
        told = f"(2, {channels}, {spec.resolution}, {spec.resolution}) images and num_classes={classes}"
        require(isinstance(logits, Tensor), f"{told}: a tensor of logits asked, got {type(logits).__name__}")
        require(bool(logits.isfinite().all()), f"{told}: the logits are not finite")
        if not _classifies(arch):
            require(logits.ndim == 2 and len(logits) == 2, f"{told}: 2 embeddings asked, got {tuple(logits.shape)}")
            continue
        require(tuple(logits.shape) == (2, classes), f"{told}: logits (2, {classes}) asked, got {tuple(logits.shape)}")
        last = getattr(model, "classifier", None)
        named = isinstance(last, nn.Linear) and last.out_features == classes
        require(named, f"the last linear map, to {classes} classes, must be the attribute `classifier`, got {last}")


def odd_sides_run(arch: Architecture[Any]) -> None:
    """Networks built for odd sides run on pictures of that side, and leave out no row or column of them."""
    spec = arch.variants["micro"].spec
    for side in (16, 17, 23, 45):
        scaled = at_side(arch, spec, side)
        model = _build(arch, scaled).eval()
        images = torch.randn(4, 3, scaled.resolution, scaled.resolution, requires_grad=True)
        _nudged(model)
        model(images).square().sum().backward()
        assert images.grad is not None
        unseen = images.grad.abs().sum((0, 1)) == 0  # single pixels may well be: a ReLU is off there
        lines = int(unseen.all(0).sum() + unseen.all(1).sum())
        require(lines == 0, f"at {scaled.resolution} px {lines} rows and columns of pixels never reach the output")


def parameters_learn(arch: Architecture[Any]) -> None:
    """Every parameter learns from the objective's loss, but for those that `unlearned` names with a reason."""
    known = {
        name
        for variant in arch.variants.values()
        for name, _ in build_on_meta(arch, variant.spec, num_classes=CLASSES).named_parameters()
    }
    for pattern, reason in arch.unlearned.items():
        require(bool(reason.strip()), f"unlearned: {pattern} needs a reason")
        require(any(fnmatch(name, pattern) for name in known), f"unlearned: no parameter is called {pattern}")
    model = _build(arch)
    reached = {name: False for name, _ in model.named_parameters()}
    for _ in _training(arch, model):  # several steps: behind a layer that starts at zero nothing arrives at first
        for name, parameter in model.named_parameters():
            reached[name] |= parameter.grad is not None and bool(parameter.grad.ne(0).any())
    lost = [
        name
        for name, learns in reached.items()
        if not learns and not any(fnmatch(name, pattern) for pattern in arch.unlearned)
    ]
    require(not lost, f"{len(lost)} of {len(reached)} parameters never get a gradient: {', '.join(lost[:5])}")


def samples_independent(arch: Architecture[Any]) -> None:
    """In eval mode the output of a picture does not depend on the others in its batch, nor on the call before."""
    model = _calibrated(_nudged(_build(arch)), _images(arch, 16)).eval()
    images = _images(arch, 5)
    with torch.no_grad():
        together, again = model(images), model(images)
        alone = torch.cat([model(image[None]) for image in images])
        turned = model(images.flip(0)).flip(0)
    require(torch.equal(together, again), "in eval mode the same pictures must give the same output twice")
    for other, told in ((alone, "one by one"), (turned, "in another order")):
        error = _difference(other, together)
        require(error < SAME, f"the same pictures {told} give another output (off by {error:.1e} of the largest)")
    spread = _difference(together[:1], together[1:2])
    require(spread > SAME, "different pictures give the same output")


def seed_fixes_init(arch: Architecture[Any]) -> None:
    """The same seed gives the same weights, another seed others."""
    first, same, other = (_build(arch, seed=seed).state_dict() for seed in (1, 1, 2))
    moved = [name for name in first if not torch.equal(first[name], same[name])]
    require(not moved, f"built twice from one seed, weights differ: {', '.join(moved[:5])}")
    require(any(not torch.equal(first[n], other[n]) for n in first), "two seeds give the same weights")


def state_dict_round_trip(arch: Architecture[Any]) -> None:
    """Weights saved and loaded into a new network give the same outputs."""
    spec = arch.variants["micro"].spec
    model, loaded = _nudged(_build(arch, seed=1)).eval(), _build(arch, seed=2).eval()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        labels = tuple(f"class {i}" for i in range(CLASSES))
        save_weights(model, file, plugin=arch.name, spec=to_plain(spec), classes=labels, side=spec.resolution)
        load_weights(loaded, file)
    images = _images(arch, 2)
    with torch.no_grad():
        error = _difference(loaded(images), model(images))
    require(error < SAME, f"loaded weights give another output (off by {error:.1e}): something is not in state_dict()")


def resamples(arch: Architecture[Any]) -> None:
    """Weights of one resolution can be loaded at another, and at the same one stay as they are."""
    spec = arch.variants["micro"].spec
    weights = _build(arch).state_dict()
    same = arch.resample(weights, spec, spec)
    changed = [n for n in weights if n not in same or not torch.allclose(same[n].float(), weights[n].float())]
    require(not changed, f"resample to the same spec must change nothing, changes {', '.join(changed[:5])}")
    for factor in (0.5, 1.3, 2.0):
        other = arch.scale(spec, Scale(resolution=factor))
        target = _build(arch, other)
        moved = arch.resample(weights, spec, other)
        for name, tensor in target.state_dict().items():
            there = tuple(moved[name].shape) if name in moved else "nothing"
            right = there == tuple(tensor.shape)
            require(right, f"{spec.resolution} -> {other.resolution} px: {name} is {there}, not {tuple(tensor.shape)}")
        target.load_state_dict(dict(moved))
        with torch.no_grad():
            output = target.eval()(torch.randn(2, 3, other.resolution, other.resolution))
        require(bool(output.isfinite().all()), f"resampled to {other.resolution} px the output is not finite")


def trains_in_bf16(arch: Architecture[Any]) -> None:
    """A few steps on noise under bfloat16 autocast keep loss and weights finite."""
    model = _build(arch)
    losses = list(_training(arch, model, bf16=True))
    require(
        all(torch.isfinite(loss) for loss in losses), f"in bfloat16 the losses are {[loss.item() for loss in losses]}"
    )
    bad = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    require(not bad, f"in bfloat16 these weights are not finite after {STEPS} steps: {', '.join(bad[:5])}")


def objective_judges(arch: Architecture[Any]) -> None:
    """The objective's evaluation gives "top1", and all that it gives is a finite number."""
    spec = arch.variants["micro"].spec
    model = _build(arch).eval()
    labels = torch.arange(40) % CLASSES
    pictures = _images(arch, 40)
    batches = [(pictures[at : at + 20], labels[at : at + 20]) for at in (0, 20)]
    scores = arch.objective(spec).evaluate(model, batches, batches)
    require("top1" in scores, f"evaluate must give top1, gives {', '.join(scores)}")
    require(0.0 <= scores["top1"] <= 1.0, f"top1 must be from 0 to 1, got {scores['top1']}")
    require(all(math.isfinite(value) for value in scores.values()), f"evaluate must give numbers, got {scores}")


def exports(arch: Architecture[Any]) -> None:
    """torch.export takes it with any batch size, and torch.compile traces it without a break, at an odd side too."""
    spec = arch.variants["micro"].spec
    for each in (spec, arch.scale(spec, Scale(resolution=1.1))):
        model = _nudged(_build(arch, each)).eval()
        images = torch.randn(3, 3, each.resolution, each.resolution)
        with torch.no_grad():
            expected = model(images)
            batch = ({0: torch.export.Dim("batch", min=2, max=64)},)
            try:
                with _quiet():
                    exported = torch.export.export(model, (images[:2],), dynamic_shapes=batch).module()(images)
                    traced = torch.compile(model, backend="eager", fullgraph=True)(images)
            except Exception as error:
                require(False, f"at {each.resolution} px it cannot be exported ({one_line(error)})")
        for output, how in ((exported, "exported"), (traced, "traced")):
            error_ = _difference(output, expected)
            require(error_ < SAME, f"at {each.resolution} px it gives another output when {how} (off by {error_:.1e})")


def compiles(arch: Architecture[Any]) -> None:
    """torch.compile with its default backend gives the same outputs. Needs a C++ compiler, and takes a minute."""
    model = _nudged(_build(arch)).eval()
    images = _images(arch, 3)
    with torch.no_grad(), _quiet():
        expected = model(images)
        try:
            compiled = torch.compile(model, fullgraph=True)(images)
        except Exception as error:
            require(False, f"torch.compile fails ({one_line(error)})")
    off = _difference(compiled, expected)
    require(off < 10 * SAME, f"compiled it gives another output (off by {off:.1e})")


def _build(
    arch: Architecture[Any], spec: Any = None, *, classes: int = CLASSES, channels: int = 3, seed: int = 0
) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        chosen = arch.variants["micro"].spec if spec is None else spec
        return arch.build(chosen, num_classes=classes, in_channels=channels)


def _classifies(arch: Architecture[Any]) -> bool:
    return isinstance(arch.objective(arch.variants["micro"].spec), CrossEntropy)


def _images(arch: Architecture[Any], n: int) -> Tensor:
    """Noise, of another colour and contrast in each picture."""
    side, generator = arch.variants["micro"].spec.resolution, torch.Generator().manual_seed(0)
    colour, contrast = torch.randn(n, 3, 1, 1, generator=generator), torch.rand(n, 1, 1, 1, generator=generator) + 0.5
    return colour + contrast * torch.randn(n, 3, side, side, generator=generator)


def _nudged(model: nn.Module) -> nn.Module:
    """Every parameter moved by about half of what is usual at the start: zeros would hide what lies before them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            inputs = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5 * inputs**-0.5)
    return model


def _calibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """BatchNorm's statistics taken from `images`: with a new network's a picture's traces fade layer by layer."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    return model


def _training(arch: Architecture[Any], model: nn.Module, *, bf16: bool = False) -> Iterator[Tensor]:
    """The losses of a few steps on noise, each yielded while its gradients are there."""
    spec = arch.variants["micro"].spec
    objective = arch.objective(spec)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(8, 3, spec.resolution, spec.resolution, generator=generator)
    targets = torch.arange(8) % CLASSES
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(STEPS):
            views = tuple((view - 0.5) / 0.25 for view in objective.views(images, generator))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss = objective.loss(model, views, targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            yield loss.detach()
            optimizer.step()


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest element of `b`."""
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-12))


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.export and torch.compile warn of their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
