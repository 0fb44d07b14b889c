from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from scalenet.data import archive as module
from scalenet.data.archive import SPARE, Archive, bring
from scalenet.data.fetch import Remote
from scalenet.data.unpack import Told, copy, unzip
from scalenet.errors import ScalenetError
from tests.data.server import Fault, Web, web
from tests.data.test_unpack import tree, zipped

FILES = {"Pets/Cat/1.jpg": b"cat", "Pets/Dog/1.jpg": b"dog", "readme.txt": b"read me"}
PETS = {"Cat/1.jpg": b"cat", "Dog/1.jpg": b"dog"}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web(tmp_path / "web") as running:
        yield running


@pytest.fixture
def pets(served: Web) -> Archive:
    data = zipped(served.folder / "pets.zip", FILES).read_bytes()
    remote = Remote((f"{served.url}pets.zip",), len(data), hashlib.sha256(data).hexdigest())
    return Archive(remote, "data/Pets", partial(unzip, inside="Pets"))


def left(root: Path) -> set[str]:
    """What lies in the folder beside the lock."""
    return {path.name for path in (root / "data").iterdir()} - {".pets.zip.lock"}


def test_downloaded_unpacked_and_nothing_else_left(pets: Archive, served: Web, tmp_path: Path) -> None:
    told: list[str] = []
    bring(pets, tmp_path / "root", lambda done, total, what: told.append(what))
    assert tree(tmp_path / "root" / "data" / "Pets") == PETS
    assert left(tmp_path / "root") == {"Pets"}
    assert list(dict.fromkeys(told)) == [
        "fetching pets.zip (kB)",
        "checking pets.zip (kB)",
        "unpacking pets.zip.part (kB)",
    ]
    bring(pets, tmp_path / "root")
    assert len(served.asked) == 1


def test_an_archive_placed_by_hand_is_used_and_kept(pets: Archive, served: Web, tmp_path: Path) -> None:
    (tmp_path / "root" / "data").mkdir(parents=True)
    shutil.copy(served.folder / "pets.zip", tmp_path / "root" / "data")
    bring(pets, tmp_path / "root")
    assert tree(tmp_path / "root" / "data" / "Pets") == PETS
    assert left(tmp_path / "root") == {"Pets", "pets.zip"}
    assert served.asked == []


def test_another_file_under_its_name_is_left_alone_and_not_unpacked(pets: Archive, served: Web, tmp_path: Path) -> None:
    wrong = tmp_path / "root" / "data" / "pets.zip"
    wrong.parent.mkdir(parents=True)
    zipped(wrong, {"Pets/Cat/1.jpg": b"evil"})
    bring(pets, tmp_path / "root")
    assert tree(tmp_path / "root" / "data" / "Pets") == PETS
    assert left(tmp_path / "root") == {"Pets", "pets.zip"}


def test_where_the_web_fails_too_the_other_file_is_told(pets: Archive, served: Web, tmp_path: Path) -> None:
    wrong = tmp_path / "root" / "data" / "pets.zip"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"half")
    served.always = Fault(status=404)
    with pytest.raises(ScalenetError, match=r"HTTP 404 Not Found; and .*pets.zip is not the published file"):
        bring(pets, tmp_path / "root")


def test_what_is_placed_unpacked_is_taken_as_it_is(pets: Archive, served: Web, tmp_path: Path) -> None:
    (tmp_path / "root" / "data" / "Pets").mkdir(parents=True)
    bring(pets, tmp_path / "root")
    assert served.asked == []
    assert left(tmp_path / "root") == {"Pets"}


def test_a_broken_download_goes_on_next_time(pets: Archive, served: Web, tmp_path: Path) -> None:
    served.always = Fault(cut=100)
    served.faults = [Fault(cut=100), Fault(status=404)]
    with pytest.raises(ScalenetError):
        bring(pets, tmp_path / "root", pauses=(0.0,))
    assert left(tmp_path / "root") == {"pets.zip.part"}
    served.always = Fault()
    bring(pets, tmp_path / "root")
    assert served.asked[-1] == ("pets.zip", "bytes=100-")
    assert tree(tmp_path / "root" / "data" / "Pets") == PETS


def test_unpacking_that_is_interrupted_leaves_no_half_folder(pets: Archive, served: Web, tmp_path: Path) -> None:
    def interrupted(file: Path, target: Path, told: Told) -> None:
        target.mkdir()
        (target / "half").write_bytes(b"")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(Archive(pets.remote, pets.makes, interrupted), tmp_path / "root")
    assert left(tmp_path / "root") == {"pets.zip.part"}
    bring(pets, tmp_path / "root")
    assert len(served.asked) == 1  # what had come was enough
    assert left(tmp_path / "root") == {"Pets"}


def test_what_a_killed_process_left_is_swept(pets: Archive, tmp_path: Path) -> None:
    half = tmp_path / "root" / "data" / ".pets.zip.unpacking"
    (half / "Cat").mkdir(parents=True)
    (half / "Cat" / "half.jpg").write_bytes(b"ca")
    bring(pets, tmp_path / "root")
    assert tree(tmp_path / "root" / "data" / "Pets") == PETS
    assert left(tmp_path / "root") == {"Pets"}


def test_a_single_file_is_put_in_its_place(served: Web, tmp_path: Path) -> None:
    url = served.serve("labels.mat", b"labels")
    labels = Archive(Remote((url,), 6, hashlib.sha256(b"labels").hexdigest()), "labels.mat", copy)
    bring(labels, tmp_path / "root")
    assert tree(tmp_path / "root") == {"labels.mat": b"labels", ".labels.mat.lock": b""}


def test_a_full_disk_is_told_before_anything_is_sent(
    pets: Archive, served: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    size = pets.remote.size
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage(0, 0, 2 * size + SPARE - 1))
    with pytest.raises(ScalenetError, match=r"pets.zip needs about 67 MB in .*data, where 67 MB are free"):
        bring(pets, tmp_path / "root")
    assert served.asked == []
    (tmp_path / "root" / "data" / "pets.zip.part").write_bytes((served.folder / "pets.zip").read_bytes()[:10])
    bring(pets, tmp_path / "root")  # ten bytes less to come
    assert left(tmp_path / "root") == {"Pets"}


def test_an_archive_that_leads_outside_leaves_nothing(served: Web, tmp_path: Path) -> None:
    data = zipped(served.folder / "bad.zip", {"Pets/a.jpg": b"a", "../../out.jpg": b"out"}).read_bytes()
    remote = Remote((f"{served.url}bad.zip",), len(data), hashlib.sha256(data).hexdigest())
    with pytest.raises(ScalenetError, match="leads outside"):
        bring(Archive(remote, "Pets", partial(unzip, inside="Pets")), tmp_path / "root")
    assert not list(tmp_path.rglob("out.jpg"))
    assert not (tmp_path / "root" / "Pets").exists()


CHILD = """
    import sys, time
    from pathlib import Path
    from functools import partial
    from scalenet.data.archive import Archive, bring
    from scalenet.data.fetch import Remote
    from scalenet.data.unpack import unzip

    def slowly(file, target, told):
        print("unpacking", flush=True)
        sys.stdin.readline()
        unzip(file, target, told, inside="Pets")

    url, size, sha256, root = sys.argv[1:]
    bring(Archive(Remote((url,), int(size), sha256), "data/Pets", slowly), Path(root))
"""


def start(pets: Archive, root: Path) -> subprocess.Popen[str]:
    told = [pets.remote.urls[0], str(pets.remote.size), pets.remote.sha256, str(root)]
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD), *told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "unpacking\n"
    return child


def test_a_second_process_waits_and_uses_what_the_first_made(pets: Archive, served: Web, tmp_path: Path) -> None:
    root = tmp_path / "root"
    with start(pets, root) as child:
        told: list[str] = []

        def report(done: int, total: int, what: str) -> None:
            if not told:
                assert child.stdin is not None
                child.stdin.write("go\n")
                child.stdin.flush()
            told.append(what)

        bring(pets, root, report)
        assert child.wait() == 0
    assert set(told) == {"waiting for another process that fetches pets.zip"}
    assert len(served.asked) == 1
    assert tree(root / "data" / "Pets") == PETS


def test_a_killed_process_holds_nobody_up(pets: Archive, served: Web, tmp_path: Path) -> None:
    with start(pets, tmp_path / "root") as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
    bring(pets, tmp_path / "root")
    assert len(served.asked) == 1  # the download was whole
    assert left(tmp_path / "root") == {"Pets"}
