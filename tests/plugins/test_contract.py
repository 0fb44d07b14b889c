"""The sixteen architectures against their contract, and what only they promise."""

from __future__ import annotations

import pkgutil

import pytest
import scalenet_plugins
import torch

from scalenet import plugins
from scalenet.architecture import Scale
from scalenet.conformance import CHECKS

SIXTEEN = (
    "senet mobilenet efficientnet vit mixer fnet gmlp simclr "
    "mobilevit cct convmixer eanet involution perceiver swin gcvit"
).split()


def test_the_sixteen_are_installed_one_file_each():
    assert sorted(module.name for module in pkgutil.iter_modules(scalenet_plugins.__path__)) == sorted(SIXTEEN)
    assert set(SIXTEEN) <= set(plugins.architectures())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", SIXTEEN)
def test_conformance(name, check):
    check(plugins.architecture(name))


@pytest.mark.parametrize("name", SIXTEEN)
def test_micro_suits_a_laptop(name):
    variant = plugins.architecture(name).variants["micro"]
    assert variant.spec.resolution == 32
    assert "ours" in variant.source


@pytest.mark.parametrize("name", [name for name in SIXTEEN if name != "mobilenet"])  # whose blocks have no skip
def test_paths_are_dropped_in_training_only(name):
    arch = plugins.architecture(name)
    spec = arch.variants["micro"].spec
    torch.manual_seed(0)
    model = arch.build(spec, num_classes=10, drop_path=0.5)
    images = torch.randn(8, 3, spec.resolution, spec.resolution)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # a head that starts at zero would hide the difference
        assert not torch.equal(model.train()(images), model(images))
        assert torch.equal(model.eval()(images), model(images))


@pytest.mark.parametrize("name", SIXTEEN)
def test_depth_goes_block_by_block(name):
    arch = plugins.architecture(name)
    spec = arch.variants["micro"].spec
    start = arch.size(spec).depth
    reached = {arch.size(arch.scale(spec, Scale(depth=(start + extra) / start))).depth for extra in range(start + 1)}
    assert len(reached) >= 4
