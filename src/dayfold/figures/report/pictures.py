"""The images worth a look."""

import base64
import io
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from PIL import Image

from dayfold.errors import IntakeError
from dayfold.figures.day import Day
from dayfold.ledger import corrections
from dayfold.ledger.decode import decode, no_warnings
from dayfold.ledger.tables import Flip, NearDuplicate, Prediction, Unlike
from dayfold.project.files import sha256
from dayfold.project.layout import Project

SHOWN = 12  # images of a kind
SIDE_PX = 192  # of a thumbnail, at most
SMALL_PX = 64  # up to this an image is kept as it is, and shown pixel by pixel


class Thumbnail(NamedTuple):
    """A picture as a data URI, or none and why; `is_small`: its pixels can be told apart."""

    uri: str | None
    why: str
    is_small: bool


class Picture(NamedTuple):
    """An image, where the model looks in it, what is known of it, the command that corrects it."""

    thumbnail: Thumbnail
    heat: str | None
    path: str
    facts: dict[str, str]
    command: str


class Gallery(NamedTuple):
    """Some images of a kind: what they are, how many in all; without any, `says` is why."""

    title: str
    says: str
    total: int
    pictures: list[Picture]


Found = list[tuple[str, dict[str, str], str]]  # path, facts and command of each image of a kind


Heat = Callable[[list[Path]], list[Image.Image]]  # images, each under its heat map


def galleries(day: Day, heat: Heat | None) -> Iterator[Gallery]:
    """Yield the galleries of a day; one whose data cannot be had says so.

    `heat` draws where the day's model looks, in the images that it has wrong.
    """
    ids = dict(day.history.images.select("path", "image").iter_rows())
    # Of an earlier day: what was withdrawn since is shown no more.
    withdrawn = corrections.gone(day.project)
    gone = {path for path, image in ids.items() if image in withdrawn}
    for title, says, find in _KINDS:
        empty, found = find(day)
        with no_warnings():
            drawn = {
                path: thumbnail(day.project, ids, path, withdrawn=gone)
                for path, *_ in found[:SHOWN]
            }
            here = [path for path, made in drawn.items() if made.uri]
            is_wrong = find in (_newly_wrong, _mistakes)
            made = []
            if heat and is_wrong and here:
                made = heat([day.project.root / path for path in here])
        heats = {path: _drawn(image).uri for path, image in zip(here, made, strict=False)}
        pictures = [
            Picture(drawn[path], heats.get(path), path, facts, command)
            for path, facts, command in found[:SHOWN]
        ]
        yield Gallery(title, says if found else empty, len(found), pictures)


def _newly_wrong(day: Day) -> tuple[str, Found]:
    return _wrong(day, day.project.plot("flips"), Flip, "No test image is newly wrong.")


def _mistakes(day: Day) -> tuple[str, Found]:
    empty = "No validation or test image is predicted wrong."
    return _wrong(day, day.project.predictions, Prediction, empty)


def _wrong(day: Day, path: Path, kind: type[NamedTuple], empty: str) -> tuple[str, Found]:
    table = day.table(path, kind)
    if table is None:
        return f"{day.project.name(path)} of this day is not here.", []
    if "path" not in table.columns:
        table = table.join(day.history.images.select("image", "path"), on="image")
    wrong = table.filter(pl.col("predicted") != pl.col("label"))
    ordered = wrong.sort("confidence", "path", descending=[True, False])
    return empty, [
        _relabel(row, row["predicted"], confidence=row["confidence"])
        for row in ordered.iter_rows(named=True)
    ]


def _unlike(day: Day) -> tuple[str, Found]:
    path = day.project.plot("unlike")
    table = day.table(path, Unlike) if day.file(path) is not None else None
    if table is None:
        return "This day was made without a look at what is unknown.", []
    found = [
        (
            row["path"],
            {
                "label": row["label"],
                "nearest": row["predicted"],
                "distance": f"{row['distance']:.3f}",
            },
            shlex.join(("dayfold", "withdraw", row["path"], "--reason", "no such image")),
        )
        for row in table.iter_rows(named=True)
    ]
    return "There is no model before this day that knows what its classes look like.", found


def _relabel(row: Mapping[str, Any], other: str, **sure: float) -> tuple[str, dict[str, str], str]:
    facts = {"label": row["label"], "predicted": other}
    facts |= {name: f"{value:.3f}" for name, value in sure.items()}
    facts |= {"split": row["split"]} if "split" in row else {}
    return row["path"], facts, shlex.join(("dayfold", "relabel", row["path"], "--to", other))


def _alike(day: Day) -> tuple[str, Found]:
    path, found = day.project.plot("near_duplicates"), []
    table = day.table(path, NearDuplicate) if day.file(path) is not None else None
    if table is None:
        return "This day was made without a search for near duplicates.", []
    for row in table.sort("bits", "path").iter_rows(named=True):
        same, of = f"like {row['other_path']}", f"{row['bits']} of 128"
        for prefix in ("", "other_"):
            path = row[f"{prefix}path"]
            facts = {key: row[prefix + key] for key in ("label", "split")} | {"bits apart": of}
            withdraw = shlex.join(("dayfold", "withdraw", path, "--reason", same))
            found.append((path, facts, "" if prefix else withdraw))
    return "No image of today looks like one of another split or class.", found


_KINDS: tuple[tuple[str, str, Callable[[Day], tuple[str, Found]]], ...] = (
    (
        "Newly wrong",
        "Test images that yesterday's model had right and today's has wrong, the most confident "
        "first.",
        _newly_wrong,
    ),
    (
        "Most confident mistakes",
        "Validation and test images that are predicted wrong, the most confident first. The label "
        "may be wrong instead.",
        _mistakes,
    ),
    (
        "Least like what was known",
        "Images of today, the farthest first from all that yesterday's model had learnt. A new "
        "class, or a wrong folder, a screenshot, another organ.",
        _unlike,
    ),
    (
        "Near duplicates",
        "Images of today, each before one of another split or class that it looks like.",
        _alike,
    ),
)


def thumbnail(
    project: Project, ids: Mapping[str, str], name: str, *, withdrawn: Collection[str] = ()
) -> Thumbnail:
    """Return an image of the history, checked against its sha256; nothing of a withdrawn one."""
    if name in withdrawn:
        return Thumbnail(None, "withdrawn since", is_small=False)
    try:
        data = (project.root / name).read_bytes()
        if sha256(data) != ids.get(name):
            return Thumbnail(None, "not the bytes that the manifest pins", is_small=False)
        return _drawn(decode(data))
    except OSError:
        return Thumbnail(None, "not here: dvc checkout || dvc pull", is_small=False)
    except IntakeError as error:
        return Thumbnail(None, error.what, is_small=False)


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
