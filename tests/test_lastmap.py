from __future__ import annotations

import pytest

from scalenet.experiment import at_side
from scalenet.lastmap import last_map, map_warning
from scalenet.plugins import architecture


# By hand: mobilevit xxs halves five times; swin's patches of 4 px are merged three times, and its maps keep their
# channels last; ViT's 16 px patches are one map before they are tokens.
@pytest.mark.parametrize(
    ("name", "variant", "side", "expected"),
    [("mobilevit", "xxs", 64, (2, 2)), ("mobilevit", "xxs", 32, (1, 1)), ("swin", "t", 64, (2, 2)),
     ("swin", "t", 32, (1, 1)), ("vit", "ti16", 48, (3, 3))],
)  # fmt: skip
def test_the_last_map(name, variant, side, expected):
    arch = architecture(name)
    assert last_map(arch, at_side(arch, arch.variants[variant].spec, side), num_classes=10) == expected


def test_a_single_point_is_warned_about():
    arch = architecture("swin")
    spec = at_side(arch, arch.variants["t"].spec, 32)
    assert "last feature map of swin is 1 x 1" in (map_warning(arch, spec, num_classes=10) or "")
    assert map_warning(arch, arch.variants["t"].spec, num_classes=10) is None
