"""What the search phase saw, from few records."""

from __future__ import annotations

from scalenet.landscape import best_of
from scalenet.shares import Shares
from tests.synthetic import candidate, trial


def test_a_baseline_that_shares_no_seed_tells_no_slope() -> None:
    """Along a slope that it would give, the dearer one's lead would be its cost's."""
    baseline = candidate("baseline")
    cheap = candidate("a", shares=Shares(0.5, 0.5, 0.0))
    dear = candidate("b", shares=Shares(0.0, 0.5, 0.5), ratio=2.5)
    by_key = {c.key: c for c in (baseline, cheap, dear)}
    both = [
        trial(cheap, 0.60, seed=0, judge="select", phase="search"),
        trial(dear, 0.61, seed=0, judge="select", phase="search"),
    ]
    apart = trial(baseline, 0.05, seed=1, judge="select", phase="baseline")
    linked = trial(baseline, 0.05, seed=0, judge="select", phase="baseline")
    assert best_of([*both, linked, apart], by_key, 2, 2.0) == [cheap, dear]
    assert best_of([*both, apart], by_key, 2, 2.0) == best_of(both, by_key, 2, 2.0) == [dear, cheap]
