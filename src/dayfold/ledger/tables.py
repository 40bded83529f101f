"""The tables in which stages meet: their columns, once, and how they are written and read."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, get_type_hints

import polars as pl

from dayfold.errors import LedgerError
from dayfold.project.files import parse_csv, write_csv
from dayfold.project.layout import Project

_TYPES: dict[object, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    int | None: pl.Int64(),
    float | None: pl.Float64(),
}


class VersionWeight(NamedTuple):
    """weights.csv: what an image of a data version counts for today.

    `age` in data versions (0 = today), `images` its training images, `share` the part of today's
    draws that they are expected to get.
    """

    day: str
    age: int
    images: int
    weight: float
    share: float


class Replayed(NamedTuple):
    """replay.csv: one image of the replay set, its recency weight, the key that chose it."""

    image: str
    path: str
    label: str
    day: str
    weight: float
    key: float


class Prediction(NamedTuple):
    """predictions.csv: the model on one held-out image; `confidence` is that of `predicted`."""

    image: str
    day: str
    split: str
    label: str
    predicted: str
    confidence: float


class Evaluation(NamedTuple):
    """evaluations/<day>.csv: how many test images of a cohort and label were predicted as what.

    `confidence` is their mean confidence; `parent_correct` how many of them yesterday's model had
    right, empty where there was none to ask.
    """

    model: str
    cohort: str
    label: str
    predicted: str
    images: int
    confidence: float
    parent_correct: int | None


class TrainingStep(NamedTuple):
    """plots/training.csv: one update; the validation accuracy at the end of each epoch only."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    validation_accuracy: float | None


class ClassScore(NamedTuple):
    """plots/classification.csv: one class on all test images, as scikit-learn defines it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class CohortAccuracy(NamedTuple):
    """plots/cohorts.csv: accuracy of one day's model on the test images of one cohort."""

    day: str
    cohort: str
    accuracy: float


class Confusion(NamedTuple):
    """plots/confusion.csv: how many test images of a label today's model predicts as what."""

    label: str
    predicted: str
    images: int


def schema(kind: type[NamedTuple]) -> dict[str, pl.DataType]:
    """Return a table's columns and their types, in order."""
    return {name: _TYPES[hint] for name, hint in get_type_hints(kind).items()}


def write(path: Path, kind: type[NamedTuple], rows: Iterable[tuple[object, ...]]) -> None:
    """Write a table atomically, in the order of its rows."""
    write_csv(path, list(schema(kind)), rows)


def read(path: Path, kind: type[NamedTuple]) -> pl.DataFrame:
    """Read a table; LedgerError where it is missing or has other columns."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise LedgerError(
            f"{_shown(path)} is missing.",
            mend=f"dvc checkout; git checkout -- {_shown(path)}; or, of the open day, dvc repro",
        ) from None
    return parse_csv(data, schema(kind), _shown(path))


def _shown(path: Path) -> str:
    """The path as a command typed here takes it."""
    return os.path.relpath(path)


def evaluations(project: Project, until: str) -> tuple[pl.DataFrame, list[str]]:
    """Return all days' evaluations up to `until` as one table, and those days in order."""
    days = sorted(path.stem for path in project.evaluations.glob("*.csv") if path.stem <= until)
    empty = pl.DataFrame(schema=schema(Evaluation))
    return pl.concat([empty, *(read(project.evaluation(day), Evaluation) for day in days)]), days
