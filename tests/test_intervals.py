"""Intervals and the paired test: the published values, scipy's, and what must hold of any."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import f1_score

from dayfold.figures import intervals
from dayfold.figures.intervals import f1, linear, mcnemar, proportion, wilson


@st.composite
def proportions(draw):
    images = draw(st.integers(1, 5000))
    return draw(st.integers(0, images)), images


@given(proportions())
def test_the_wilson_interval_is_scipys_and_holds_the_proportion(counts):
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert proportion(*counts) == pytest.approx({"low": expected.low, "high": expected.high})
    low, high = wilson(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1
    assert low < high


def test_intervals_of_arrays_are_those_of_their_cells_and_nan_without_images():
    low, high = wilson([[27, 0], [5, 0]], [[30, 20], [5, 0]])
    assert (low[0, 0], high[0, 0]) == wilson(27, 30)
    assert (low[1, 0], high[1, 0]) == wilson(5, 5)
    assert math.isnan(low[1, 1])
    assert math.isnan(high[1, 1])
    assert proportion(0, 0) == {"low": None, "high": None}


@given(st.integers(0, 200), st.integers(0, 100), st.integers(0, 100))
def test_the_interval_of_f1_is_that_of_the_jaccard_index_transformed(hits, false, missed):
    if hits + false + missed:
        low, high = f1(hits, hits + false + missed)
        truth = [1] * (hits + missed) + [0] * false
        called = [1] * hits + [0] * missed + [1] * false
        point = f1_score(truth, called, zero_division=0)
        assert 0 <= low <= point + 1e-12
        assert point - 1e-12 <= high <= 1
        jaccard = wilson(hits, hits + false + missed)
        assert low / (2 - low) == pytest.approx(jaccard.low)
        assert high / (2 - high) == pytest.approx(jaccard.high)


def test_the_interval_of_f1_covers_the_truth_about_as_often_as_it_says():
    # A class with recall 0.8 among others that are called so with probability 0.05.
    draw = np.random.default_rng(0)
    hits = draw.binomial(40, 0.8, size=4000)
    false = draw.binomial(200, 0.05, size=4000)
    low, high = f1(hits, 40 + false)
    true = 2 * 32 / (2 * 32 + 8 + 10)
    assert 0.93 < np.mean((low <= true) & (true <= high)) < 0.99


def test_a_difference_has_newcombes_interval():
    # Newcombe (1998), method 10, 56/70 - 48/80: 0.0524 to 0.3339.
    low, high = wilson([56, 48], [70, 80])
    found = linear([1, -1], [56 / 70, 48 / 80], low, high)
    assert found == pytest.approx({"low": 0.0524, "high": 0.3339}, abs=1e-4)


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    draw = np.random.default_rng(0)
    rates, images = np.array([0.95, 0.9, 0.8, 0.97]), np.array([20, 40, 30, 25])
    covered = []
    for hits in draw.binomial(images, rates, size=(2000, 4)):
        ends = linear(np.full(4, 0.25), hits / images, *wilson(hits, images))
        covered.append(ends["low"] <= rates.mean() <= ends["high"])
    assert 0.93 < np.mean(covered) < 0.98


@given(st.lists(proportions(), min_size=1, max_size=9))
def test_the_mean_of_proportions_lies_in_its_interval_and_that_in_0_to_1(counts):
    hits, images = np.array(counts).T
    weights = np.full(len(counts), 1 / len(counts))
    ends = linear(weights, hits / images, *wilson(hits, images))
    assert -1e-12 <= ends["low"] <= np.mean(hits / images) <= ends["high"] <= 1 + 1e-12


def test_a_figure_that_rounds_to_zero_has_no_sign_and_of_nothing_nothing_is_known():
    shown = [intervals.figure(value) for value in (-0.0004, 0.0004, -0.0006, None)]
    assert shown == ["0.000", "0.000", "-0.001", "-"]
    assert linear([], [], [], []) == {"low": None, "high": None}


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_mid_p_of_a_fair_coin(worse, better):
    flips, fewer = worse + better, min(worse, better)
    exact = binomtest(worse, flips).pvalue if flips else 1.0
    # Twice the tail, with half of what was observed: without that, the exact test's p.
    tail = 2 * binom.cdf(fewer, flips, 0.5) - binom.pmf(fewer, flips, 0.5)
    p = mcnemar(worse, better)
    assert p == pytest.approx(tail)
    assert 0 <= p <= 1
    if worse != better:
        assert p == pytest.approx(exact - binom.pmf(fewer, flips, 0.5))
    assert p == mcnemar(better, worse)


def test_mcnemar_by_hand_and_of_many_flips():
    # 5 worse, none better: half of C(5, 0) at either end of 32.
    assert mcnemar(5, 0) == 1 / 32 < intervals.SIGNIFICANT
    # Fagerland, Lydersen & Laake (2013): 1 and 7 have the mid-p 0.039, the exact test says 0.070.
    assert mcnemar(7, 1) == pytest.approx(0.0391, abs=1e-4)
    assert mcnemar(3000, 3000) == 1
    assert mcnemar(20_000, 19_000) < 1e-5
    assert mcnemar(4000, 0) == 0


def test_p_values_are_raised_by_their_number_and_keep_their_order():
    # Smallest to largest: 3 x 0.01, 2 x 0.03, 1 x 0.04, which may not be below the one before.
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([0.5, 0.9]) == [1.0, 1.0]
    assert intervals.holm([0.2]) == [0.2]
    assert intervals.holm([]) == []
