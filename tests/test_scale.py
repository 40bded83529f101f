"""What grows with the history, and what may not."""

import resource
import shutil
import statistics
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from builders import image, place
from dayfold.cycle import opening
from dayfold.ledger import corrections, grouping, manifest, tables
from dayfold.ledger.manifest import Row
from dayfold.ledger.tables import Evaluation
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.files import sha256_file, write_bytes
from dayfold.project.layout import ORIGIN, UNOPENED, Project
from dayfold.stages import curve, replay, snapshot, weights

pytestmark = pytest.mark.slow

SUM_SECONDS = 0.45
DAYS = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(200)]


def with_history(base: Project, root: Path, days: int) -> Project:
    """A project on its `days`-th day, up to date: all files that DVC reads, and no training."""
    shutil.copytree(base.root, root, symlinks=True)
    project = Project(root)
    pin = ""
    for number, day in enumerate(DAYS[:days]):
        place(project.images(day), "0", range(number * 10, number * 10 + 10))
        corrections.write_empty(project, day)
        grouping.write_empty(project, day)
        parent = DAYS[number - 1] if number else ORIGIN
        rows = [
            Row("add", image(number * 10 + n), f"{day}/0/{n}.png", "0", "", "test")
            for n in range(10)
        ]
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
    made = (project.weights, project.replay, project.shares, project.model, project.provenance)
    names = ("near_duplicates", "training", "classification", "flips", "cohorts", "confusion")
    plots = (project.plot(name) for name in names)
    today = DAYS[days - 1]
    made += (project.predictions, project.metrics, project.gate(today), project.looks(today))
    for path in (*made, *plots):
        write_bytes(path, path.name.encode())
    vcs.dvc(root, "commit", "--quiet", "--force")
    return project


def slowness() -> float:
    """How many times longer a sum takes here and now than on a slow machine that is quiet."""
    sums = [sys.executable, "-c", "sum(n * n for n in range(4_000_000))"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(sums, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock = time.perf_counter() - began
    return max(1.0, min(clock, after.ru_utime - before.ru_utime) / SUM_SECONDS)


def timed(project: Project, *words: str) -> tuple[float, float]:
    """Seconds of processor time and of the clock that a command takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(words, cwd=project.root, env=vcs.environment(), check=True, capture_output=True)
    clock = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime), clock


@pytest.fixture(scope="module")
def base(tmp_path_factory, shell) -> Project:
    root = tmp_path_factory.mktemp("scale") / "base"
    words = ("--weights", "random", "--image-size", "32")
    shell(root.parent, "dayfold", "init", "base", *words)
    return Project(root)


def test_a_repro_with_nothing_to_do_takes_no_longer_on_day_200_than_on_day_2(base, shell):
    young = with_history(base, base.root.parent / "two", 2)
    old = with_history(base, base.root.parent / "two hundred", 200)
    for project in (young, old):
        assert "up to date" in shell(project.root, "dvc", "repro")
    # In turn, so that both meet the same machine; again where other work disturbed one of them.
    for _ in range(3):
        runs = [[timed(project, "dvc", "repro") for project in (young, old)] for _ in range(7)]
        two, many = (statistics.median(run[which][0] for run in runs) for which in (0, 1))
        print(f"day 2: {two:.2f} s, day 200: {many:.2f} s, ratio {many / two:.2f}")
        if many <= 1.3 * two:
            break
    assert many <= 1.3 * two


def test_a_text_stage_of_a_thousand_images_takes_less_than_two_seconds(base, shell):
    project = Project(base.root.parent / "thousand")
    shutil.copytree(base.root, project.root, symlinks=True)
    assert params_file.read(project.params).day == UNOPENED
    shell(project.root, "dayfold", "open", DAYS[0])
    for label in range(10):
        place(project.images(DAYS[0]), str(label), range(label * 100, label * 100 + 100))
    counts = [Evaluation(DAYS[0], DAYS[0], str(n), str(n), 9, 20, 0.9, None) for n in range(10)]
    tables.write(project.evaluation(DAYS[0]), Evaluation, counts)
    provenance = (
        '{"draws": {"all": 1, "by_class": {}}, "new_classes": [],'
        ' "images": {"today": 1000, "replayed": 0, "trained": 700}}'
    )
    project.provenance.write_text(provenance)
    for stage in (snapshot, weights, replay, curve):
        name = stage.__name__.rpartition(".")[2]
        # Other work slows the clock, and the processor where two share a core.
        seconds = min(min(timed(project, "dayfold", name)) / slowness() for _ in range(3))
        print(f"{name}: {seconds:.2f} s")
        assert seconds < 2, name


def test_help_takes_less_than_half_a_second(base):
    seconds = min(timed(base, "dayfold", "--help")[1] / slowness() for _ in range(5))
    print(f"--help: {seconds:.2f} s")
    assert seconds < 0.5
