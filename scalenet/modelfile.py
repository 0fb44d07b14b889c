"""A scaled model as a YAML file that a person can read: what `scalenet scale` writes and `scalenet train` builds."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scalenet.cost import Cost
from scalenet.errors import ScalenetError
from scalenet.plain import from_plain, read_yaml, to_plain

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelFile:
    """An architecture's name, a spec of it, and what is known of it.

    `cost` is that of one image with the class count of the search; `source` says in words where the spec comes from
    (a run and its phi or budget, or a published variant).
    """

    plugin: str
    spec: dict[str, Any]  # plain; the plugin's own dataclass reads it
    cost: Cost | None = None
    phi: float | None = None
    source: str = ""
    schema_version: int = field(default=SCHEMA_VERSION)


def write_model_file(path: Path, model: ModelFile) -> None:
    """Writes `model` as YAML, whole or not at all."""
    first = {"schema_version": model.schema_version}
    text = yaml.safe_dump(first | to_plain(model), sort_keys=False, allow_unicode=True, width=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def read_model_file(path: Path) -> ModelFile:
    """Reads what `write_model_file` wrote, or a person.

    Raises:
        ScalenetError: no such file, not YAML, no model file, another schema version, an unknown key.
    """
    plain = read_yaml(path)
    if not isinstance(plain, dict) or "plugin" not in plain:
        raise ScalenetError(f"{path}: is not a model file; it must be YAML with the keys plugin and spec.")
    version = plain.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION:
        raise ScalenetError(f"{path}: has schema_version {version!r}; this scalenet reads {SCHEMA_VERSION}.")
    return from_plain(ModelFile, plain, str(path))
