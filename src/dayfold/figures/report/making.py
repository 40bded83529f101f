"""What went into a day, and how it was made: images, draws, corrections, params, hashes."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

from dayfold.figures.report.day import Day, dotted
from dayfold.ledger import manifest
from dayfold.ledger.corrections import ERASE, gone
from dayfold.ledger.manifest import Row
from dayfold.ledger.tables import PoolShare, Replayed, schema
from dayfold.project import vcs
from dayfold.project.files import parse_csv

OWN = ("day", "parent")  # params that differ every day
ABSENT = object()  # of a param that a day's params.yaml does not have; null is a value


@dataclass(frozen=True)
class Drawn:
    """A class or a data version in today's pool: its images, and their part of the draws."""

    name: str
    today: int
    replayed: int
    share: float


@dataclass(frozen=True)
class Pool:
    """What training drew from, by class and by data version; `reasons`: why replayed ones are in.

    `share_today` is the part of the draws that today's images get, 0..1.
    """

    classes: list[Drawn]
    versions: list[Drawn]
    share_today: float
    reasons: dict[str, int]


@dataclass(frozen=True)
class Corrected:
    """An image whose label was corrected on the day, or that was withdrawn (no `after`)."""

    path: str
    before: str
    after: str


def arrivals(day: Day) -> list[dict[str, Any]]:
    """Return how many images of each class arrived on each day, as they are labelled now."""
    counts = day.history.images.group_by("day", "label").len(name="images").sort("day", "label")
    return [
        {"arrived": arrived, "class": label, "images": images}
        for arrived, label, images in counts.iter_rows()
    ]


def splits(day: Day) -> dict[str, int]:
    """Return how many of the day's own images are for training, validation and test."""
    mine = Counter(manifest.added(day.history, day.day)["split"].to_list())
    return {split: mine[split] for split in manifest.SPLITS}


def pool(day: Day) -> Pool | None:
    """Return what training drew from; None where data/shares.csv of the day cannot be had."""
    shares = day.table(day.project.shares, PoolShare)
    if shares is None:
        return None
    replayed = day.table(day.project.replay, Replayed)
    reasons = Counter([] if replayed is None else replayed["reason"].to_list())
    mine = shares.filter(pl.col("day") == day.day)
    return Pool(
        _drawn(shares, "label", day.day),
        _drawn(shares, "day", day.day),
        float(mine["share"].sum()),
        dict(reasons.most_common()),
    )


def _drawn(shares: pl.DataFrame, key: str, day: str) -> list[Drawn]:
    of_today = pl.col("images").filter(pl.col("day") == day).sum()
    table = shares.group_by(key).agg(
        of_today.alias("today"), pl.col("images").sum(), pl.col("share").sum()
    )
    return [
        Drawn(name, today, images - today, share)
        for name, today, images, share in table.sort(key).iter_rows()
    ]


def corrections(day: Day) -> list[Corrected]:
    """Return the day's corrections, as its manifest has them."""
    path = day.project.manifest(day.day)
    rows = parse_csv(path.read_bytes(), schema(Row), day.project.name(path))
    changed = rows.filter(pl.col("action").is_in(["relabel", "withdraw"]))
    if changed.is_empty():
        return []
    earlier = manifest.history(day.project, day.parent).images
    before = dict(earlier.select("image", "label").iter_rows())
    return [
        Corrected(row["path"], before.get(row["image"], ""), row["label"])
        for row in changed.iter_rows(named=True)
    ]


def changed_params(day: Day) -> list[tuple[str, Any, Any]]:
    """Return the params that differ from the day before: key, then, now; `ABSENT` if not there."""
    now, then = day.params, day.params_before
    if not now or not then:
        return []
    keys = sorted({*now, *then} - set(OWN))
    both = [(key, then.get(key, ABSENT), now.get(key, ABSENT)) for key in keys]
    return [(key, before, after) for key, before, after in both if before != after]


def recipe(day: Day) -> dict[str, Any]:
    """Return the recipe as it was resolved, by dotted key."""
    return dotted(day.provenance.get("recipe", {}))


def commands(day: Day) -> list[tuple[str, str]]:
    """Return the commands that make the day again, each with what it does."""
    if not day.is_sealed:
        return [("dvc repro", "makes what is not up to date"), ("dayfold seal", "settles the day")]
    tag = vcs.TAG + day.day
    again = "trains it again and compares every output, to the bit"
    if gone(day.project, ERASE):
        again += ", unless it needs an image that was erased"
    return [
        (f"git checkout {tag} && dvc checkout", "this day's images, params, model and figures"),
        ("dvc repro", "nothing to do: all is up to date"),
        (f"dayfold reproduce {day.day}", again),
    ]
