"""A day's figures, as formulas over counts.

docs/metrics.md defines each with its range and paper, and names other definitions.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from dayfold.figures import evidence, intervals, retention
from dayfold.figures.counts import HIT, RIGHT, Counted
from dayfold.figures.intervals import UNKNOWN, Ends

Part = tuple[dict[str, Any], dict[str, Any]]  # figures by name, and their intervals

# The figures of metrics.json: a screen of `dvc metrics diff`. data/metrics/ has the rest.
HEADLINE = (
    "average_accuracy",
    "accuracy",
    "weighted_f1",
    "worst_f1",
    "forgetting",
    "backward_transfer",
    "forward_transfer",
    "learning_accuracy",
    "negative_flip_rate",
    "calibration_error",
    "new.f1",
    "new.judged",
    "new.confidence",
    "new.share",
    "images.today",
    "images.tested",
    "unknown.auroc",
    "unknown.found",
    "unknown.false_alarms",
    "gate.passed",
)


def recency(share: float, *, today: int, old: int) -> float | None:
    """Return how many times as often an image of today is drawn as an average older one.

    `share` is the part of the draws, 0..1, that `today` training images of today get together;
    `old` counts all earlier training images, replayed or not. None if either has no draws.
    """
    # On a first day rounding may make the share a little less than 1.
    return share / today / ((1 - share) / old) if old and 0 < share < 1 else None


def unknown(table: pl.DataFrame) -> Part:
    """Return how yesterday's model rated today's images as unknown, and the intervals.

    `table` has the columns of `tables.Unknown`. `auroc` says how well the distance separates new
    classes from known ones, `found` is the part of new classes' images called unknown,
    `false_alarms` that of known ones.
    """
    totals = {row["new"]: row for row in table.filter(label="").iter_rows(named=True)}
    values: dict[str, Any] = {"auroc": totals.get(1, {}).get("auroc")}
    values |= {"images": {}, "units": {}}
    ends = {}
    for new, kind, name in ((1, "new", "found"), (0, "known", "false_alarms")):
        row = totals.get(new, {"images": 0, "units": 0, "unknown": None})
        values["images"][kind], values["units"][kind] = row["images"], row["units"]
        called = row["unknown"]
        values[name] = None if called is None else called / row["images"]
        ends[name] = UNKNOWN if called is None else intervals.proportion(called, row["images"])
    return values, ends


def headline(figures: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in HEADLINE:
        section, _, name = key.rpartition(".")
        place = found.setdefault(section, {}) if section else found
        place[name] = evidence.value_of(figures, key)
    # With few images it is above 0 by chance alone; day.json has its interval.
    if not evidence.is_judged(figures, "calibration_error"):
        found["calibration_error"] = None
    return found


def by_class(figures: Mapping[str, Any]) -> dict[str, Any]:
    ends = figures["interval"]["classes"]
    return {label: {**own, "interval": ends[label]} for label, own in figures["classes"].items()}


def of_the_day(figures: Mapping[str, Any]) -> dict[str, Any]:
    ends = {name: part for name, part in figures["interval"].items() if name != "classes"}
    return {key: value for key, value in figures.items() if key != "classes"} | {"interval": ends}


def together(day: Mapping[str, Any], classes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a day's figures from what `of_the_day` and `by_class` returned."""
    found = {label: dict(own) for label, own in classes.items()}
    ends = {label: own.pop("interval") for label, own in found.items()}
    return {**day, "classes": found, "interval": {**day["interval"], "classes": ends}}


def class_scores(counts: pl.DataFrame) -> pl.DataFrame:
    """Return precision, recall, f1, support, confidence and more for each label, sorted by label.

    `counts` has the columns of `tables.Evaluation`. Defined as in scikit-learn: 0 if nothing was
    predicted as the class; a class without test images is left out. `confidence` is the mean
    probability of the predicted classes; `…_low` and `…_high` are the ends of 95% intervals.
    """
    asked = pl.col("parent_correct").is_not_null()
    truth = counts.group_by("label").agg(
        support=pl.col("images").sum(),
        right=RIGHT,
        confidence=_MEAN_CONFIDENCE,
        asked=pl.col("images").filter(asked).sum(),
        flips=pl.col("parent_correct").filter(~HIT).sum(),
    )
    called = counts.group_by(label="predicted").agg(called=pl.col("images").sum())
    each = truth.join(called, on="label", how="left").with_columns(pl.col("called").fill_null(0))
    right, support = each["right"].to_numpy(), each["support"].to_numpy()
    recall = intervals.wilson(right, support)
    f1 = intervals.f1(right, support + each["called"].to_numpy() - right)
    return each.select(
        "label",
        precision=pl.when(pl.col("called") > 0)
        .then(pl.col("right") / pl.col("called"))
        .otherwise(0.0),
        recall=pl.col("right") / pl.col("support"),
        recall_low=pl.Series(recall.low, dtype=pl.Float64),
        recall_high=pl.Series(recall.high, dtype=pl.Float64),
        f1=2 * pl.col("right") / (pl.col("called") + pl.col("support")),
        f1_low=pl.Series(f1.low, dtype=pl.Float64),
        f1_high=pl.Series(f1.high, dtype=pl.Float64),
        support="support",
        confidence="confidence",
        negative_flip_rate=pl.when(pl.col("asked") > 0).then(pl.col("flips") / pl.col("asked")),
    ).sort("label")


_MEAN_CONFIDENCE = (pl.col("images") * pl.col("confidence")).sum() / pl.col("images").sum()


def calibration_error(counts: pl.DataFrame) -> tuple[float | None, Ends]:
    """Return the expected calibration error, in 0..1 (Naeini 2015, Guo 2017), and its interval.

    ECE = sum_b n_b / n |accuracy_b - confidence_b| over the ten bins of confidence. With few images
    it is above 0 by chance alone, even for a perfectly calibrated model. So the ends are the sums
    over what each bin's Wilson interval allows, which is wider than 95%.
    """
    if counts.is_empty():
        return None, UNKNOWN
    bins = counts.group_by("bin", maintain_order=True).agg(
        RIGHT.alias("right"), pl.col("images").sum(), confidence=_MEAN_CONFIDENCE
    )
    right, images, sure = (bins[name].to_numpy() for name in ("right", "images", "confidence"))
    low, high = intervals.wilson(right, images)
    share = images / images.sum()
    least = np.maximum(0, np.maximum(low - sure, sure - high))
    most = np.maximum(high - sure, sure - low)
    return (
        float((share * np.abs(right / images - sure)).sum()),
        {"low": float((share * least).sum()), "high": float((share * most).sum())},
    )


class Flips(NamedTuple):
    """How test images changed since yesterday; `asked` counts those with a prediction of both days.

    `negative` were right yesterday and are wrong today, `positive` the reverse.
    """

    asked: int
    negative: int
    positive: int


def flips(evaluation: pl.DataFrame) -> Flips:
    """Count the flips between yesterday's model and today's (Yan 2021)."""
    asked = evaluation.filter(pl.col("parent_correct").is_not_null())
    wrong, right = asked.filter(~HIT), asked.filter(HIT)
    return Flips(
        asked=int(asked["images"].sum()),
        negative=int(wrong["parent_correct"].sum()),
        positive=int(right["images"].sum()) - int(right["parent_correct"].sum()),
    )


def day_metrics(
    counted: Counted, evaluations: Mapping[str, pl.DataFrame], new: Mapping[str, Collection[str]]
) -> dict[str, dict[str, Any]]:
    """Return day → figures by name, None where undefined.

    `counted` are the evaluations of all days. The days are the keys of `new`, which maps each to
    the classes that arrived on it; `evaluations` maps each to its model's evaluation. `interval`
    has a figure's 95% interval under its path.
    """
    classes = (counted.classes.images > 0).sum(axis=1)
    figures = {}
    for position, day in enumerate(counted.days):
        if day in new:
            until, evaluation = slice(position + 1), evaluations[day]
            asked = np.flatnonzero(counted.ahead.images[until])
            parts = (
                retention.figures(counted.cohorts.part(until, until)),
                retention.transfer(counted.ahead.part(asked), classes[asked]),
                _classification(evaluation, new[day]),
                _flip_rates(evaluation),
            )
            figures[day] = _merged(values for values, _ in parts)
            figures[day]["interval"] = _merged(ends for _, ends in parts)
            forgotten = retention.class_forgetting(counted, evaluation, position)
            for label in figures[day]["classes"]:
                value, ends = (part.get(label) for part in forgotten)
                figures[day]["classes"][label]["forgetting"] = value
                figures[day]["interval"]["classes"][label]["forgetting"] = ends or UNKNOWN
    return figures


def _merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


# Each of the following returns figures by name, and their intervals.


def _classification(evaluation: pl.DataFrame, new: Collection[str]) -> Part:
    scores, is_new = class_scores(evaluation), pl.col("label").is_in(list(new))
    classes = list(scores.iter_rows(named=True))
    worst = min(classes, key=lambda row: (row["f1"], row["f1_high"]), default=None)
    values, ends = _averages(scores)
    values["worst_f1"] = worst and worst["f1"]
    ends["worst_f1"] = _of_row(worst, "f1") if worst else UNKNOWN
    fresh, fresh_ends = (
        {"accuracy": part["accuracy"], "f1": part["macro_f1"]}
        for part in _averages(scores.filter(is_new))
    )
    both = ((values, ends, evaluation), (fresh, fresh_ends, evaluation.filter(is_new)))
    for own, its_ends, counts in both:
        own["confidence"] = counts.select(_MEAN_CONFIDENCE).item() if len(counts) else None
        own["calibration_error"], its_ends["calibration_error"] = calibration_error(counts)
    values["new"], ends["new"] = fresh, fresh_ends
    values["classes"] = {
        row["label"]: {name: row[name] for name in _OF_A_CLASS} | {"images": row["support"]}
        for row in classes
    }
    ends["classes"] = {
        row["label"]: {name: _of_row(row, name) for name in ("f1", "recall")} for row in classes
    }
    return values, ends


_OF_A_CLASS = ("f1", "precision", "recall", "confidence", "negative_flip_rate")


def _of_row(row: Mapping[str, Any], name: str) -> Ends:
    return {end: row[f"{name}_{end}"] for end in ("low", "high")}


def _averages(scores: pl.DataFrame) -> Part:
    # For the intervals, classes count as independent.
    support, f1 = scores["support"].to_numpy(), scores["f1"].to_numpy()
    total = int(support.sum())
    right = round(float((scores["recall"].to_numpy() * support).sum()))
    of_f1 = (f1, scores["f1_low"].to_numpy(), scores["f1_high"].to_numpy())
    return (
        {
            "accuracy": right / total if total else None,
            "weighted_f1": float(np.average(f1, weights=support)) if total else None,
            "macro_f1": float(f1.mean()) if total else None,
        },
        {
            "accuracy": intervals.proportion(right, total),
            "weighted_f1": intervals.linear(support / max(total, 1), *of_f1),
            "macro_f1": intervals.linear(np.full(len(f1), 1 / max(len(f1), 1)), *of_f1),
        },
    )


def _flip_rates(evaluation: pl.DataFrame) -> Part:
    asked, negative, positive = flips(evaluation)
    p = intervals.mcnemar(negative, positive) if asked else None
    return (
        {
            "negative_flip_rate": negative / asked if asked else None,
            "positive_flip_rate": positive / asked if asked else None,
            "worse_than_yesterday": {
                "p": p,
                "significant": None
                if p is None
                else p < intervals.SIGNIFICANT and negative > positive,
            },
        },
        {
            "negative_flip_rate": intervals.proportion(negative, asked),
            "positive_flip_rate": intervals.proportion(positive, asked),
        },
    )
