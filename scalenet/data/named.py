"""Data sets by name: the embedded one, and four through torchvision's own loaders."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scalenet.data.shapes import SHAPES
from scalenet.data.source import Dataset, Item, Source
from scalenet.data.store import hashed
from scalenet.data.values import Part
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl

SPLITS: tuple[tuple[Part, bool], ...] = (("fit", True), ("held", False))  # our part, torchvision's `train`


def load_cifar10(root: Path) -> Source:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 colour pictures of 32 px in 10 classes."""
    from torchvision.datasets import CIFAR10

    with _fetching("cifar10", root, f"{CIFAR10.base_folder}{os.sep} (the unpacked {CIFAR10.filename})", CIFAR10.url):
        return _in_memory("cifar10", [CIFAR10(root, train=train, download=True) for _, train in SPLITS])


def load_cifar100(root: Path) -> Source:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 colour pictures of 32 px in 100 classes."""
    from torchvision.datasets import CIFAR100

    place = f"{CIFAR100.base_folder}{os.sep} (the unpacked {CIFAR100.filename})"
    with _fetching("cifar100", root, place, CIFAR100.url):
        return _in_memory("cifar100", [CIFAR100(root, train=train, download=True) for _, train in SPLITS])


def load_mnist(root: Path) -> Source:
    """MNIST (LeCun 1998): 60,000 + 10,000 grey digits of 28 px. A mirrored digit is no digit: `flip` is False."""
    from torchvision.datasets import MNIST

    files = ", ".join(name for name, _ in MNIST.resources)
    with _fetching("mnist", root, os.path.join("MNIST", "raw", f"({files})"), MNIST.mirrors[0]):
        return _in_memory("mnist", [MNIST(root, train=train, download=True) for _, train in SPLITS], flip=False)


def load_food101(root: Path) -> Source:
    """Food-101 (Bossard 2014): 75,750 + 25,250 colour photographs of up to 512 px in 101 classes."""
    from torchvision.datasets import Food101

    with _fetching("food101", root, f"food-101{os.sep} (the unpacked food-101.tar.gz)", Food101._URL):
        sets = [Food101(root, split="train" if train else "test", download=True) for _, train in SPLITS]
        items = [
            Item(f"{file.parent.name}/{file.name}", label, os.fspath(file), part)
            for (part, _), pictures in zip(SPLITS, sets, strict=True)
            for file, label in zip(pictures._image_files, pictures._labels, strict=True)
        ]
        return Source("food101", tuple(sets[0].classes), items)


@hookimpl
def register_datasets() -> list[Dataset]:
    """The embedded set and torchvision's."""
    return [
        SHAPES,
        Dataset("cifar10", "60,000 photographs in 10 classes, 32 px", load_cifar10, _stamp("cifar-10-batches-py")),
        Dataset("cifar100", "60,000 photographs in 100 classes, 32 px", load_cifar100, _stamp("cifar-100-python")),
        Dataset("mnist", "70,000 handwritten digits, 28 px", load_mnist, _stamp("MNIST/raw")),
        Dataset(
            "food101", "101,000 photographs of dishes in 101 classes, 512 px", load_food101, _stamp("food-101/meta")
        ),
    ]


def _in_memory(name: str, sets: Sequence[Any], flip: bool = True) -> Source:
    """Sets that torchvision holds as one array (n, h, w) or (n, h, w, 3)."""
    items = [
        Item(f"{'train' if train else 'test'}/{number:05d}", int(label), np.asarray(pixels), part)
        for (part, train), pictures in zip(SPLITS, sets, strict=True)
        for number, (pixels, label) in enumerate(zip(np.asarray(pictures.data), pictures.targets, strict=True))
    ]
    return Source(name, tuple(str(label) for label in sets[0].classes), items, flip=flip)


@contextlib.contextmanager
def _fetching(name: str, root: Path, place: str, url: str) -> Iterator[None]:
    """Turns whatever a failed download or a damaged file raises into one sentence that says how to go on."""
    try:
        with warnings.catch_warnings():
            # NumPy 2.4 and later complain of how CIFAR's own files were written in 2009.
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # a damaged archive can raise nearly anything
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ScalenetError(
            f"The data set {name!r} could not be fetched from {url} ({cause}); "
            f"it is expected in {root}, as {place}: place it there by hand, or name its folder with --root."
        ) from error


def _stamp(folder: str) -> Callable[[Path], str | None]:
    """Names, sizes and times of the files right in the folder; None before there are any."""

    def stamp(root: Path) -> str | None:
        try:
            files = sorted((entry for entry in os.scandir(root / folder) if entry.is_file()), key=lambda e: e.name)
        except OSError:
            return None
        marks = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashed(marks) if marks else None

    return stamp
