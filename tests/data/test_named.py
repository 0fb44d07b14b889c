"""Published sets, through small archives of the real layout served from this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import re
import struct
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from scalenet.data import DataRequest, Dataset, named, open_part, prepare, survey
from scalenet.data.archive import Archive
from scalenet.data.fetch import Remote
from scalenet.errors import ScalenetError
from scalenet.plugins import datasets
from tests.data.pictures import pixels
from tests.data.server import Fault, Web, web
from tests.data.test_unpack import zipped


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web(tmp_path / "web") as running:
        yield running


def hosted(served: Web, archives: Sequence[Archive], files: dict[str, bytes]) -> tuple[Archive, ...]:
    """The archives as published, but of these bytes and from the server on this machine."""
    moved = []
    for archive in archives:
        data = files[archive.remote.name]
        sums = hashlib.sha256(data).hexdigest()
        moved.append(replace(archive, remote=Remote((served.serve(archive.remote.name, data),), len(data), sums)))
    return tuple(moved)


def offer(monkeypatch: pytest.MonkeyPatch, dataset: Dataset) -> None:
    monkeypatch.setattr("scalenet.plugins.datasets", lambda: {dataset.name: dataset})


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def tgz(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


def jpeg(number: int, height: int = 48, width: int = 64, kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels(number, height, width)).save(data, kind)
    return data.getvalue()


def mat(**values: Any) -> bytes:
    data = io.BytesIO()
    scipy.io.savemat(data, values)
    return data.getvalue()


def rows(first: int, count: int) -> np.ndarray:
    """CIFAR's rows: red, green and blue planes of 32 x 32, one after the other."""
    return np.stack([pixels(first + i, 32, 32).transpose(2, 0, 1).ravel() for i in range(count)])


def small_cifar10(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    from torchvision.datasets import CIFAR10

    batches = {f"data_batch_{i}": (10 * i, 10) for i in range(1, 6)} | {"test_batch": (60, 20)}
    files = {
        name: pickle.dumps({"data": rows(first, count), "labels": [i % 2 for i in range(count)]})
        for name, (first, count) in batches.items()
    }
    files["batches.meta"] = pickle.dumps({"label_names": ["airplane", "bird"]})
    monkeypatch.setattr(
        CIFAR10, "train_list", [[f"data_batch_{i}", md5(files[f"data_batch_{i}"])] for i in range(1, 6)]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})
    packed = tgz({f"cifar-10-batches-py/{n}": d for n, d in files.items()})
    return named.cifar10(hosted(served, named.CIFAR10, {"cifar-10-python.tar.gz": packed}))


def small_cifar100(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    from torchvision.datasets import CIFAR100

    files = {
        "train": pickle.dumps({"data": rows(0, 50), "fine_labels": [i % 2 for i in range(50)]}),
        "test": pickle.dumps({"data": rows(60, 20), "fine_labels": [i % 2 for i in range(20)]}),
        "meta": pickle.dumps({"fine_label_names": ["apple", "bear"]}),
    }
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(files["train"])]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(files["test"])]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(files["meta"])})
    packed = tgz({f"cifar-100-python/{n}": d for n, d in files.items()})
    return named.cifar100(hosted(served, named.CIFAR100, {"cifar-100-python.tar.gz": packed}))


def small_mnist(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    files = {}
    for name, first, count in (("train", 0, 50), ("t10k", 60, 20)):
        digits = b"".join(pixels(first + i, 28, 28)[..., 0].tobytes() for i in range(count))
        files[f"{name}-images-idx3-ubyte.gz"] = gzip.compress(struct.pack(">IIII", 0x803, count, 28, 28) + digits)
        labels = struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count))
        files[f"{name}-labels-idx1-ubyte.gz"] = gzip.compress(labels)
    return named.mnist(hosted(served, named.MNIST, files))


def small_food101(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    files: dict[str, bytes] = {}
    for split, first, count in (("train", 0, 25), ("test", 60, 10)):
        listed = {}
        for offset, label in ((0, "apple_pie"), (1000, "waffles")):
            listed[label] = [f"{label}/{first + i}" for i in range(count)]
            for i in range(count):
                files[f"food-101/images/{label}/{first + i}.jpg"] = jpeg(offset + first + i)
        files[f"food-101/meta/{split}.json"] = json.dumps(listed).encode()
    return named.food101(hosted(served, named.FOOD101, {"food-101.tar.gz": tgz(files)}))


def small_flowers102(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """306 pictures, in turn of classes 1 to 102: the first 102 are valid, then tstid, then trnid."""
    numbers = np.arange(1, 307, dtype=np.uint16)
    files = {
        "102flowers.tgz": tgz({f"jpg/image_{i:05d}.jpg": jpeg(i, 8, 9) for i in numbers}),
        "imagelabels.mat": mat(labels=(((numbers - 1) % 102) + 1).astype(np.uint8)[None]),
        "setid.mat": mat(valid=numbers[None, :102], tstid=numbers[None, 102:204], trnid=numbers[None, 204:]),
    }
    return named.flowers102(hosted(served, named.FLOWERS102, files))


DOGS = {"n02085620-Chihuahua": 0, "n02085782-Japanese_spaniel": 100, "n02106662-German_shepherd": 200}


def listed(first: int, count: int) -> bytes:
    """A list as published: a column of cells with names, without their folder, and labels from 1."""
    names = [f"{dog}/{dog[:9]}_{i}.jpg" for dog in DOGS for i in range(first, first + count)]
    cells = np.array([[name] for name in names], dtype=object)
    return mat(file_list=cells, labels=np.repeat([1.0, 2.0, 3.0], count)[:, None])


def small_stanford_dogs(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    images = {f"Images/{dog}/{dog[:9]}_{i}.jpg": jpeg(offset + i) for dog, offset in DOGS.items() for i in range(8)}
    spaniel = "Images/n02085782-Japanese_spaniel/n02085782_"
    images[f"{spaniel}7.jpg"] = jpeg(107, kind="PNG")  # ImageNet has such ones
    images[f"{spaniel}99.jpg"] = jpeg(199)  # in no list
    del images[f"{spaniel}0.jpg"]  # in the list of pictures to fit
    files = {
        "images.tar": tgz(images, "w"),
        "lists.tar": tgz({"train_list.mat": listed(0, 5), "test_list.mat": listed(5, 3), "file_list.mat": b""}, "w"),
    }
    return named.stanford_dogs(hosted(served, named.STANFORD_DOGS, files))


def small_cats_vs_dogs(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    files = {f"PetImages/{kind}/{i}.jpg": jpeg(100 * n + i) for n, kind in enumerate(("Cat", "Dog")) for i in range(10)}
    files["PetImages/Cat/666.jpg"] = files["PetImages/Dog/11702.jpg"] = b""
    files["PetImages/Cat/Thumbs.db"] = files["PetImages/Dog/Thumbs.db"] = b"\xd0\xcf\x11\xe0 not a picture"
    files["PetImages/Cat/10404.jpg"] = jpeg(50, kind="GIF")
    files["PetImages/Dog/9500.jpg"] = jpeg(51, kind="BMP")
    files["PetImages/Dog/2317.jpg"] = b"<html>no picture at all</html>"
    files["PetImages/Dog/1308.jpg"] = jpeg(52, 300, 300)[:4000]  # its header is whole
    files["readme[1].txt"] = b"read me"
    packed = zipped(served.folder / "packed", files).read_bytes()
    return named.cats_vs_dogs(hosted(served, named.CATS_VS_DOGS, {"kagglecatsanddogs_5340.zip": packed}))


def small_tf_flowers(served: Web, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    kinds = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    files = {f"flower_photos/{kind}/{i}_n.jpg": jpeg(100 * n + i) for n, kind in enumerate(kinds) for i in range(10)}
    files["flower_photos/LICENSE.txt"] = b"CC-BY"
    return named.tf_flowers(hosted(served, named.TF_FLOWERS, {"flower_photos.tgz": tgz(files)}))


@dataclass(frozen=True)
class Case:
    name: str
    build: Callable[[Web, pytest.MonkeyPatch], Dataset]
    classes: tuple[str, ...]
    counts: tuple[int, int, int]  # fit, select, held
    side: int


CASES = [
    Case("cifar10", small_cifar10, ("airplane", "bird"), (40, 10, 20), 32),
    Case("cifar100", small_cifar100, ("apple", "bear"), (40, 10, 20), 32),
    Case("mnist", small_mnist, ("0 - zero", "1 - one", "2 - two"), (40, 10, 20), 28),
    Case("food101", small_food101, ("apple_pie", "waffles"), (40, 10, 20), 48),
    Case("stanford_dogs", small_stanford_dogs, ("Chihuahua", "Japanese spaniel", "German shepherd"), (11, 3, 9), 48),
    Case("cats_vs_dogs", small_cats_vs_dogs, ("Cat", "Dog"), (15, 4, 4), 48),
    Case("flowers102", small_flowers102, ("pink primrose", "hard-leaved pocket orchid"), (102, 102, 102), 8),
    Case("tf_flowers", small_tf_flowers, ("daisy", "dandelion", "roses", "sunflowers", "tulips"), (30, 10, 10), 48),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@cases
def test_fetched_split_and_decoded(case: Case, served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = case.build(served, monkeypatch)
    offer(monkeypatch, dataset)
    request = DataRequest(case.name, root=str(tmp_path / "root"))
    assert dataset.stamp is not None
    assert dataset.stamp(tmp_path / "root") is None
    told: list[str] = []
    found = survey(request, lambda done, total, what: told.append(what))
    assert found.name == case.name
    assert tuple(found.counts[part] for part in ("fit", "select", "held")) == case.counts
    assert found.native_size == case.side
    assert found.classes[: len(case.classes)] == case.classes
    assert found.flip == (case.name != "mnist")
    assert not found.demonstration
    assert any(what.startswith("fetching ") for what in told)
    asked = len(served.asked)
    served.always = Fault(status=404)  # a second start needs neither the network nor torchvision
    monkeypatch.setattr("scalenet.data.named.readers", None)
    assert survey(request) == found
    assert len(served.asked) == asked
    assert dataset.stamp(tmp_path / "root") is not None


@pytest.mark.parametrize("case", CASES[:4], ids=lambda case: case.name)
def test_pictures_keep_their_labels(case: Case, served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, case.build(served, monkeypatch))
    held, labels = open_part(prepare(DataRequest(case.name, root=str(tmp_path / "root")), 64), "held")
    if case.name == "food101":
        assert np.bincount(labels).tolist() == [10, 10]
        return
    count = 10 if case.name == "mnist" else 2
    channels = slice(0, 1 if case.name == "mnist" else 3)
    expected = {
        np.broadcast_to(pixels(60 + i, case.side, case.side)[..., channels], (case.side, case.side, 3)).tobytes(): i
        for i in range(20)
    }
    assert {row.tobytes(): int(label) for row, label in zip(held, labels, strict=True)} == {
        row: i % count for row, i in expected.items()
    }


def test_flowers102_has_three_parts_by_its_lists(served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_flowers102(served, monkeypatch).load(tmp_path)
    assert (source.classes[0], source.classes[101]) == ("pink primrose", "blackberry lily")
    assert len(source.items) == 306
    for item in source.items:
        number = int(item.name.removeprefix("jpg/image_").removesuffix(".jpg"))
        assert item.label == (number - 1) % 102  # MATLAB counts from 1
        assert item.given == ("select", "held", "fit")[(number - 1) // 102]
        assert Path(str(item.picture)).read_bytes() == jpeg(number, 8, 9)


def test_stanford_dogs_go_by_their_lists_and_tell_what_does_not_fit(
    served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = small_stanford_dogs(served, monkeypatch).load(tmp_path)
    assert source.warnings == (
        "Pictures that the lists name and the folder does not hold, left out: 1 "
        "(n02085782-Japanese_spaniel/n02085782_0.jpg).",
        "Pictures that no list names, left out: 1 (n02085782-Japanese_spaniel/n02085782_99.jpg).",
    )
    for item in source.items:
        dog, number = item.name.split("/")[0], int(re.split(r"[_.]", item.name)[-2])
        assert source.classes[item.label] == dog[10:].replace("_", " ")
        assert item.given == ("fit" if number < 5 else "held")


def test_cats_vs_dogs_tells_what_it_leaves_out(served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, small_cats_vs_dogs(served, monkeypatch))
    request = DataRequest("cats_vs_dogs", root=str(tmp_path / "root"))
    found = survey(request)
    assert found.warnings == (
        "Pictures without a single byte, left out: 2 (Cat/666.jpg, Dog/11702.jpg).",
        "Files that are no pictures, left out: 2 (Cat/Thumbs.db, Dog/Thumbs.db).",
        "Unreadable pictures, left out: 1 (Dog/2317.jpg).",
    )
    assert found.pictures == 10 + 10 + 3  # a GIF and a BMP named .jpg, and one that ends early
    prepared = prepare(request, 32)
    assert prepared.pictures == 10 + 10 + 2
    assert set(prepared.unreadable) == {"Dog/2317.jpg", "Dog/1308.jpg"}


def test_a_failed_download_says_where_the_files_belong(
    served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, small_cifar10(served, monkeypatch))
    served.always = Fault(status=404)
    root = tmp_path / "root"
    with pytest.raises(ScalenetError) as error:
        survey(DataRequest("cifar10", root=str(root)))
    url = f"{served.url}cifar-10-python.tar.gz"
    assert str(error.value) == (
        f"The data set 'cifar10' could not be fetched from {url} ({url}: HTTP 404 Not Found); it is expected in "
        f"{root}, as cifar-10-batches-py: place that or cifar-10-python.tar.gz in {root} by hand, or name the folder "
        "that has it with --root."
    )


def test_a_damaged_download_is_refused(served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, small_mnist(served, monkeypatch))
    served.serve("t10k-images-idx3-ubyte.gz", b"damaged")
    with pytest.raises(ScalenetError, match=r"'mnist' could not be fetched .* it offers 7 bytes"):
        survey(DataRequest("mnist", root=str(tmp_path / "root")))


def test_without_a_root_files_go_beside_the_cache(served: Web, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, small_mnist(served, monkeypatch))
    survey(DataRequest("mnist"))
    assert (cache / "datasets" / "mnist" / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.fspath(self.mark),)


@pytest.mark.parametrize("file", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_changed_batch_is_never_unpickled(
    file: str, served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_cifar10(served, monkeypatch)
    assert dataset.fetch is not None
    dataset.fetch(tmp_path / "root", None)
    trap = pickle.dumps(Trap(tmp_path / "executed"))
    (tmp_path / "root" / "cifar-10-batches-py" / file).write_bytes(trap)
    with pytest.raises(ScalenetError, match=r"cannot be read .* remove cifar-10-batches-py there and start again"):
        dataset.load(tmp_path / "root")
    assert not (tmp_path / "executed").exists()
    pickle.loads(trap)
    assert (tmp_path / "executed").exists()  # the trap works


def test_what_an_old_torchvision_left_is_not_read(served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "MNIST" / "processed").mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        (tmp_path / "MNIST" / "processed" / name).write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    assert len(small_mnist(served, monkeypatch).load(tmp_path).items) == 70
    assert not (tmp_path / "executed").exists()


def test_a_stamp_changes_with_the_files(served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_tf_flowers(served, monkeypatch)
    assert dataset.fetch is not None
    assert dataset.stamp is not None
    dataset.fetch(tmp_path, None)
    stamps = {dataset.stamp(tmp_path)}
    flower = tmp_path / "flower_photos" / "roses" / "0_n.jpg"
    flower.write_bytes(jpeg(999))
    stamps.add(dataset.stamp(tmp_path))
    flower.rename(flower.with_name("other.jpg"))
    stamps.add(dataset.stamp(tmp_path))
    assert len(stamps) == 3
    assert None not in stamps


def test_a_stamp_changes_with_a_single_file(served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_mnist(served, monkeypatch)
    assert dataset.fetch is not None
    assert dataset.stamp is not None
    dataset.fetch(tmp_path, None)
    before = dataset.stamp(tmp_path)
    with open(tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", "ab") as labels:
        labels.write(b"more")
    assert dataset.stamp(tmp_path) not in (before, None)


def test_a_set_is_not_here_while_one_of_its_archives_is_not(
    served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_stanford_dogs(served, monkeypatch)
    assert dataset.fetch is not None
    assert dataset.stamp is not None
    served.faults = [Fault(), Fault(status=404)]
    with pytest.raises(ScalenetError, match=r"lists.tar"):
        dataset.fetch(tmp_path, None)
    assert (tmp_path / "Images").is_dir()
    assert dataset.stamp(tmp_path) is None
    dataset.fetch(tmp_path, None)
    assert dataset.stamp(tmp_path) is not None
    assert [file for file, _ in served.asked] == ["images.tar", "lists.tar", "lists.tar"]


def test_the_names_that_are_offered() -> None:
    assert {found.name for found in named.register_datasets()} == {
        "shapes", "mnist", "cifar10", "cifar100", "food101",
        "stanford_dogs", "cats_vs_dogs", "tf_flowers", "flowers102",
    }  # fmt: skip


def test_the_help_of_data_lists_them() -> None:
    from scalenet.commands.train import train

    (option,) = [p for p in train.params if p.name == "data"]
    names = str(getattr(option, "help", "")).rpartition(": ")[2].rstrip(".").split(", ")
    assert sorted(names) == sorted(found.name for found in named.register_datasets())


def test_urls_and_folders_are_torchvisions_where_it_has_them() -> None:
    from torchvision.datasets import CIFAR10, CIFAR100, MNIST, Flowers102, Food101

    for archives, kind in ((named.CIFAR10, CIFAR10), (named.CIFAR100, CIFAR100)):
        assert archives[0].remote.urls == (kind.url,)
        assert archives[0].makes == kind.base_folder
    for mirror, archive in zip(MNIST.mirrors, named.MNIST[0].remote.urls, strict=True):
        assert archive == mirror + "train-images-idx3-ubyte.gz"
    assert {a.remote.name for a in named.MNIST} == {name for name, _ in MNIST.resources}
    assert named.FOOD101[0].remote.urls == (Food101._URL,)
    assert [a.remote.urls[0] for a in named.FLOWERS102] == [
        Flowers102._download_url_prefix + name for name, _ in Flowers102._file_dict.values()
    ]


def test_every_archive_is_pinned() -> None:
    remotes = [
        archive.remote
        for archives in (
            named.CIFAR10, named.CIFAR100, named.MNIST, named.FOOD101, named.FLOWERS102, named.STANFORD_DOGS,
            named.CATS_VS_DOGS, named.TF_FLOWERS,
        )
        for archive in archives
    ]  # fmt: skip
    assert all(re.fullmatch("[0-9a-f]{64}", remote.sha256) and remote.size > 0 for remote in remotes)
    assert len({remote.sha256 for remote in remotes}) == len(remotes) == 14


def test_what_is_published_is_known_of_each() -> None:
    known = {found.name: found.published for found in datasets().values()}
    dogs = known["stanford_dogs"]
    assert dogs is not None
    assert (dogs.pictures, dogs.classes, dogs.download) == (20_580, 120, 793_579_520 + 481_280)
    for name in [found.name for found in named.register_datasets()]:
        told = known[name]
        assert told is not None
        assert told.terms
        assert told.page.startswith("http") or name == "shapes"
