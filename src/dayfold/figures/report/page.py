"""The page: charts, tables and pictures of a day, put into one HTML file."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dayfold import __version__
from dayfold.figures import charts, gate, intervals, retention
from dayfold.figures.charts import Spec
from dayfold.figures.evidence import is_judged
from dayfold.figures.report import day as days
from dayfold.figures.report import pictures, summary
from dayfold.figures.report.day import Day
from dayfold.ledger import tables
from dayfold.ledger.tables import BacktestRun, CohortAccuracy, PolicyAccuracy
from dayfold.project.files import dotted, write_bytes
from dayfold.project.layout import Project

UNDEFINED = "\N{EN DASH}"
CLASSES = 10  # lines of classes that are drawn at first, the lowest F1 first
DIGITS = 4  # of a number in the data of a chart

Values = list[dict[str, Any]]


def write(project: Project, day: str | None, *, forced: Mapping[str, str]) -> Path:
    """Write the report of a day, by default the last that has figures; return its path."""
    with TemporaryDirectory() as folder:
        found = days.read(project, day, Path(folder))
        html = render(found, forced=forced)
    path = project.report(found.day)
    write_bytes(path, html.encode())
    return path


def write_curve(project: Project, day: str | None, path: Path) -> None:
    """Draw the forgetting curve up to a day, alone, into a PNG file."""
    with TemporaryDirectory() as folder:
        cells = cohorts(days.read(project, day, Path(folder)))
    charts.write_png(charts.forgetting_curve(cells), path)


def render(day: Day, *, forced: Mapping[str, str]) -> str:
    """Return the report as HTML: all that it needs is in it, and nothing in it asks for more."""
    template, library = files("dayfold.figures.report") / "template", _library()
    script = (template / "page.js").read_text(encoding="utf-8").strip()
    specs, values = _charts_of(day)
    changed = summary.changes(day)
    environment = Environment(
        loader=PackageLoader("dayfold.figures.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "share": share, "shown": shown, "long": long_day}
    return environment.get_template("page.html").render(
        day=day,
        name=day.project.root.name,
        version=__version__,
        headline=summary.headline(day, changed),
        numbers=summary.numbers(day),
        changes=changed,
        figures=_all_figures(day),
        reasons=None if day.checks is None else gate.reasons(day.checks),
        verdict=gate.verdict(day.checks or []),
        tested=day.known.on(int(day.counts["images"].sum())),
        forced=forced.get(day.day),
        matrix=_grid(values["cohorts"], "day", "cohort", "accuracy"),
        backtest=_backtest(day.project),
        measures=charts.MEASURES,
        galleries=pictures.galleries(day),
        splits=days.splits(day),
        pool=days.pool(day),
        arrivals=_grid(values["arrivals"], "arrived", "class", "images"),
        corrections=days.corrections(day),
        params=days.changed_params(day),
        recipe=days.recipe(day),
        commands=days.commands(day),
        specs=specs,
        values=values,
        packed={name: _packed(rows) for name, rows in values.items()},
        hidden={"classes": _hidden(day)},
        style=Markup((template / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        scripts=[Markup(text) for text in (library, script)],  # noqa: S704
        # Only these two scripts run, whatever a name in the data may hold.
        trusted=" ".join(_hash(text) for text in (library, script)),
    )


@cache
def _library() -> str:
    """Vega as one script, which takes two seconds to put together."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")).strip()


def cohorts(day: Day) -> list[CohortAccuracy]:
    """Return the accuracy of every cohort over the days up to this one."""
    return retention.cohorts(day.evaluations, [line.day for line in day.lines if line.figures])


def _charts_of(day: Day) -> tuple[dict[str, Spec], dict[str, Values]]:
    """Return the specifications of the page's charts, and their data, by name."""
    cells = cohorts(day)
    values = {
        "cohorts": [cell._asdict() for cell in cells],
        "classes": [
            {"day": line.day, "class": label, **{key: scores[key] for key in charts.MEASURES}}
            for line in day.lines
            if line.figures
            for label, scores in line.figures["classes"].items()
        ],
        "confusion": _confusion(day),
        "arrivals": days.arrivals(day),
    }
    specs = {
        "curve": charts.on_page(charts.forgetting_curve(cells), "cohorts"),
        "classes": charts.on_page(charts.class_curves(values["classes"]), "classes"),
    }
    for name, source in (("matrix", "cohorts"), ("confusion",) * 2, ("arrivals",) * 2):
        specs[name] = charts.on_page(charts.heat_map(name, values[source]), source)
    for policy, curve in _policies(day.project).items():
        name = f"policy-{policy}"
        specs[name] = charts.beside_others(charts.on_page(charts.forgetting_curve(curve), name))
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


def _confusion(day: Day) -> Values:
    counts = day.counts.group_by("label", "predicted").agg(pl.col("images").sum())
    table = counts.with_columns(share=pl.col("images") / pl.col("images").sum().over("label"))
    return list(table.sort("label", "predicted").iter_rows(named=True))


def _hidden(day: Day) -> list[str]:
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
    rows = mean.sort("day", "cohort").select(PolicyAccuracy._fields).iter_rows()
    curves: dict[str, list[PolicyAccuracy]] = {name: [] for name in table["policy"]}
    for cell in map(PolicyAccuracy._make, rows):
        curves[cell.policy].append(cell)
    return curves


def _backtest(project: Project) -> dict[str, Any] | None:
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


def _packed(rows: Values) -> dict[str, Any]:
    """Rows with their keys named once: half as many bytes."""
    keys = list(rows[0]) if rows else []
    return {"keys": keys, "rows": [[row[key] for key in keys] for row in rows]}


def _hash(text: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _grid(values: Values, row: str, column: str, value: str) -> dict[str, Any]:
    """Cells as rows and columns of a table."""
    rows, columns = (sorted({cell[name] for cell in values}) for name in (row, column))
    at = {(cell[row], cell[column]): cell[value] for cell in values}
    return {
        "columns": columns,
        "rows": [(name, [at.get((name, one)) for one in columns]) for name in rows],
    }


def _all_figures(day: Day) -> list[tuple[str, Any, Any, bool]]:
    """Every figure of the day that is a number: key, value, interval, whether it is judged."""
    found = []
    for key, value in dotted(day.figures).items():
        of = key.split(".")[0]
        if of in ("interval", "classes", "evidence") or key.endswith(("judged", "significant")):
            continue
        found.append((key, value, _at(day.figures["interval"], key), is_judged(day.figures, key)))
    return found


def _at(tree: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    place: Any = tree
    for part in key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def figure(value: float | None) -> str:
    """Return a figure with three decimals and a true minus sign; a dash where it is undefined."""
    return UNDEFINED if value is None else intervals.figure(value).replace("-", "\N{MINUS SIGN}")


def share(value: float) -> str:
    """Return a share as percent with one decimal."""
    return f"{value:.1%}"


def shown(value: object) -> str:
    """Return a param as params.yaml has it; a dash where it has none."""
    if value is days.ABSENT:
        return UNDEFINED
    names: dict[object, str] = {None: "null", True: "true", False: "false", "": '""'}
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    return (
        names.get(value, str(value))
        if value is None or isinstance(value, (bool, str))
        else f"{value}"
    )


def long_day(day: str) -> str:
    """Return a day as a person says it: Monday, 9 June 2025."""
    at = date.fromisoformat(day)
    return f"{at:%A}, {at.day} {at:%B %Y}"
