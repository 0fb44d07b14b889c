"""What every architecture must keep, as functions: for `scalenet check` and for a plugin author's own pytest.

    import pytest
    from scalenet.conformance import CHECKS

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check):
        check(Yours())

A check returns where the architecture keeps the contract, and raises `Violation`, an AssertionError that says in one
sentence what was asked and what was found. CHECKS take seconds each; SLOW_CHECKS compile.
"""

from __future__ import annotations

from scalenet.conformance.networks import (
    compiles,
    exports,
    logits_shape,
    objective_judges,
    odd_sides_run,
    parameters_learn,
    resamples,
    samples_independent,
    seed_fixes_init,
    state_dict_round_trip,
    trains_in_bf16,
)
from scalenet.conformance.specs import (
    flops_can_double,
    flops_counted,
    grid_builds,
    knobs_move_alone,
    lattice_distinct,
    matches_published,
    names,
    plain_spec,
    scale_identity,
    scale_purity,
)
from scalenet.conformance.values import Check, Violation

__all__ = ["CHECKS", "SLOW_CHECKS", "Check", "Violation"]

CHECKS: tuple[Check, ...] = (
    names,
    plain_spec,
    scale_identity,
    scale_purity,
    knobs_move_alone,
    grid_builds,
    odd_sides_run,
    logits_shape,
    parameters_learn,
    lattice_distinct,
    samples_independent,
    seed_fixes_init,
    state_dict_round_trip,
    resamples,
    flops_counted,
    flops_can_double,
    trains_in_bf16,
    objective_judges,
    exports,
    matches_published,
)
SLOW_CHECKS: tuple[Check, ...] = (compiles,)
