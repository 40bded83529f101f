"""The history of days as a table, from the files of the working tree alone."""

from dataclasses import dataclass, replace
from typing import Any

import polars as pl
from rich.table import Table

from dayfold.figures import metrics
from dayfold.ledger import manifest, tables
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params


@dataclass(frozen=True)
class DayLine:
    """One day: its images, the classes known by then, those new on it, and its figures if any."""

    day: str
    images: int
    classes: int
    new: tuple[str, ...]
    figures: dict[str, Any] | None


def lines(project: Project, params: Params) -> list[DayLine]:
    """Return a line a day, oldest first, up to the open day."""
    until = params.day if project.manifest(params.day).exists() else params.parent
    if until == ORIGIN:
        return []
    history = manifest.history(project, until)
    arrived = history.images.group_by("day").agg(pl.len(), pl.col("label").unique())
    by_day = {day: (count, set(labels)) for day, count, labels in arrived.iter_rows()}
    seen: set[str] = set()
    found = []
    for day in history.days:
        count, labels = by_day.get(day, (0, set()))
        new = tuple(sorted(labels - seen))
        seen |= labels
        found.append(DayLine(day, count, len(seen), new, None))
    evaluations, days = tables.evaluations(project, until)
    figures = metrics.day_metrics(evaluations, days, {line.day: line.new for line in found})
    return [replace(line, figures=figures.get(line.day)) for line in found]


def table(days: list[DayLine], sealed: list[str]) -> Table:
    """Return the lines as a table for the terminal."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("day", no_wrap=True)
    for name in ("images", "classes"):
        drawn.add_column(name, justify="right")
    drawn.add_column("new")
    for name in ("ACC", "w. F1", "forgetting", "new F1", "conf."):
        drawn.add_column(name, justify="right")
    drawn.add_column("")
    for line in days:
        fresh = "all" if line is days[0] else ", ".join(line.new)
        drawn.add_row(
            line.day,
            str(line.images),
            str(line.classes),
            fresh,
            *_figures(line.figures),
            "" if line.day in sealed else "open",
        )
    return drawn


def _figures(figures: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return ["-"] * 5
    values = [figures[key] for key in ("average_accuracy", "weighted_f1", "forgetting")]
    values += [figures["new"]["f1"], figures["new"]["confidence"]]
    return ["-" if value is None else f"{value:.3f}" for value in values]
