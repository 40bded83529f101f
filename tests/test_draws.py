"""Draws are functions of purpose, scope and id, and have the chances that they claim."""

import hashlib
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayfold import draws

NAMES = [f"image {number}" for number in range(40)]
NASTY = st.sampled_from([0.1, 1.0, 3.0, 1e-9, 1e9, 0.3, 5e-324])
WEIGHTS = st.lists(NASTY | st.floats(1e-12, 1e12), min_size=1, max_size=30)


def test_a_uniform_is_the_first_52_bits_of_a_hash_of_parts_with_their_lengths_fields_its_words():
    digest = hashlib.sha256(b"6:replay" + b"1:0" + b"10:2025-06-04" + b":abc").digest()
    by_hand = (2 * (int.from_bytes(digest[:8], "big") >> 12) + 1) / 2**53
    assert draws.uniforms("replay", 0, "2025-06-04", ids=["abc"]).tolist() == [by_hand]
    # Computed once with hashlib alone: every replay set and split ever drawn rests on them.
    found = draws.uniforms("split", ids=["a", "b", "é"]).tolist()
    assert found == [0.12240525544942449, 0.2280633496765817, 0.7560754115903893]
    digest = hashlib.sha256(b"7:augment" + b"1:7" + b":x").digest()
    words = [int.from_bytes(digest[at : at + 4], "big") for at in range(0, 32, 4)]
    found = draws.uniform_fields("augment", 7, ids=["x"])
    assert found.tolist() == [[(2 * word + 1) / 2**33 for word in words]]


def test_an_array_lies_between_minus_one_and_one_and_is_deterministic():
    found = draws.uniform_array("head", 0, "cat", shape=(50, 40))
    assert found.shape == (50, 40)
    assert found.dtype == np.float32
    assert found.min() >= -1
    assert found.max() < 1
    assert abs(float(found.mean())) < 4 * np.sqrt(1 / 3 / found.size)
    assert np.array_equal(found, draws.uniform_array("head", 0, "cat", shape=(50, 40)))
    assert not np.array_equal(found, draws.uniform_array("head", 0, "dog", shape=(50, 40)))


@given(st.lists(st.text(), max_size=20), st.randoms(use_true_random=False))
def test_uniforms_lie_strictly_between_0_and_1_whatever_their_order(names, random):
    found = draws.uniforms("p", 1, ids=names)
    assert found.shape == (len(names),)
    assert ((found > 0) & (found < 1)).all()
    expected = dict(zip(names, found.tolist(), strict=True))
    random.shuffle(names)
    assert draws.uniforms("p", 1, ids=names).tolist() == [expected[name] for name in names]


def test_uniforms_spread_evenly_and_different_scopes_give_different_draws():
    found = draws.uniforms("spread", ids=[str(number) for number in range(20_000)])
    counts = np.histogram(found, bins=50, range=(0, 1))[0]
    chi_square = ((counts - 400) ** 2 / 400).sum()
    # 49 degrees of freedom: mean 49, standard deviation 9.9.
    assert 49 - 4 * 9.9 < chi_square < 49 + 4 * 9.9
    for one, other in (
        (("a", "bc"), ("ab", "c")),
        (("a", "b"), ("a", "b", "")),
        (("a", 12, 3), ("a", 1, 23)),
        (("a", "1:b"), ("a", 1, "b")),
        (("a", 1), ("b", 1)),
        (("a", 1), ("a", 2)),
    ):
        assert not {*draws.uniforms(*one, ids=NAMES)} & {*draws.uniforms(*other, ids=NAMES)}


def chances(weights, size, keys=4000):
    names = [str(number) for number in range(len(weights))]
    times = np.zeros(len(weights))
    for seed in range(keys):
        chosen, _ = draws.priority_sample(names, weights, size, "test", seed)
        assert len(set(chosen.tolist())) == size
        times[chosen] += 1
    return times / keys


def test_items_are_chosen_with_the_exact_chances_of_their_weights():
    # u/w is uniform on [0, 1/w], and of three items the one with the largest is left out:
    # weight 3: integral of 3 t 2t over [0, 1/3] = 8/108; weight 2: of 2 t 3t over [0, 1/3] and of
    # 2 t over [1/3, 1/2] = 23/108; weight 1: the rest, 77/108.
    expected = 1 - np.array([77, 23, 8]) / 108
    grid = (np.arange(1_000_000) + 0.5) / 1_000_000
    below = [np.minimum(1, grid * weight) for weight in (1, 2, 3)]
    left_out = [
        (weight * (grid < 1 / weight) * below[(weight + 1) % 3] * below[weight % 3]).mean()
        for weight in (1, 2, 3)
    ]
    assert 1 - np.array(left_out) == pytest.approx(expected, abs=1e-6)
    equal = np.full(8, 3 / 8)
    for found, chance in ((chances([1.0, 2.0, 3.0], 2), expected), (chances([1.0] * 8, 3), equal)):
        assert (np.abs(found - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)).all()


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.integers(0, 99)), unique=True))
def test_keys_stand_in_order_and_ties_by_id(pairs):
    keys, ids = np.array([key for key, _ in pairs]), [f"{name:02}" for _, name in pairs]
    order = draws.argsort(keys, ids)
    assert [(keys[at], ids[at]) for at in order] == sorted(zip(keys, ids, strict=True))


def test_a_sample_comes_in_order_of_its_keys_and_does_not_depend_on_row_order():
    weights = {name: 1 + position % 3 for position, name in enumerate(NAMES)}
    chosen, keys = draws.priority_sample(NAMES, list(weights.values()), 9, "p", 5)
    assert keys.tolist() == sorted(keys.tolist())
    turned = NAMES[::-1]
    again, same = draws.priority_sample(turned, [weights[name] for name in turned], 9, "p", 5)
    assert [turned[position] for position in again] == [NAMES[position] for position in chosen]
    assert same.tolist() == keys.tolist()
    # Never more than there are.
    for size, count in ((0, 0), (-1, 0), (40, 40), (99, 40)):
        chosen, keys = draws.priority_sample(NAMES, [1.0] * 40, size, "p")
        assert len(chosen) == len(keys) == count
        assert chosen.dtype == np.int64


@given(st.lists(st.integers(0, 50), max_size=9), st.integers(0, 400), st.integers(0, 99))
def test_even_seats_add_up_and_stay_within_one_of_their_level(available, size, seed):
    counts = {f"class {position}": count for position, count in enumerate(available)}
    level = draws.even_level(available, size)
    assert sum(min(count, level) for count in available) == min(size, sum(available))
    seats = draws.even_seats(counts, size, "seats", seed)
    assert sum(seats.values()) == min(size, sum(available))
    for name, count in counts.items():
        assert seats[name] <= count
        assert abs(seats[name] - min(count, level)) < 1


def test_even_seats_are_expected_to_meet_their_level_exactly():
    for available, size, level in (
        ([10, 10], 6, 3),
        ([1, 10, 10], 6, Fraction(5, 2)),
        ([2, 2, 2], 99, 2),
        ([5, 5, 5], 1, Fraction(1, 3)),
        ([3], 0, 0),
        ([], 4, 0),
    ):
        assert draws.even_level(available, size) == level
    # 1 + 3 L = 9: L = 8/3, so two of three classes get 3 seats and one gets 2.
    available = {"few": 1, "a": 5, "b": 50, "c": 3}
    taken = Counter()
    for seed in range(3000):
        taken.update(draws.even_seats(available, 9, "seats", seed))
    assert taken["few"] == 3000
    for name in "abc":
        assert abs(taken[name] / 3000 - 8 / 3) < 4 * np.sqrt(2 / 9 / 3000)


@given(WEIGHTS, st.integers(0, 2000), st.floats(0, 1, exclude_max=True))
def test_systematic_counts_add_up_and_are_never_one_off_their_expectation(weights, count, start):
    found = draws.systematic_counts(weights, count, start)
    total = sum(map(Fraction, weights))
    assert sum(found) == count
    for times, weight in zip(found, weights, strict=True):
        assert abs(times - count * Fraction(weight) / total) < 1


def test_systematic_counts_meet_their_expectation_on_average_and_whole_ones_always():
    # In halves: 1, 3 and 6 of 10. Ten starts, one in each tenth, see every case once.
    starts = [(tenth + 0.5) / 10 for tenth in range(10)]
    found = [draws.systematic_counts([0.5, 1.5, 3.0], 7, start) for start in starts]
    assert np.mean(found, axis=0).tolist() == [0.7, 2.1, 4.2]
    for start in (0.0, 0.3, 0.999):
        assert draws.systematic_counts([1.0, 2.0, 3.0], 12, start) == [2, 4, 6]
    assert draws.systematic_counts([], 5, 0.5) == []


def order(names, epoch=1, count=100, seed=0, day="2025-06-04"):
    weights = [3.0 if name.endswith("7") else 1.0 for name in names]
    return [names[at] for at in draws.epoch_order(names, weights, count, seed, day, epoch)]


def test_an_epoch_draws_every_image_as_often_as_its_weight_says_whatever_the_row_order():
    # 36 of weight 1 and 4 of weight 3: 100 draws of weight 48 in all.
    times = Counter(order(NAMES))
    assert sum(times.values()) == 100
    for name in NAMES:
        expected = 100 * (3 if name.endswith("7") else 1) / 48
        assert abs(times[name] - expected) < 1
    assert order(NAMES[::-1]) == order(NAMES[7:] + NAMES[:7]) == order(NAMES)
    for other in ({"epoch": 2}, {"seed": 1}, {"day": "2025-06-05"}):
        assert order(NAMES, **other) != order(NAMES)
        assert sorted(order(NAMES, **other)) != sorted(order(NAMES))
    assert order([], count=5) == order(NAMES, count=0) == []


def test_copies_of_an_image_do_not_stand_together():
    found = order(NAMES[:4], count=4000)
    together = sum(one == after for one, after in pairwise(found))
    # A quarter of the neighbours are equal by chance.
    assert abs(together / 3999 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 3999)
