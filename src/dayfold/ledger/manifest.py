"""Manifests: what each data version adds and changes, chained by hash back to the origin.

A manifest's first row pins its parent's bytes, so the hash of one manifest pins the whole history.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger.tables import schema
from dayfold.project.files import parse_csv, sha256, write_csv
from dayfold.project.layout import ORIGIN, Project

SPLITS = ("train", "validation", "test")
HELD_OUT = SPLITS[1:]
ACTIONS = ("parent", "add", "relabel", "withdraw")


class Row(NamedTuple):
    """One line of a manifest. `image` is the sha256 of the file's bytes, `path` starts at the top.

    `relabel` carries the new label; `withdraw` none.
    """

    action: str
    image: str
    path: str
    label: str
    group: str
    split: str


@dataclass(frozen=True)
class History:
    """All images as they stand after a data version.

    `images` has the columns image, path, label, group, split, day (the cohort: the day on which the
    image arrived), sorted by day and path; corrections are applied, withdrawn images are gone.
    `withdrawn` are the ids of those; `groups` (group, split) has every group ever seen; `days` are
    the data versions, oldest first; `sha256` pins all.
    """

    images: pl.DataFrame
    groups: pl.DataFrame
    withdrawn: frozenset[str]
    days: tuple[str, ...]
    sha256: str

    def split(self, *names: str) -> pl.DataFrame:
        """Return the images of the named splits."""
        return self.images.filter(pl.col("split").is_in(names))


def write(path: Path, *, parent_day: str, parent_sha256: str, rows: Iterable[Row]) -> None:
    """Write one day's manifest: the parent's pin first, then the rows by action, path and image."""
    ordered = sorted(rows, key=lambda row: (ACTIONS.index(row.action), row.path, row.image))
    pin = Row("parent", parent_sha256, parent_day, "", "", "")
    write_csv(path, Row._fields, [pin, *ordered])


def write_origin(path: Path) -> None:
    """Write the first parent: a header and nothing else."""
    write_csv(path, Row._fields, [])


def history(project: Project, day: str) -> History:
    """Read the chain of manifests from `day` back to the origin and fold it.

    Raises LedgerError where a manifest is missing or is not the one that its child pins.
    """
    tables: list[pl.DataFrame] = []
    days: list[str] = []
    expected, first_hash = "", ""
    while True:
        name = project.name(project.manifest(day))
        try:
            data = project.manifest(day).read_bytes()
        except FileNotFoundError:
            raise LedgerError(
                f"The manifest {name} is missing.",
                mend=_restore(day, name) + ("" if expected else ", or, on the open day, dvc repro"),
            ) from None
        found = sha256(data)
        first_hash = first_hash or found
        if expected and found != expected:
            raise LedgerError(
                f"{name} was changed after the next day had been made: its sha256 is {found[:12]}…,"
                f" {days[-1]} pins {expected[:12]}….",
                mend=_restore(day, name),
            )
        if day == ORIGIN:
            break
        table = parse_csv(data, schema(Row), name)
        if table.is_empty() or table.item(0, "action") != "parent":
            raise LedgerError(f"{name} does not begin with its parent.", mend="dvc repro")
        days.append(day)
        tables.append(table[1:].with_columns(day=pl.lit(day)))
        expected, day = table.item(0, "image"), table.item(0, "path")
        if day != ORIGIN and day >= days[-1]:
            raise LedgerError(f"{name} names the later day {day} as its parent.")
    days.reverse()
    empty = pl.DataFrame(schema={**schema(Row), "day": pl.String})
    return _fold(pl.concat([empty, *reversed(tables)]), tuple(days), first_hash)


def _restore(day: str, name: str) -> str:
    """The command that brings a sealed manifest back; the origin's is that of every seal."""
    return f"git checkout {'HEAD' if day == ORIGIN else f'day/{day}'} -- {name}"


def added(history: History, day: str) -> pl.DataFrame:
    """Return the images of a history that arrived on `day`."""
    return history.images.filter(pl.col("day") == day)


def _fold(events: pl.DataFrame, days: tuple[str, ...], pin: str) -> History:
    """Apply the events, oldest first: the last label counts, a withdrawal is for ever."""
    arrived = events.filter(pl.col("action") == "add").drop("action")
    withdrawn = events.filter(pl.col("action") == "withdraw").select("image")
    relabelled = (
        events.filter(pl.col("action") == "relabel")
        .group_by("image", maintain_order=True)
        .agg(pl.col("label").last().alias("corrected"))
    )
    images = (
        arrived.join(withdrawn, on="image", how="anti")
        .join(relabelled, on="image", how="left")
        .with_columns(label=pl.coalesce("corrected", "label"))
        .drop("corrected")
        .sort("day", "path")
    )
    if images["image"].is_duplicated().any():
        twice = images.filter(pl.col("image").is_duplicated())["path"].to_list()
        raise LedgerError("The history holds the same image more than once.", problems=twice)
    groups = arrived.filter(pl.col("group") != "").select("group", "split").unique()
    return History(images, groups, frozenset(withdrawn["image"]), days, pin)
