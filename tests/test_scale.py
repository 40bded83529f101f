"""What may not grow with the history, counted; benchmarks/history.py measures its seconds."""

import json
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from builders import RealProject, arrived, fill_outputs, place
from dayfold.cycle import opening
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.tables import Evaluation
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.files import sha256_file
from dayfold.project.layout import ORIGIN, Project

pytestmark = pytest.mark.slow

DAYS = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(60)]
# Runs DVC as `python -m dvc` does; its last line counts what it asks the system for, by event.
COUNTING = """
import collections, json, sys
from dvc.cli import main

counts = collections.Counter()
sys.addaudithook(lambda event, _: counts.update([event]))
code = main(sys.argv[1:])
names = ("open", "os.listdir", "os.scandir")
print(json.dumps({name: counts[name] for name in names}))
sys.exit(code)
"""


def with_history(base: Project, root: Path, days: int) -> RealProject:
    """A project on its `days`-th day, up to date: all files that DVC reads, and no training."""
    shutil.copytree(base.root, root, symlinks=True)
    project = RealProject(root)
    pin = ""
    for number, day in enumerate(DAYS[:days]):
        place(project.images(day), "0", range(number * 10, number * 10 + 10))
        corrections.write_empty(project, day)
        parent = DAYS[number - 1] if number else ORIGIN
        rows = [arrived(number * 10 + n, day, "0") for n in range(10)]
        manifest.write(project.manifest(day), parent_day=parent, parent_sha256=pin, rows=rows)
        pin = sha256_file(project.manifest(day))
        counts = [
            Evaluation(day, cohort, "0", "0", 9, 10, 0.9, 10) for cohort in DAYS[: number + 1]
        ]
        tables.write(project.evaluation(day), Evaluation, counts)
    vcs.dvc(root, "add", "--quiet", *(project.name(project.images(day)) for day in DAYS[:days]))
    for day in DAYS[: days - 1]:
        opening.fold_into_month(project, day)
    params_file.edit(project.params, {"day": DAYS[days - 1], "parent": DAYS[days - 2]})
    fill_outputs(project, DAYS[days - 1])
    vcs.dvc(root, "commit", "--quiet", "--force")
    return project


def counted(project: RealProject, *words: str) -> dict[str, int]:
    command = [sys.executable, "-c", COUNTING, *words]
    said = subprocess.run(
        command, cwd=project.root, env=vcs.environment(), check=True, capture_output=True, text=True
    )
    assert "up to date" in said.stdout
    return dict(json.loads(said.stdout.splitlines()[-1]))


def test_a_repro_with_nothing_to_do_asks_for_no_more_on_day_60_than_on_day_2(tmp_path, shell):
    shell(tmp_path, "dayfold", "init", "base", "--weights", "random", "--image-size", "16")
    base = RealProject(tmp_path / "base")
    found = []
    for days in (2, 60):
        project = with_history(base, tmp_path / str(days), days)
        project.dvc("repro")  # DVC remembers what it has hashed
        found.append(counted(project, "repro"))
    print(found)
    two, sixty = found
    assert {name: 0 < sixty[name] <= 1.3 * two[name] for name in two} == dict.fromkeys(two, True)
