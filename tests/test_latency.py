"""The latency predictor on timings that are made up, so that what it should find is known."""

from __future__ import annotations

import itertools
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scalenet.architecture import Size
from scalenet.cost import Cost
from scalenet.latency import (
    Calibration,
    Coefficients,
    Setting,
    Width,
    calibration,
    fit,
    fit_widths,
    median_error,
    r_squared,
    shrunk,
)
from scalenet.plain import from_plain, to_plain

SETTING = Setting("a device", 8, 2, "fp32", "channels_last")
TRUTH = Coefficients(fixed=0.4, block=0.05, gflop=30.0, mactivation=12.0, spill=9.0)

# A family as a plain convolutional network has it: d blocks of w channels on a map of r x r.
FAMILY = [
    (Cost(params=9 * d * w * w, flops=9 * d * w * w * r * r, activations=d * w * r * r), Size(d, w, r))
    for d, w, r in itertools.product((4, 6, 9), (16, 23, 32), (12, 17))
]


def times(of: Coefficients) -> list[float]:
    return [of.of(*network) for network in FAMILY]


def test_a_prediction_by_hand() -> None:
    cost = Cost(params=2_000_000, flops=50_000_000, activations=300_000)
    assert TRUTH.of(cost, Size(10, 64, 32)) == pytest.approx(
        0.4 + 10 * 0.05 + 0.05 * 30 + 0.3 * 12 + 0.3 * 0.065536 * 9
    )


coefficient = st.one_of(st.just(0.0), st.floats(0.01, 50))


@given(st.tuples(*[coefficient] * 5).filter(any))
@settings(deadline=None, max_examples=60)
def test_a_law_of_the_form_is_recovered(values: tuple[float, ...]) -> None:
    truth = Coefficients(*values)
    found = fit(FAMILY, times(truth))
    assert astuple(found) == pytest.approx(values, rel=1e-4, abs=1e-6)
    far = Cost(params=40_000, flops=90_000_000, activations=1_000_000), Size(30, 64, 40)
    assert found.of(*far) == pytest.approx(truth.of(*far), rel=1e-5)


@given(st.lists(st.floats(0.5, 20), min_size=len(FAMILY), max_size=len(FAMILY)), st.data())
@settings(deadline=None, max_examples=40)
def test_whatever_was_timed_a_larger_network_is_never_predicted_quicker(
    timed: list[float], data: st.DataObject
) -> None:
    found = fit(FAMILY, timed)
    assert min(astuple(found)) >= 0
    cost, size = data.draw(st.sampled_from(FAMILY))
    more = [data.draw(st.floats(1, 5)) for _ in range(4)]
    larger = Cost(round(cost.params * more[0]), round(cost.flops * more[1]), round(cost.activations * more[2]))
    bigger = Size(round(size.depth * more[3]), size.width * more[2], round(size.resolution * more[1]))
    assert found.of(larger, bigger) >= found.of(cost, size) * (1 - 1e-12)


def test_it_is_relative_errors_that_are_made_small() -> None:
    # Twice the same network, at 1 and at 4 ms: the sum of (a / t - 1)^2 is least at a = (1/1 + 1/4) / (1 + 1/16).
    network = Cost(0, 0, 0), Size(0, 1, 1)
    assert fit([network, network], [1.0, 4.0]).fixed == pytest.approx(1.25 / 1.0625)


def test_errors_are_of_networks_that_the_fit_has_not_seen() -> None:
    timed = times(TRUTH)
    exact = calibration(SETTING, FAMILY, timed)
    assert exact.r2 == pytest.approx(1)
    assert exact.median_error == pytest.approx(0, abs=1e-6)
    timed[7] *= 3
    found = calibration(SETTING, FAMILY, timed)
    assert found.timings[7].predicted == pytest.approx(timed[7] / 3, rel=1e-6)  # the others follow the law
    assert found.timings[7].milliseconds == timed[7]
    assert found.r2 < exact.r2
    assert found.median_error == pytest.approx(
        float(np.median([abs(t.predicted / t.milliseconds - 1) for t in found.timings]))
    )
    assert found.coefficients == fit(FAMILY, timed)


SLOWER = {16: 0.9, 23: 1.3, 32: 1.05}  # what kernels make of a width, and no count tells


def test_what_is_special_to_a_width_is_found_and_foretold() -> None:
    timed = [t * SLOWER[int(size.width)] for t, (_, size) in zip(times(TRUTH), FAMILY, strict=True)]
    found = calibration(SETTING, FAMILY, timed, by_width=True)
    assert found.r2 > 0.998
    assert found.median_error < 0.01
    by_counts = calibration(SETTING, FAMILY, timed)
    assert by_counts.r2 < 0.99
    assert by_counts.median_error > 0.04
    assert found.widths[1].times / found.widths[0].times > 1.2
    between = Cost(9 * 5 * 23**2, 9 * 5 * 23**2 * 14**2, 5 * 23 * 14**2), Size(5, 23, 14)
    assert found.of(*between) == pytest.approx(1.3 * TRUTH.of(*between), rel=0.02)


def test_a_law_without_special_widths_is_left_as_it_is() -> None:
    coefficients, widths = fit_widths(FAMILY, times(TRUTH))
    assert astuple(coefficients) == pytest.approx(astuple(TRUTH), rel=1e-4)
    assert [w.width for w in widths] == [16, 23, 32]
    assert [w.times for w in widths] == pytest.approx([1, 1, 1], abs=1e-6)


def test_a_width_that_was_not_timed_goes_by_its_counts() -> None:
    found = replace(calibration(SETTING, FAMILY, times(TRUTH)), widths=(Width(23, 1.5),))
    assert found.of(FAMILY[0][0], Size(4, 24, 12)) == found.coefficients.of(FAMILY[0][0], Size(4, 24, 12))
    assert found.of(FAMILY[0][0], Size(4, 23, 12)) == 1.5 * found.coefficients.of(FAMILY[0][0], Size(4, 23, 12))


def test_effects_by_hand() -> None:
    # Means 0.2 and -0.2; within 2 * 0.1^2 / (3 - 2) = 0.02; between (2 * 0.2^2 + 0.2^2 - 2 * 0.02) / 3 = 0.08 / 3.
    assert shrunk({1.0: [0.1, 0.3], 2.0: [-0.2]}) == pytest.approx(
        {1.0: 0.2 * (0.08 / 3) / (0.08 / 3 + 0.01), 2.0: -0.2 * (0.08 / 3) / (0.08 / 3 + 0.02)}
    )
    assert shrunk({1.0: [0.1, -0.1], 2.0: [0.12, -0.08]}) == {1.0: 0, 2.0: 0}  # differ less than they spread
    assert shrunk({1.0: [0.3], 2.0: [-0.1]}) == pytest.approx({1.0: 0.3, 2.0: -0.1})  # no spread is known


def test_variances_are_estimated_without_bias() -> None:
    rng = np.random.default_rng(5)
    kept = []
    for _ in range(300):
        errors = {float(g): list(rng.normal(rng.normal(0, 0.06), 0.03, 4)) for g in range(12)}
        kept.append(sum(shrunk(errors).values()) / sum(np.mean(e) for e in errors.values()))
    assert np.median(kept) == pytest.approx(0.06**2 / (0.06**2 + 0.03**2 / 4), abs=0.02)


@given(st.dictionaries(st.floats(1, 99), st.lists(st.floats(-1, 1), min_size=1, max_size=5), min_size=1))
@settings(deadline=None, max_examples=60)
def test_no_effect_is_larger_than_the_error_that_shows_it(errors: dict[float, list[float]]) -> None:
    for group, effect in shrunk(errors).items():
        mean = sum(errors[group]) / len(errors[group])
        assert 0 <= effect * np.sign(mean) <= abs(mean) * (1 + 1e-12)


def test_what_lies_beyond_the_timed_networks_is_told() -> None:
    found = calibration(SETTING, FAMILY, times(TRUTH))
    largest = max((cost for cost, _ in FAMILY), key=lambda cost: cost.flops)
    assert found.beyond(largest) == 1
    assert found.beyond(replace(largest, flops=3 * largest.flops)) == 3
    assert found.beyond(replace(largest, activations=5 * largest.activations, flops=1)) == 5


def test_r_squared_is_that_of_a_regression() -> None:
    rng = np.random.default_rng(3)
    x = rng.uniform(1, 5, 30)
    y = 2 * x + rng.normal(0, 1, 30)
    line = stats.linregress(x, y)
    assert r_squared(y, line.intercept + line.slope * x) == pytest.approx(line.rvalue**2)
    assert r_squared(y, np.full(30, y.mean())) == pytest.approx(0)
    assert r_squared(y, -y) < 0
    assert median_error(np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 3.0])) == pytest.approx(0.25)


def test_a_calibration_survives_a_file_and_says_what_it_is() -> None:
    found = calibration(SETTING, FAMILY, times(TRUTH))
    assert from_plain(Calibration, to_plain(found), "latency.json") == found
    by_width = calibration(SETTING, FAMILY, times(TRUTH), by_width=True)
    assert from_plain(Calibration, to_plain(by_width), "latency.json") == by_width
    before = {key: value for key, value in to_plain(found).items() if key != "widths"}  # as files were written at first
    assert from_plain(Calibration, before, "latency.json") == found
    assert "a device, 8 pictures at a time, fp32, channels last, 2 CPU threads" in found.summary
    assert f"{len(FAMILY)} networks" in found.summary
    assert found.good
    assert not replace(found, r2=0.5).good
    assert not replace(found, median_error=0.5).good
