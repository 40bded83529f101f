"""The report of a day, and the index."""

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dayfold import __version__
from dayfold.figures import charts, counts, evidence, gate, intervals, log, metrics, retention
from dayfold.figures import day as days
from dayfold.figures.day import Day
from dayfold.figures.report import pictures, summary
from dayfold.figures.report.pictures import Heat
from dayfold.ledger import tables
from dayfold.ledger.tables import CohortAccuracy
from dayfold.project import params as params_file
from dayfold.project.console import duration
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project

UNDEFINED = "\N{EN DASH}"
CURVE = "Accuracy on the test images of each day, after training on later days"
TINY = 24  # columns above which a heat table shows numbers on hover only
CLASSES = 10  # lines in a chart of classes: the lowest F1; two more fit too
# The charts of classes: columns of `metrics.class_scores`, and their titles.
MEASURES = {"f1": "F1", "confidence": "Mean confidence"}


def write(day: Day, heat: Heat | None = None) -> Path:
    path = day.project.report(day.day)
    write_bytes(path, render(day, heat).encode())
    write_index(day.project)
    return path


def write_index(project: Project) -> None:
    """Write data/reports/index.html: the curve, a line a day. Each seal does it, so it is fast."""
    params = params_file.read(project.params)
    lines = [line for line in log.lines(project, params) if line.figures]
    # From the table of `curve`, as reading all evaluations takes longer with each day.
    cells = tables.read(project.plot("cohorts"), CohortAccuracy)
    tested = dict.fromkeys((cells["images"].min(), cells["images"].max()))
    minutes = days.minutes(project, [line.day for line in lines])
    text = filled(
        "index.html",
        name=project.root.name,
        curve=charts.forgetting_curve(map(CohortAccuracy._make, cells.iter_rows())),
        on=f", {' to '.join(map(str, tested))} of them" * bool(len(cells)),
        minutes=minutes,
        cost=charts.bars(minutes),
        titles=log.TITLES,
        columns=[(title, "number") for title in log.TITLES.values()],
        shown=lambda line, key: evidence.as_text(line.figures, key),
        verdicts=log.verdicts(project, lines, gate.forced(project)),
        days=[(line, project.report(line.day).exists()) for line in reversed(lines)],
    )
    write_bytes(project.report("index"), text.encode())


def write_curve(day: Day, path: Path) -> None:
    charts.write_png(path, {CURVE: charts.forgetting_curve(_cohorts(day))})


def render(day: Day, heat: Heat | None = None) -> str:
    changed, cohorts, scores = summary.changes(day), _cohorts(day), _scores(day)
    ranked = sorted(day.figures["classes"], key=lambda label: day.figures["classes"][label]["f1"])
    left_out = ranked[CLASSES:] if len(ranked) > CLASSES + 2 else []
    minutes = days.minutes(day.project, day.days)
    return filled(
        "page.html",
        day=day,
        name=day.project.root.name,
        headline=summary.headline(day, changed),
        numbers=summary.numbers(day),
        changes=changed,
        worse=summary.WORSE,
        reasons=None if day.checks is None else gate.reasons(day.checks),
        verdict=gate.verdict(day.checks or []),
        tested=day.evidence.on(int(day.counts["images"].sum())),
        forced=gate.forced(day.project).get(day.day),
        curve=charts.forgetting_curve(cohorts),
        matrix=_matrix(cohorts),
        class_charts={MEASURES[key]: _class_chart(scores, key, left_out) for key in MEASURES},
        left_out=left_out,
        confusion=_confusion(day),
        unknown_sentences=list(summary.unknown_sentences(day)),
        unknown_counts=summary.unknown_counts(day),
        unknown_chart=summary.unknown_chart(day),
        galleries=list(pictures.galleries(day, heat)),
        arrivals=_arrivals(day),
        minutes=minutes,
        cost=charts.bars(minutes),
    )


def filled(template: str, script: str = "page.js", **values: Any) -> str:
    """Return a template as HTML; all values are escaped, and only its own script can run."""
    folder = files("dayfold.figures.report") / "template"
    own, style = ((folder / name).read_text("utf-8").strip() for name in (script, "page.css"))
    environment = Environment(
        loader=PackageLoader("dayfold.figures.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    environment.filters["time"] = lambda minutes: duration(60 * minutes)
    return environment.get_template(template).render(
        version=__version__,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(own),  # noqa: S704 - our own file
        # For the Content-Security-Policy, so a script in a class's name does not run.
        trusted=f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'",
        **values,
    )


class Cell(NamedTuple):
    """A cell of a heat table: its shade 0..1, its text and the text on hover."""

    row: str
    column: str
    shade: float
    text: str
    hover: str


def heat_table(cells: Sequence[Cell], *, of_days: bool) -> dict[str, Any]:
    """Return a table of sorted rows and columns for the template; if `of_days`, columns are days.

    `heads` has the columns' heads, `rows` each row with its cells, None where empty.
    """
    at = {(cell.row, cell.column): cell for cell in cells}
    rows, columns = (sorted({key[axis] for key in at}) for axis in (0, 1))
    heads = [*charts.short(columns).values()] if of_days else columns
    table = [(row, [at.get((row, column)) for column in columns]) for row in rows]
    return {"heads": heads, "rows": table, "is_tiny": len(columns) > TINY}


def figure(value: float | None) -> str:
    """Return a figure with three decimals and a true minus sign; a dash where it is undefined."""
    return UNDEFINED if value is None else intervals.figure(value).replace("-", "\N{MINUS SIGN}")


def _cohorts(day: Day) -> list[CohortAccuracy]:
    corrected = day.history.corrections.filter(split="test").select("day", "on", "image")
    return retention.cohorts(counts.read(day.project, day.day), corrected.rows())


def _scores(day: Day) -> dict[str, pl.DataFrame]:
    drawn = retention.drawn(day.days)
    own = tables.evaluations(day.project, drawn).filter(
        pl.col("cohort") <= pl.col("model"), pl.col("model").is_in(drawn)
    )
    parts = own.partition_by("model", as_dict=True, maintain_order=True)
    return {str(key[0]): metrics.class_scores(part) for key, part in sorted(parts.items())}


def _class_chart(
    scores: Mapping[str, pl.DataFrame], measure: str, left_out: Collection[str]
) -> Markup:
    curves: dict[str, dict[str, float]] = {}
    for day, table in scores.items():
        for label, value in table.select("label", measure).iter_rows():
            if label not in left_out:
                curves.setdefault(label, {})[day] = value
    return charts.lines(
        curves,
        says=f"{MEASURES[measure]} of every class, by the day of the model",
        colours=charts.palette(sorted(curves)),
        ends=(charts.floor(value for points in curves.values() for value in points.values()), 1),
        names={label: label for label in curves},
    )


def _matrix(cohorts: list[CohortAccuracy]) -> dict[str, Any]:
    low = charts.floor(cell.accuracy for cell in cohorts)
    cells = [
        Cell(
            cell.day,
            cell.cohort,
            (cell.accuracy - low) / (1 - low),
            figure(cell.accuracy),
            f"{cell.day} on images of {cell.cohort}: {cell.accuracy:.3f} ({cell.low:.3f} to "
            f"{cell.high:.3f}), {cell.images} images, {cell.corrected} corrected later",
        )
        for cell in cohorts
    ]
    return heat_table(cells, of_days=True)


def _confusion(day: Day) -> dict[str, Any]:
    counts = day.counts.group_by("label", "predicted").agg(pl.col("images").sum())
    part = pl.col("images") / pl.col("images").sum().over("label")
    cells = [
        Cell(label, other, of, f"{images:,}", f"{label}, predicted {other}: {images} ({of:.1%})")
        for label, other, images, of in counts.with_columns(part=part).iter_rows()
    ]
    return heat_table(cells, of_days=False)


def _arrivals(day: Day) -> dict[str, Any]:
    counts = day.history.images.group_by("label", "day").len().rows()
    most = max((images for *_, images in counts), default=1)
    cells = [
        Cell(label, on, images / most, f"{images:,}", f"{label} on {on}: {images}")
        for label, on, images in counts
    ]
    return heat_table(cells, of_days=True)
