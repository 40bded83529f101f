"""The page: charts, tables and pictures of a day, put into one HTML file."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dayfold import __version__
from dayfold.figures import charts, gate
from dayfold.figures.report import day as days
from dayfold.figures.report import drawing, making, pictures, summary
from dayfold.figures.report.day import Day
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project

UNDEFINED = "\N{EN DASH}"


def write(project: Project, day: str | None, *, forced: Mapping[str, str]) -> Path:
    """Write the report of a day, by default the last that has figures; return its path.

    `forced` are the days that were sealed although they failed the gate, each with why. Raises
    CycleError where the day has no figures; what else cannot be had is left out, and said.
    """
    with TemporaryDirectory() as folder:
        found = days.read(project, day, Path(folder))
        html = render(found, forced=forced)
    path = project.report(found.day)
    write_bytes(path, html.encode())
    return path


def write_curve(project: Project, day: str | None, path: Path) -> None:
    """Draw the forgetting curve up to a day, alone, into a PNG file."""
    with TemporaryDirectory() as folder:
        cells = drawing.cohorts(days.read(project, day, Path(folder)))
    charts.write_png(charts.forgetting_curve(cells), path)


def render(day: Day, *, forced: Mapping[str, str]) -> str:
    """Return the report as HTML: all that it needs is in it, and nothing in it asks for more."""
    import vl_convert

    template = files("dayfold.figures.report") / "template"
    library = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").strip()
    script = (template / "page.js").read_text(encoding="utf-8").strip()
    specs, values = drawing.charts_of(day)
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
        forced=forced.get(day.day),
        matrix=_matrix(values["cohorts"]),
        backtest=drawing.backtest(day.project),
        measures=charts.MEASURES,
        galleries=pictures.galleries(day),
        splits=making.splits(day),
        pool=making.pool(day),
        arrivals=_table_of(values["arrivals"], "arrived", "class"),
        corrections=making.corrections(day),
        params=making.changed_params(day),
        recipe=making.recipe(day),
        commands=making.commands(day),
        specs=specs,
        values=values,
        packed={name: _packed(rows) for name, rows in values.items()},
        hidden={"classes": drawing.hidden(day)},
        style=Markup((template / "page.css").read_text(encoding="utf-8")),  # noqa: S704
        scripts=[Markup(text) for text in (library, script)],  # noqa: S704
        # Only these two scripts run, whatever a name in the data may hold.
        trusted=" ".join(_hash(text) for text in (library, script)),
    )


def _packed(rows: drawing.Values) -> dict[str, Any]:
    """Rows with their keys named once: half as many bytes."""
    keys = list(rows[0]) if rows else []
    return {"keys": keys, "rows": [[row[key] for key in keys] for row in rows]}


def _hash(text: str) -> str:
    """A script as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _matrix(cohorts: drawing.Values) -> dict[str, Any]:
    cells = [
        {"row": cell["day"], "column": cell["cohort"], "value": cell["accuracy"]}
        for cell in cohorts
    ]
    return _grid(cells)


def _table_of(values: drawing.Values, row: str, column: str) -> dict[str, Any]:
    return _grid(
        [{"row": cell[row], "column": cell[column], "value": cell["images"]} for cell in values]
    )


def _grid(cells: drawing.Values) -> dict[str, Any]:
    """Cells as rows and columns of a table."""
    rows, columns = (sorted({cell[name] for cell in cells}) for name in ("row", "column"))
    at = {(cell["row"], cell["column"]): cell["value"] for cell in cells}
    return {
        "columns": columns,
        "rows": [(row, [at.get((row, one)) for one in columns]) for row in rows],
    }


def _all_figures(day: Day) -> list[tuple[str, Any, Any, Any]]:
    """Every figure of the day that is a number: key, value, interval, yesterday's."""
    before = (day.before.figures if day.before else None) or {}
    found = []
    for key, value in days.dotted(day.figures).items():
        if key.split(".")[0] not in ("interval", "classes") and not isinstance(value, bool):
            found.append((key, value, _at(day.figures["interval"], key), _at(before, key)))
    return found


def _at(tree: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted key; None where nothing does."""
    place: Any = tree
    for part in key.split("."):
        place = place.get(part) if isinstance(place, dict) else None
    return place


def figure(value: float | None) -> str:
    """Return a figure with three decimals and a true minus sign; a dash where it is undefined."""
    return UNDEFINED if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def share(value: float) -> str:
    """Return a share as percent with one decimal."""
    return f"{value:.1%}"


def shown(value: object) -> str:
    """Return a param as params.yaml has it; a dash where it has none."""
    if value is making.ABSENT:
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
