"""What several test files build: projects, small distinct images, simulated histories."""

import csv
import io
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partialmethod
from importlib import import_module
from pathlib import Path
from types import ModuleType

import polars as pl
import yaml
from PIL import Image

from dayfold import create
from dayfold.cycle import adding
from dayfold.cycle.adding import Options
from dayfold.figures import metrics
from dayfold.figures.counts import counted
from dayfold.ledger import corrections, grouping, manifest
from dayfold.ledger.intake.delivery import Delivery
from dayfold.ledger.manifest import History, Row
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.files import sha256, sha256_file, write_bytes
from dayfold.project.layout import ORIGIN, Project
from dayfold.stages import snapshot

ROOT = Path(__file__).parent.parent
DAYS = tuple(f"2025-06-{day:02}" for day in range(1, 31))
IDENTITY = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (("NAME", "A Tester"), ("EMAIL", "tester@example.org"))
}
NO_GATE = {
    f"gate.{key}": None for key in params_file.Gate.model_fields if key != "require_evidence"
}
# A training that takes a moment.
TINY = {
    "train__image_size_px": 16,
    "train__updates": 1,
    "train__batch_size": 4,
    "train__threads": 1,
    "origin__weights": "random",
}
FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def benchmark(name: str) -> ModuleType:
    """A script of benchmarks/, as a module."""
    if (folder := str(ROOT / "benchmarks")) not in sys.path:
        sys.path.append(folder)
    return import_module(name)


def shell(folder: Path, *words: str, code: int = 0, **environment: str) -> str:
    """Run a command as a user would, and return all that it prints; fail on its exit code."""
    done = subprocess.run(
        words,
        cwd=folder,
        env={**vcs.environment(), **IDENTITY, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1800,
    )
    assert done.returncode == code, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


class RealProject(Project):
    """A project in which commands are run, as a user would: `project.git("tag", code=1)`."""

    def shell(self, *words: str, **options: object) -> str:
        return shell(self.root, *words, **options)

    dayfold = partialmethod(shell, "dayfold")
    dvc = partialmethod(shell, "dvc")
    git = partialmethod(shell, "git")
    sh = partialmethod(shell, "sh")


def a_free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    image.copy().save(file, form, **options)  # saving leaves marks on an image
    return file.getvalue()


def png(number: int) -> bytes:
    """An 8x8 PNG whose bytes are those of no other number below 2**24."""
    colour = (number % 256, number // 256 % 256, number // 65536)
    return encoded(Image.new("RGB", (8, 8), colour))


def place(folder: Path, label: str, numbers: Iterable[int], prefix: str = "") -> list[Path]:
    """Write the images of these numbers into a class folder."""
    (folder / label).mkdir(parents=True, exist_ok=True)
    paths = [folder / label / f"{prefix}{number}.png" for number in numbers]
    for path, number in zip(paths, numbers, strict=True):
        path.write_bytes(png(number))
    return paths


def make_project(root: Path, **changes: object) -> RealProject:
    """A project as `init` leaves it, without git and DVC; changes by `section__key=value`."""
    project = RealProject(root)
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", project.params)
    project.manifests.mkdir(parents=True)
    shutil.copy(ROOT / "data" / "manifests" / "origin.csv", project.manifest(ORIGIN))
    edited = {key.replace("__", "."): value for key, value in changes.items()}
    params_file.edit(project.params, edited)
    return project


def make_trainable(root: Path, **changes: object) -> RealProject:
    """A project whose days can be trained in a moment; changes as above."""
    project = make_project(root, **{**TINY, **changes})
    create.make_origin(project, params_file.read(project.params))
    return project


def run_stages(project: Project, *stages: ModuleType) -> None:
    """Run stages by the params as they are now."""
    for stage in stages:
        stage.run(project, params_file.read(project.params))


def fill_outputs(project: Project, day: str) -> None:
    """Write something to each output of the stages that is not there, as if the day were made."""
    text = project.dvc_yaml.read_text(encoding="utf-8").replace("${day}", day)
    for stage in yaml.load(text, Loader=yaml.CSafeLoader)["stages"].values():
        for out in stage["outs"]:
            path = project.root / (out if isinstance(out, str) else next(iter(out)))
            if not path.exists():
                write_bytes(path, path.name.encode())


def open_day(project: Project, day: str) -> None:
    """Open a day as `dayfold add --day` does, as far as the stages without a model see it."""
    before = params_file.read(project.params).day
    parent = ORIGIN if before == "none" else before
    params_file.edit(project.params, {"day": day, "parent": parent})
    project.images(day).mkdir(parents=True)
    corrections.write_empty(project, day)


def take_in(project: Project, day: str, images: Mapping[str, Iterable[int]]) -> History:
    """Open a day, write its images and run snapshot; the history up to the day."""
    open_day(project, day)
    for label, numbers in images.items():
        place(project.images(day), label, list(numbers))
    run_stages(project, snapshot)
    return manifest.history(project, day)


def image(number: int) -> str:
    """An image's id in simulated histories, where no file is needed."""
    return sha256(str(number).encode())


def arrived(number: int, day: str, label: str, group: str = "", split: str = "test") -> Row:
    """The row of a simulated image that came on a day."""
    path = f"data/images/{day}/{label}/{number}.png"
    return Row("add", image(number), path, label, group, split)


def simulate(
    project: Project,
    arrivals: Sequence[Sequence[tuple[int, str, str]]],
    fractions: Mapping[str, float] = FRACTIONS,
    first: int = 0,
) -> list[History]:
    """Write a manifest a day of (number, label, group) images; the history after each day."""
    histories = []
    for position, arrived in enumerate(arrivals, start=first):
        parent = DAYS[position - 1] if position else ORIGIN
        earlier = histories[-1] if histories else manifest.history(project, parent)
        tuples = [
            (image(number), f"data/images/{DAYS[position]}/{label}/{number}.png", label, group)
            for number, label, group in arrived
        ]
        units = grouping.units(tuples, earlier=earlier, expression="")
        rows = snapshot.rows_of(tuples, units=units, earlier=earlier, fractions=dict(fractions))
        histories.append(write_day(project, DAYS[position], parent, rows))
    return histories


def write_day(
    project: Project, day: str, parent: str, rows: Sequence[Row], expression: str = ""
) -> History:
    """Write a manifest of these rows upon its parent; the history up to it."""
    write_manifest(project, day, parent, rows, expression)
    return manifest.history(project, day)


def write_manifest(
    project: Project, day: str, parent: str, rows: Sequence[Row], expression: str = ""
) -> None:
    """Write it only: to read a long history after each of its days takes longer than all else."""
    manifest.write(
        project.manifest(day),
        parent_day=parent,
        parent_sha256=sha256_file(project.manifest(parent)),
        rows=rows,
        expression=expression,
    )


def add(project: Project, source: Path, **options: object) -> Delivery:
    """Add what a folder holds to DAYS[0]; what was found."""
    return adding.add(project, source, day=DAYS[0], options=Options(**options))


def taken(project: Project) -> dict[str, bytes]:
    """The files of DAYS[0], by path below its folder."""
    return contents(project.images(DAYS[0]))


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by path; git's and DVC's own left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", ".dvc"} & set(path.parts)
    }


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def rejected(project: Project) -> list[dict[str, str]]:
    """The list of what was refused on DAYS[0]."""
    return table(project.rejected(DAYS[0]))


def day_metrics(evaluations: pl.DataFrame, days: Sequence[str], new: Mapping[str, Sequence[str]]):
    """The figures of the days of `new`, from the evaluations of all days as one table."""
    own = evaluations.filter(pl.col("cohort") <= pl.col("model"))
    mine = {day: own.filter(model=day) for day in new}
    return metrics.day_metrics(counted(evaluations, days), mine, new)
