"""Every figure is what its formula says, on matrices and counts worked out by hand."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from builders import DAYS
from dayfold.figures import metrics
from dayfold.ledger.tables import Evaluation, schema

NAN = math.nan
R = np.array([[0.9, NAN, NAN], [0.7, 0.8, NAN], [0.6, 0.5, 1.0]])
ONE, TWO, THREE = DAYS[:3]


def evaluations(*rows):
    return pl.DataFrame(rows, schema=schema(Evaluation), orient="row")


def counts_of(truth, predicted, confidence):
    rows = zip(truth, predicted, confidence, strict=True)
    return evaluations(*((ONE, ONE, label, said, 1, sure, None) for label, said, sure in rows))


def test_the_four_figures_of_an_accuracy_matrix_are_as_worked_out_by_hand():
    assert metrics.average_accuracy(R) == pytest.approx((0.6 + 0.5 + 1.0) / 3)
    assert metrics.backward_transfer(R) == pytest.approx(((0.6 - 0.9) + (0.5 - 0.8)) / 2)
    assert metrics.forgetting(R) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.5)) / 2)
    assert metrics.learning_accuracy(R) == pytest.approx((0.9 + 0.8 + 1.0) / 3)


def test_forgetting_is_measured_from_the_best_day_and_not_from_the_first():
    matrix = np.array([[0.5, NAN, NAN], [0.9, 0.8, NAN], [0.6, 0.7, 1.0]])
    assert metrics.forgetting(matrix) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.7)) / 2)
    assert metrics.backward_transfer(matrix) == pytest.approx(((0.6 - 0.5) + (0.7 - 0.8)) / 2)


def test_negative_forgetting_is_kept():
    matrix = np.array([[0.5, NAN, NAN], [0.6, 0.4, NAN], [0.8, 0.4, 1.0]])
    # Cohort 1 gained 0.2 upon its best day, cohort 2 lost nothing.
    assert metrics.forgetting(matrix) == pytest.approx((-0.2 + 0.0) / 2)


def test_cohorts_without_test_images_are_passed_over():
    matrix = np.array([[NAN, NAN, NAN], [NAN, 0.8, NAN], [NAN, 0.5, NAN]])
    assert metrics.average_accuracy(matrix) == 0.5
    assert metrics.backward_transfer(matrix) == pytest.approx(-0.3)
    assert metrics.forgetting(matrix) == pytest.approx(0.3)
    assert metrics.learning_accuracy(matrix) == 0.8


def test_a_cohort_whose_images_are_all_withdrawn_is_passed_over():
    matrix = np.array([[0.9, NAN, NAN], [0.8, 0.8, NAN], [NAN, 0.5, 1.0]])
    assert metrics.average_accuracy(matrix) == 0.75
    assert metrics.forgetting(matrix) == pytest.approx(0.3)


def test_a_cohort_that_only_today_s_model_saw_is_passed_over_in_forgetting():
    matrix = np.array([[NAN, NAN], [0.7, 0.8]])
    assert metrics.forgetting(matrix) is None


def test_on_the_first_day_there_is_nothing_to_forget_or_transfer():
    matrix = np.array([[0.9]])
    assert metrics.average_accuracy(matrix) == 0.9
    assert metrics.learning_accuracy(matrix) == 0.9
    assert metrics.forgetting(matrix) is None
    assert metrics.backward_transfer(matrix) is None
    assert metrics.forward_transfer([], []) is None


def test_forward_transfer_is_what_yesterday_s_model_has_upon_chance():
    assert metrics.forward_transfer([0.5, 0.7], [0.25, 0.2]) == pytest.approx((0.25 + 0.5) / 2)


def test_the_accuracy_matrix_counts_images_not_rows():
    found = metrics.accuracy_matrix(
        evaluations(
            (ONE, ONE, "cat", "cat", 3, 0.9, None),
            (ONE, ONE, "cat", "dog", 1, 0.6, None),
            (TWO, ONE, "cat", "cat", 2, 0.9, 2),
            (TWO, ONE, "cat", "dog", 2, 0.6, 1),
            (TWO, TWO, "dog", "dog", 5, 0.9, 0),
            # Yesterday's model on today's cohort, and the origin's on the first: not in R.
            (ONE, TWO, "dog", "cat", 5, 0.9, None),
            ("origin", ONE, "cat", "cat", 4, 0.9, None),
        ),
        [ONE, TWO],
    )
    assert np.array_equal(found, [[0.75, NAN], [0.5, 1.0]], equal_nan=True)


def test_a_cohort_without_test_images_is_nan_in_the_matrix():
    found = metrics.accuracy_matrix(evaluations((TWO, TWO, "cat", "cat", 1, 0.9, None)), [ONE, TWO])
    assert np.array_equal(found, [[NAN, NAN], [NAN, 1.0]], equal_nan=True)


LABELS = st.sampled_from(["cat", "dog", "eel", "fox"])


@given(st.lists(st.tuples(LABELS, LABELS, st.floats(0, 1)), min_size=1, max_size=60))
def test_scores_are_those_of_scikit_learn(images):
    truth, predicted, confidence = zip(*images, strict=True)
    names = sorted(set(truth))
    scores = metrics.class_scores(counts_of(truth, predicted, confidence))
    assert scores["label"].to_list() == names
    expected = precision_recall_fscore_support(truth, predicted, labels=names, zero_division=0)
    for column, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert scores[column].to_list() == pytest.approx(values.tolist())
    for name, found in zip(names, scores["confidence"], strict=True):
        sure = [c for label, c in zip(truth, confidence, strict=True) if label == name]
        assert found == pytest.approx(np.mean(sure))


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60))
def test_a_day_s_f1_and_accuracy_are_those_of_scikit_learn(images):
    truth, predicted = zip(*images, strict=True)
    figures = metrics.day_metrics(
        counts_of(truth, predicted, [0.5] * len(truth)), [ONE], {ONE: ()}
    )[ONE]
    weighted = precision_recall_fscore_support(
        truth, predicted, average="weighted", labels=sorted(set(truth)), zero_division=0
    )
    assert figures["weighted_f1"] == pytest.approx(weighted[2])
    assert figures["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    each = [scores["f1"] for scores in figures["classes"].values()]
    assert figures["macro_f1"] == pytest.approx(np.mean(each))
    assert figures["worst_f1"] == min(each)


def test_scores_do_not_depend_on_how_images_are_counted_together():
    images = [("cat", "cat", 0.5)] * 3 + [("cat", "dog", 0.8)] * 2 + [("dog", "dog", 0.6)] * 4
    apart = metrics.class_scores(counts_of(*zip(*images, strict=True)))
    together = metrics.class_scores(
        evaluations(
            (ONE, ONE, "dog", "dog", 4, 0.6, None),
            (ONE, ONE, "cat", "cat", 3, 0.5, None),
            (ONE, ONE, "cat", "dog", 2, 0.8, None),
        )
    )
    for column in ("precision", "recall", "f1", "support", "confidence"):
        assert apart[column].to_list() == pytest.approx(together[column].to_list())
    # cat: 3 of 5, 3 called; dog: 4 of 4, 6 called.
    assert together["f1"].to_list() == pytest.approx([6 / 8, 8 / 10])
    assert together["confidence"].to_list() == pytest.approx([(1.5 + 1.6) / 5, 0.6])


def test_a_negative_flip_was_right_yesterday_and_is_wrong_today():
    mine = evaluations(
        (TWO, ONE, "cat", "cat", 10, 0.9, 8),  # two learnt
        (TWO, ONE, "cat", "dog", 4, 0.6, 3),  # three flips
        (TWO, ONE, "dog", "cat", 2, 0.6, 0),  # wrong before, wrong now
        (TWO, TWO, "eel", "cat", 4, 0.6, 1),  # one flip
        (TWO, TWO, "fox", "cat", 99, 0.6, None),  # yesterday's model was not asked
    )
    assert metrics.negative_flip_rate(mine) == (3 + 1) / 20
    assert metrics.negative_flip_rate(mine[-1:]) is None
    assert metrics.negative_flip_rate(mine.clear()) is None


# Two days. Day 1: 4 cats, 4 dogs, 6 of 8 right. Day 2 adds 2 dogs and 4 eels.
HISTORY = evaluations(
    (ONE, ONE, "cat", "cat", 4, 0.9, None),
    (ONE, ONE, "dog", "dog", 2, 0.8, None),
    (ONE, ONE, "dog", "cat", 2, 0.6, None),
    (ONE, TWO, "dog", "dog", 2, 0.8, None),
    (ONE, TWO, "eel", "cat", 4, 0.7, None),
    (TWO, ONE, "cat", "cat", 3, 0.9, 3),
    (TWO, ONE, "cat", "eel", 1, 0.5, 1),
    (TWO, ONE, "dog", "dog", 4, 0.8, 2),
    (TWO, TWO, "dog", "dog", 2, 0.8, 2),
    (TWO, TWO, "eel", "eel", 3, 0.8, 0),
    (TWO, TWO, "eel", "cat", 1, 0.4, 0),
)

NEW = {ONE: ("cat", "dog"), TWO: ("eel",)}


def test_the_figures_of_the_first_day_are_as_worked_out_by_hand():
    found = metrics.day_metrics(HISTORY, [ONE, TWO], NEW)[ONE]
    for name in ("forgetting", "backward_transfer", "forward_transfer", "negative_flip_rate"):
        assert found[name] is None
    assert found["average_accuracy"] == found["learning_accuracy"] == found["accuracy"] == 0.75
    # cat: 4 right, 6 called; dog: 2 right, 2 called.
    cat, dog = 8 / 10, 4 / 6
    assert found["macro_f1"] == pytest.approx((cat + dog) / 2)
    assert found["worst_f1"] == pytest.approx(dog)
    assert found["classes"]["cat"] == pytest.approx(
        {"f1": cat, "precision": 4 / 6, "recall": 1.0, "confidence": 0.9, "images": 4}
    )
    # On the first day every class is new.
    assert found["new"]["accuracy"] == 0.75
    assert found["new"]["f1"] == pytest.approx((cat + dog) / 2)


def test_the_figures_of_the_second_day_are_as_worked_out_by_hand():
    found = metrics.day_metrics(HISTORY, [ONE, TWO], NEW)[TWO]
    # R = [[6/8, -], [7/8, 5/6]]
    assert found["average_accuracy"] == pytest.approx((7 / 8 + 5 / 6) / 2)
    assert found["forgetting"] == pytest.approx(6 / 8 - 7 / 8)
    assert found["backward_transfer"] == pytest.approx(7 / 8 - 6 / 8)
    assert found["learning_accuracy"] == pytest.approx((6 / 8 + 5 / 6) / 2)
    assert found["accuracy"] == pytest.approx(12 / 14)
    # 8 images were right yesterday, one of them is wrong now; 14 were asked.
    assert found["negative_flip_rate"] == pytest.approx(1 / 14)
    # Of 6, yesterday's model had 2 right; a guess among three classes has a third.
    assert found["forward_transfer"] == pytest.approx(2 / 6 - 1 / 3)
    # eel: 3 right of 4, 4 called.
    assert found["new"] == pytest.approx(
        {"accuracy": 3 / 4, "f1": 6 / 8, "confidence": (3 * 0.8 + 0.4) / 4}
    )
    assert list(found["classes"]) == ["cat", "dog", "eel"]


def test_a_day_s_figures_do_not_change_with_later_days_or_by_asking_for_one_day_only():
    alone = HISTORY.filter((pl.col("model") == ONE) & (pl.col("cohort") == ONE))
    both = metrics.day_metrics(HISTORY, [ONE, TWO], NEW)
    assert metrics.day_metrics(alone, [ONE], {ONE: NEW[ONE]})[ONE] == both[ONE]
    assert metrics.day_metrics(HISTORY, [ONE, TWO], {TWO: NEW[TWO]}) == {TWO: both[TWO]}


def test_a_day_without_a_new_class_has_no_figures_of_new_classes():
    third = evaluations((THREE, ONE, "cat", "cat", 1, 0.9, 1))
    found = metrics.day_metrics(pl.concat([HISTORY, third]), [ONE, TWO, THREE], {THREE: ()})[THREE]
    assert found["new"] == {"accuracy": None, "f1": None, "confidence": None}


def test_a_day_without_test_images_has_no_figures():
    found = metrics.day_metrics(evaluations(), [ONE], {ONE: ["cat"]})[ONE]
    assert {key: value for key, value in found.items() if value is not None} == {
        "new": {"accuracy": None, "f1": None, "confidence": None},
        "classes": {},
    }
