"""Histories with all that a report is made of, without any training: for speed, and for names."""

import subprocess
from collections.abc import Sequence
from datetime import date, timedelta

import polars as pl

from builders import image, make_project, place, png, write_manifest
from dayfold import draws
from dayfold.figures import counts, evidence, gate, log, retention
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import Row
from dayfold.ledger.tables import Check, CohortAccuracy, Evaluation, Flip, NearDuplicate, Prediction
from dayfold.project import params as params_file
from dayfold.project.files import sha256
from dayfold.project.layout import ORIGIN, Project

SPLITS = ("train",) * 7 + ("validation",) + ("test",) * 2


def dates(count: int) -> list[str]:
    return [(date(2025, 6, 2) + timedelta(days=n)).isoformat() for n in range(count)]


def write_history(root, *, days: Sequence[str], labels: Sequence[str], files: bool) -> Project:
    """Write a project whose last label is new on the last day; its images too if `files`."""
    project = make_project(root)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    number, parent = 0, ORIGIN
    for day in days:
        rows = []
        for label in labels if day == days[-1] else labels[:-1]:
            folder = label.replace("/", "")
            for split in SPLITS:
                name = f"{project.name(project.images(day))}/{folder}/{number}.png"
                if files:
                    place(project.images(day), folder, [number])
                id_ = sha256(png(number)) if files else image(number)
                rows.append(Row("add", id_, name, label, "", split))
                number += 1
        write_manifest(project, day, parent, rows)
        _evaluate(project, day, days, labels)
        parent = day
    params_file.edit(project.params, {"day": days[-1], "parent": days[-2]})
    params = params_file.read(project.params)
    figures = log.lines(project, params)[-1].figures
    known = evidence.of(manifest.history(project, days[-1]))
    checks = gate.checks(figures, new=[labels[-1]], known=known, limits=params.gate)
    tables.write(project.gate(days[-1]), Check, checks)
    _plans_and_predictions(project, days[-1], labels)
    return project


def _evaluate(project: Project, day: str, days: Sequence[str], labels: Sequence[str]) -> None:
    """Of the two test images of a cohort and class, one is wrong now and then."""
    rows = []
    for cohort in days[: days.index(day) + 1]:
        known = labels if cohort == days[-1] else labels[:-1]
        chance = draws.uniforms("right", 0, day + cohort, ids=list(known))
        for place_, (label, u) in enumerate(zip(known, chance, strict=True)):
            before = None if day == days[0] else 1
            if u < 0.3:
                other = known[place_ - 1]
                rows.append((day, cohort, label, other, 6, 1, 0.65, before))
            right = 1 if u < 0.3 else 2
            rows.append((day, cohort, label, label, 9, right, 0.94, before))
    tables.write(project.evaluation(day), Evaluation, sorted(rows))


def _plans_and_predictions(project: Project, day: str, labels: Sequence[str]) -> None:
    images = manifest.history(project, day).images
    held = images.filter(pl.col("split") != "train")
    answers = []
    for row in held.iter_rows(named=True):
        wrong = int(row["image"][:4], 16) % 9 == 0
        said = labels[labels.index(row["label"]) - 1] if wrong else row["label"]
        sure = 0.5 + int(row["image"][4:8], 16) / 2**17
        answers.append((row["image"], row["day"], row["split"], row["label"], said, sure))
    tables.write(project.predictions, Prediction, answers)
    test = held.filter((pl.col("split") == "test") & (pl.col("label") == labels[0]))
    flips = [(path, labels[0], labels[0], labels[1], 0.8) for path in test["path"].head(20)]
    tables.write(project.plot("flips"), Flip, flips)
    cells = retention.cohorts(counts.read(project, day))
    tables.write(project.plot("cohorts"), CohortAccuracy, cells)
    one, two = (tuple(row) for row in held.select("path", "label", "split").head(2).iter_rows())
    tables.write(project.plot("near_duplicates"), NearDuplicate, [(*one, *two, 3)])
