from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalenet.data.split import Split, keys_of, split, together
from scalenet.errors import ScalenetError


def divide(digests, labels, given_parts=None, *, subset=None, select=0.2, held=0.2, seed=0) -> Split:
    given_parts = given_parts or [None] * len(digests)
    return split(digests, labels, given_parts, subset=subset, select=select, held=held, seed=seed)


def digests_of(count: int) -> list[str]:
    return [f"d{i}" for i in range(count)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2)), min_size=40, max_size=120),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_identical_pictures_share_a_part_whatever_the_order(pairs, seed, random):
    pairs = pairs + [(100 + 10 * label + i, label) for label in range(3) for i in range(5)]
    digests, labels = [f"d{d}" for d, _ in pairs], [label for _, label in pairs]
    parts = divide(digests, labels, seed=seed).parts
    assert None not in parts
    by_digest = {}
    for digest, part in zip(digests, parts, strict=True):
        assert by_digest.setdefault(digest, part) == part
    order = list(range(len(pairs)))
    random.shuffle(order)
    again = divide([digests[i] for i in order], [labels[i] for i in order], seed=seed).parts
    assert [parts[i] for i in order] == list(again)


@given(st.lists(st.integers(3, 200), min_size=2, max_size=4), st.sampled_from([(0.2, 0.2), (0.1, 0.3), (0.45, 0.45)]))
@settings(deadline=None, max_examples=40)
def test_every_class_is_split_in_proportion(sizes, fractions):
    select, held = fractions
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    parts = divide(digests_of(len(labels)), labels, select=select, held=held).parts
    for label, size in enumerate(sizes):
        counts = Counter(part for part, of in zip(parts, labels, strict=True) if of == label)
        assert counts["fit"] >= 1
        assert abs(counts["held"] - max(1, held * size)) <= 1
        assert abs(counts["select"] - max(1, select * size)) <= 1


def test_seed_moves_pictures_and_counts_stay():
    labels = [i % 2 for i in range(100)]
    one, two = (divide(digests_of(100), labels, seed=seed).parts for seed in (0, 1))
    assert one != two
    assert Counter(one) == Counter(two) == {"fit": 60, "select": 20, "held": 20}


def test_one_picture_more_moves_few_others():
    labels = [0, 1] * 100
    before = divide(digests_of(200), labels).parts
    after = divide([*digests_of(200), "new"], [*labels, 0]).parts
    assert sum(a != b for a, b in zip(before, after[:200], strict=True)) <= 2


def test_conflicts_and_duplicates_are_counted():
    digests = ["a", "a", "a", "b", "b", *digests_of(20)]
    labels = [0, 1, 1, 0, 0, *([0, 1] * 10)]
    found = divide(digests, labels)
    assert (found.conflicts, found.duplicates, found.crossing) == (1, 3, 0)
    assert len({*found.parts[:3]}) == 1


def test_a_large_group_does_not_swallow_a_small_part():
    digests = ["same"] * 50 + digests_of(50)
    for seed in range(10):
        parts = divide(digests + [f"e{i}" for i in range(10)], [0] * 100 + [1] * 10, seed=seed).parts
        assert Counter(parts[:100])["held"] in range(15, 26)


def test_given_parts_are_kept_and_select_comes_off_fit():
    given_parts = ["fit"] * 20 + ["held"] * 10
    parts = divide(digests_of(30), [0, 1] * 15, given_parts, select=0.2).parts
    assert Counter(parts[:20]) == {"fit": 16, "select": 4}
    assert set(parts[20:]) == {"held"}


def test_three_given_parts_are_left_alone():
    given_parts = ["fit"] * 6 + ["select"] * 2 + ["held"] * 2
    assert list(divide(digests_of(10), [0, 1] * 5, given_parts).parts) == given_parts


def test_a_copy_in_a_judging_part_leaves_training():
    digests = [*digests_of(10), "d0", "d1", "e1", "e2"]  # d0 also in select, d1 also in held
    given_parts = ["fit"] * 10 + ["select", "held", "select", "held"]
    found = divide(digests, [0, 1] * 7, given_parts)
    assert found.parts[:2] == (None, None)
    assert found.parts[10:] == ("select", "held", "select", "held")
    assert found.crossing == 2


@given(st.integers(6, 80), st.integers(0, 3))
@settings(deadline=None)
def test_subset_takes_exactly_that_many_in_proportion(subset, seed):
    labels = [0] * 60 + [1] * 30 + [2] * 10
    parts = divide(digests_of(100), labels, subset=subset, seed=seed).parts
    counts = Counter(label for label, part in zip(labels, parts, strict=True) if part)
    assert sum(counts.values()) == subset
    for label, share in enumerate((0.6, 0.3, 0.1)):
        assert abs(counts[label] - subset * share) <= 1


def test_subset_is_proportional_to_given_parts():
    given_parts = ["fit"] * 80 + ["held"] * 20
    parts = divide(digests_of(100), [0, 1] * 50, given_parts, subset=50).parts
    assert Counter(part for part in parts if part) == {"fit": 32, "select": 8, "held": 10}


def test_subset_beyond_the_whole_takes_all():
    assert None not in divide(digests_of(20), [0, 1] * 10, subset=500).parts


@pytest.mark.parametrize(("subset", "given_parts", "least"), [(2, None, 3), (5, ["fit"] * 15 + ["held"] * 15, 6)])
def test_subset_below_the_classes_is_refused(subset, given_parts, least):
    with pytest.raises(ScalenetError, match=f"subset {subset} is too small.*need {least}"):
        divide(digests_of(30), [0, 1, 2] * 10, given_parts, subset=subset)


def test_too_few_to_part_is_refused():
    with pytest.raises(ScalenetError, match="'select'"):
        divide(digests_of(4), [0, 0, 1, 1])


def test_keys_hold_together_what_bytes_do_not():
    digests = digests_of(60)
    keys = [f"d{i - i % 3}" for i in range(60)]
    labels = [i // 3 % 2 for i in range(60)]
    parts = split(digests, labels, [None] * 60, subset=None, select=0.2, held=0.2, seed=0, keys=keys).parts
    assert Counter(parts) == {"fit": 36, "select": 12, "held": 12}
    assert all(len({*parts[i : i + 3]}) == 1 for i in range(0, 60, 3))


def test_keys_cross_given_parts_but_are_no_duplicates():
    keys = digests_of(20)
    keys[19] = "d0"
    given_parts = ["fit"] * 15 + ["held"] * 5
    found = split(digests_of(20), [0, 1] * 10, given_parts, subset=None, select=0.2, held=0.2, seed=0, keys=keys)
    assert (found.parts[0], found.parts[19]) == (None, "held")
    assert (found.duplicates, found.crossing) == (0, 1)


def test_a_fraction_of_0_makes_no_part():
    assert Counter(divide(digests_of(20), [0, 1] * 10, select=0.0).parts) == {"fit": 16, "held": 4}


def test_keys_of_groups_and_of_equal_bytes_that_bridge_them():
    digests = ["c", "a", "b", "z", "b"]
    assert keys_of(digests, ["one", "one", None, None, None]) == ["a", "a", "b", "z", "b"]
    assert keys_of(digests, ["one", None, "one", "two", "two"]) == ["b", "a", "b", "b", "b"]
    assert keys_of(digests, [None] * 5) == digests


@given(st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=4), max_size=8))
def test_together_agrees_with_a_flood(bonds):
    found = together(bonds)
    assert found.keys() == {name for bond in bonds for name in bond}
    for name in found:
        reached = {name}
        while more := {other for bond in bonds if reached & {*bond} for other in bond} - reached:
            reached |= more
        assert found[name] == min(reached)
