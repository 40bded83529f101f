"""The accuracy matrix: kept, forgotten and transferred.

R[i, j] is the accuracy on cohort j (the test images that arrived on day j) of the model of day i.
Libraries use the names below for different formulas. Each docstring has dayfold's; docs/metrics.md
compares them with others.
"""

from collections.abc import Collection, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dayfold.figures.counts import Counted, Counts, by_two
from dayfold.figures.intervals import UNKNOWN, Ends, linear, wilson
from dayfold.ledger.tables import CohortAccuracy

DRAWN = 128  # days of the accuracy matrix that are drawn
Figures = dict[str, float | None]


def cohorts(
    counted: Counted, corrected: Collection[tuple[str, str, str]] = ()
) -> list[CohortAccuracy]:
    """Return the cells of the accuracy matrix that have test images, by day and cohort.

    They are for drawing, so with more than DRAWN days some are left out (`drawn`). `corrected` are
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
    """Return every day, or every 2nd, 4th, 8th…, so that at most DRAWN are left; and the last."""
    step = 1
    while len(days) > DRAWN * step:
        step *= 2
    return days if step == 1 else [*days[:-1:step], days[-1]]


def figures(counts: Counts) -> tuple[Figures, dict[str, Ends]]:
    """Return the four figures of the matrix by name, and their 95% intervals.

    T is the last day, and each is a mean over the cohorts j whose cells are defined:
    ACC = mean_j R[T, j], in 0..1 (Lopez-Paz & Ranzato 2017);
    forgetting = mean_{j<T} (max_{j<=l<T} R[l, j] - R[T, j]), in -1..1, negatives kept
    (Chaudhry 2018);
    BWT = mean_{j<T} (R[T, j] - R[j, j]), in -1..1 (Lopez-Paz & Ranzato 2017);
    learning accuracy = mean_j R[j, j], in 0..1: how well each cohort was known on the evening it
    arrived.

    The intervals are MOVER over the cells' Wilson intervals. Both sides of a difference are taken
    as independent. They are measured on the same images, on which two models mostly agree, so that
    the interval is too wide rather than too narrow.
    """
    matrix, days = counts.accuracy, np.arange(len(counts.accuracy))
    last = np.full_like(days, days[-1])
    earlier = np.where(np.isnan(matrix) | (days == last)[:, None], -np.inf, matrix)
    best = earlier.argmax(axis=0)
    means = {  # the columns, a row for each and, for a difference, the row to subtract
        "average_accuracy": (days, last),
        "forgetting": (days[:-1], best, last),
        "backward_transfer": (days[:-1], last, days),
        "learning_accuracy": (days, days),
    }
    values: Figures = {}
    ends: dict[str, Ends] = {}
    for name, (columns, *rows) in means.items():
        of_all = [matrix[row[columns], columns] for row in rows]
        defined = columns[~np.isnan(of_all).any(axis=0)]
        if not len(defined):
            values[name], ends[name] = None, UNKNOWN
            continue
        cells = np.concatenate([row[defined] for row in rows]), np.tile(defined, len(rows))
        first, *less = matrix[cells].reshape(len(rows), -1)
        values[name] = float(np.mean(first - sum(less)))
        weights = np.repeat((1, -1)[: len(rows)], len(defined)) / len(defined)
        right, images = counts.right[cells], counts.images[cells]
        ends[name] = linear(weights, right / images, *wilson(right, images))
    return values, ends


def transfer(ahead: Counts, classes: NDArray[np.intp]) -> tuple[Figures, dict[str, Ends]]:
    """Return the forward transfer and its interval.

    FWT = mean_{j>1} (R[j-1, j] - b_j), in -1..1 (Lopez-Paz & Ranzato 2017). `ahead` holds R[j-1,
    j], yesterday's model on today's cohort, of several days. b_j is 1 / the number of `classes`
    tested on day j, old and new: the accuracy of a guess among them. Yesterday's model cannot name
    a class that is new on day j, which counts against it.
    """
    chance = 1 / classes
    upon, (low, high) = ahead.accuracy - chance, wilson(*ahead)
    weights = np.full(len(classes), 1 / max(len(classes), 1))
    return (
        {"forward_transfer": float(upon.mean()) if upon.size else None},
        {"forward_transfer": linear(weights, upon, low - chance, high - chance)},
    )


def class_forgetting(
    counted: Counted, evaluation: pl.DataFrame, today: int
) -> tuple[dict[str, float], dict[str, Ends]]:
    """Return, for each class, its forgetting and the interval.

    That is max_{l<T} (recall of day l's model - recall of today's), both on the class's test images
    up to day l, in -1..1, negatives kept: Chaudhry's (2018) forgetting with a class for a task.
    `today` is the place of day T among the days, `evaluation` that of its model. Classes that no
    earlier day had are left out.
    """
    labels, before = counted.labels, counted.classes.part(slice(today))
    by_cohort = by_two(evaluation, cohort=counted.days[:today], label=labels)
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
