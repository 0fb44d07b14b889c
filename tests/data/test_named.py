"""torchvision's sets, through small archives of the real layout served from this machine."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import json
import pickle
import struct
import tarfile
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalenet.data import DataRequest, open_part, prepare, survey
from scalenet.data.named import register_datasets
from scalenet.errors import ScalenetError
from tests.data.pictures import pixels

# urllib leaves the socket of a refused answer to the garbage collector, whose warning may come at any time.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(autouse=True)
def sockets_of_failed_downloads_are_gone() -> Iterator[None]:
    """Collected here, so that the warning does not strike a later test elsewhere."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder and the address it is served at."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def archive(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return md5(path.read_bytes())


def rows(first: int, count: int) -> np.ndarray:
    """CIFAR's rows: red, green and blue planes of 32 x 32, one after the other."""
    return np.stack([pixels(first + i, 32, 32).transpose(2, 0, 1).ravel() for i in range(count)])


def serve_cifar10(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    batches = {f"data_batch_{i}": (10 * i, 10) for i in range(1, 6)} | {"test_batch": (60, 20)}
    files = {
        name: pickle.dumps({"data": rows(first, count), "labels": [i % 2 for i in range(count)]})
        for name, (first, count) in batches.items()
    }
    files["batches.meta"] = pickle.dumps({"label_names": ["airplane", "bird"]})
    found = archive(folder / "cifar-10-python.tar.gz", {f"cifar-10-batches-py/{n}": d for n, d in files.items()})
    monkeypatch.setattr(CIFAR10, "url", url + "cifar-10-python.tar.gz")
    monkeypatch.setattr(CIFAR10, "tgz_md5", found)
    monkeypatch.setattr(
        CIFAR10, "train_list", [[f"data_batch_{i}", md5(files[f"data_batch_{i}"])] for i in range(1, 6)]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(files["batches.meta"])})


def serve_cifar100(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR100

    files = {
        "train": pickle.dumps({"data": rows(0, 50), "fine_labels": [i % 2 for i in range(50)]}),
        "test": pickle.dumps({"data": rows(60, 20), "fine_labels": [i % 2 for i in range(20)]}),
        "meta": pickle.dumps({"fine_label_names": ["apple", "bear"]}),
    }
    found = archive(folder / "cifar-100-python.tar.gz", {f"cifar-100-python/{n}": d for n, d in files.items()})
    monkeypatch.setattr(CIFAR100, "url", url + "cifar-100-python.tar.gz")
    monkeypatch.setattr(CIFAR100, "tgz_md5", found)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(files["train"])]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(files["test"])]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5(files["meta"])})


def serve_mnist(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import MNIST

    resources = []
    for name, first, count in (("train", 0, 50), ("t10k", 60, 20)):
        digits = b"".join(pixels(first + i, 28, 28)[..., 0].tobytes() for i in range(count))
        files = {
            f"{name}-images-idx3-ubyte.gz": struct.pack(">IIII", 0x803, count, 28, 28) + digits,
            f"{name}-labels-idx1-ubyte.gz": struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count)),
        }
        for file, data in files.items():
            (folder / file).write_bytes(gzip.compress(data))
            resources.append((file, md5((folder / file).read_bytes())))
    monkeypatch.setattr(MNIST, "mirrors", [url])
    monkeypatch.setattr(MNIST, "resources", resources)


def serve_food101(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import Food101

    files: dict[str, bytes] = {}
    for split, first, count in (("train", 0, 25), ("test", 60, 10)):
        named = {}
        for offset, label in ((0, "apple_pie"), (1000, "waffles")):
            named[label] = [f"{label}/{first + i}" for i in range(count)]
            for i in range(count):
                data = io.BytesIO()
                Image.fromarray(pixels(offset + first + i, 48, 64)).save(data, "JPEG")
                files[f"food-101/images/{label}/{first + i}.jpg"] = data.getvalue()
        files[f"food-101/meta/{split}.json"] = json.dumps(named).encode()
    monkeypatch.setattr(Food101, "_MD5", archive(folder / "food-101.tar.gz", files))
    monkeypatch.setattr(Food101, "_URL", url + "food-101.tar.gz")


Serve = Callable[[Path, str, pytest.MonkeyPatch], None]


CASES = [
    ("CIFAR10", serve_cifar10, 32, ("airplane", "bird")),
    ("CIFAR100", serve_cifar100, 32, ("apple", "bear")),
    ("MNIST", serve_mnist, 28, ("0 - zero", "1 - one", "2 - two")),
    ("Food101", serve_food101, 48, ("apple_pie", "waffles")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_fetched_split_and_decoded(
    case: tuple[str, Serve, int, tuple[str, ...]],
    served: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader, serve, native, classes = case
    name = loader.lower()
    serve(*served, monkeypatch)
    request = DataRequest(name, root=str(tmp_path / "root"))
    prepared = prepare(request, 64)
    assert prepared.name == name
    assert prepared.counts == {"fit": 40, "select": 10, "held": 20}  # 50 for training, of which a fifth is select
    assert (prepared.native_size, prepared.side) == (native, native)
    assert prepared.classes[: len(classes)] == classes
    assert prepared.flip == (name != "mnist")
    assert not prepared.demonstration
    for file in served[0].iterdir():  # a second start needs neither the network nor torchvision
        file.unlink()
    monkeypatch.setattr(f"torchvision.datasets.{loader}", None)
    assert prepare(request, 64) == prepared
    held, labels = open_part(prepared, "held")
    count = 10 if name == "mnist" else 2
    if name != "food101":
        expected = {pixels(60 + i, native, native).tobytes(): i % count for i in range(20)}
        if name == "mnist":
            grey = {i: pixels(60 + i, 28, 28)[..., :1].repeat(3, axis=2) for i in range(20)}
            expected = {grey[i].tobytes(): i % 10 for i in range(20)}
        assert {row.tobytes(): int(label) for row, label in zip(held, labels, strict=True)} == expected
    else:
        assert np.bincount(labels).tolist() == [10, 10]


def test_a_failed_download_says_where_the_files_belong(served, tmp_path, monkeypatch):
    serve_cifar10(*served, monkeypatch)
    (served[0] / "cifar-10-python.tar.gz").unlink()
    with pytest.raises(ScalenetError) as error:
        survey(DataRequest("cifar10", root=str(tmp_path / "root")))
    assert served[1] in str(error.value)
    assert "404" in str(error.value)
    assert f"expected in {tmp_path / 'root'}, as cifar-10-batches-py" in str(error.value)
    assert "by hand" in str(error.value)


def test_a_damaged_download_is_refused(served, tmp_path, monkeypatch):
    serve_mnist(*served, monkeypatch)
    (served[0] / "t10k-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(ScalenetError, match="'mnist' could not be fetched"):
        survey(DataRequest("mnist", root=str(tmp_path / "root")))


def test_without_a_root_files_go_beside_the_cache(served, cache, monkeypatch):
    serve_mnist(*served, monkeypatch)
    survey(DataRequest("mnist"))
    assert (cache / "datasets" / "mnist" / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()


def test_the_five_names_are_offered():
    assert [found.name for found in register_datasets()] == ["shapes", "cifar10", "cifar100", "mnist", "food101"]
