"""The images worth a look: flips, mistakes, doubtful labels and near duplicates, as thumbnails."""

import base64
import io
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from PIL import Image

from dayfold.errors import IntakeError
from dayfold.figures.report.day import Day
from dayfold.ledger import corrections, tables
from dayfold.ledger.decode import decode, no_warnings
from dayfold.ledger.tables import Doubt, Flip, NearDuplicate, Prediction
from dayfold.project.files import sha256
from dayfold.project.layout import Project

SHOWN = 12  # images of a kind
SIDE_PX = 192  # of a thumbnail, at most
SMALL_PX = 64  # up to this an image is kept as it is, and shown pixel by pixel


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, or none and why; `is_small`: its pixels can be told apart."""

    uri: str | None
    why: str
    is_small: bool


Fact = tuple[str, str]
See = Callable[[str], Thumbnail]


@dataclass(frozen=True)
class Shown:
    """An image, what it is called and what was predicted, and the command that corrects it."""

    thumbnail: Thumbnail
    path: str
    facts: tuple[Fact, ...]
    command: str


@dataclass(frozen=True)
class Gallery:
    """Some images of a kind, of `total`; `says` is what they are, `empty` what is said of none."""

    key: str
    title: str
    says: str
    empty: str
    total: int
    images: list[Shown]


def galleries(day: Day) -> list[Gallery]:
    """Return the four galleries of a day; one whose data cannot be had says so."""
    ids = dict(day.history.images.select("path", "image").iter_rows())
    # Of an earlier day: what was withdrawn since is shown no more.
    withdrawn = corrections.gone(day.project)
    gone = {path for path, image in ids.items() if image in withdrawn}
    see = partial(thumbnail, day.project, ids, withdrawn=gone)
    with no_warnings():
        return [_flips(day, see), _mistakes(day, see), _doubts(day, see), _alike(day, see)]


def _flips(day: Day, see: See) -> Gallery:
    path = day.project.plot("flips")
    table = day.table(path, Flip)
    return Gallery(
        "flips",
        "Negative flips",
        "Test images that yesterday's model had right and today's has wrong, the surest first.",
        _unless_missing(day, table, path, "Nothing that was right yesterday is wrong today."),
        0 if table is None else len(table),
        [_shown(see, row, "today", _said(row)) for row in _surest(table)],
    )


def _mistakes(day: Day, see: See) -> Gallery:
    path = day.project.predictions
    table = wrong = day.table(path, Prediction)
    if table is not None:
        places = day.history.images.select("image", "path")
        wrong = table.filter(pl.col("predicted") != pl.col("label")).join(places, on="image")
    return Gallery(
        "mistakes",
        "Most confident mistakes",
        "Held-out images, validation and test, of which the model is surest and wrong. "
        "The label may be wrong instead.",
        _unless_missing(day, table, path, "No held-out image is predicted wrong."),
        0 if wrong is None else len(wrong),
        [
            _shown(see, row, "predicted", _said(row), ("split", row["split"]))
            for row in _surest(wrong)
        ],
    )


def _doubts(day: Day, see: See) -> Gallery:
    path = day.project.audit(day.day)
    rows = tables.shown(tables.read(path, Doubt)) if path.exists() else []
    return Gallery(
        "doubts",
        "Most doubtful labels",
        "Images whose label is probably wrong, by predictions of models that were not trained on "
        "them. A score of 0 is surely wrong, 1 surely right.",
        "The audit of this day doubts no label."
        if path.exists()
        else "There is no audit of this day; dayfold audit makes one.",
        len(rows),
        [
            _shown(see, row, "suggested", row["suggested"], ("score", f"{row['score']:.3f}"))
            for row in rows[:SHOWN]
        ],
    )


def _shown(see: See, row: Mapping[str, Any], said_by: str, said: str, *more: Fact) -> Shown:
    """An image with its label and what is said of it, and the command that takes that over."""
    other = row.get("predicted") or row["suggested"]
    facts = (("label", row["label"]), (said_by, said), *more)
    command = shlex.join(("dayfold", "relabel", row["path"], "--to", other))
    return Shown(see(row["path"]), row["path"], facts, command)


def _alike(day: Day, see: See) -> Gallery:
    path = day.project.plot("near_duplicates")
    table = day.table(path, NearDuplicate) if day.keeps(path) else None
    rows = [] if table is None else list(table.sort("bits", "path").iter_rows(named=True))
    return Gallery(
        "alike",
        "Near duplicates",
        "Images of today that look like one of another split or class, shown one after the other.",
        "No image of today looks like one of another split or class."
        if table is not None
        else "This day was made without a search for near duplicates.",
        len(rows),
        [image for row in rows[: SHOWN // 2] for image in _pair(row, see)],
    )


def _pair(row: Mapping[str, Any], see: See) -> Iterator[Shown]:
    command = shlex.join(
        ("dayfold", "withdraw", row["path"], "--reason", f"like {row['other_path']}")
    )
    for prefix, like in (("", row["other_path"]), ("other_", row["path"])):
        path = row[f"{prefix}path"]
        facts = (
            ("label", row[f"{prefix}label"]),
            ("split", row[f"{prefix}split"]),
            ("looks like", like.rpartition("/")[2]),
            ("bits apart", f"{row['bits']} of 128"),
        )
        yield Shown(see(path), path, facts, "" if prefix else command)


def _surest(table: pl.DataFrame | None) -> list[dict[str, Any]]:
    if table is None:
        return []
    ordered = table.sort("confidence", "path", descending=[True, False])
    return list(ordered.head(SHOWN).iter_rows(named=True))


def _said(row: Mapping[str, Any]) -> str:
    return f"{row['predicted']}, confidence {row['confidence']:.3f}"


def _unless_missing(day: Day, table: pl.DataFrame | None, path: Path, empty: str) -> str:
    return empty if table is not None else f"{day.project.name(path)} of this day is not here."


def thumbnail(
    project: Project, ids: Mapping[str, str], name: str, *, withdrawn: Collection[str] = ()
) -> Thumbnail:
    """Return an image of the history, checked against its sha256; nothing of a withdrawn one."""
    path = project.root / name
    if name in withdrawn:
        return Thumbnail(None, "withdrawn since", is_small=False)
    try:
        data = path.read_bytes()
        if sha256(data) != ids.get(name):
            return Thumbnail(None, "not the bytes that the manifest pins", is_small=False)
        image = decode(data)
    except OSError:
        return Thumbnail(None, "not here: dvc checkout || dvc pull", is_small=False)
    except IntakeError as error:
        return Thumbnail(None, error.what, is_small=False)
    return _drawn(image)


def _drawn(image: Image.Image) -> Thumbnail:
    is_small = max(image.size) <= SMALL_PX
    file = io.BytesIO()
    if is_small:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((SIDE_PX, SIDE_PX))
        image.save(file, "JPEG", quality=80)
    kind = "png" if is_small else "jpeg"
    encoded = base64.b64encode(file.getvalue()).decode()
    return Thumbnail(f"data:image/{kind};base64,{encoded}", "", is_small)
