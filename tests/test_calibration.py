"""The temperature: the least cross-entropy, no infallible model, no answer changed."""

import numpy as np
import pytest

from dayfold.learning.calibration import fit, fit_temperature, softmax, too_few


def drawn(images, classes, scale, seed=0):
    """Logits, and labels that are drawn with the very chances softmax(logits / scale)."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(images, classes)) * 3
    chances = softmax(logits, scale)
    targets = [draw.choice(classes, p=row) for row in chances]
    return logits, np.array(targets)


def test_the_temperature_by_which_labels_were_drawn_is_found_of_two_models_answers_too():
    for scale in (0.5, 1.0, 2.5):
        assert fit_temperature(drawn(4000, 5, scale)) == pytest.approx(scale, rel=0.05)
    logits, targets = drawn(4000, 5, 2.0)
    halves = (logits[:1000], targets[:1000]), (logits[1000:], targets[1000:])
    assert fit_temperature(*halves) == fit_temperature((logits, targets))
    assert fit_temperature(halves[0], drawn(3000, 3, 2.0, seed=1)) == pytest.approx(2.0, rel=0.05)


def test_a_few_images_by_hand():
    # Right by 2 and wrong by 2: nothing is known of either class, so all chances are equal.
    logits = np.array([[2.0, 0.0], [2.0, 0.0]])
    assert fit_temperature((logits, np.array([0, 1]))) == 20.0
    # Right twice of 2: the label counts as 3/4, so 2 / T = log(3).
    assert fit_temperature((logits, np.array([0, 0]))) == round(2 / np.log(3), 4)
    # A model without a mistake is not taken for infallible: the label counts as 31/32, each other
    # class as 1/32/9: e^(4/T) = 31 * 9.
    logits = np.full((30, 10), -2.0)
    logits[:, 3] = 2.0
    found = fit_temperature((logits, np.full(30, 3)))
    assert found == pytest.approx(4 / np.log(31 * 9), abs=1e-4)
    assert softmax(logits, found)[0, 3] == pytest.approx(31 / 32, abs=1e-4)
    # Nothing to fit leaves the softmax as it is.
    assert fit_temperature((np.zeros((0, 4)), np.zeros(0, dtype=np.int64))) == 1.0
    assert fit_temperature((np.ones((5, 1)), np.zeros(5, dtype=np.int64))) == 1.0


def test_no_answer_is_changed_and_chances_sum_to_one():
    logits, _ = drawn(200, 6, 1.0)
    for scale in (0.05, 1.0, 20.0):
        chances = softmax(logits, scale)
        assert (chances.argmax(1) == logits.argmax(1)).all()
        assert chances.sum(1) == pytest.approx(np.ones(200))
    assert softmax(np.array([[0.0, np.log(3)]]), 1.0).tolist()[0] == pytest.approx([0.25, 0.75])


def answers(images, wrong, sure=2.0):
    """Answers between two classes, each with a logit of `sure`; so many are wrong."""
    logits = np.tile([sure, 0.0], (images, 1))
    return logits, np.array([1] * wrong + [0] * (images - wrong), dtype=np.int64)


def test_a_temperature_rests_on_thirty_images_and_three_wrong_ones():
    assert too_few(answers(1, 1)) == "1 validation image"
    assert too_few(answers(29, 9)) == "29 validation images"
    assert too_few(answers(30, 2)) == "2 wrong of 30 validation images; 3 are needed"
    assert too_few(answers(30, 3)) == ""
    assert too_few(answers(20, 1), answers(10, 2)) == ""


def test_yesterday_s_answers_are_pooled_only_where_today_s_are_too_few():
    def never():
        raise AssertionError

    own, more = answers(40, 10), answers(20, 10, sure=4.0)
    assert fit(own, never) == (fit_temperature(own), "", 0)
    few = answers(10, 0)
    assert fit(few, lambda: more) == (fit_temperature(few, more), "", 20)
    assert fit_temperature(few, more) > fit_temperature(few)
    assert fit(few, lambda: answers(19, 10)) == (1.0, "10 validation images", 0)
    assert fit(few, lambda: answers(20, 2)) == (1.0, "10 validation images", 0)
