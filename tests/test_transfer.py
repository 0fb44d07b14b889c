from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scalenet import plugins
from scalenet.architecture import Part, Variant
from scalenet.errors import ScalenetError
from scalenet.plain import to_plain
from scalenet.transfer import start_from
from scalenet.weights import save_weights
from tests.toy import Toy, ToyNet, ToySpec

SMALL = ToySpec((1, 1), (4, 8), 16)


class Positioned(ToyNet):
    """The toy with a table of positions, (1, side, side), and its linear map under the contract's name."""

    def __init__(self, spec: ToySpec, num_classes: int, in_channels: int) -> None:
        super().__init__(spec, num_classes, in_channels)
        self.classifier = self.head
        del self.head
        self.positions = nn.Parameter(torch.randn(1, spec.resolution, spec.resolution))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.blocks(x + self.positions).mean((2, 3)))
        return logits


class Net(Toy):
    name = "net"

    def build(self, spec: ToySpec, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        return Positioned(spec, num_classes, in_channels)

    def resample(self, weights: Mapping[str, Tensor], old: ToySpec, new: ToySpec) -> Mapping[str, Tensor]:
        size = (new.resolution, new.resolution)
        return {**weights, "positions": nn.functional.interpolate(weights["positions"][None], size)[0]}


@dataclass(frozen=True)
class PretextSpec:
    inner: ToySpec
    resolution: int = 16


class Pretext(Toy):
    """Pretrains a Net."""

    name = "pretext"
    variants: Mapping[str, Any] = {"small": Variant(PretextSpec(SMALL), 0, "made for tests")}

    def build(self, spec: Any, *, num_classes: int, in_channels: int = 3, drop_path: float = 0.0) -> nn.Module:
        inner = Positioned(spec.inner, 1, in_channels)
        inner.classifier = nn.Identity()
        return nn.ModuleDict({"encoder": inner, "head": nn.Linear(8, 5)})

    def encoder(self, spec: Any, weights: Mapping[str, Tensor]) -> Part:
        inner = {name[8:]: tensor for name, tensor in weights.items() if name.startswith("encoder.")}
        return Part("net", spec.inner, inner)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = plugins.Registry({"net": Net(), "pretext": Pretext(), "toy": Toy()}, {}, {}, {})
    monkeypatch.setattr(plugins, "registry", lambda: found)
    return iter(())


def saved(path: Path, arch: Any, spec: Any, classes: Iterable[str]) -> nn.Module:
    classes = tuple(classes)
    model: nn.Module = arch.build(spec, num_classes=len(classes))
    save_weights(model, path, plugin=arch.name, spec=to_plain(spec), classes=classes, side=spec.resolution)
    return model


def same(a: nn.Module, b: nn.Module, *, but: tuple[str, ...] = ()) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items() if name not in but)


def test_the_same_network_takes_everything(tmp_path: Path) -> None:
    trained = saved(tmp_path / "w", Net(), SMALL, "abc")
    model = Net().build(SMALL, num_classes=3)
    assert start_from(model, tmp_path / "w", Net(), SMALL) == ()
    assert same(model, trained)


def test_other_classes_keep_their_own_classifier(tmp_path: Path) -> None:
    trained = saved(tmp_path / "w", Net(), SMALL, "abc")
    model = Net().build(SMALL, num_classes=7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fresh = start_from(model, tmp_path / "w", Net(), SMALL)
    assert fresh == ("classifier.weight", "classifier.bias")
    assert same(model, trained, but=fresh)
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in fresh)


def test_another_resolution_is_resampled(tmp_path: Path) -> None:
    trained = saved(tmp_path / "w", Net(), SMALL, "abc")
    larger = replace(SMALL, resolution=32)
    model: Any = Net().build(larger, num_classes=3)
    assert start_from(model, tmp_path / "w", Net(), larger) == ()
    assert same(model, trained, but=("positions",))
    # nearest neighbours: every old position is now four
    assert torch.equal(model.positions[0, ::2, 1::2], trained.state_dict()["positions"][0])


def test_a_pretraining_gives_its_encoder_and_leaves_the_classifier(tmp_path: Path) -> None:
    spec = PretextSpec(SMALL)
    trained: Any = saved(tmp_path / "w", Pretext(), spec, "abc")
    model = Net().build(SMALL, num_classes=3)
    fresh = start_from(model, tmp_path / "w", Net(), SMALL)
    assert fresh == ("classifier.weight", "classifier.bias")
    assert same(trained["encoder"], model)


def test_a_pretraining_goes_on_as_one(tmp_path: Path) -> None:
    spec = PretextSpec(SMALL)
    trained = saved(tmp_path / "w", Pretext(), spec, "abc")
    model = Pretext().build(spec, num_classes=3)
    assert start_from(model, tmp_path / "w", Pretext(), spec) == ()
    assert same(model, trained)


def test_another_network_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "w", Net(), SMALL, "abc")
    with pytest.raises(ScalenetError, match="holds a net, and this model is a toy"):
        start_from(Toy().build(SMALL, num_classes=3), tmp_path / "w", Toy(), SMALL)
    wider = replace(SMALL, widths=(6, 8))
    with pytest.raises(ScalenetError, match=r"blocks.0.conv.weight is \[4, 3, 3, 3\] there, and \[6, 3, 3, 3\]"):
        start_from(Net().build(wider, num_classes=3), tmp_path / "w", Net(), wider)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScalenetError, match="no such file"):
        start_from(Net().build(SMALL, num_classes=3), tmp_path / "none", Net(), SMALL)
