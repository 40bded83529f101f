"""The demo: its digits, its manners, and what its days come to with the default params."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from builders import make_project
from dayfold import create, demo
from dayfold.cycle import opening
from dayfold.demo import DAYS
from dayfold.errors import CycleError
from dayfold.ledger import corrections
from dayfold.project import params as params_file
from dayfold.project.layout import ORIGIN
from dayfold.stages import curve, evaluate, replay, snapshot, train, weights


def test_every_digit_is_written_once_as_it_is(digits):
    files = sorted(digits.glob("*/*/*.png"))
    assert len(files) == 1797 == len({path.name for path in files})
    truth = load_digits()
    for path in files[::200]:
        number = int(path.stem.removeprefix("digit-"))
        assert path.parent.name == str(truth.target[number])
        pixels = np.asarray(Image.open(path)).astype(float)
        assert np.abs(pixels * 16 / 255 - truth.images[number]).max() < 0.05


def test_six_digits_first_and_a_new_one_on_four_later_days(digits):
    seen: set[str] = set()
    new = []
    for day in DAYS:
        today = {path.name for path in (digits / day).iterdir()}
        new.append(today - seen)
        seen |= today
    assert new == [set("012345"), {"6"}, {"7"}, {"8"}, {"9"}, set()]


def test_digits_are_away_for_days_so_that_there_is_something_to_forget(digits):
    days = Counter(path.name for day in DAYS for path in (digits / day).iterdir())
    assert max(days.values()) == 3
    assert sum(days.values()) < 0.6 * 10 * len(DAYS)


def test_the_demo_leaves_other_folders_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(CycleError, match="is not empty and not a demo"):
        demo.run(tmp_path, say=print)
    project = make_project(tmp_path / "project")
    with pytest.raises(CycleError, match="is a project, but not a demo"):
        demo.run(project.root, say=print)


@pytest.mark.slow
def test_with_default_params_little_is_forgotten_and_every_class_is_known(tmp_path, digits):
    project = make_project(tmp_path, origin__weights="random", train__image_size_px=32)
    create.make_origin(project, params_file.read(project.params))
    parent = ORIGIN
    for day in DAYS:
        shutil.copytree(digits / day, project.images(day))
        corrections.write_empty(project, day)
        params_file.edit(project.params, {"day": day, "parent": parent})
        for stage in (snapshot, weights, replay, train, evaluate, curve):
            stage.run(project, params_file.read(project.params))
        if day != DAYS[-1]:
            opening.inherit(project)
        parent = day
    figures = json.loads(project.metrics.read_bytes())
    assert figures["forgetting"] <= 0.05
    assert {name: scores["f1"] for name, scores in figures["classes"].items()}.keys() == set(
        "0123456789"
    )
    assert figures["worst_f1"] >= 0.85
