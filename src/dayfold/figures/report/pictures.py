"""The images worth a look: flips, mistakes, doubtful labels and near duplicates, as thumbnails."""

import base64
import io
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
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


@dataclass(frozen=True)
class Shown:
    """An image, what it is called and what was predicted, and the command that corrects it."""

    thumbnail: Thumbnail
    path: str
    facts: tuple[tuple[str, str], ...]
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


def _flips(day: Day, see: Any) -> Gallery:
    path = day.project.plot("flips")
    table = day.table(path, Flip)
    rows = [] if table is None else _surest_first(table)
    return Gallery(
        "flips",
        "Negative flips",
        "Test images that yesterday's model had right and today's has wrong, the surest first.",
        _unless_missing(day, table, path, "Nothing that was right yesterday is wrong today."),
        len(rows),
        [
            Shown(
                see(row["path"]),
                row["path"],
                (("label", row["label"]), ("today", _said(row))),
                relabel(row["path"], row["predicted"]),
            )
            for row in rows[:SHOWN]
        ],
    )


def _mistakes(day: Day, see: Any) -> Gallery:
    path = day.project.predictions
    table = day.table(path, Prediction)
    rows: list[dict[str, Any]] = []
    if table is not None:
        places = day.history.images.select("image", "path")
        wrong = table.filter(pl.col("predicted") != pl.col("label"))
        rows = _surest_first(wrong.join(places, on="image"))
    return Gallery(
        "mistakes",
        "Most confident mistakes",
        "Held-out images, validation and test, of which the model is surest and wrong. "
        "The label may be wrong instead.",
        _unless_missing(day, table, path, "No held-out image is predicted wrong."),
        len(rows),
        [
            Shown(
                see(row["path"]),
                row["path"],
                (("label", row["label"]), ("predicted", _said(row)), ("split", row["split"])),
                relabel(row["path"], row["predicted"]),
            )
            for row in rows[:SHOWN]
        ],
    )


def _doubts(day: Day, see: Any) -> Gallery:
    path = day.project.audit(day.day)
    table = tables.read(path, Doubt) if path.exists() else None
    rows = [] if table is None else tables.shown(table)
    none = "The audit of this day doubts no label."
    return Gallery(
        "doubts",
        "Most doubtful labels",
        "Images whose label is probably wrong, by predictions of models that were not trained on "
        "them. A score of 0 is surely wrong, 1 surely right.",
        none if table is not None else "There is no audit of this day; dayfold audit makes one.",
        len(rows),
        [
            Shown(
                see(row["path"]),
                row["path"],
                (
                    ("label", row["label"]),
                    ("suggested", row["suggested"]),
                    ("score", f"{row['score']:.3f}"),
                ),
                relabel(row["path"], row["suggested"]),
            )
            for row in rows[:SHOWN]
        ],
    )


def _alike(day: Day, see: Any) -> Gallery:
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
        list(islice(_pairs(rows, see), SHOWN)),
    )


def _pairs(rows: Iterable[Mapping[str, Any]], see: Any) -> Iterator[Shown]:
    for row in rows:
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


def _surest_first(table: pl.DataFrame) -> list[dict[str, Any]]:
    ordered = table.sort("confidence", "path", descending=[True, False])
    return list(ordered.iter_rows(named=True))


def _said(row: Mapping[str, Any]) -> str:
    return f"{row['predicted']}, confidence {row['confidence']:.3f}"


def _unless_missing(day: Day, table: pl.DataFrame | None, path: Any, empty: str) -> str:
    name = day.project.name(path)
    return empty if table is not None else f"{name} of this day is not here."


def relabel(path: str, label: str) -> str:
    """Return the command that gives an image another label."""
    return shlex.join(("dayfold", "relabel", path, "--to", label))


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
