"""Cohorts and classes with too few test images are named, and a group counts once."""

import pytest

from builders import DAYS, image, write_day
from dayfold.figures import evidence, intervals
from dayfold.figures.evidence import Few
from dayfold.ledger.manifest import Row
from dayfold.project.layout import ORIGIN

ONE, TWO = DAYS[:2]


def rows(day, label, groups, *, split="test", first=0):
    return [
        Row(
            "add", image(first + at), f"data/images/{day}/{label}/{first + at}.png", label, g, split
        )
        for at, g in enumerate(groups)
    ]


@pytest.mark.parametrize("images", range(1, 60))
def test_too_few_are_those_whose_interval_may_be_wider_than_the_limit(images):
    low, high = intervals.wilson(images / 2, images)  # the widest there is
    assert high - low == pytest.approx(intervals.Z / (images + intervals.Z**2) ** 0.5)
    assert intervals.is_too_few(images) == (images <= 20)


def test_a_group_counts_once_and_an_image_without_one_by_itself(project):
    patients = [f"patient {at % 20}" for at in range(60)]
    cats = rows(ONE, "cat", patients) + rows(ONE, "dog", [""] * 21, first=100)
    write_day(project, ONE, "origin", cats)
    more = rows(TWO, "cat", ["patient 3", ""], first=200)
    more += rows(TWO, "eel", [""] * 30, split="train", first=300)
    history = write_day(project, TWO, ONE, more)
    found = evidence.few(history)
    # 41 units on the first day. The cat of no group is the 21st; of eels none is tested.
    assert found == Few({TWO: 2}, {"eel": 0})
    assert found.sentences() == [
        f"Too few test images to judge these cohorts: {TWO} (2).",
        "Too few test images to judge these classes: eel (0).",
    ]
    gone = Row("withdraw", image(200), more[0].path, "", "patient 3", "test")
    assert evidence.few(write_day(project, DAYS[2], TWO, [gone])).cohorts == {TWO: 1}


def test_without_a_day_nothing_is_too_few(project):
    from dayfold.ledger import manifest

    assert evidence.few(manifest.history(project, ORIGIN)) == Few({}, {})
