"""Erased images: which sealed days used one, and whether its text lies where it must.

`dayfold erase` tells the days, `dayfold reproduce` does not make them, and `dayfold check` takes
the text for whole where, and only where, an image was erased.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger import corrections, tables
from dayfold.ledger.corrections import Correction
from dayfold.ledger.manifest import HELD_OUT, History
from dayfold.ledger.placeholder import erased_image
from dayfold.ledger.tables import Replayed
from dayfold.project import cache
from dayfold.project.layout import Project
from dayfold.proof.chain import Finding
from dayfold.proof.record import Sealed

Events = Mapping[str, tuple[str, Correction]]  # by image: the day, and its line
_LONGEST = 200  # bytes; the text of a placeholder is shorter


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
    """The images that a day replayed; None where the cache has not the table."""
    [key] = [pin.md5 for pin in sealed.outs("replay") if pin.path.endswith("/replay.csv")] or [""]
    try:
        return set(tables.read(cache.object_path(objects, key), Replayed)["image"])
    except LedgerError:
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


def judged(
    file: Path, name: str, day: str, image: str, events: Events, *, is_whole: bool
) -> list[Finding] | None:
    """Judge a file that was read as an image's, called `name`; None if it is like any other.

    Nothing is found where the text of an erased image is in its place. A text without an event is
    damage, and so are bytes that are here although they were erased. `events` are the images that
    are recorded as erased.
    """
    if is_whole:
        if image not in events:
            return None
        what = f"{name} was erased on {events[image][0]}, and its bytes are here: {file}"
        return [Finding(day, what, "dayfold withdraw --erase")]
    if not image or not file.is_file() or file.stat().st_size > _LONGEST:
        return None
    if erased_image(file.read_bytes()) != image:
        return None
    if image in events:
        return []
    what = f"{name}: text in its place says that it was erased, and no event does ({file})"
    fix = f"git pull, if that was in another clone; or: dayfold withdraw {name} --erase"
    return [Finding(day, what, fix)]
