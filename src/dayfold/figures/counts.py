"""All days' evaluations as counts: by cohort and by class, a row a day.

After 1,000 days the evaluations are 200 MB. So the counts of earlier days are cached (8 MB), and
only new and changed files are read. Today's file is read each time.
"""

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dayfold.ledger import tables
from dayfold.project.files import stamp, write_bytes
from dayfold.project.layout import Project

HIT = pl.col("label") == pl.col("predicted")
RIGHT = pl.col("images").filter(HIT).sum()


class Counts(NamedTuple):
    """How many test images were right, and how many there were: float64, of one shape."""

    right: NDArray[np.float64]
    images: NDArray[np.float64]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The part that was right, 0..1; NaN without test images."""
        with np.errstate(invalid="ignore"):
            return self.right / self.images

    def part(self, *index: Any) -> "Counts":
        return Counts(self.right[index], self.images[index])


class Counted(NamedTuple):
    """The counts of the models of `days` on the test images of these days.

    `cohorts` [days, days]: row i is the model of day i, column j the images that arrived on day j;
    it is 0 right of the diagonal. `classes` [days, labels] has the same by label. `ahead` [days]
    counts the previous day's model on the images of each day.
    """

    days: list[str]
    labels: list[str]
    cohorts: Counts
    classes: Counts
    ahead: Counts

    def first(self, count: int) -> "Counted":
        rows, (days, labels, cohorts, classes, ahead) = slice(count), self
        columns = np.flatnonzero(classes.images[rows].sum(axis=0))
        return Counted(
            days[rows],
            [labels[at] for at in columns],
            cohorts.part(rows, rows),
            classes.part(rows, columns),
            ahead.part(rows),
        )


def counted(evaluations: pl.DataFrame, days: Sequence[str], kept: Counted | None = None) -> Counted:
    """Count the evaluations of `days`; the counts in `kept` are used for the first days."""
    # The origin as a model is left out: it is no day, and it sorts after every date.
    own = evaluations.filter(pl.col("cohort") <= pl.col("model"), pl.col("model").is_in(days))
    labels = sorted({*own["label"], *(kept.labels if kept else ())})
    ahead = evaluations.filter(pl.col("model") < pl.col("cohort")).with_columns(all=pl.lit(""))
    found = Counted(
        list(days),
        labels,
        by_two(own, model=days, cohort=days),
        by_two(own, model=days, label=labels),
        Counts(*(one[:, 0] for one in by_two(ahead, cohort=days, all=[""]))),
    )
    if kept:
        rows, columns = slice(len(kept.days)), np.searchsorted(labels, kept.labels)
        places: tuple[Any, ...] = ((rows, rows), (rows, columns), rows)
        for target, source, at in zip(found[2:], kept[2:], places, strict=True):
            target.right[at], target.images[at] = source
    return found


def by_two(evaluations: pl.DataFrame, **keys: Sequence[str]) -> Counts:
    """Count by two columns; rows and columns have the given values, in their order."""
    row_of, column_of = ({name: n for n, name in enumerate(names)} for names in keys.values())
    found = np.zeros((2, len(row_of), len(column_of)))
    cells = evaluations.group_by(*keys).agg(right=RIGHT, images=pl.col("images").sum())
    for row, column, right, images in cells.iter_rows():
        if row in row_of and column in column_of:
            found[:, row_of[row], column_of[column]] = right, images
    return Counts(*found)


def read(project: Project, until: str) -> Counted:
    """Count the evaluations of all days up to `until`; keep what was counted for the next time."""
    days = tables.evaluated(project, until)
    stamps = [stamp(project.evaluation(day)) for day in days]
    kept = _cached(project.counts, stamps[:-1])
    known = len(kept.days) if kept else 0
    found = counted(tables.evaluations(project, days[known:]), days, kept)
    if known < len(days) - 1:
        _cache(project.counts, found.first(len(days) - 1), stamps[:-1])
    return found


def _cached(path: Path, stamps: Sequence[str]) -> Counted | None:
    with suppress(OSError, ValueError, KeyError, EOFError, BadZipFile):
        kept = np.load(BytesIO(path.read_bytes()))
        both = zip(kept["stamps"].tolist(), stamps, strict=False)
        same = takewhile(lambda pair: pair[0] == pair[1], both)
        days = [Path(name.split()[0]).stem for name, _ in same]
        parts = (Counts(*kept[name].astype(np.float64)) for name in _COUNTS)
        return Counted(days, kept["labels"].tolist(), *parts).first(len(days))
    return None


_COUNTS = Counted._fields[2:]


def _cache(path: Path, found: Counted, stamps: Sequence[str]) -> None:
    file = BytesIO()
    kept = {name: np.array(getattr(found, name), np.int32) for name in _COUNTS}
    kept |= {"stamps": np.array(stamps, "U"), "labels": np.array(found.labels, "U")}
    np.savez(file, allow_pickle=False, **kept)
    with suppress(OSError):  # the cache is optional on a full disk
        write_bytes(path, file.getvalue())
