"""The report's galleries of images."""

import base64
import io
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
from PIL import Image

from dayfold.errors import IntakeError
from dayfold.figures.day import Day
from dayfold.ledger import corrections
from dayfold.ledger.decode import decode, no_warnings
from dayfold.ledger.tables import Flip, NearDuplicate, Prediction, Unlike
from dayfold.project import vcs
from dayfold.project.files import sha256
from dayfold.project.layout import Project

SHOWN = 12  # images shown in a gallery
SIDE_PX = 192  # the longest side of a thumbnail
SMALL_PX = 64  # up to this size an image is shown enlarged, with sharp pixels


class Thumbnail(NamedTuple):
    """A picture as a data URI, or None and the reason; if `is_small`, the page enlarges it."""

    uri: str | None
    why: str
    is_small: bool = False


class Picture(NamedTuple):
    """An image of a gallery: its path, facts about it, the command that corrects it."""

    path: str
    facts: dict[str, str]
    command: str
    thumbnail: Thumbnail = Thumbnail(None, "not shown")
    heat: str | None = None


class Gallery(NamedTuple):
    """Images of one kind, `total` in all; if there are none, `says` is the reason."""

    title: str
    says: str
    total: int
    pictures: list[Picture]


Heat = Callable[[list[Path]], list[Image.Image]]  # draws heat maps over images


def galleries(day: Day, heat: Heat | None) -> Iterator[Gallery]:
    """Yield the galleries of a day; `heat` draws heat maps over mistakes."""
    project, ids = day.project, dict(day.history.images.select("path", "image").iter_rows())
    # Images withdrawn since the day are not shown.
    withdrawn = corrections.withdrawals(project)
    gone = {path for path, image in ids.items() if image in withdrawn}
    for title, says, items, empty, its_heat in (
        (
            "Newly wrong",
            "Test images that yesterday's model had right and today's has wrong, the most "
            "confident first.",
            _mistakes(day, project.plot("flips"), Flip),
            "No test image is newly wrong.",
            heat,
        ),
        (
            "Most confident mistakes",
            "Validation and test images that are predicted wrong, the most confident first. The "
            "label may be wrong instead.",
            _mistakes(day, project.predictions, Prediction),
            "No validation or test image is predicted wrong.",
            heat,
        ),
        (
            "Least like earlier images",
            "Images of today, the farthest first from all that yesterday's model had learnt. A "
            "new class, or a wrong folder, a screenshot, another organ.",
            _unlike(day),
            "No model before this day knows what its classes look like.",
            None,
        ),
        (
            "Near duplicates",
            "Images of today, each followed by one that it looks like, of another split or class.",
            _near_duplicates(day),
            "No image of today looks like one of another split or class.",
            None,
        ),
    ):
        if isinstance(items, str):
            yield Gallery(title, items, 0, [])
            continue
        with no_warnings():
            shown = [
                one._replace(thumbnail=thumbnail(project, ids, one.path, withdrawn=gone))
                for one in items[:SHOWN]
            ]
            here = [one.path for one in shown if one.thumbnail.uri]
            maps = its_heat([project.root / path for path in here]) if its_heat and here else []
        heats = {path: _drawn(image).uri for path, image in zip(here, maps, strict=False)}
        pictures = [one._replace(heat=heats.get(one.path)) for one in shown]
        yield Gallery(title, says if items else empty, len(items), pictures)


# Each function below returns its pictures, or why their table cannot be read.


def _mistakes(day: Day, path: Path, kind: type[NamedTuple]) -> list[Picture] | str:
    table = day.table(path, kind)
    if table is None:
        return f"{day.project.name(path)} of this day is not here."
    if "path" not in table.columns:
        table = table.join(day.history.images.select("image", "path"), on="image")
    wrong = table.filter(pl.col("predicted") != pl.col("label"))
    items = []
    for row in wrong.sort("confidence", "path", descending=[True, False]).iter_rows(named=True):
        facts = {key: row[key] for key in ("label", "predicted")}
        facts |= {"confidence": f"{row['confidence']:.3f}"}
        facts |= {"split": row["split"]} if "split" in row else {}
        command = shlex.join(("dayfold", "relabel", row["path"], "--to", row["predicted"]))
        items.append(Picture(row["path"], facts, command))
    return items


def _unlike(day: Day) -> list[Picture] | str:
    path = day.project.plot("unlike")
    table = day.table(path, Unlike) if day.file(path) is not None else None
    if table is None:
        return "This day was made without a search for unknown images."
    items = []
    for path, label, predicted, distance in table.iter_rows():
        facts = {"label": label, "nearest": predicted, "distance": f"{distance:.3f}"}
        command = shlex.join(("dayfold", "withdraw", path, "--reason", "does not belong here"))
        items.append(Picture(path, facts, command))
    return items


def _near_duplicates(day: Day) -> list[Picture] | str:
    path, items = day.project.plot("near_duplicates"), []
    table = day.table(path, NearDuplicate) if day.file(path) is not None else None
    if table is None:
        return "This day was made without a search for near duplicates."
    for row in table.sort("bits", "path").iter_rows(named=True):
        same, of = f"like {row['other_path']}", f"{row['bits']} of 128"
        for prefix in ("", "other_"):
            path = row[f"{prefix}path"]
            facts = {key: row[prefix + key] for key in ("label", "split")} | {"bits apart": of}
            withdraw = shlex.join(("dayfold", "withdraw", path, "--reason", same))
            items.append(Picture(path, facts, "" if prefix else withdraw))
    return items


def thumbnail(
    project: Project, ids: Mapping[str, str], name: str, *, withdrawn: Collection[str] = ()
) -> Thumbnail:
    """Return the thumbnail of an image with the sha256 of `ids`, or why there is none."""
    if name in withdrawn:
        return Thumbnail(None, "withdrawn since")
    try:
        data = (project.root / name).read_bytes()
        if sha256(data) != ids.get(name):
            return Thumbnail(None, "not the bytes that the manifest pins")
        return _drawn(decode(data))
    except OSError:
        return Thumbnail(None, f"not here: {vcs.TO_FETCH}")
    except IntakeError as error:
        return Thumbnail(None, error.what)


def _drawn(image: Image.Image) -> Thumbnail:
    is_small, file = max(image.size) <= SMALL_PX, io.BytesIO()
    image.thumbnail((SIDE_PX, SIDE_PX))
    kind = "png" if is_small else "jpeg"
    image.save(file, kind, optimize=is_small, quality=80)
    encoded = base64.b64encode(file.getvalue()).decode()
    return Thumbnail(f"data:image/{kind};base64,{encoded}", "", is_small)
