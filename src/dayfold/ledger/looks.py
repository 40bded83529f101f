"""data/looks/<day>.csv: how every image looks, kept so that near duplicates are found for ever."""

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger import lookalikes, tables
from dayfold.ledger.manifest import History, Row
from dayfold.ledger.tables import Look, NearDuplicate
from dayfold.project.files import parse_csv
from dayfold.project.layout import Project


def read(project: Project, days: Iterable[str]) -> pl.DataFrame:
    """Return how the images of these days look (image, look); a day without its file is left out.

    All files are parsed as one: of a thousand days that is a tenth of the time. Raises LedgerError
    that names a file with other columns.
    """
    paths = [path for path in map(project.looks, days) if path.exists()]
    header = ",".join(Look._fields).encode() + b"\n"
    parts = [path.read_bytes() for path in paths]
    if all(part.startswith(header) and part.endswith(b"\n") for part in parts):
        rows = b"".join(part.removeprefix(header) for part in parts)
        try:
            whole = parse_csv(header + rows, tables.schema(Look), "data/looks")
            return whole.unique("image", keep="last")
        except LedgerError:
            pass  # told below, by the file's name
    every = [pl.DataFrame(schema=tables.schema(Look)), *(tables.read(path, Look) for path in paths)]
    return pl.concat(every).unique("image", keep="last")


def nearest(
    mine: pl.DataFrame,
    *,
    history: History,
    earlier: pl.DataFrame,
    kind: Sequence[str],
    within: int,
) -> list[tuple[tuple[Any, ...], tuple[Any, ...], int]]:
    """Return (a row of `mine`, the row that it looks like, bits that differ), by `mine`.

    That is the nearest (lookalikes.nearest) in the history or in `mine` itself of those that differ
    in a column of `kind`. `mine` has the columns look, path and label, split too if `kind` has it;
    `earlier` (image, look) says how the history's images look.
    """
    past = history.images.join(earlier, on="image", maintain_order="left").select(mine.columns)
    others = pl.concat([past, mine])
    named = others.select(pl.concat_str(kind, separator="\n").cast(pl.Categorical).to_physical())
    kinds, seen = named.to_series().to_list(), others["look"].to_list()
    found = lookalikes.nearest(seen[len(past) :], kinds[len(past) :], seen, kinds, within=within)
    return [(mine.row(position), others.row(other), bits) for position, other, bits in found]


def near_duplicates(
    added: Iterable[Row],
    look_of: dict[str, str],
    *,
    history: History,
    earlier: pl.DataFrame,
    within: int,
) -> list[NearDuplicate]:
    """Return today's images that look like one of another split or class, by path.

    `look_of` says how today's images look and `earlier` how the history's do.
    """
    columns = ("look", "path", "label", "split")
    rows = [(look_of[row.image], row.path, row.label, row.split) for row in added]
    mine = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    found = nearest(mine, history=history, earlier=earlier, kind=columns[2:], within=within)
    return sorted(NearDuplicate._make((*one[1:], *other[1:], bits)) for one, other, bits in found)
