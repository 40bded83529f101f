"""The accuracy matrix: kept, forgotten and transferred.

R[i, j] is the accuracy on cohort j (the test images that arrived on day j) of the model of day i.
Libraries disagree on what the names below mean; each docstring says what dayfold means, and
docs/metrics.md what others do.
"""

from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dayfold.figures.counts import Counted, Counts, by_two
from dayfold.figures.intervals import UNKNOWN, Ends, linear, wilson
from dayfold.ledger.tables import CohortAccuracy

Matrix = NDArray[np.float64]
DRAWN = 128  # days of the accuracy matrix that are drawn
Cells = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows and columns of a matrix
Figures = dict[str, float | None]


def cohorts(
    counted: Counted, corrected: Collection[tuple[str, str, str]] = ()
) -> list[CohortAccuracy]:
    """Return the cells of the accuracy matrix that have test images, by day and cohort.

    They are for drawing, so of more than DRAWN days only some are there (`drawn`). `corrected` are
    corrections of test images as (cohort, day of the correction, image).
    """
    days = drawn(counted.days)
    places = np.searchsorted(counted.days, days)
    at: dict[str, list[tuple[str, str]]] = {}
    for cohort, on, image in corrected:
        at.setdefault(cohort, []).append((on, image))
    right, images = counted.cohorts.part(*np.ix_(places, places))
    low, high = wilson(right, images)
    return [
        CohortAccuracy(
            day,
            cohort,
            accuracy=float(right[i, j] / images[i, j]),
            images=int(images[i, j]),
            low=float(low[i, j]),
            high=float(high[i, j]),
            corrected=len({image for on, image in at.get(cohort, ()) if on > day}),
        )
        for i, day in enumerate(days)
        for j, cohort in enumerate(days[: i + 1])
        if images[i, j]
    ]


def drawn(days: Sequence[str]) -> Sequence[str]:
    """Return every day, or every second, fourth, eighth…, so that DRAWN are left; and the last."""
    step = 1
    while len(days) > DRAWN * step:
        step *= 2
    return days if step == 1 else [*days[:-1:step], days[-1]]


# Each of these four is a mean of cells, or of cells less others, so that the figure and its
# interval come from the same cells.
def _last(matrix: Matrix) -> tuple[Cells, Cells | None]:
    """ACC = mean_j R[T, j], in 0..1 (Lopez-Paz & Ranzato 2017)."""
    columns = np.flatnonzero(~np.isnan(matrix[-1]))
    return (np.full_like(columns, len(matrix) - 1), columns), None


def _diagonal(matrix: Matrix) -> tuple[Cells, Cells | None]:
    """Mean_j R[j, j], in 0..1: how well each cohort was known on the evening it arrived."""
    days = np.flatnonzero(~np.isnan(np.diagonal(matrix)))
    return (days, days), None


def _last_upon_first(matrix: Matrix) -> tuple[Cells, Cells | None]:
    """BWT = mean_{j<T} (R[T, j] - R[j, j]), in -1..1 (Lopez-Paz & Ranzato 2017)."""
    days = np.flatnonzero(~np.isnan(matrix[-1] - np.diagonal(matrix))[:-1])
    return (np.full_like(days, len(matrix) - 1), days), (days, days)


def _best_upon_last(matrix: Matrix) -> tuple[Cells, Cells | None]:
    """Mean_{j<T} (max_{j<=l<T} R[l, j] - R[T, j]), in -1..1, negatives kept (Chaudhry 2018)."""
    if len(matrix) < 2:
        none = np.empty(0, dtype=np.intp)
        return (none, none), (none, none)
    earlier = np.where(np.isnan(matrix[:-1, :-1]), -np.inf, matrix[:-1, :-1])
    days = np.flatnonzero((earlier.max(axis=0) >= 0) & ~np.isnan(matrix[-1, :-1]))
    return (earlier.argmax(axis=0)[days], days), (np.full_like(days, len(matrix) - 1), days)


_CELLS = {
    "average_accuracy": _last,
    "forgetting": _best_upon_last,
    "backward_transfer": _last_upon_first,
    "learning_accuracy": _diagonal,
}


def figures(counts: Counts) -> tuple[Figures, dict[str, Ends]]:
    """Return the four figures of the matrix by name, and their 95% intervals."""
    matrix, values, ends = counts.accuracy, {}, {}
    for name, of in _CELLS.items():
        values[name], ends[name] = _mean(counts, matrix, *of(matrix))
    return values, ends


def _mean(
    counts: Counts, matrix: Matrix, cells: Cells, less: Cells | None
) -> tuple[float | None, Ends]:
    """The mean of cells, or of cells less others, with MOVER over their Wilson intervals.

    Both sides of a difference are taken as independent. They are measured on the same images, on
    which two models mostly agree, so that the interval is too wide rather than too narrow.
    """
    if not len(cells[0]):
        return None, UNKNOWN
    mean = float(np.mean(matrix[cells] if less is None else matrix[cells] - matrix[less]))
    both = cells if less is None else tuple(np.hstack([cells, less]))
    right, images = counts.right[both], counts.images[both]
    weights = np.full(len(right), 1 / len(cells[0]))
    weights[len(cells[0]) :] *= -1
    return mean, linear(weights, right / images, *wilson(right, images))


def transfer(ahead: Counts, classes: NDArray[np.intp]) -> tuple[Figures, dict[str, Ends]]:
    """FWT = mean_{j>1} (R[j-1, j] - b_j), in -1..1 (Lopez-Paz & Ranzato 2017), and its interval.

    `ahead` holds R[j-1, j], yesterday's model on today's cohort, of several days. b_j is
    1 / the number of `classes` tested on day j, old and new: what guessing among them would reach.
    A class that is new on day j is one that yesterday's model cannot name, which counts against it.
    """
    chance = 1 / classes
    upon, (low, high) = ahead.accuracy - chance, wilson(*ahead)
    weights = np.full(len(classes), 1 / max(len(classes), 1))
    return (
        {"forward_transfer": float(upon.mean()) if upon.size else None},
        {"forward_transfer": linear(weights, upon, low - chance, high - chance)},
    )


def class_forgetting(
    counted: Counted, mine: pl.DataFrame, today: int
) -> tuple[dict[str, float], dict[str, Ends]]:
    """Return, a class, the most that any earlier day's model had upon today's, and its interval.

    Max_{l<T} (recall of day l's model - recall of today's), both on the class's test images up to
    day l, in -1..1, negatives kept: Chaudhry's (2018) forgetting with a class for a task.
    `today` is the place of day T among the days, `mine` its model's evaluation. Classes that no
    earlier day had are left out.
    """
    labels, before = counted.labels, counted.classes.part(slice(today))
    by_cohort = by_two(mine, cohort=counted.days[:today], label=labels)
    now = Counts(by_cohort.right.cumsum(axis=0), by_cohort.images.cumsum(axis=0))
    with np.errstate(invalid="ignore"):
        falls = np.nan_to_num(before.accuracy - now.accuracy, nan=-np.inf)
    values, ends = {}, {}
    for column, day in enumerate(falls.argmax(axis=0) if today else ()):
        if np.isfinite(falls[day, column]):
            label, cell = labels[column], (day, column)
            values[label] = float(falls[cell])
            (low, high), (low_now, high_now) = (
                wilson(counts.right[cell], counts.images[cell]) for counts in (before, now)
            )
            both = (before.accuracy[cell], now.accuracy[cell])
            ends[label] = linear([1, -1], both, [low, low_now], [high, high_now])
    return values, ends
