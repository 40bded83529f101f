"""Every figure is what its formula says, on matrices and counts worked out by hand."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from builders import DAYS, day_metrics, make_project
from dayfold.errors import CycleError
from dayfold.figures import intervals, metrics, retention
from dayfold.figures.counts import Counts, counted
from dayfold.ledger.tables import BINS, Evaluation, schema
from dayfold.project import params as params_file
from dayfold.stages import curve

NAN = math.nan
ONE, TWO, THREE = DAYS[:3]


def evaluations(*rows):
    """A table from its rows without the bin, which follows from the confidence."""
    rows = [(*row[:4], min(int(row[5] * BINS), BINS - 1), *row[4:]) for row in rows]
    return pl.DataFrame(rows, schema=schema(Evaluation), orient="row")


def counts_of(truth, predicted, confidence):
    rows = zip(truth, predicted, confidence, strict=True)
    return evaluations(*((ONE, ONE, label, said, 1, sure, None) for label, said, sure in rows))


def figures_of(matrix):
    """The four figures of a matrix, as if every cohort had one test image."""
    counts = Counts(np.nan_to_num(matrix), np.where(np.isnan(matrix), 0.0, 1.0))
    return retention.figures(counts)[0]


def test_forgetting_is_measured_from_the_best_day_and_kept_where_it_is_negative():
    matrix = np.array([[0.5, NAN, NAN], [0.9, 0.8, NAN], [0.6, 0.7, 1.0]])
    assert figures_of(matrix)["forgetting"] == pytest.approx(((0.9 - 0.6) + (0.8 - 0.7)) / 2)
    assert figures_of(matrix)["backward_transfer"] == pytest.approx(((0.6 - 0.5) + (0.7 - 0.8)) / 2)
    matrix = np.array([[0.5, NAN, NAN], [0.6, 0.4, NAN], [0.8, 0.4, 1.0]])
    # Cohort 1 gained 0.2 upon its best day, cohort 2 lost nothing.
    assert figures_of(matrix)["forgetting"] == pytest.approx((-0.2 + 0.0) / 2)


def test_cohorts_without_test_images_of_that_day_are_passed_over():
    matrix = np.array([[NAN, NAN, NAN], [NAN, 0.8, NAN], [NAN, 0.5, NAN]])
    assert figures_of(matrix)["average_accuracy"] == 0.5
    assert figures_of(matrix)["backward_transfer"] == pytest.approx(-0.3)
    assert figures_of(matrix)["forgetting"] == pytest.approx(0.3)
    assert figures_of(matrix)["learning_accuracy"] == 0.8
    # All images of a cohort are withdrawn; only today's model saw one.
    withdrawn = np.array([[0.9, NAN, NAN], [0.8, 0.8, NAN], [NAN, 0.5, 1.0]])
    assert figures_of(withdrawn)["average_accuracy"] == 0.75
    assert figures_of(withdrawn)["forgetting"] == pytest.approx(0.3)
    assert figures_of(np.array([[NAN, NAN], [0.7, 0.8]]))["forgetting"] is None


def test_the_accuracy_matrix_counts_images_not_rows():
    found = counted(
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
    assert np.array_equal(found.cohorts.accuracy, [[0.75, NAN], [0.5, 1.0]], equal_nan=True)
    # A cohort without test images has none.
    found = counted(evaluations((TWO, TWO, "cat", "cat", 1, 0.9, None)), [ONE, TWO])
    assert np.array_equal(found.cohorts.accuracy, [[NAN, NAN], [NAN, 1.0]], equal_nan=True)


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
    figures = day_metrics(counts_of(truth, predicted, [0.5] * len(truth)), [ONE], {ONE: ()})[ONE]
    weighted = precision_recall_fscore_support(
        truth, predicted, average="weighted", labels=sorted(set(truth)), zero_division=0
    )
    assert figures["weighted_f1"] == pytest.approx(weighted[2])
    assert figures["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    each = [scores["f1"] for scores in figures["classes"].values()]
    assert figures["macro_f1"] == pytest.approx(np.mean(each))
    assert figures["worst_f1"] == min(each)


def test_a_negative_flip_was_right_yesterday_and_is_wrong_today_a_positive_one_the_reverse():
    mine = evaluations(
        (TWO, ONE, "cat", "cat", 10, 0.9, 8),  # two learnt
        (TWO, ONE, "cat", "dog", 4, 0.6, 3),  # three flips
        (TWO, ONE, "dog", "cat", 2, 0.6, 0),  # wrong before, wrong now
        (TWO, TWO, "eel", "cat", 4, 0.6, 1),  # one flip
        (TWO, TWO, "fox", "cat", 99, 0.6, None),  # yesterday's model was not asked
    )
    assert metrics.flips(mine) == (20, 3 + 1, 2)
    assert metrics.flips(mine[-1:]) == metrics.flips(mine.clear()) == (0, 0, 0)


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

NEW_KEYS = ("accuracy", "f1", "confidence", "calibration_error")
NEW = {ONE: ("cat", "dog"), TWO: ("eel",)}


def test_the_figures_of_the_first_day_are_as_worked_out_by_hand():
    both = day_metrics(HISTORY, [ONE, TWO], NEW)
    # They do not change with later days, nor by asking for one day only.
    alone = HISTORY.filter((pl.col("model") == ONE) & (pl.col("cohort") == ONE))
    assert day_metrics(alone, [ONE], {ONE: NEW[ONE]})[ONE] == both[ONE]
    assert day_metrics(HISTORY, [ONE, TWO], {TWO: NEW[TWO]}) == {TWO: both[TWO]}
    found = both[ONE]
    for name in ("forgetting", "backward_transfer", "forward_transfer", "negative_flip_rate"):
        assert found[name] is None
        assert found["interval"][name] == {"low": None, "high": None}
    assert found["worse_than_yesterday"] == {"p": None, "significant": None}
    assert found["average_accuracy"] == found["learning_accuracy"] == found["accuracy"] == 0.75
    # cat: 4 right, 6 called; dog: 2 right, 2 called.
    cat, dog = 8 / 10, 4 / 6
    assert found["macro_f1"] == pytest.approx((cat + dog) / 2)
    assert found["worst_f1"] == pytest.approx(dog)
    for name in ("negative_flip_rate", "forgetting"):
        assert found["classes"]["cat"].pop(name) is None
    assert found["classes"]["cat"] == pytest.approx(
        {"f1": cat, "precision": 4 / 6, "recall": 1.0, "confidence": 0.9, "images": 4}
    )
    # Bins: 4 right of 4 at 0.9, 2 of 2 at 0.8, 0 of 2 at 0.6.
    assert found["confidence"] == pytest.approx((3.6 + 1.6 + 1.2) / 8)
    assert found["calibration_error"] == pytest.approx((0.4 + 0.4 + 1.2) / 8)
    # On the first day every class is new.
    assert found["new"]["accuracy"] == 0.75
    assert found["new"]["f1"] == pytest.approx((cat + dog) / 2)


def test_the_figures_of_the_second_day_are_as_worked_out_by_hand():
    found = day_metrics(HISTORY, [ONE, TWO], NEW)[TWO]
    # R = [[6/8, -], [7/8, 5/6]]
    assert found["average_accuracy"] == pytest.approx((7 / 8 + 5 / 6) / 2)
    assert found["forgetting"] == pytest.approx(6 / 8 - 7 / 8)
    assert found["backward_transfer"] == pytest.approx(7 / 8 - 6 / 8)
    assert found["learning_accuracy"] == pytest.approx((6 / 8 + 5 / 6) / 2)
    assert found["accuracy"] == pytest.approx(12 / 14)
    # 8 images were right yesterday, one of them is wrong now; 14 were asked.
    assert found["negative_flip_rate"] == pytest.approx(1 / 14)
    # Six were wrong yesterday, five of them (2 dogs, 3 eels) are right now; p by hand: 2 + 6 of 64.
    assert found["positive_flip_rate"] == pytest.approx(5 / 14)
    assert found["worse_than_yesterday"] == {"p": 0.125, "significant": False}
    assert found["classes"]["cat"]["negative_flip_rate"] == pytest.approx(1 / 4)
    # Of 6, yesterday's model had 2 right; a guess among three classes has a third.
    assert found["forward_transfer"] == pytest.approx(2 / 6 - 1 / 3)
    # eel: 3 right of 4, 4 called.
    assert found["new"] == pytest.approx(
        {
            "accuracy": 3 / 4,
            "f1": 6 / 8,
            "confidence": (3 * 0.8 + 0.4) / 4,
            # 3 right of 3 at 0.8, 0 of 1 at 0.4.
            "calibration_error": (0.6 + 0.4) / 4,
        }
    )
    assert list(found["classes"]) == ["cat", "dog", "eel"]


def test_the_intervals_of_the_second_day_are_those_of_their_counts():
    found = day_metrics(HISTORY, [ONE, TWO], NEW)[TWO]["interval"]
    assert found["accuracy"] == intervals.proportion(12, 14)
    assert found["negative_flip_rate"] == intervals.proportion(1, 14)
    assert found["positive_flip_rate"] == intervals.proportion(5, 14)
    assert found["new"]["accuracy"] == intervals.proportion(3, 4)
    low, high = intervals.f1(3, 5)  # 4 eels, 4 called so, 3 of them both
    eel = {"low": low, "high": high}
    assert found["new"]["f1"] == pytest.approx(eel)
    assert found["classes"]["eel"]["f1"] == pytest.approx(eel)
    assert found["worst_f1"] == pytest.approx(eel)
    # Of the eels 3 of 3 are right at 0.8, and 0 of 1 at 0.4: both are possible in their bins.
    (low1, high1), (low2, high2) = intervals.wilson(3, 3), intervals.wilson(0, 1)
    assert low1 < 0.8
    assert found["new"]["calibration_error"] == pytest.approx(
        {"low": 0, "high": (3 * max(high1 - 0.8, 0.8 - low1) + max(high2 - 0.4, 0.4 - low2)) / 4}
    )
    assert found["classes"]["eel"]["recall"] == intervals.proportion(3, 4)
    # Forgetting is R[1, 1] - R[2, 1] = 6/8 - 7/8: Newcombe's interval of a difference.
    (low1, high1), (low2, high2) = intervals.wilson(6, 8), intervals.wilson(7, 8)
    newcombe = {
        "low": 6 / 8 - 7 / 8 - math.hypot(6 / 8 - low1, high2 - 7 / 8),
        "high": 6 / 8 - 7 / 8 + math.hypot(high1 - 6 / 8, 7 / 8 - low2),
    }
    assert found["forgetting"] == pytest.approx(newcombe)
    # Of the first day's cats 4 of 4 were right, of its dogs 2 of 4; now 3 and 4 are. Eels are new.
    each = day_metrics(HISTORY, [ONE, TWO], NEW)[TWO]["classes"]
    assert [scores["forgetting"] for scores in each.values()] == [1 / 4, -2 / 4, None]
    (low1, high1), (low2, high2) = intervals.wilson(4, 4), intervals.wilson(3, 4)
    assert found["classes"]["cat"]["forgetting"] == pytest.approx(
        {"low": 1 / 4 - math.hypot(1 - low1, high2 - 3 / 4), "high": 1 / 4 + (3 / 4 - low2)}
    )
    assert found["backward_transfer"] == pytest.approx(
        {"low": -newcombe["high"], "high": -newcombe["low"]}
    )
    # Forward transfer is 2/6 less chance, a third.
    low, high = intervals.wilson(2, 6)
    assert found["forward_transfer"] == pytest.approx({"low": low - 1 / 3, "high": high - 1 / 3})


@st.composite
def histories(draw):
    """Evaluations of three days, and the days."""
    rows = []
    for i, model in enumerate(DAYS[:3]):
        for cohort in DAYS[: i + 1]:
            for label, said in draw(st.lists(st.tuples(LABELS, LABELS), max_size=4, unique=True)):
                images = draw(st.integers(1, 30))
                before = draw(st.integers(0, images)) if i else None
                rows.append((model, cohort, label, said, images, draw(st.floats(0, 1)), before))
    return evaluations(*rows), list(DAYS[:3])


def leaves(tree, path=()):
    """Every value of nested dicts by its path."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


@settings(max_examples=40)
@given(histories())
def test_every_figure_lies_within_its_interval_and_both_within_their_range(history):
    table, days = history
    for found in day_metrics(table, days, {day: ["cat", "eel"] for day in days}).values():
        figures = dict(leaves({key: part for key, part in found.items() if key != "interval"}))
        ends = dict(leaves(found["interval"]))
        assert {path[:-1] for path in ends} <= figures.keys()
        for path in {path[:-1] for path in ends}:
            low, high, value = ends[*path, "low"], ends[*path, "high"], figures[path]
            if value is None:
                assert low is high is None
            else:
                assert low - 1e-9 <= value <= high + 1e-9
                differs = path[-1] in ("forgetting", "backward_transfer", "forward_transfer")
                assert -differs - 1e-9 <= low <= high <= 1 + 1e-9
        for value in figures.values():
            if isinstance(value, float):
                assert -1 <= value <= 1


def test_a_day_without_test_images_or_new_classes_has_the_same_keys_and_no_figures_of_them():
    found = day_metrics(HISTORY, [ONE, TWO], NEW)
    none = day_metrics(evaluations(), [ONE], {ONE: ["cat"]})[ONE]
    assert {value for _, value in leaves(none)} == {None}
    assert none["classes"] == none["interval"]["classes"] == {}
    third = evaluations((THREE, ONE, "cat", "cat", 1, 0.9, 1))
    old = day_metrics(pl.concat([HISTORY, third]), [ONE, TWO, THREE], {THREE: ()})[THREE]
    assert old["new"] == dict.fromkeys(NEW_KEYS)
    one, two, three, four = (
        {path for path, _ in leaves(figures) if "classes" not in path}
        for figures in (*found.values(), none, old)
    )
    assert one == two == three == four


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=80))
def test_the_calibration_error_is_guos_sum_over_bins(images):
    rows = [(ONE, ONE, "cat", "cat" if hit else "dog", 1, sure, None) for hit, sure in images]
    total = 0.0
    for number in range(10):
        inside = [(h, c) for h, c in images if min(int(c * 10), 9) == number]
        if inside:
            hits, sure = np.mean(inside, axis=0)
            total += len(inside) / len(images) * abs(hits - sure)
    value, ends = metrics.calibration_error(evaluations(*rows))
    assert value == pytest.approx(total)
    assert ends["low"] - 1e-12 <= value <= ends["high"] + 1e-12


def test_a_model_that_is_always_sure_and_always_wrong_has_a_calibration_error_of_one():
    table = evaluations((ONE, ONE, "cat", "dog", 7, 1.0, None))
    # At most 0.354 of what seven such images are of can be right.
    least = 1 - float(intervals.wilson(0, 7).high)
    value, ends = metrics.calibration_error(table)
    assert (value, ends) == (1, {"low": pytest.approx(least), "high": 1})
    assert metrics.calibration_error(table.clear()) == (None, intervals.UNKNOWN)


def test_a_class_s_forgetting_is_from_its_best_day_on_the_images_of_that_day():
    table = evaluations(
        (ONE, ONE, "cat", "cat", 8, 0.9, None),
        (ONE, ONE, "cat", "dog", 2, 0.9, None),
        (TWO, ONE, "cat", "cat", 10, 0.9, 8),
        (TWO, TWO, "cat", "dog", 10, 0.9, 0),
        (THREE, ONE, "cat", "cat", 6, 0.9, 6),
        (THREE, ONE, "cat", "dog", 4, 0.9, 4),
        (THREE, TWO, "cat", "cat", 10, 0.9, 0),
        (THREE, THREE, "cat", "dog", 10, 0.9, 0),
    )
    found = day_metrics(table, [ONE, TWO, THREE], {THREE: ()})[THREE]
    # Day 1 had 8 of its 10 right, day 2 10 of the 20 there were then; of these, 6 and 16 are now.
    assert found["classes"]["cat"]["forgetting"] == pytest.approx(
        max(8 / 10 - 6 / 10, 10 / 20 - 16 / 20)
    )


def test_of_many_days_every_nth_is_drawn_and_the_last():
    days = [f"{number:04}" for number in range(1000)]
    assert retention.drawn(days[:128]) == days[:128]
    # One more than 128: every second of them, and number 128 is the last anyhow.
    assert retention.drawn(days[:129]) == days[:129:2]
    assert retention.drawn(days[:130]) == [*days[:129:2], days[129]]
    assert retention.drawn(days) == [*days[:999:8], days[999]]
    assert len(retention.drawn(days)) <= retention.DRAWN + 1


def test_curve_without_the_evaluation_of_its_day_says_what_makes_one(tmp_path):
    project = make_project(tmp_path)
    opened = params_file.read(project.params).model_copy(update={"day": DAYS[0]})
    with pytest.raises(CycleError, match=f"no evaluation of {DAYS[0]} yet"):
        curve.run(project, opened)
