"""Today's images as yesterday's model saw them."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from markupsafe import Markup

from dayfold.figures import charts, intervals
from dayfold.figures.report.day import Day
from dayfold.ledger import tables
from dayfold.project import params as params_file
from dayfold.project.console import first_few, plural

KINDS = {1: "new", 0: "known"}
# The lines of the chart, each with its colour, by `new` of `tables.Unknown`.
LINES = {1: ("found", charts.RAMP[0]), 0: ("false alarms", charts.RAMP[-1])}


def sentences(day: Day) -> Iterator[str]:
    """Say how many of today's images yesterday's model would have flagged, a sentence each."""
    table = tables.unknown(day.project, day.day)
    if table.is_empty():
        yield "There is no model before this day that knows what its classes look like."
        return
    totals = {row["new"]: row for row in table.filter(label="").iter_rows(named=True)}
    for new, row in sorted(totals.items(), reverse=True):
        labels = table.filter(pl.col("new") == new, pl.col("label") != "")["label"].to_list()
        named, of = ", ".join(first_few(labels)), "class" if len(labels) == 1 else "classes"
        images, called = plural(row["images"], "image"), row["unknown"]
        if called is not None and new:
            flagged = f"{called} of {images} of the new {of} {named}"
            few = day.known.caveat(row["units"])
            yield f"Yesterday's model would have flagged {flagged}" + f" ({few})" * bool(few) + "."
        elif called is not None:
            yield _of_known(day, called, row["images"], row["units"])
        if row["auroc"] is not None:
            few = day.known.caveat(min(row["units"] for row in totals.values()))
            said = f" ({few})" * bool(few)
            yield f"AUROC of new against known classes: {row['auroc']:.3f}{said}."
    if any(row["unknown"] is None for row in totals.values()):
        yield "It called nothing unknown: it had too few validation images to draw a line."


def _of_known(day: Day, unknown: int, images: int, units: int) -> str:
    share = params_file.read(day.project.params).predict.known_share
    ends = intervals.proportion(unknown, images)
    said = (
        f"Of {plural(images, 'image')} of known classes it called {unknown} unknown: "
        f"{unknown / images:.1%} ({ends['low']:.1%} to {ends['high']:.1%})."
    )
    if few := day.known.caveat(units):
        return f"{said} This is {few}."
    if share is None:
        return said
    if ends["low"] is not None and ends["low"] > 1 - share:
        return (
            f"{said} {1 - share:.0%} are expected: today's images look unlike those of before. "
            "Another device, other settings?"
        )
    return f"{said} {1 - share:.0%} are expected."


def rows(day: Day) -> list[dict[str, Any]]:
    """Return the counts of each class, with the part that was called unknown and its interval."""
    found = []
    for row in tables.unknown(day.project, day.day).iter_rows(named=True):
        if row["label"] and row["unknown"] is not None:
            part = row["unknown"] / row["images"]
            ends = intervals.proportion(row["unknown"], row["images"])
            found.append(row | {"kind": KINDS[row["new"]], "part": part, "ends": ends})
    return found


def chart(day: Day) -> Markup | None:
    """Draw the parts that were called unknown over the days; None where there is none."""
    curves: dict[str, dict[str, float]] = {}
    for on in day.days:
        totals = tables.unknown(day.project, on).filter(label="")
        for row in totals.iter_rows(named=True):
            if row["unknown"] is not None:
                part = row["unknown"] / row["images"]
                curves.setdefault(LINES[row["new"]][0], {})[on] = part
    return (
        charts.lines(
            curves,
            says="Part of the images that yesterday's model called unknown, by day",
            colours=dict(LINES.values()),
            ends=(0.0, 1.0),
            names={name: name for name in curves},
        )
        if curves
        else None
    )
