from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from scalenet.commands.datasets import fetch, list_
from scalenet.data import Dataset, Source, named
from scalenet.data.archive import Archive
from scalenet.data.fetch import Remote
from scalenet.errors import ScalenetError
from tests.data.server import Fault, web
from tests.data.test_unpack import zipped


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALENET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def rows(output: str) -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in output.splitlines()}


def test_all_sets_are_listed_with_what_is_known_of_them(cache: Path) -> None:
    (cache / "datasets" / "tf_flowers" / "flower_photos").mkdir(parents=True)
    (cache / "datasets" / "tf_flowers" / "flower_photos" / "LICENSE.txt").write_bytes(b"CC-BY")
    shown = rows(CliRunner().invoke(list_, catch_exceptions=False).output)
    assert shown["name"] == ["name", "terms", "pictures", "classes", "px", "download", "here"]
    assert shown["stanford_dogs"][-5:] == ["120", "varied", "794", "MB", "no"]
    assert shown["tf_flowers"][-6:] == ["3,670", "5", "varied", "229", "MB", "yes"]
    assert shown["shapes"][-5:] == ["3,000", "10", "64", "-", "yes"]


def test_as_json(cache: Path) -> None:
    told = {row["name"]: row for row in json.loads(CliRunner().invoke(list_, ["--json"]).output)}
    assert told["cats_vs_dogs"] == {
        "name": "cats_vs_dogs",
        "description": "25,000 photographs of cats and dogs in 2 classes",
        "pictures": 25_000,
        "classes": 2,
        "side": "varied",
        "download_bytes": 824_887_076,
        "terms": "Microsoft's MSR-LA 3467, in the archive",
        "page": "https://www.microsoft.com/en-us/download/details.aspx?id=54765",
        "here": False,
        "root": str(cache / "datasets" / "cats_vs_dogs"),
    }


def test_what_a_third_party_does_not_tell_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Dataset("theirs", "pictures", lambda root: Source("theirs", (), []))
    monkeypatch.setattr("scalenet.plugins.datasets", lambda: {"theirs": theirs})
    shown = rows(CliRunner().invoke(list_, catch_exceptions=False).output)
    assert shown["theirs"] == ["theirs", "-", "-", "-", "-", "-", "-"]


def test_fetched_beforehand(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with web(tmp_path / "web") as served:
        data = zipped(served.folder / "pets.zip", {"PetImages/Cat/1.jpg": b"cat"}).read_bytes()
        remote = Remote((f"{served.url}pets.zip",), len(data), hashlib.sha256(data).hexdigest())
        pets = named.cats_vs_dogs([Archive(remote, "PetImages", named.CATS_VS_DOGS[0].unpack)])
        monkeypatch.setattr("scalenet.plugins.dataset", {"cats_vs_dogs": pets}.__getitem__)
        usual = CliRunner().invoke(fetch, ["cats_vs_dogs"], catch_exceptions=False)
        folder = cache / "datasets" / "cats_vs_dogs"
        assert (folder / "PetImages" / "Cat" / "1.jpg").read_bytes() == b"cat"
        assert usual.output == f"cats_vs_dogs is in {folder}\nnext      --data cats_vs_dogs\n"
        root = str(tmp_path / "elsewhere")
        there = CliRunner().invoke(fetch, ["cats_vs_dogs", "--root", root, "--json"], catch_exceptions=False)
        assert json.loads(there.output) == {"name": "cats_vs_dogs", "root": root}
        assert (tmp_path / "elsewhere" / "PetImages" / "Cat" / "1.jpg").is_file()
        served.always = Fault(status=404)
        with pytest.raises(ScalenetError, match="could not be fetched"):
            CliRunner().invoke(fetch, ["cats_vs_dogs", "--root", str(tmp_path / "new")], catch_exceptions=False)


def test_what_cannot_be_fetched() -> None:
    with pytest.raises(ScalenetError, match="'shapes' has nothing to be fetched beforehand; just use it"):
        CliRunner().invoke(fetch, ["shapes"], catch_exceptions=False)
    with pytest.raises(ScalenetError, match=r"No data set 'tf_flower'. Did you mean 'tf_flowers'"):
        CliRunner().invoke(fetch, ["tf_flower"], catch_exceptions=False)
