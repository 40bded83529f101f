"""Metrics as formulas over counts: the accuracy matrix and all that follows from it.

R[i, j] is the accuracy on cohort j (the test images that arrived on day j) of the model of day i.
Libraries disagree on what the names below mean; each docstring says what dayfold means.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def accuracy_matrix(evaluations: pl.DataFrame, days: Sequence[str]) -> Matrix:
    """Return R, float64 [days, days]: NaN where j > i or a cohort has no test image.

    `evaluations` has the columns of `tables.Evaluation`, of all days together.
    """
    at = {day: position for position, day in enumerate(days)}
    matrix = np.full((len(days), len(days)), np.nan)
    own = evaluations.filter(pl.col("cohort") <= pl.col("model"))
    for model, cohort, accuracy in _accuracy(own, "model", "cohort").iter_rows():
        if model in at and cohort in at:
            matrix[at[model], at[cohort]] = accuracy
    return matrix


def _accuracy(counts: pl.DataFrame, *keys: str) -> pl.DataFrame:
    right = pl.col("images").filter(pl.col("label") == pl.col("predicted")).sum()
    return counts.group_by(*keys).agg(right / pl.col("images").sum())


def average_accuracy(matrix: Matrix) -> float | None:
    """ACC = mean_j R[T, j], in 0..1 (Lopez-Paz & Ranzato 2017)."""
    return _mean(matrix[-1])


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT = mean_{j<T} (R[T, j] - R[j, j]), in -1..1 (Lopez-Paz & Ranzato 2017)."""
    return _mean((matrix[-1] - np.diagonal(matrix))[:-1])


def forgetting(matrix: Matrix) -> float | None:
    """Mean_{j<T} (max_{j<=l<T} R[l, j] - R[T, j]), in -1..1, negatives kept (Chaudhry 2018)."""
    earlier = [
        np.nanmax(matrix[j:-1, j]) - matrix[-1, j]
        for j in range(len(matrix) - 1)
        if not np.isnan(matrix[j:-1, j]).all()
    ]
    return _mean(np.asarray(earlier, dtype=np.float64))


def learning_accuracy(matrix: Matrix) -> float | None:
    """Mean_j R[j, j], in 0..1: how well each cohort was known on the evening it arrived."""
    return _mean(np.diagonal(matrix))


def forward_transfer(ahead: Sequence[float], chance: Sequence[float]) -> float | None:
    """FWT = mean_{j>1} (R[j-1, j] - b_j), in -1..1 (Lopez-Paz & Ranzato 2017).

    `ahead` holds R[j-1, j], yesterday's model on today's cohort; `chance` b_j, which is 1 / the
    number of classes tested on day j, old and new: what guessing among them would reach. A class
    that is new on day j is one that yesterday's model cannot name, which counts against it.
    """
    return _mean(np.asarray(ahead, dtype=np.float64) - np.asarray(chance, dtype=np.float64))


def class_scores(counts: pl.DataFrame) -> pl.DataFrame:
    """Return label, precision, recall, f1, support, confidence a class, sorted by label.

    `counts` has the columns label, predicted, images, confidence. As scikit-learn defines them:
    0 where nothing was predicted as the class. A class without test images is not listed, and so
    counts in no mean (scikit-learn's `labels` set to those that have some). `confidence` is the
    mean probability of what is predicted for the class's test images, right or wrong.
    """
    hit = pl.col("label") == pl.col("predicted")
    truth = counts.group_by("label").agg(
        support=pl.col("images").sum(),
        right=pl.col("images").filter(hit).sum(),
        confidence=(pl.col("images") * pl.col("confidence")).sum() / pl.col("images").sum(),
    )
    called = counts.group_by(label="predicted").agg(called=pl.col("images").sum())
    return (
        truth.join(called, on="label", how="left")
        .with_columns(pl.col("called").fill_null(0))
        .select(
            "label",
            precision=pl.when(pl.col("called") > 0)
            .then(pl.col("right") / pl.col("called"))
            .otherwise(0.0),
            recall=pl.col("right") / pl.col("support"),
            f1=2 * pl.col("right") / (pl.col("called") + pl.col("support")),
            support="support",
            confidence="confidence",
        )
        .sort("label")
    )


def day_metrics(
    evaluations: pl.DataFrame, days: Sequence[str], new: Mapping[str, Collection[str]]
) -> dict[str, dict[str, Any]]:
    """Return day → figures, by the keys of metrics.json, None where undefined.

    `evaluations` holds the tables of all `days`; figures are made for the days of `new`, which
    maps each to the classes that arrived on it, each day's from what was known then.
    """
    matrix = accuracy_matrix(evaluations, days)
    # The origin as a model is in none of these: it is no day, and it sorts after every date.
    own = evaluations.filter(pl.col("cohort") <= pl.col("model"))
    tables = {str(key[0]): part for key, part in own.partition_by("model", as_dict=True).items()}
    ahead = _accuracy(evaluations.filter(pl.col("model") < pl.col("cohort")), "cohort")
    reached = dict(ahead.iter_rows())
    figures = {}
    for position, day in enumerate(days):
        if day in new:
            until = days[: position + 1]
            known = [cohort for cohort in until if cohort in reached]
            figures[day] = {
                **_retention(matrix[: position + 1, : position + 1]),
                "forward_transfer": forward_transfer(
                    [reached[cohort] for cohort in known],
                    [1 / tables[cohort]["label"].n_unique() for cohort in known],
                ),
                **_classification(tables.get(day, own.clear()), new[day]),
            }
    return figures


def _retention(matrix: Matrix) -> dict[str, float | None]:
    return {
        "average_accuracy": average_accuracy(matrix),
        "forgetting": forgetting(matrix),
        "backward_transfer": backward_transfer(matrix),
        "learning_accuracy": learning_accuracy(matrix),
    }


def _classification(mine: pl.DataFrame, new: Collection[str]) -> dict[str, Any]:
    scores = class_scores(mine)
    fresh = scores.filter(pl.col("label").is_in(list(new)))
    return {
        "accuracy": _weighted(scores["recall"], scores["support"]),
        "weighted_f1": _weighted(scores["f1"], scores["support"]),
        "macro_f1": _mean(scores["f1"].to_numpy()),
        "worst_f1": min(scores["f1"], default=None),
        "negative_flip_rate": negative_flip_rate(mine),
        "new": {
            "accuracy": _weighted(fresh["recall"], fresh["support"]),
            "f1": _mean(fresh["f1"].to_numpy()),
            "confidence": _weighted(fresh["confidence"], fresh["support"]),
        },
        "classes": {
            row["label"]: {
                "f1": row["f1"],
                "precision": row["precision"],
                "recall": row["recall"],
                "confidence": row["confidence"],
                "images": row["support"],
            }
            for row in scores.iter_rows(named=True)
        },
    }


def negative_flip_rate(mine: pl.DataFrame) -> float | None:
    """Share of the images that yesterday's model had right and today's has wrong (Yan 2021).

    Of all test images for which yesterday's model was asked, in 0..1.
    """
    asked = mine.filter(pl.col("parent_correct").is_not_null())
    wrong = asked.filter(pl.col("label") != pl.col("predicted"))
    total = int(asked["images"].sum())
    return int(wrong["parent_correct"].sum()) / total if total else None


def _weighted(values: pl.Series, weights: pl.Series) -> float | None:
    return float(np.average(values.to_numpy(), weights=weights.to_numpy())) if len(values) else None


def _mean(values: NDArray[np.float64]) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None
