"""dayfold diff: one day against another, in figures, classes, images and params."""

import re
import shutil

import polars as pl
import pytest

from builders import arrived, image, write_day
from dayfold.demo import DAYS
from dayfold.figures import diff
from dayfold.figures.diff import Side
from dayfold.figures.log import DayLine
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Prediction
from dayfold.project import params as params_file

ONE, TWO, THREE = DAYS[:3]


@pytest.mark.slow
def test_a_day_is_compared_with_the_one_before(three_days):
    said = three_days.dayfold("diff").splitlines()
    assert said[0] == f"{THREE}: 211 images added, 8 classes (new: 7)"
    assert said[1].split() == [THREE, "95%", TWO, "→", THREE]
    assert said[2].split() == ["test", "images", "167", "125"]
    assert [line.split("  ")[0] for line in said[3:8]] == list(diff.FIGURES.values())
    assert said[8].startswith("worst class")
    assert said[9].startswith("few: too few to judge, on fewer than 21 patients")
    assert said[10].startswith("On the 125 test images of both days: ")
    drawn = three_days.dayfold("diff", ONE, THREE).splitlines()[-1]
    assert re.fullmatch(r"training samples: 100% → \d+% from the day's own images", drawn)
    assert three_days.dayfold("diff", TWO, THREE).splitlines() == said
    assert three_days.dayfold("diff", THREE).splitlines() == said
    assert "It is the first day" in three_days.dayfold("diff", ONE)
    assert "has no figures" in three_days.dayfold("diff", "2025-01-01", code=1)
    assert "At most two days" in three_days.dayfold("diff", ONE, TWO, THREE, code=1)


@pytest.mark.slow
def test_images_that_turned_wrong_are_named_and_params_that_changed_and_what_is_not_here(copy):
    before = tables.read(copy.parent_predictions, Prediction)
    right = before.filter(pl.col("split") == "test", pl.col("predicted") == pl.col("label"))
    paths = manifest.history(copy, THREE).images.select("image", "path")
    image, label, path = (
        right.join(paths, on="image").sort("path").select("image", "label", "path").row(0)
    )
    rows = [Prediction(*row) for row in tables.read(copy.predictions, Prediction).rows()]
    rows = [row._replace(predicted="nil") if row.image == image else row for row in rows]
    copy.predictions.unlink()
    tables.write(copy.predictions, Prediction, rows)
    params_file.edit(copy.params, {"train.updates": 7})
    said = copy.dayfold("diff")
    assert f"  newly wrong  {path}: was {label}, now nil, is {label}\n" in said
    assert "params:  train.updates 4 → 7\n" in said
    shutil.rmtree(copy.root / ".dvc" / "cache")
    assert f"The predictions of {ONE} are not on this machine" in copy.dayfold("diff", ONE, THREE)
    copy.git("tag", "--delete", f"day/{TWO}")
    assert f"day/{TWO} is not here" in copy.dayfold("diff", code=1)


def side(day, answers):
    """A day that answered so: image → (its day, its label, what is predicted)."""
    rows = [Prediction(image(n), at, "test", *said, 0.9) for n, (at, *said) in answers.items()]
    table = pl.DataFrame(rows, tables.schema(Prediction), orient="row")
    return Side(DayLine(day, 9, 2, (), {}), {}, table, None)


def test_two_days_are_compared_on_the_images_that_both_tested_also_of_a_renamed_class(project):
    """Of 21 patients with a cat each, and of one with two images of what was a fox and is a dog."""
    names = [f"P{n}" for n in range(21)] + ["P21"] * 2
    rows = [arrived(n, ONE, "cat" if n < 21 else "fox", who) for n, who in enumerate(names)]
    write_day(project, ONE, "origin", rows)
    renamed = [row._replace(action="relabel", label="dog") for row in rows[21:]]
    write_day(project, TWO, ONE, [arrived(99, TWO, "cat", "P99"), *renamed])
    cats = dict.fromkeys(range(21), (ONE, "cat", "cat"))
    before = side(
        ONE, cats | {0: (ONE, "cat", "fox")} | dict.fromkeys((21, 22), (ONE, "fox", "fox"))
    )
    wrong = {21: (ONE, "dog", "cat"), 22: (ONE, "dog", "dog"), 99: (TWO, "cat", "dog")}
    both = diff.shared(project, [before, side(TWO, cats | wrong)])
    assert len(both.images) == 23  # without the one that came later
    # Cats: 20 hits and a miss, then 21 hits and a false alarm. Dogs: 2 and 1, then 1 and a miss.
    assert both.was["classes"]["cat"]["f1"] == pytest.approx(40 / 41)
    assert both.now["classes"]["cat"]["f1"] == pytest.approx(42 / 43)
    assert both.was["worst_f1"] == pytest.approx(4 / 5)
    assert both.now["worst_f1"] == pytest.approx(2 / 3)
    said = list(diff.sentences([before, side(TWO, cats | wrong)], both))
    assert said[1:3] == [
        "On the 23 test images of both days: 1 newly wrong, 1 newly right; no more than chance "
        "(McNemar, p = 1.000)",
        "  worse  F1 of dog: 0.800 → 0.667 (too few to judge: 1 patient)",
    ]


def test_the_first_line_says_what_a_day_did_to_earlier_ones_and_what_it_renamed():
    line = DayLine(ONE, 0, 2, ("eel",), {}, renamed={"fox": "dog"}, corrections={"relabel": 2})
    (said, *_) = diff.sentences([Side(line, {}, None, None)], None)
    assert said == (
        f"{ONE}: 0 images added, 2 labels corrected, 2 classes "
        "(new: eel; renamed or merged: fox → dog)"
    )
    line = DayLine(ONE, 1, 1, (), {}, corrections={"withdraw": 1})
    (said, *_) = diff.sentences([Side(line, {}, None, None)], None)
    assert said == f"{ONE}: 1 image added, 1 image withdrawn, 1 class"


def test_nothing_is_compared_on_too_few_patients(project):
    write_day(project, ONE, "origin", [arrived(n, ONE, "cat", "P1") for n in range(30)])
    write_day(project, TWO, ONE, [])
    right, wrong = (dict.fromkeys(range(30), (ONE, "cat", said)) for said in ("cat", "dog"))
    both = diff.shared(project, [side(ONE, right), side(TWO, wrong)])
    assert list(diff.sentences([side(ONE, right), side(TWO, wrong)], both))[1] == (
        "On the 30 test images of both days: 30 newly wrong, 0 newly right; too few to judge: "
        "1 patient"
    )
