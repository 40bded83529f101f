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
    """Return how the images of these days look (image, look), in the days' order.

    A day without its file is left out. All files are parsed as one: of a thousand days that is a
    tenth of the time.
    """
    paths = [path for path in map(project.looks, days) if path.exists()]
    header = ",".join(Look._fields).encode() + b"\n"
    parts = [path.read_bytes() for path in paths]
    if all(part.startswith(header) and part.endswith(b"\n") for part in parts):
        whole = b"".join([header, *(part.removeprefix(header) for part in parts)])
        try:
            return parse_csv(whole, tables.schema(Look), "data/looks")
        except LedgerError:
            pass  # told below, by the file's name
    every = [pl.DataFrame(schema=tables.schema(Look)), *(tables.read(path, Look) for path in paths)]
    return pl.concat(every)


def nearest(
    mine: pl.DataFrame,
    *,
    history: History,
    earlier: pl.DataFrame,
    kind: Sequence[str],
) -> list[tuple[tuple[Any, ...], tuple[Any, ...], int]]:
    """Return (a row of `mine`, the row that it looks like, bits that differ), by `mine`.

    The nearest in the history or in `mine` that differs in a column of `kind`. `mine` has the
    columns look, path, label and those of `kind`; `earlier` (image, look) is of the history.
    """
    # Of a million rows a few are near: only these are matched with their images.
    is_near = lookalikes.near(mine["look"].to_list(), earlier["look"].to_list())
    matched = earlier["image"].is_in(earlier["image"].filter(pl.Series(is_near)).implode())
    looked = earlier.filter(matched).unique("image", keep="last")
    images = history.images.filter(pl.col("image").is_in(looked["image"].implode()))
    past = images.join(looked, on="image", maintain_order="left").select(mine.columns)
    others = pl.concat([past, mine])
    named = others.select(pl.concat_str(kind, separator="\n").cast(pl.Categorical).to_physical())
    kinds, seen = named.to_series().to_list(), others["look"].to_list()
    found = lookalikes.nearest(seen[len(past) :], kinds[len(past) :], seen, kinds)
    return [(mine.row(position), others.row(other), bits) for position, other, bits in found]


def near_duplicates(
    added: Iterable[Row],
    look_of: dict[str, str],
    *,
    history: History,
    earlier: pl.DataFrame,
) -> list[NearDuplicate]:
    """Return today's images that look like one of another split or class, by path."""
    columns = ("look", "path", "label", "split")
    rows = [(look_of[row.image], row.path, row.label, row.split) for row in added]
    mine = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
    found = nearest(mine, history=history, earlier=earlier, kind=columns[2:])
    return sorted(NearDuplicate._make((*one[1:], *other[1:], bits)) for one, other, bits in found)
