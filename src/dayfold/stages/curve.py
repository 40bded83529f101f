"""curve: all days' evaluations → today's metrics.json and what `dvc plots` draws."""

import json
from typing import Any

import polars as pl

from dayfold.figures import metrics
from dayfold.ledger import tables
from dayfold.ledger.tables import CohortAccuracy, Confusion
from dayfold.project.files import json_bytes, write_bytes
from dayfold.project.layout import Project
from dayfold.project.params import Params


def run(project: Project, params: Params) -> None:
    """Read data/evaluations and provenance; write metrics.json, cohorts.csv, confusion.csv."""
    evaluations, days = tables.evaluations(project, params.day)
    provenance = json.loads(project.provenance.read_bytes())
    arrived = {params.day: provenance["new_classes"]}
    figures = metrics.day_metrics(evaluations, days, arrived)[params.day]
    mine = evaluations.filter(pl.col("model") == params.day)
    drawn = provenance["draws"]
    new = sum(drawn["by_class"].get(label, 0) for label in provenance["new_classes"])
    figures["new"]["share"] = new / drawn["all"] if provenance["new_classes"] else None
    figures["images"] = {**provenance["images"], "tested": int(mine["images"].sum())}
    write_bytes(project.metrics, json_bytes(figures))
    matrix = metrics.accuracy_matrix(evaluations, days)
    cells = [
        CohortAccuracy(day, cohort, float(matrix[i, j]))
        for i, day in enumerate(days)
        for j, cohort in enumerate(days[: i + 1])
        if matrix[i, j] == matrix[i, j]
    ]
    tables.write(project.plot("cohorts"), CohortAccuracy, cells)
    confusion = mine.group_by("label", "predicted").agg(pl.col("images").sum())
    rows = confusion.sort("label", "predicted").iter_rows()
    tables.write(project.plot("confusion"), Confusion, rows)
    _print_summary(figures)


def _print_summary(figures: dict[str, Any]) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    names = ("average_accuracy", "weighted_f1", "worst_f1", "forgetting", "negative_flip_rate")
    print("  ".join(f"{name} {shown(figures[name])}" for name in names))
    new = figures["new"]
    if new["f1"] is not None:
        print(f"new classes: f1 {shown(new['f1'])}, confidence {shown(new['confidence'])}")
