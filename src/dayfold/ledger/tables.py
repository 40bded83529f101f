"""The tables in which stages meet."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import polars as pl

from dayfold.errors import LedgerError
from dayfold.project.files import for_spreadsheet, from_spreadsheet, parse_csv, write_csv
from dayfold.project.layout import Project

BINS = 10  # of confidence, equally wide: bin b holds b/10 up to (b+1)/10, the last one 1.0 too

_TYPES: dict[object, pl.DataType] = {
    str: pl.String(),
    int: pl.Int64(),
    float: pl.Float64(),
    int | None: pl.Int64(),
    float | None: pl.Float64(),
}


class ImageGroup(NamedTuple):
    """groups/<day>.csv: the patient or study of an image, if a CSV of labels names it."""

    image: str
    group: str


class RemarkRow(NamedTuple):
    """.dvc/tmp/dayfold/remarks.csv: all remarks of `add` or snapshot, if too many to print."""

    kind: str
    path: str
    image: str
    said: str


class Rejected(NamedTuple):
    """rejected/<day>.csv: a file that was given for the day and refused, and why.

    `source` is relative to the project's folder, `path` to the source; `image` is empty if its
    bytes could not be read.
    """

    source: str
    path: str
    image: str
    reason: str


class Look(NamedTuple):
    """looks/<day>.csv: the look (looks.py) of an image of the day; empty for a plain image."""

    image: str
    look: str


class NearDuplicate(NamedTuple):
    """plots/near_duplicates.csv: an image of today, and the nearest of another split or class."""

    path: str
    label: str
    split: str
    other_path: str
    other_label: str
    other_split: str
    bits: int


class VersionWeight(NamedTuple):
    """weights.csv: the weight of each training image of a data version `age` versions old."""

    day: str
    age: int
    images: int
    weight: float


class Replayed(NamedTuple):
    """replay.csv: one image of the replay set, its weight today, and why it was chosen.

    `reason` is the policy or "minimum" (of its class), `key` the number by which it was chosen.
    """

    image: str
    path: str
    label: str
    day: str
    weight: float
    key: float
    reason: str


class PoolShare(NamedTuple):
    """shares.csv: a day's images of a class in today's pool, and their share of today's draws."""

    day: str
    label: str
    images: int
    weight: float
    share: float


class Prediction(NamedTuple):
    """predictions.csv: the prediction for a held-out image; `confidence` is that of `predicted`."""

    image: str
    day: str
    split: str
    label: str
    predicted: str
    confidence: float


class Evaluation(NamedTuple):
    """evaluations/<day>.csv: how many test images of a cohort and label were predicted as what.

    `bin` is the tenth, 0..9, that each confidence is in, and `confidence` their mean.
    `parent_correct` counts those that yesterday's model had right; empty without one. Every figure
    of a day is made from this table alone.
    """

    model: str
    cohort: str
    label: str
    predicted: str
    bin: int
    images: int
    confidence: float
    parent_correct: int | None


class Flip(NamedTuple):
    """plots/flips.csv: a test image that yesterday's model had right and today's has wrong."""

    path: str
    label: str
    parent_predicted: str
    predicted: str
    confidence: float


class Unknown(NamedTuple):
    """unknown/<day>.csv: today's images of a class, as yesterday's model saw them.

    `new` is 1 for a class that the model had no images of, else 0; the lines without a label have
    the totals of each kind. `units` counts groups (`evidence.UNITS`), `unknown` the images that
    were called unknown; it is empty if that is off. `auroc` is how well the distance separates a
    new class from all known ones.
    """

    label: str
    new: int
    images: int
    units: int
    unknown: int | None
    auroc: float | None


class Unlike(NamedTuple):
    """plots/unlike.csv: images of today, farthest from what yesterday's model had learnt, first."""

    path: str
    label: str
    predicted: str
    distance: float


class TrainingStep(NamedTuple):
    """plots/training.csv: one update."""

    step: int
    epoch: int
    loss: float
    learning_rate: float


class ClassScore(NamedTuple):
    """plots/classification.csv: a class on all test images, with 95% intervals."""

    label: str
    precision: float
    recall: float
    recall_low: float
    recall_high: float
    f1: float
    f1_low: float
    f1_high: float
    support: int


class CohortAccuracy(NamedTuple):
    """plots/cohorts.csv: accuracy of one day's model on the test images of one cohort.

    `low` and `high` are the ends of its 95% interval. `corrected` counts the test images that were
    relabelled or withdrawn later: the accuracy stays as measured, under the labels of its day.
    """

    day: str
    cohort: str
    accuracy: float
    images: int
    low: float
    high: float
    corrected: int


class Check(NamedTuple):
    """gates/<day>.csv: one limit of the gate, and the figure that was compared with it.

    `label` is the class, for a limit on each class. `value` is the figure with its 95% interval,
    empty if undefined. `passed` is 0 or 1, empty if not judged. For require_evidence `value` counts
    the checks that are not judged.
    """

    limit: str
    label: str
    bound: float
    value: float | None
    low: float | None
    high: float | None
    passed: int | None


class Confusion(NamedTuple):
    """plots/confusion.csv: how many test images of a label today's model predicts as what."""

    label: str
    predicted: str
    images: int


class BacktestRun(NamedTuple):
    """backtest/runs.csv: a policy and seed over the days of a history.

    Figures are those of the last day. But `anytime_accuracy` and `negative_flip_rate` are means
    over days, `new_f1` and `new_confidence` means over days with new classes, and the last three
    columns sums over days.
    """

    policy: str
    seed: int
    average_accuracy: float | None
    anytime_accuracy: float | None
    forgetting: float | None
    backward_transfer: float | None
    forward_transfer: float | None
    learning_accuracy: float | None
    weighted_f1: float | None
    worst_f1: float | None
    negative_flip_rate: float | None
    new_f1: float | None
    new_confidence: float | None
    images: int
    draws: int
    seconds: float


class PolicyAccuracy(NamedTuple):
    """backtest/cohorts.csv: like plots/cohorts.csv, for each policy and seed."""

    policy: str
    seed: int
    day: str
    cohort: str
    accuracy: float


class Doubt(NamedTuple):
    """audit/<day>.csv: an image whose label is doubted, with the likeliest other class.

    `score` is 0 (surely wrong) .. 1; a person fills in `decision`: a class, keep or withdraw.
    """

    image: str
    path: str
    label: str
    suggested: str
    score: float
    decision: str


def schema(kind: type[NamedTuple]) -> dict[str, pl.DataType]:
    return {name: _TYPES[hint] for name, hint in get_type_hints(kind).items()}


def write(path: Path, kind: type[NamedTuple], rows: Iterable[tuple[object, ...]]) -> None:
    write_csv(path, list(schema(kind)), rows)


def read(path: Path, kind: type[NamedTuple]) -> pl.DataFrame:
    """Read a table; raise LedgerError if it is missing or has other columns."""
    name = os.path.relpath(path)  # as a command in the current folder takes it
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise LedgerError(
            f"{name} is missing.",
            hint=f"dvc checkout; git checkout -- {name}; or, on the open day, dvc repro",
        ) from None
    return parse_csv(data, schema(kind), name)


def spreadsheet_rows(rows: Iterable[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """Yield rows for a table that people open in a spreadsheet: no cell becomes a formula."""
    for row in rows:
        yield tuple(for_spreadsheet(cell) if isinstance(cell, str) else cell for cell in row)


def from_spreadsheet_rows(table: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as they were before `spreadsheet_rows`."""
    texts = table.with_columns(pl.col(pl.String).map_elements(from_spreadsheet, pl.String))
    return texts.rows(named=True)


def evaluated(project: Project, until: str) -> list[str]:
    return sorted(path.stem for path in project.evaluations.glob("*.csv") if path.stem <= until)


def evaluations(project: Project, days: Iterable[str]) -> pl.DataFrame:
    empty = pl.DataFrame(schema=schema(Evaluation))
    return pl.concat([empty, *(read(project.evaluation(day), Evaluation) for day in days)])


def unknown(project: Project, day: str) -> pl.DataFrame:
    """Return what was unknown to the model before a day; empty for days of older versions."""
    path = project.unknown(day)
    return read(path, Unknown) if path.exists() else pl.DataFrame(schema=schema(Unknown))
