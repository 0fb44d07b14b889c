"""Frozen dataclasses <-> plain data (what JSON and YAML hold), strictly: unknown keys and wrong types are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
import yaml
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

from scalenet.errors import ScalenetError, unknown

T = TypeVar("T")


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)

    def exactly(kind: type, words: str, *others: type) -> Any:
        # bool is an int in Python; cattrs by default turns "3" into 3 and 1.7 into 1.
        def structure(value: Any, _: Any) -> Any:
            if type(value) is kind or type(value) in others:
                return kind(value)
            raise ScalenetError(f"must be {words}, got {value!r}")

        return structure

    def one_of(value: Any, literal: Any) -> Any:
        if value in get_args(literal):
            return value
        raise ScalenetError(f"must be one of {', '.join(map(str, get_args(literal)))}, got {value!r}")

    converter.register_structure_hook(int, exactly(int, "a whole number"))
    converter.register_structure_hook(float, exactly(float, "a number", int))
    converter.register_structure_hook(str, exactly(str, "a text"))
    converter.register_structure_hook(bool, exactly(bool, "true or false"))
    literal: Any = Literal  # mypy takes a special form for no value
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is literal, one_of)
    return converter


_CONVERTER = _converter()


def to_plain(value: Any) -> Any:
    """Dicts, lists, strings, numbers, booleans and None only: what `json.dumps` writes and `from_plain` reads back."""
    plain = _CONVERTER.unstructure(value)
    return json.loads(json.dumps(plain))  # tuples -> lists, and proof that it is plain


def from_plain(kind: type[T], data: Any, where: str) -> T:
    """`data` as a `kind`.

    Raises:
        ScalenetError: an unknown key, a missing one or a wrong type, named with `where` (a file or an option).
    """
    try:
        return _CONVERTER.structure(data, kind)
    except Exception as error:  # cattrs lets whatever a constructor raises through, wrapped or not
        raise ScalenetError(f"{where}: {'; '.join(_complaints(error, kind, ''))}.") from error


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, as YAML 1.2 and everyone who types it have it; PyYAML reads a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """The plain data of a YAML text; raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file, safe-loaded.

    Raises:
        ScalenetError: no such file, or not YAML.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScalenetError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise ScalenetError(f"{path}: is not valid YAML{line}.") from error


def _complaints(error: BaseException, kind: Any, path: str) -> list[str]:
    """What is wrong, leaf by leaf, each with its dotted path."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = list(getattr(error.cl, "__dataclass_fields__", {}))
        texts = [str(unknown("key", key, known, "Allowed")).rstrip(".") for key in sorted(error.extra_fields)]
        return [f"{path}: {text}" if path else text for text in texts]
    if isinstance(error, (ClassValidationError, IterableValidationError)):
        complaints = []
        for inner in error.exceptions:
            step = _step(inner)
            complaints += _complaints(inner, kind, f"{path}.{step}".strip(".") if step else path)
        return complaints
    if isinstance(error, KeyError):
        return [f"{path or error.args[0]} is missing"]  # the note on a missing key already names it
    text = str(error).rstrip(".") or type(error).__name__
    return [f"{path} {text}" if path else text]


def _step(error: BaseException) -> str:
    """The field or index that cattrs noted on a wrapped exception."""
    for note in getattr(error, "__notes__", []):
        name = getattr(note, "name", None)
        if name is not None:
            return str(name)
        index = getattr(note, "index", None)
        if index is not None:
            return str(index)
    return ""
