"""The hooks a plugin may implement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from scalenet.architecture import Architecture
    from scalenet.data.source import Dataset

hookspec = pluggy.HookspecMarker("scalenet")
hookimpl = pluggy.HookimplMarker("scalenet")


@hookspec
def register_architectures() -> Iterable[Architecture[Any]]:
    """Architectures to offer under their names to `--plugin`."""
    return ()


@hookspec
def register_datasets() -> Iterable[Dataset]:
    """Data sets to offer under their names to `--data`."""
    return ()
