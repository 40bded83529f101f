"""Which sealed days' models saw an image: trained on it, or were tuned and judged by it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger import tables
from dayfold.ledger.manifest import HELD_OUT, History
from dayfold.ledger.tables import Replayed
from dayfold.project import cache
from dayfold.proof.record import Sealed


@dataclass
class Seen:
    """What became of an image: where it lies, the day it arrived, and the days that used it.

    `until` is the day that withdrew it, or nothing. The models of `trained` learnt from it; those
    of `judged` were calibrated or tested with it. Of `unknown` days nobody here can say whether
    they replayed it.
    """

    image: str
    path: str
    split: str
    day: str
    until: str
    trained: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def days(self) -> list[str]:
        """The days that cannot be made again without the image's bytes, in order."""
        return sorted({self.day, *self.trained, *self.judged})


def seen(images: Sequence[Seen], line: Sequence[Sealed], objects: Path) -> list[Seen]:
    """Return the images by path, with what became of them on the sealed days of `line`.

    By the manifests, and by each day's data/replay.csv, which DVC's cache `objects` has.
    """
    trained = {one.image: one for one in images if one.split == "train"}
    for sealed in line if images else ():
        replayed = _replayed(sealed, objects)
        for one in images:
            if sealed.day < one.day or (one.until and sealed.day >= one.until):
                continue
            if one.split in HELD_OUT:
                one.judged.append(sealed.day)
            elif sealed.day == one.day or (replayed is not None and one.image in replayed):
                trained[one.image].trained.append(sealed.day)
            elif replayed is None:
                one.unknown.append(sealed.day)
    return sorted(images, key=lambda one: one.path)


def of_history(history: History, images: Collection[str]) -> list[Seen]:
    """Return these images of a history as it arrived and was withdrawn, nothing looked up yet."""
    of_them = pl.col("image").is_in(list(images))
    columns = ("image", "path", "split", "day", "on")
    live = history.images.with_columns(on=pl.lit("")).filter(of_them).select(columns)
    gone = history.corrections.filter(of_them, pl.col("action") == "withdraw").select(columns)
    return [Seen(*row) for part in (live, gone) for row in part.iter_rows()]


def of_line(line: Sequence[Sealed], images: Collection[str]) -> list[Seen]:
    """Return the same of what the manifests of sealed days, oldest first, add and withdraw."""
    found: dict[str, Seen] = {}
    for sealed in line:
        for row in sealed.rows().filter(pl.col("image").is_in(list(images))).iter_rows(named=True):
            if row["action"] == "add":
                found[row["image"]] = Seen(row["image"], row["path"], row["split"], sealed.day, "")
            elif row["action"] == "withdraw":
                found[row["image"]].until = sealed.day
    return list(found.values())


def _replayed(sealed: Sealed, objects: Path) -> set[str] | None:
    """The images that a day replayed; None where the cache has not the table."""
    [key] = [pin.md5 for pin in sealed.outs("replay") if pin.path.endswith("/replay.csv")] or [""]
    try:
        return set(tables.read(cache.object_path(objects, key), Replayed)["image"])
    except LedgerError:
        return None


def span(days: Sequence[str], among: Sequence[str]) -> str:
    """Return days as text, runs of those that follow each other `among` all days put together."""
    runs: list[list[str]] = []
    for day in days:
        if runs and among.index(day) == among.index(runs[-1][-1]) + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)
