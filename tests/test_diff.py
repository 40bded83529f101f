"""dayfold diff: one day against another, in figures, classes, images and params."""

import re
import shutil

import polars as pl
import pytest

from dayfold.demo import DAYS
from dayfold.figures import diff
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Prediction
from dayfold.project import params as params_file

ONE, TWO, THREE = DAYS[:3]


@pytest.mark.slow
def test_a_day_is_compared_with_the_one_before(three_days, shell):
    said = shell(three_days.root, "dayfold", "diff").splitlines()
    assert said[0] == f"{THREE}: 211 images added, 8 classes (new: 7)"
    assert said[1].split() == [TWO, THREE, "95%", "change"]
    assert [line.split("  ")[0] for line in said[2:7]] == list(diff.FIGURES)
    assert any(line.startswith("On the 125 test images of both days: ") for line in said[7:])
    # On the first day all of them, of course.
    drawn = r"draws:   100% → \d+% of the day's own images"
    assert re.fullmatch(
        drawn, shell(three_days.root, "dayfold", "diff", ONE, THREE).splitlines()[-1]
    )
    # Any two days, and a day by itself against the one before.
    assert shell(three_days.root, "dayfold", "diff", TWO, THREE).splitlines() == said
    assert shell(three_days.root, "dayfold", "diff", THREE).splitlines() == said
    assert "It is the first day" in shell(three_days.root, "dayfold", "diff", ONE)
    assert "has no figures" in shell(three_days.root, "dayfold", "diff", "2025-01-01", code=1)
    assert "At most two days" in shell(three_days.root, "dayfold", "diff", ONE, TWO, THREE, code=1)


@pytest.mark.slow
def test_images_that_turned_wrong_are_named_and_params_that_changed(copy, shell):
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
    said = shell(copy.root, "dayfold", "diff")
    assert f"  newly wrong  {path}: was {label}, now nil, is {label}\n" in said
    assert "params:  train.updates 4 → 7\n" in said


@pytest.mark.slow
def test_predictions_that_are_not_here_are_told(copy, shell):
    shutil.rmtree(copy.root / ".dvc" / "cache")
    said = shell(copy.root, "dayfold", "diff", ONE, THREE)
    assert f"The predictions of {ONE} are not on this machine" in said
    shell(copy.root, "git", "tag", "--delete", f"day/{TWO}")
    assert f"day/{TWO} is not here" in shell(copy.root, "dayfold", "diff", code=1)
