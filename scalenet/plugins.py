"""Finds plugins (built-ins by scan, third parties by entry point) and looks up what they offer by name."""

from __future__ import annotations

import importlib
import os
import pkgutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions, version
from types import MappingProxyType
from typing import Any, cast

import pluggy

from scalenet import hookspecs
from scalenet.architecture import Architecture
from scalenet.data.source import Dataset
from scalenet.errors import ScalenetError, unknown

GROUP = "scalenet"  # entry points of third parties
RESTRICT = "SCALENET_PLUGINS"  # comma-separated packages to load; empty: none; unset: all


@dataclass(frozen=True)
class Origin:
    """Where a registered thing comes from."""

    package: str
    version: str
    module: str


@dataclass(frozen=True)
class Registry:
    """What is installed, by name, and what would not load (package -> one sentence)."""

    architectures: Mapping[str, Architecture[Any]]
    datasets: Mapping[str, Dataset]
    origins: Mapping[str, Origin]  # of architectures
    broken: Mapping[str, str]


@cache
def registry() -> Registry:
    """Everything installed, found once per process.

    Raises:
        ScalenetError: two plugins register one name, or a plugin implements a hook that does not exist.
    """
    return collect(os.environ.get(RESTRICT))


def architectures() -> Mapping[str, Architecture[Any]]:
    """The installed architectures by name, sorted."""
    return registry().architectures


def architecture(name: str) -> Architecture[Any]:
    """The architecture that `--plugin name` means; a ScalenetError with the nearest name otherwise."""
    found = registry()
    if name in found.architectures:
        return found.architectures[name]
    if name in found.broken:
        raise ScalenetError(found.broken[name])
    raise unknown("architecture", name, found.architectures)


def datasets() -> Mapping[str, Dataset]:
    """The installed data sets by name, sorted."""
    return registry().datasets


def dataset(name: str) -> Dataset:
    """The data set of that name; a ScalenetError with the nearest name otherwise."""
    found = datasets()
    if name not in found:
        raise unknown("data set", name, found)
    return found[name]


def collect(restrict: str | None) -> Registry:
    """Loads every plugin anew; `restrict` as in the environment variable SCALENET_PLUGINS."""
    manager = pluggy.PluginManager("scalenet")
    manager.add_hookspecs(hookspecs)
    origins: dict[str, Origin] = {}  # by pluggy's plugin name
    _register_builtins(manager, origins)
    broken = _register_third_parties(manager, origins, restrict)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise ScalenetError(f"Plugin {_package(error.plugin, manager, origins)}: {error}.") from error
    owners: dict[str, Origin] = {}
    found = _gather(manager.hook.register_architectures, origins, "architecture", owners, broken)
    sets = _gather(manager.hook.register_datasets, origins, "data set", {}, broken)
    return Registry(MappingProxyType(found), MappingProxyType(sets), MappingProxyType(owners), MappingProxyType(broken))


def _register_builtins(manager: pluggy.PluginManager, origins: dict[str, Origin]) -> None:
    import scalenet_plugins

    # Under the module's path: pluggy silently skips an entry point whose name is already taken.
    names = [f"scalenet_plugins.{m.name}" for m in pkgutil.iter_modules(scalenet_plugins.__path__)]
    for name in [*sorted(names), "scalenet.data.named"]:
        manager.register(importlib.import_module(name), name=name)
        origins[name] = Origin("scalenet", version("scalenet"), name)


def _register_third_parties(
    manager: pluggy.PluginManager, origins: dict[str, Origin], restrict: str | None
) -> dict[str, str]:
    allowed = None if restrict is None else {_canonical(part) for part in restrict.split(",") if part.strip()}
    broken: dict[str, str] = {}
    for package, release, entry in _entry_points():
        if allowed is not None and _canonical(package) not in allowed:
            continue
        name = f"{package}:{entry.name}"
        try:
            plugin = entry.load()
            manager.register(plugin, name=name)
        except Exception as error:  # a stranger's import may raise anything; the others must still load
            broken[entry.name] = _complain(package, release, error)
            continue
        origins[name] = Origin(package, release, entry.value)
    return broken


def _entry_points() -> list[tuple[str, str, Any]]:
    """(package, version, entry point) of the group, each package once, in the order of their names."""
    seen: dict[str, Distribution] = {}
    for found in distributions():
        seen.setdefault(_canonical(found.metadata["Name"] or ""), found)  # the first on sys.path is what imports
    return [
        (dist.metadata["Name"], dist.version, entry)
        for _, dist in sorted(seen.items())
        for entry in sorted(dist.entry_points, key=lambda e: e.name)
        if entry.group == GROUP
    ]


def _gather(
    hook: pluggy.HookCaller,
    origins: Mapping[str, Origin],
    kind: str,
    owners: dict[str, Origin],
    broken: dict[str, str],
) -> dict[str, Any]:
    """What every implementation of `hook` returns, by name."""
    found: dict[str, Any] = {}
    for implementation in sorted(hook.get_hookimpls(), key=lambda i: i.plugin_name):
        origin = origins[implementation.plugin_name]
        try:
            things = list(cast(Iterable[Any], implementation.function()))
        except Exception as error:  # as for an import
            if origin.package == "scalenet":
                raise
            broken[implementation.plugin_name.partition(":")[2]] = _complain(origin.package, origin.version, error)
            continue
        for thing in things:
            if thing.name in found:
                first = owners[thing.name]
                raise ScalenetError(
                    f"Two plugins register the {kind} {thing.name!r}: {first.package} {first.version} ({first.module})"
                    f" and {origin.package} {origin.version} ({origin.module}); uninstall one, or name the packages to"
                    f" load in {RESTRICT}."
                )
            found[thing.name], owners[thing.name] = thing, origin
    return dict(sorted(found.items()))


def _complain(package: str, release: str, error: Exception) -> str:
    sentence = f"Plugin package {package} {release} does not load: {type(error).__name__}: {error}."
    warnings.warn(sentence, stacklevel=2)
    return sentence


def _package(plugin: object, manager: pluggy.PluginManager, origins: Mapping[str, Origin]) -> str:
    origin = origins.get(manager.get_name(plugin) or "")
    return f"{origin.package} {origin.version} ({origin.module})" if origin else repr(plugin)


def _canonical(package: str) -> str:
    return package.strip().lower().replace("_", "-").replace(".", "-")
