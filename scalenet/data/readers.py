"""From the unpacked files of a published data set to its pictures, labels and parts.

Nothing is downloaded here. Published test parts are `held`. What a set leaves out is told in its warnings; a picture
that only turns out unreadable when it is looked at is told by the survey, as for any source.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scalenet.data.folder import scan
from scalenet.data.source import Item, Source
from scalenet.data.values import Part

SPLITS: tuple[tuple[Part, str], ...] = (("fit", "train"), ("held", "test"))


def read_cifar10(root: Path) -> Source:
    """torchvision unpickles the batches, each after its MD5 has been found to be the published one."""
    from torchvision.datasets import CIFAR10

    return _cifar("cifar10", CIFAR10, root)


def read_cifar100(root: Path) -> Source:
    """As `read_cifar10`; the labels are the hundred fine ones."""
    from torchvision.datasets import CIFAR100

    return _cifar("cifar100", CIFAR100, root)


def read_mnist(root: Path) -> Source:
    """A mirrored digit is no digit: `flip` is False."""
    from torchvision.datasets.mnist import MNIST, read_image_file, read_label_file

    # By their names, as `MNIST` itself would rather read what an old torchvision left in another folder.
    raw = root / "MNIST" / "raw"
    items = [
        Item(f"{folder}/{number:05d}", int(label), pixels, part)
        for (part, folder), prefix in zip(SPLITS, ("train", "t10k"), strict=True)
        for number, (pixels, label) in enumerate(
            zip(
                read_image_file(os.fspath(raw / f"{prefix}-images-idx3-ubyte")).numpy(),
                read_label_file(os.fspath(raw / f"{prefix}-labels-idx1-ubyte")),
                strict=True,
            )
        )
    ]
    return Source("mnist", tuple(MNIST.classes), items, flip=False)


def read_food101(root: Path) -> Source:
    """Parts by meta/train.json and meta/test.json: class -> names of pictures."""
    folder = root / "food-101"
    parts = {part: json.loads((folder / "meta" / f"{split}.json").read_bytes()) for part, split in SPLITS}
    classes = tuple(sorted(parts["fit"]))
    items = [
        Item(f"{name}.jpg", classes.index(label), os.fspath(folder / "images" / f"{name}.jpg"), part)
        for part, named in parts.items()
        for label, names in named.items()
        for name in names
    ]
    return Source("food101", classes, items)


def read_flowers102(root: Path) -> Source:
    """Parts by setid.mat, as torchvision has them: trnid is fit, valid is select, tstid is held.

    So a class has 10 pictures to fit and 10 to select by, and six times as many pictures are held as are fitted.
    """
    from scipy.io import loadmat
    from torchvision.datasets import Flowers102

    folder = root / "flowers-102"
    labels = loadmat(folder / "imagelabels.mat", squeeze_me=True)["labels"]
    numbers = loadmat(folder / "setid.mat", squeeze_me=True)
    parts: tuple[tuple[Part, str], ...] = (("fit", "trnid"), ("select", "valid"), ("held", "tstid"))
    items = [
        Item(name := f"jpg/image_{number:05d}.jpg", int(labels[number - 1]) - 1, os.fspath(folder / name), part)
        for part, key in parts
        for number in np.atleast_1d(numbers[key]).tolist()
    ]
    return Source("flowers102", tuple(Flowers102.classes), items)


def read_stanford_dogs(root: Path) -> Source:
    """Parts by train_list.mat and test_list.mat; n02085620-Chihuahua is the class Chihuahua."""
    found = scan(root / "Images").load()
    classes = tuple(folder.partition("-")[2].replace("_", " ") or folder for folder in found.classes)
    listed = {name: part for part, split in SPLITS for name in _listed(root / "lists" / f"{split}_list.mat")}
    items = [replace(item, given=listed[item.name]) for item in found.items if item.name in listed]
    missing = sorted(set(listed).difference(item.name for item in items))
    told = [
        _left_out("Pictures that the lists name and the folder does not hold", missing),
        _left_out("Pictures that no list names", [item.name for item in found.items if item.name not in listed]),
    ]
    return replace(found, name="stanford_dogs", classes=classes, items=items, warnings=(*found.warnings, *_said(told)))


def read_cats_vs_dogs(root: Path) -> Source:
    """Two pictures of the archive are empty, Cat/666.jpg and Dog/11702.jpg; each class also has a Thumbs.db.

    Some others are GIF, PNG or BMP by their bytes and .jpg by their names: they can be read and are used.
    TensorFlow Datasets drops 1,738 for lacking a JFIF header, which says nothing of what can be read.
    """
    return _usable("cats_vs_dogs", root / "PetImages")


def read_tf_flowers(root: Path) -> Source:
    """One folder a class; LICENSE.txt beside them names the author of every picture."""
    return _usable("tf_flowers", root / "flower_photos")


def _cifar(name: str, kind: Any, root: Path) -> Source:
    with warnings.catch_warnings():
        # NumPy 2.4 and later complain of how CIFAR's own files were written in 2009.
        warnings.simplefilter("ignore")
        sets = [kind(root, train=folder == "train", download=False) for _, folder in SPLITS]
    items = [
        Item(f"{folder}/{number:05d}", int(label), np.asarray(pixels), part)
        for (part, folder), pictures in zip(SPLITS, sets, strict=True)
        for number, (pixels, label) in enumerate(zip(pictures.data, pictures.targets, strict=True))
    ]
    return Source(name, tuple(str(label) for label in sets[0].classes), items)


def _listed(file: Path) -> list[str]:
    """The names in a list of Stanford Dogs, such as n02085620-Chihuahua/n02085620_5927.jpg."""
    from scipy.io import loadmat

    return [str(name) for name in np.atleast_1d(loadmat(file, squeeze_me=True)["file_list"])]


def _usable(name: str, folder: Path) -> Source:
    """The pictures in class folders that have any bytes; what else lies in those folders is told."""
    found = scan(folder).load()
    items = [item for item in found.items if os.path.getsize(str(item.picture))]
    kept = {item.name for item in items}
    empty = [item.name for item in found.items if item.name not in kept]
    others = sorted(f"{c}/{file}" for c in found.classes for file in os.listdir(folder / c))
    told = [
        _left_out("Pictures without a single byte", empty),
        _left_out("Files that are no pictures", [o for o in others if o not in kept and o not in empty]),
    ]
    return replace(found, name=name, items=items, warnings=(*found.warnings, *_said(told)))


def _left_out(what: str, files: Sequence[str]) -> str | None:
    if not files:
        return None
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"{what}, left out: {len(files)} ({', '.join(files[:3])}{more})."


def _said(sentences: Sequence[str | None]) -> list[str]:
    return [sentence for sentence in sentences if sentence]
