"""Registration: duplicates, misspelled hooks, did-you-mean. Real installs are in test_packaging.py."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from scalenet import plugins
from scalenet.errors import ScalenetError
from scalenet.hookspecs import hookimpl


class _Entry:
    """What importlib.metadata would give for one entry point."""

    def __init__(self, name: str, plugin: ModuleType | Exception) -> None:
        self.name, self.value, self._plugin = name, f"{name}_module", plugin

    def load(self) -> ModuleType:
        if isinstance(self._plugin, Exception):
            raise self._plugin
        return self._plugin


def _module(name: str, **hooks: Any) -> ModuleType:
    module = ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(function))
    return module


@pytest.fixture
def third_parties(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str, _Entry]]]:
    entries: list[tuple[str, str, _Entry]] = []
    monkeypatch.setattr(plugins, "_entry_points", lambda: entries)
    return entries


def _efficientnet() -> list[Any]:
    return [plugins.architecture("efficientnet")]


def test_built_ins_are_found() -> None:
    found = plugins.registry()
    assert {"efficientnet", "mobilenet", "mobilevit"} <= set(found.architectures)
    assert found.origins["mobilevit"].module == "scalenet_plugins.mobilevit"
    assert {"shapes", "cifar10", "cifar100", "mnist", "food101"} <= set(found.datasets)


def test_duplicate_raises_and_names_both(third_parties: list[Any]) -> None:
    third_parties.append(("stranger", "1.2", _Entry("same", _module("m", register_architectures=_efficientnet))))
    with pytest.raises(ScalenetError, match=r"'efficientnet'.*scalenet .*stranger 1\.2|stranger 1\.2.*scalenet"):
        plugins.collect(None)


def test_restriction_keeps_third_parties_out(third_parties: list[Any]) -> None:
    third_parties.append(("stranger", "1.2", _Entry("same", _module("m", register_architectures=_efficientnet))))
    assert "efficientnet" in plugins.collect("").architectures
    assert "efficientnet" in plugins.collect("another_one").architectures


def test_misspelled_hook_is_refused(third_parties: list[Any]) -> None:
    third_parties.append(("stranger", "1.2", _Entry("typo", _module("m", register_architecture=_efficientnet))))
    with pytest.raises(ScalenetError, match=r"stranger 1\.2.*register_architecture"):
        plugins.collect(None)


def test_broken_import_is_a_warning_with_the_package(third_parties: list[Any]) -> None:
    third_parties.append(("stranger", "1.2", _Entry("snapped", ImportError("no module named x"))))
    with pytest.warns(UserWarning, match=r"stranger 1\.2 .*no module named x"):
        found = plugins.collect(None)
    assert "efficientnet" in found.architectures
    assert "stranger" in found.broken["snapped"]


def test_broken_hook_is_a_warning_with_the_package(third_parties: list[Any]) -> None:
    def explode() -> list[Any]:
        raise RuntimeError("boom")

    third_parties.append(("stranger", "1.2", _Entry("snapped", _module("m", register_architectures=explode))))
    with pytest.warns(UserWarning, match=r"stranger 1\.2 .*boom"):
        assert "efficientnet" in plugins.collect(None).architectures


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ScalenetError, match=r"No architecture 'mobilvit'\. Did you mean 'mobilevit'\? Installed: "):
        plugins.architecture("mobilvit")
    with pytest.raises(ScalenetError, match=r"No data set 'cifar1O'\. Did you mean 'cifar10'\?"):
        plugins.dataset("cifar1O")
