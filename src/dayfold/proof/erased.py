"""Erased images: which sealed days used one, and so cannot be made again."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dayfold.ledger import corrections, tables
from dayfold.ledger.manifest import HELD_OUT, History
from dayfold.ledger.tables import Replayed
from dayfold.project import cache
from dayfold.project.layout import Project
from dayfold.proof.record import UNREADABLE, Sealed


@dataclass
class Usage:
    """An image, the day it arrived, and the sealed days that used it.

    `until` is the day that withdrew it, or nothing. The models of `trained` learnt from it; those
    of `tested` were calibrated or tested with it. Of `unknown` days nobody here can say whether
    they replayed it.
    """

    image: str
    path: str
    split: str
    day: str
    until: str
    trained: list[str] = field(default_factory=list)
    tested: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def days(self) -> list[str]:
        """The days that cannot be made again without the image's bytes, in order."""
        return sorted({self.day, *self.trained, *self.tested})


def usage(
    history: History, images: Collection[str], days: Sequence[Sealed], objects: Path
) -> list[Usage]:
    """Return these images of a history by path, each with those of the sealed `days` that used it.

    By each day's data/replay.csv, which DVC's cache `objects` has.
    """
    of_them = pl.col("image").is_in(list(images))
    columns = ("image", "path", "split", "day", "on")
    live = history.images.with_columns(on=pl.lit("")).filter(of_them).select(columns)
    gone = history.corrections.filter(of_them, pl.col("action") == "withdraw").select(columns)
    found = [Usage(*row) for part in (live, gone) for row in part.iter_rows()]
    for sealed in days if found else ():
        replayed = _replayed(sealed, objects)
        for one in found:
            if sealed.day < one.day or (one.until and sealed.day >= one.until):
                continue
            if one.split in HELD_OUT:
                one.tested.append(sealed.day)
            elif sealed.day == one.day or (replayed is not None and one.image in replayed):
                one.trained.append(sealed.day)
            elif replayed is None:
                one.unknown.append(sealed.day)
    return sorted(found, key=lambda one: one.path)


def _replayed(sealed: Sealed, objects: Path) -> set[str] | None:
    """The images that a day replayed; None where its record or the cache has not the table."""
    try:
        key = sealed.outs()[sealed.project.name(sealed.project.replay)]
        return set(tables.read(cache.object_path(objects, key), Replayed)["image"])
    except UNREADABLE:
        return None


def needed(
    project: Project, history: History, days: Sequence[Sealed], objects: Path
) -> dict[str, list[str]]:
    """Return the paths of the erased images that these sealed days read, by day."""
    found: dict[str, list[str]] = {}
    for one in usage(history, corrections.gone(project, corrections.ERASE), days, objects):
        for day in one.days:
            found.setdefault(day, []).append(one.path)
    return found
