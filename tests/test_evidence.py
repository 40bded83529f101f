"""What is too few: by groups where there are groups, on each day, in one word for all tables."""

import pytest

from builders import DAYS, arrived, image, write_day
from dayfold.figures import evidence, intervals
from dayfold.figures.evidence import Evidence
from dayfold.ledger import manifest
from dayfold.ledger.manifest import Row
from dayfold.project.layout import ORIGIN

ONE, TWO = DAYS[:2]


def rows(day, label, groups, *, split="test", first=0):
    return [arrived(first + at, day, label, group, split) for at, group in enumerate(groups)]


def test_too_few_are_those_whose_interval_may_be_wider_than_the_limit():
    for images in range(1, 60):
        low, high = intervals.wilson(images / 2, images)  # the widest there is
        assert high - low == pytest.approx(intervals.Z / (images + intervals.Z**2) ** 0.5)
        assert evidence.is_too_few(images) == (images <= 20)


def test_a_group_counts_once_and_an_image_without_one_by_itself(project):
    patients = [f"patient {at % 20}" for at in range(60)]
    cats = rows(ONE, "cat", patients) + rows(ONE, "dog", [""] * 21, first=100)
    write_day(project, ONE, "origin", cats)
    more = rows(TWO, "cat", ["patient 3", ""], first=200)
    more += rows(TWO, "eel", [""] * 30, split="train", first=300)
    history = write_day(project, TWO, ONE, more)
    found = evidence.of(history)
    # 41 units on the first day. The cat of no group is the 21st; of eels none is tested. Patient 3
    # comes on both days, and is one.
    cohorts, classes = {ONE: 41, TWO: 2}, {"cat": 21, "dog": 21, "eel": 0}
    assert found == Evidence("patient", cohorts, classes, all=42, earlier=41)
    assert found.sentences() == [
        f"Too few test patients to judge these cohorts: {TWO} (2 patients).",
        "Too few test patients to judge these classes: eel (0 patients).",
    ]
    assert found.caveat(3) == "too few to judge: 3 patients"
    assert found.caveat(21) == ""
    assert found.on(83) == "83 test images of 42 patients"
    many = Evidence("image", {}, dict.fromkeys("abcdefg", 1), all=53, earlier=4)
    assert many.sentences()[0].endswith(" e (1 image), and 2 more.")
    gone = Row("withdraw", image(200), more[0].path, "", "patient 3", "test")
    later = write_day(project, DAYS[2], TWO, [gone])
    assert evidence.of(later).cohorts == {ONE: 41, TWO: 1}
    # What a day's figures rested on stays, whatever came later.
    assert evidence.of(later, day=TWO) == found
    assert evidence.of(later, day=ONE) == evidence.of(write_day(project, ONE, "origin", cats))


def test_a_label_corrected_later_counts_for_the_class_of_then(project):
    cats = rows(ONE, "cat", ["a", "b", "c"])
    write_day(project, ONE, "origin", cats)
    moved = cats[0]._replace(action="relabel", label="dog")
    history = write_day(project, TWO, ONE, [moved])
    assert evidence.of(history).classes == {"cat": 2, "dog": 1}
    assert evidence.of(history, day=ONE).classes == {"cat": 3}


def test_without_groups_the_unit_is_an_image_and_only_what_is_evaluated_counts(project):
    history = write_day(project, ONE, "origin", rows(ONE, "cat", [""] * 30))
    found = evidence.of(history, most=12)
    assert found == Evidence("image", {ONE: 12}, {"cat": 12}, all=12, earlier=0)
    assert found.sentences() == ["Too few test images to judge any figure: 12 in all."]
    assert found.on(12) == "12 test images"
    none = evidence.of(manifest.history(project, ORIGIN))
    assert none == Evidence("image", {}, {}, all=0, earlier=0)


def judged(units, earlier=21, **classes):
    """The figures of a day on which cat and eel came, with what they rest on written in."""
    figures = {
        "forgetting": 0.0,
        "weighted_f1": 0.9,
        "worst_f1": 0.8,
        "new": {"f1": 0.9},
        "classes": {"cat": {"f1": 1.0}, "dog": {"f1": 0.8}, "eel": {"f1": 0.8}},
        "worse_than_yesterday": {"p": 0.01, "significant": True},
    }
    known = Evidence("patient", {}, {"dog": 21} | classes, units, earlier)
    evidence.judge(figures, known, new=["cat", "eel"])
    return figures


def test_a_figure_is_judged_by_what_it_is_made_of():
    figures = judged(21, cat=20, eel=21)
    assert figures["evidence"] == {"all": 21, "earlier": 21, "worst": 21, "new": 20}
    assert figures["new"]["judged"] is False
    assert judged(42, cat=21, eel=21)["new"]["judged"] is True
    said = {label: scores["judged"] for label, scores in figures["classes"].items()}
    assert said == {"cat": False, "dog": True, "eel": True}
    keys = ("weighted_f1", "worst_f1", "forgetting", "new.f1")
    assert [evidence.as_text(figures, key) for key in keys] == ["0.900", "0.800", "0.000", "few"]
    # Where two classes have the lowest F1, both count.
    assert evidence.as_text(judged(41, cat=21, eel=3), "worst_f1") == "few"
    assert evidence.as_text(judged(41, cat=21, eel=21), "new.f1") == "0.900"
    early = judged(41, earlier=20, cat=21, eel=21)
    assert [evidence.as_text(early, key) for key in keys[:3]] == ["0.900", "0.800", "few"]
    # No drop is significant on too few.
    assert judged(21, cat=1, eel=1)["worse_than_yesterday"]["significant"] is True
    assert judged(20, cat=1, eel=1)["worse_than_yesterday"]["significant"] is None
