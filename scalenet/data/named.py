"""Data sets by name: the embedded one, and eight that are downloaded once, checked, and read from then on.

Where URLs, sizes and checksums come from (no file was downloaded to make this table):

- cifar10, cifar100: URL of torchvision (datasets/cifar.py), SHA-256 of Keras (datasets/cifar10.py, cifar100.py).
- mnist: mirrors of torchvision (datasets/mnist.py), sizes and SHA-256 of TensorFlow Datasets (url_checksums/mnist.txt).
- food101: URL of torchvision (datasets/food101.py), size and SHA-256 of TensorFlow Datasets (food101.txt there).
- flowers102, stanford_dogs, tf_flowers: URLs, sizes and SHA-256 of TensorFlow Datasets (url_checksums/
  oxford_flowers102.txt, stanford_dogs.txt, tf_flowers.txt).
- cats_vs_dogs: URL, size and SHA-256 of Hugging Face Datasets 2 (datasets/cats_vs_dogs/dataset_infos.json).
- The sizes of CIFAR are what the server states, in the logs of torchvision's tutorials and Keras's examples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from scalenet.data import readers
from scalenet.data.archive import Archive, bring
from scalenet.data.fetch import Remote
from scalenet.data.shapes import SHAPES
from scalenet.data.source import Dataset, Published, Source
from scalenet.data.store import Progress, hashed
from scalenet.data.unpack import copy, gunzip, untar, unzip
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl

TORONTO = "https://www.cs.toronto.edu/~kriz/"
LECUN = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/")
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
STANFORD = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
MICROSOFT = "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/"
TENSORFLOW = "http://download.tensorflow.org/example_images/"


def _remote(name: str, size: int, sha256: str, *places: str) -> Remote:
    return Remote(tuple(place + name for place in places), size, sha256)


# fmt: off
CIFAR10 = (Archive(
    _remote("cifar-10-python.tar.gz", 170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            TORONTO),
    "cifar-10-batches-py", partial(untar, inside="cifar-10-batches-py")),
)
CIFAR100 = (Archive(
    _remote("cifar-100-python.tar.gz", 169_001_437, "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            TORONTO),
    "cifar-100-python", partial(untar, inside="cifar-100-python")),
)
MNIST = tuple(
    Archive(_remote(f"{name}.gz", size, sha256, *LECUN), f"MNIST/raw/{name}", gunzip)
    for name, size, sha256 in (
        ("train-images-idx3-ubyte", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1-ubyte", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3-ubyte", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1-ubyte", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    )
)
FOOD101 = (Archive(
    _remote("food-101.tar.gz", 4_996_278_331, "d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            "http://data.vision.ee.ethz.ch/cvl/"),
    "food-101", partial(untar, inside="food-101")),
)
FLOWERS102 = (
    Archive(_remote("102flowers.tgz", 344_862_509, "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
                    OXFORD), "flowers-102/jpg", partial(untar, inside="jpg")),
    Archive(_remote("imagelabels.mat", 502, "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d", OXFORD),
            "flowers-102/imagelabels.mat", copy),
    Archive(_remote("setid.mat", 14_989, "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd", OXFORD),
            "flowers-102/setid.mat", copy),
)
STANFORD_DOGS = (
    Archive(_remote("images.tar", 793_579_520, "a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
                    STANFORD), "Images", partial(untar, inside="Images")),
    Archive(_remote("lists.tar", 481_280, "34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c", STANFORD),
            "lists", untar),
)
CATS_VS_DOGS = (Archive(
    _remote("kagglecatsanddogs_5340.zip", 824_887_076,
            "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9", MICROSOFT),
    "PetImages", partial(unzip, inside="PetImages")),
)
TF_FLOWERS = (Archive(
    _remote("flower_photos.tgz", 228_813_984, "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
            TENSORFLOW),
    "flower_photos", partial(untar, inside="flower_photos")),
)
# fmt: on


def cifar10(archives: Sequence[Archive] = CIFAR10) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs."""
    about = Published(60_000, 10, "32", 0, "none stated", "https://www.cs.toronto.edu/~kriz/cifar.html")
    return _dataset("cifar10", "photographs of things and animals", about, archives, readers.read_cifar10)


def cifar100(archives: Sequence[Archive] = CIFAR100) -> Dataset:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 photographs."""
    about = Published(60_000, 100, "32", 0, "none stated", "https://www.cs.toronto.edu/~kriz/cifar.html")
    return _dataset("cifar100", "photographs of things and animals", about, archives, readers.read_cifar100)


def mnist(archives: Sequence[Archive] = MNIST) -> Dataset:
    """MNIST (LeCun 1998): 60,000 + 10,000 digits. The licence is the one that Keras's mnist.py states."""
    about = Published(70_000, 10, "28", 0, "CC BY-SA 3.0", "http://yann.lecun.com/exdb/mnist/")
    return _dataset("mnist", "handwritten digits", about, archives, readers.read_mnist)


def food101(archives: Sequence[Archive] = FOOD101) -> Dataset:
    """Food-101 (Bossard 2014): 75,750 + 25,250 photographs. The terms are those of its license_agreement.txt.

    Known again by meta/ alone: to look at the times of 101,000 files at every start would take seconds.
    """
    page = "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/"
    about = Published(101_000, 101, "up to 512", 0, "scientific fair use", page)
    return _dataset("food101", "photographs of dishes", about, archives, readers.read_food101, ["food-101/meta"])


def flowers102(archives: Sequence[Archive] = FLOWERS102) -> Dataset:
    """Oxford 102 Flowers (Nilsback 2008): 1,020 + 1,020 + 6,149 photographs."""
    about = Published(8_189, 102, "varied", 0, "none stated", OXFORD)
    return _dataset("flowers102", "photographs of flowers", about, archives, readers.read_flowers102)


def stanford_dogs(archives: Sequence[Archive] = STANFORD_DOGS) -> Dataset:
    """Stanford Dogs (Khosla 2011): 12,000 + 8,580 photographs out of ImageNet, whose terms hold for them."""
    about = Published(20_580, 120, "varied", 0, "ImageNet's: research, not commercial", STANFORD)
    return _dataset("stanford_dogs", "photographs of dogs by breed", about, archives, readers.read_stanford_dogs)


def cats_vs_dogs(archives: Sequence[Archive] = CATS_VS_DOGS) -> Dataset:
    """Cats vs Dogs (Elson 2007, "Asirra"; Microsoft's archive for Kaggle): 12,500 photographs each, without parts."""
    page = "https://www.microsoft.com/en-us/download/details.aspx?id=54765"
    about = Published(25_000, 2, "varied", 0, "Microsoft's MSR-LA 3467, in the archive", page)
    return _dataset("cats_vs_dogs", "photographs of cats and dogs", about, archives, readers.read_cats_vs_dogs)


def tf_flowers(archives: Sequence[Archive] = TF_FLOWERS) -> Dataset:
    """TensorFlow's flowers (2019): 3,670 photographs, without parts."""
    page = "https://www.tensorflow.org/datasets/catalog/tf_flowers"
    about = Published(3_670, 5, "varied", 0, "CC BY, authors in LICENSE.txt", page)
    return _dataset("tf_flowers", "photographs of flowers", about, archives, readers.read_tf_flowers)


@hookimpl
def register_datasets() -> list[Dataset]:
    """The embedded set and the published ones."""
    return [
        SHAPES, mnist(), cifar10(), cifar100(), food101(), stanford_dogs(), cats_vs_dogs(), tf_flowers(), flowers102(),
    ]  # fmt: skip


def _dataset(
    name: str,
    of: str,
    about: Published,
    archives: Sequence[Archive],
    read: Callable[[Path], Source],
    marks: Sequence[str] = (),
) -> Dataset:
    """The set as one that fetches `archives` and reads what they make; known again by the files below `marks`."""

    def fetch(root: Path, progress: Progress | None) -> None:
        for archive in archives:
            with _fetching(name, root, archive):
                bring(archive, root, progress)

    def load(root: Path) -> Source:
        fetch(root, None)
        with _reading(name, root, archives):
            return read(root)

    return Dataset(
        name,
        f"{about.pictures:,} {of} in {about.classes} classes",
        load,
        partial(_stamp, marks=marks or [archive.makes for archive in archives]),
        fetch,
        replace(about, download=sum(archive.remote.size for archive in archives)),
    )


@contextmanager
def _fetching(name: str, root: Path, archive: Archive) -> Iterator[None]:
    """Turns whatever a failed download raises into one sentence that says how to go on."""
    try:
        yield
    except Exception as error:  # a damaged archive can raise nearly anything
        place = os.path.dirname(root / archive.makes)
        raise ScalenetError(
            f"The data set {name!r} could not be fetched from {archive.remote.urls[0]} ({_cause(error)}); it is "
            f"expected in {root}, as {archive.makes}: place that or {archive.remote.name} in {place} by hand, or name "
            "the folder that has it with --root."
        ) from error


@contextmanager
def _reading(name: str, root: Path, archives: Sequence[Archive]) -> Iterator[None]:
    """As `_fetching`, for files that are there and are not what was published."""
    try:
        yield
    except Exception as error:  # a damaged file can raise nearly anything
        made = ", ".join(archive.makes for archive in archives)
        raise ScalenetError(
            f"The data set {name!r} in {root} cannot be read ({_cause(error)}); remove {made} there and start again."
        ) from error


def _cause(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _stamp(root: Path, marks: Sequence[str]) -> str | None:
    """Names, sizes and times of the files below the marks; None while one of them is not there or empty."""
    found: list[tuple[str, int, int]] = []
    for mark in marks:
        try:
            files = sorted(_files(os.fspath(root / mark)))
        except OSError:
            return None
        if not files:
            return None
        found += files
    return hashed(found)


def _files(path: str, below: str = "") -> Iterator[tuple[str, int, int]]:
    """The file itself, or every file below the folder, whose names are told from there."""
    if not os.path.isdir(path):
        seen = os.stat(path)
        yield os.path.basename(path), seen.st_size, seen.st_mtime_ns
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, f"{below}{entry.name}/")
            else:
                seen = entry.stat(follow_symlinks=False)
                yield below + entry.name, seen.st_size, seen.st_mtime_ns
