"""Tiny keeps everything that scalenet relies on."""

from __future__ import annotations

import pytest
from scalenet_tiny import Tiny

from scalenet.conformance import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check):
    """One check; its docstring says what it asks."""
    check(Tiny())
