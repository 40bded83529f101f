"""The demo: its digits, its manners, and what its days come to."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from builders import ROOT, make_project
from dayfold import demo
from dayfold.demo import DAYS, PICTURE
from dayfold.errors import CycleError
from dayfold.ledger import tables
from dayfold.ledger.tables import CohortAccuracy, PolicyAccuracy
from dayfold.project import params, vcs
from dayfold.project.layout import Project


def test_every_digit_is_written_once_as_it_is(digits):
    files = sorted(digits.glob("*/*/*.png"))
    assert len(files) == 1797 == len({path.name for path in files})
    truth = load_digits()
    for path in files[::200]:
        number = int(path.stem.removeprefix("digit-"))
        assert path.parent.name == str(truth.target[number])
        pixels = np.asarray(Image.open(path)).astype(float)
        assert np.abs(pixels * 16 / 255 - truth.images[number]).max() < 0.05


def test_a_new_digit_comes_on_four_later_days_and_digits_are_away_to_be_forgotten(digits):
    seen: set[str] = set()
    new, days = [], Counter[str]()
    for day in DAYS:
        today = {path.name for path in (digits / day).iterdir()}
        new.append(today - seen)
        seen |= today
        days.update(today)
    assert new == [set("012345"), {"6"}, {"7"}, {"8"}, {"9"}, set()]
    assert max(days.values()) == 3
    assert sum(days.values()) < 0.6 * 10 * len(DAYS)


def test_the_demo_leaves_other_folders_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(CycleError, match="is not empty and not a demo"):
        demo.run(tmp_path)
    project = make_project(tmp_path / "project")
    with pytest.raises(CycleError, match="is a project, but not a demo"):
        demo.run(project.root)


@pytest.mark.slow
def test_make_demo_forgets_little_and_knows_every_class(tmp_path, shell):
    # As if a demo had been stopped as it had begun. For time: half of its updates, and one thread,
    # which waits for no other beside another test.
    demo.begin(tmp_path / "demo")
    params.edit(Project(tmp_path / "demo").params, {"train.updates": 75, "train.threads": 1})
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).symlink_to(ROOT / name)
    # As if this Python's programs had been installed there a moment ago.
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv" / ".installed").touch()
    said = shell(tmp_path, "make", "demo")
    assert "==> dayfold demo" in said
    project = Project(tmp_path / "demo")
    assert vcs.sealed_days(project.root) == list(DAYS)
    assert (project.root / PICTURE).stat().st_size > 10_000
    # Beside other work it also says so, and how far it is.
    lines = [line for line in said.splitlines() if not re.search("slow:| left$", line)]
    assert len(lines) <= 120
    figures = json.loads(project.metrics.read_bytes())
    assert figures["forgetting"] <= 0.05
    assert figures["worst_f1"] >= 0.85
    assert json.loads(project.class_figures.read_bytes()).keys() == set("0123456789")
    # What it shows that replay prevents: without, most of the first day's digits are forgotten.
    without = tables.read(project.backtest("cohorts"), PolicyAccuracy)
    lost = without.filter(day=DAYS[-1], cohort=DAYS[0])["accuracy"].item()
    kept = tables.read(project.plot("cohorts"), CohortAccuracy)
    assert lost < 0.5 < 0.95 < kept.filter(day=DAYS[-1], cohort=DAYS[0])["accuracy"].item()
