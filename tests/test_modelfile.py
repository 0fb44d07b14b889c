from __future__ import annotations

from pathlib import Path

import pytest

from scalenet.cost import Cost
from scalenet.errors import ScalenetError
from scalenet.modelfile import ModelFile, read_model_file, write_model_file

MODEL = ModelFile("toy", {"depths": [1, 2], "resolution": 24}, Cost(10, 2_000, 30), phi=1.5, source="runs/toy, phi 1.5")


def test_round_trip_and_what_a_person_reads_first(tmp_path: Path) -> None:
    write_model_file(tmp_path / "new" / "model.yaml", MODEL)
    assert read_model_file(tmp_path / "new" / "model.yaml") == MODEL
    assert (tmp_path / "new" / "model.yaml").read_text().startswith("schema_version: 1\nplugin: toy\n")


def test_a_persons_own_file_needs_plugin_and_spec_only(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("plugin: toy\nspec: {resolution: 32}\n")
    assert read_model_file(tmp_path / "m.yaml") == ModelFile("toy", {"resolution": 32})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[1, 2", "not valid YAML"),
        ("just words", "not a model file"),
        ("spec: {}", "not a model file"),
        ("plugin: toy\nspec: {}\nschema_version: 9", "schema_version 9; this scalenet reads 1"),
        ("plugin: toy\nspecs: {}", "Did you mean 'spec'"),
        ("plugin: toy\nspec: {}\ncost: {params: 1.5, flops: 1, activations: 1}", "cost.params must be"),
    ],
)
def test_what_is_no_model_file_is_refused_with_its_name(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    with pytest.raises(ScalenetError, match=sentence) as caught:
        read_model_file(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScalenetError, match="cannot be read"):
        read_model_file(tmp_path / "none.yaml")
