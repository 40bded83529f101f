"""What the page draws: the charts of a day, and the data that each is drawn from."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from dayfold.figures import charts, retention
from dayfold.figures.charts import Spec
from dayfold.figures.report import making
from dayfold.figures.report.day import Day
from dayfold.ledger import tables
from dayfold.ledger.tables import BacktestRun, CohortAccuracy, PolicyAccuracy
from dayfold.project.layout import Project

CLASSES = 10  # lines of classes that are drawn at first, the lowest F1 first
DIGITS = 4  # of a number in the data of a chart

Values = list[dict[str, Any]]


def cohorts(day: Day) -> list[CohortAccuracy]:
    """Return the accuracy of every cohort over the days up to this one."""
    return retention.cohorts(day.evaluations, [line.day for line in day.lines if line.figures])


def charts_of(day: Day) -> tuple[dict[str, Spec], dict[str, Values]]:
    """Return the specifications of the page's charts, and their data, by name."""
    cells = cohorts(day)
    matrix = [cell._asdict() for cell in cells]
    classes = [
        {"day": line.day, "class": label, **{key: scores[key] for key in charts.MEASURES}}
        for line in day.lines
        if line.figures
        for label, scores in line.figures["classes"].items()
    ]
    confusion = _confusion(day)
    arrived = making.arrivals(day)
    most = max((cell["images"] for cell in arrived), default=1)
    specs = {
        "curve": charts.on_page(charts.forgetting_curve(cells), "cohorts"),
        "matrix": charts.on_page(
            charts.heat_map(
                matrix,
                row="day",
                column="cohort",
                strength="accuracy",
                written="accuracy",
                domain=(_floor(matrix), 1),
                description="The accuracy matrix: a row a model, a column a cohort.",
            ),
            "cohorts",
        ),
        "classes": charts.on_page(charts.class_curves(classes), "classes"),
        "confusion": charts.on_page(
            charts.confusion_matrix(confusion),
            "confusion",
        ),
        "arrivals": charts.on_page(
            charts.heat_map(
                arrived,
                row="class",
                column="arrived",
                strength="images",
                written="images",
                domain=(0, most),
                description="The images that arrived: a row a class, a column a day.",
            ),
            "arrivals",
        ),
    }
    values = {
        "cohorts": matrix,
        "classes": classes,
        "confusion": confusion,
        "arrivals": arrived,
    }
    for policy, curve in _policies(day.project).items():
        name = f"policy-{policy}"
        spec = charts.on_page(charts.forgetting_curve(curve), name)
        spec["height"] = 170
        spec["encoding"]["y"] = {
            **spec["encoding"]["y"],
            "scale": {"domain": [0, 1]},
            "title": None,
        }
        spec["encoding"]["x"] = {**spec["encoding"]["x"], "title": None}
        specs[name] = spec
        values[name] = [
            {key: value for key, value in cell._asdict().items() if key not in ("policy", "seed")}
            for cell in curve
        ]
    return specs, {name: [_rounded(row) for row in rows] for name, rows in values.items()}


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, DIGITS) if isinstance(value, float) else value
        for key, value in row.items()
    }


def _floor(matrix: Values) -> float:
    """The tenth below the lowest accuracy, but never more than 0.9."""
    lowest = min((cell["accuracy"] for cell in matrix), default=0.0)
    return float(min(0.9, lowest // 0.1 / 10))


def _confusion(day: Day) -> Values:
    counts = day.counts.group_by("label", "predicted").agg(pl.col("images").sum())
    table = counts.with_columns(share=pl.col("images") / pl.col("images").sum().over("label"))
    return list(table.sort("label", "predicted").iter_rows(named=True))


def hidden(day: Day) -> list[str]:
    """Return the classes that are not drawn at first, where they are many."""
    classes = day.figures["classes"]
    ranked = sorted(classes, key=lambda label: (classes[label]["f1"], label))
    return ranked[CLASSES:] if len(ranked) > CLASSES + 2 else []


def _policies(project: Project) -> dict[str, list[PolicyAccuracy]]:
    """The forgetting curves of the last backtest's policies, means over its seeds."""
    path = project.backtest("cohorts")
    if not path.exists():
        return {}
    table = tables.read(path, PolicyAccuracy)
    mean = table.group_by("policy", "day", "cohort").agg(
        pl.col("seed").n_unique(), pl.col("accuracy").mean()
    )
    columns = list(PolicyAccuracy._fields)
    return {
        policy: [
            PolicyAccuracy(*row)
            for row in mean.filter(pl.col("policy") == policy)
            .sort("day", "cohort")
            .select(columns)
            .iter_rows()
        ]
        for policy in table["policy"].unique(maintain_order=True).to_list()
    }


def backtest(project: Project) -> dict[str, Any] | None:
    """Return the figures of the last backtest: a row a policy, and what it was run over."""
    path, curves = project.backtest("runs"), _policies(project)
    if not path.exists() or not curves:
        return None
    runs = tables.read(path, BacktestRun)
    keys = ("average_accuracy", "forgetting", "weighted_f1", "worst_f1", "negative_flip_rate")
    means = runs.group_by("policy", maintain_order=True).agg(*(pl.col(key).mean() for key in keys))
    covered = sorted({cell.day for cells in curves.values() for cell in cells})
    return {
        "seeds": runs["seed"].n_unique(),
        "first": covered[0],
        "last": covered[-1],
        "policies": list(curves),
        "rows": list(means.iter_rows(named=True)),
    }
