"""The page: a template filled into one file that needs nothing else, how values stand in it."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dayfold import __version__
from dayfold.figures import charts, intervals

UNDEFINED = "\N{EN DASH}"
TINY = 24  # columns of a table of shades, above which its numbers are told when pointed at


def render(**values: Any) -> str:
    """Return a page as HTML, in which everything is escaped and no script runs but its own."""
    folder = files("dayfold.figures.report") / "template"
    style, script = (
        (folder / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js")
    )
    environment = Environment(
        loader=PackageLoader("dayfold.figures.report", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    return environment.get_template("page.html").render(
        version=__version__,
        style=Markup(style),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        # As a Content-Security-Policy names it: whatever a name in the data may hold.
        trusted=f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
        **values,
    )


class Cell(NamedTuple):
    """A cell of a table of shades: `part` of the full shade, 0..1, its text, what it tells."""

    row: str
    column: str
    part: float
    text: str
    told: str


class Shades(NamedTuple):
    """A table of shades: column → how its head says it, and row → its cells, None where empty."""

    columns: dict[str, str]
    rows: list[tuple[str, list[Cell | None]]]
    is_tiny: bool


def shades(cells: Sequence[Cell], *, of_days: bool) -> Shades:
    """Return cells as a table, its rows and columns sorted; `of_days`: the columns are days."""
    at = {(cell.row, cell.column): cell for cell in cells}
    rows, columns = (sorted({key[axis] for key in at}) for axis in (0, 1))
    heads = charts.short(columns) if of_days else {name: name for name in columns}
    table = [(row, [at.get((row, column)) for column in columns]) for row in rows]
    return Shades(heads, table, len(columns) > TINY)


def figure(value: float | None) -> str:
    """Return a figure with three decimals and a true minus sign; a dash where it is undefined."""
    return UNDEFINED if value is None else intervals.figure(value).replace("-", "\N{MINUS SIGN}")
