"""What grows with the history, and what may not."""

import resource
import shutil
import statistics
import subprocess
import time
from datetime import date, timedelta
from pathlib import Path

import pytest

from builders import place
from dayfold import cycle
from dayfold.ledger import tables
from dayfold.ledger.tables import Evaluation
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.layout import ORIGIN, UNOPENED, Project
from dayfold.stages import curve, replay, snapshot, weights

pytestmark = pytest.mark.slow

DAYS = [(date(2024, 1, 1) + timedelta(days=number)).isoformat() for number in range(200)]


def with_history(base: Project, root: Path, days: int) -> Project:
    """A project whose first `days` - 1 days are simulated: all their files, no training."""
    shutil.copytree(base.root, root, symlinks=True)
    project = Project(root)
    parent = ORIGIN
    for number, day in enumerate(DAYS[: days - 1]):
        params_file.edit(project.params, {"day": day, "parent": parent})
        place(project.images(day), "0", range(number * 20, number * 20 + 10))
        place(project.images(day), "1", range(number * 20 + 10, number * 20 + 20))
        cycle.corrections.write_empty(project, day)
        snapshot.run(project, params_file.read(project.params))
        counts = [Evaluation(day, cohort, "0", "0", 2, 0.9, 2) for cohort in DAYS[: number + 1]]
        tables.write(project.evaluation(day), Evaluation, counts)
        parent = day
    simulated = DAYS[: days - 1]
    vcs.dvc(root, "add", "--quiet", *(project.name(project.images(day)) for day in simulated))
    for day in simulated:
        cycle._fold_into_month(project, day)
    return project


def open_last(project: Project, day: str, parent: str) -> None:
    place(project.images(day), "0", range(100_000, 100_010))
    place(project.images(day), "1", range(200_000, 200_010))
    cycle.corrections.write_empty(project, day)
    vcs.dvc(project.root, "add", "--quiet", project.name(project.images(day)))
    params_file.edit(project.params, {"day": day, "parent": parent})


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
    project = Project(root)
    quick = {"train.epochs": 1, "train.updates_per_epoch": 1, "train.batch_size": 2}
    params_file.edit(project.params, quick)
    return project


def test_a_repro_with_nothing_to_do_takes_no_longer_on_day_200_than_on_day_2(base, shell):
    young = with_history(base, base.root.parent / "two", 2)
    old = with_history(base, base.root.parent / "two hundred", 200)
    open_last(young, DAYS[1], DAYS[0])
    open_last(old, DAYS[199], DAYS[198])
    for project in (young, old):
        shell(project.root, "dvc", "repro")
        assert "up to date" in shell(project.root, "dvc", "repro")
    # In turn, so that both meet the same machine.
    runs = [[timed(project, "dvc", "repro") for project in (young, old)] for _ in range(9)]
    two, many = (statistics.median(run[which][0] for run in runs) for which in (0, 1))
    print(f"day 2: {two:.2f} s, day 200: {many:.2f} s, ratio {many / two:.2f}")
    assert many <= 1.3 * two


def test_text_stages_take_less_than_two_seconds_of_the_processor(base, shell):
    project = Project(base.root.parent / "thousand")
    shutil.copytree(base.root, project.root, symlinks=True)
    assert params_file.read(project.params).day == UNOPENED
    shell(project.root, "dayfold", "open", DAYS[0])
    for label in range(10):
        place(project.images(DAYS[0]), str(label), range(label * 100, label * 100 + 100))
    counts = [Evaluation(DAYS[0], DAYS[0], str(n), str(n), 20, 0.9, None) for n in range(10)]
    tables.write(project.evaluation(DAYS[0]), Evaluation, counts)
    provenance = (
        '{"draws": {"all": 1, "by_class": {}}, "new_classes": [],'
        ' "images": {"today": 1000, "replayed": 0, "trained": 700}}'
    )
    project.provenance.write_text(provenance)
    for stage in (snapshot, weights, replay, curve):
        name = stage.__name__.rpartition(".")[2]
        seconds = min(timed(project, "dayfold", name)[0] for _ in range(3))
        print(f"{name}: {seconds:.2f} s")
        assert seconds < 2, name


def test_help_takes_less_than_half_a_second(base):
    seconds = min(timed(base, "dayfold", "--help")[1] for _ in range(5))
    print(f"--help: {seconds:.2f} s")
    assert seconds < 0.5
