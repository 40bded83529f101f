"""Plans have the same bytes whatever the environment, the folder and the order of the files."""

import os
import subprocess
import sys

import pytest

from builders import DAYS, FRACTIONS, make_project, open_day, place, run_stages, simulate
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.stages import replay, snapshot, weights

PLANS = (f"data/manifests/{DAYS[0]}.csv", f"data/manifests/{DAYS[1]}.csv")
PLANS += ("data/weights.csv", "data/replay.csv", "data/shares.csv")
CLASSES = {"cat": range(30), "dög": range(30, 50), "a,b": range(50, 57)}

STAGES = """
import os, sys
from pathlib import Path
umask, root = int(sys.argv[1], 8), Path(sys.argv[2])
os.umask(umask)
sys.stdout.reconfigure(errors="backslashreplace")  # as the command line does
from dayfold.project import params
from dayfold.project.layout import Project
from dayfold.stages import replay, snapshot, weights
project = Project.find(root)
found = params.read(project.params)
for stage in (snapshot, weights, replay):
    stage.run(project, found)
"""


def first_day(root, *, backwards=False):
    """A project with a first day behind it and the images of a second one."""
    project = make_project(root, replay__size=12, data__group=r"/(\d)\d*\.png$")
    (root / "dvc.yaml").touch()
    open_day(project, DAYS[0])
    for label, numbers in sorted(CLASSES.items(), reverse=backwards):
        place(project.images(DAYS[0]), label, sorted(numbers, reverse=backwards))
    run_stages(project, snapshot)
    open_day(project, DAYS[1])
    place(project.images(DAYS[1]), "cat", sorted(range(60, 75), reverse=backwards))
    return project


def plans(project):
    return [(project.root / name).read_bytes() for name in PLANS]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    project = first_day(tmp_path_factory.mktemp("expected") / "project")
    run_stages(project, snapshot, weights, replay)
    return plans(project)


@pytest.mark.parametrize(
    ("umask", "settings"),
    [
        (
            "077",
            "PYTHONHASHSEED=4711 TZ=Pacific/Kiritimati LC_ALL=tr_TR.UTF-8 POLARS_MAX_THREADS=1",
        ),
        ("002", "PYTHONHASHSEED=0 TZ=America/Adak LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"),
    ],
)
def test_plans_do_not_depend_on_the_environment(tmp_path, expected, umask, settings):
    project = first_day(tmp_path / "elsewhere and lönger")
    subprocess.run(
        [sys.executable, "-c", STAGES, umask, str(project.root / "data")],
        env=os.environ | dict(setting.split("=") for setting in settings.split()),
        cwd=tmp_path,
        check=True,
    )
    assert plans(project) == expected


def test_plans_do_not_depend_on_the_order_of_files_nor_on_what_was_made_before(tmp_path, expected):
    project = first_day(tmp_path / "project", backwards=True)
    for _ in range(2):
        run_stages(project, snapshot, weights, replay)
        assert plans(project) == expected


def test_plans_have_the_bytes_that_they_had_when_this_test_was_written(tmp_path):
    # Of simulated images: the bytes of real ones depend on the encoder's version.
    parts = {f"data__split__{name}": FRACTIONS[name] for name in ("validation", "test")}
    weight = {"recent": 3.0, "base": 1.0, "versions": 6, "over": "history", "class_balance": 0.3}
    parts |= {f"weights__{name}": value for name, value in weight.items()}
    parts |= {"replay__policy": "class_balanced", "replay__size": 10, "seed": 0}
    project = make_project(tmp_path, **parts)
    params_file.edit(project.params, {"day": DAYS[1], "parent": DAYS[0]})
    simulate(
        project,
        [
            [(number, ("cat", "dög")[number % 3 == 0], f"p{number % 7}") for number in range(60)],
            [(number, "a,b", "") for number in range(60, 80)],
        ],
    )
    run_stages(project, weights, replay)
    assert [sha256(data)[:16] for data in plans(project)] == [
        "cdabbf0af23b25a0",
        "60d548163d82f3b9",
        "1bfa8f379f070aa1",
        "76c0afd37ea82faf",
        "1ed2db2c1b60049a",
    ]
