"""What is known of a day and of what went into it: from files, or for older days git and DVC."""

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import yaml

from dayfold.errors import CycleError, DayfoldError, ToolError
from dayfold.figures import gate, log
from dayfold.figures.evidence import Evidence
from dayfold.figures.log import DayLine
from dayfold.ledger import manifest, tables
from dayfold.ledger.corrections import ERASE, gone
from dayfold.ledger.manifest import History, Row
from dayfold.ledger.tables import Check, PoolShare, Replayed
from dayfold.project import params as params_file
from dayfold.project import remotes, vcs
from dayfold.project.files import dotted, parse_csv
from dayfold.project.layout import ORIGIN, Project

OWN = ("day", "parent")  # params that differ every day
ABSENT = object()  # of a param that a day's params.yaml does not have; null is a value


@dataclass
class Day:
    """One day of a project, and all that is recorded of it.

    `lines` are those of the days up to this one. `is_current`: it is the day of the working tree.
    `folder` takes files of an earlier day; `missing` says which cannot be had, and why. `known` is
    what the figures rest on.
    """

    project: Project
    day: str
    lines: list[DayLine]
    known: Evidence
    is_current: bool
    is_sealed: bool
    folder: Path
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> DayLine:
        """This day's line."""
        return self.lines[-1]

    @property
    def before(self) -> DayLine | None:
        """The line of the day before, if that has figures."""
        return next((line for line in reversed(self.lines[:-1]) if line.figures), None)

    @property
    def figures(self) -> dict[str, Any]:
        """This day's figures, by the keys of metrics.json."""
        return self.line.figures or {}

    @cached_property
    def history(self) -> History:
        """All images as they stand after this day."""
        return manifest.history(self.project, self.day)

    @cached_property
    def evaluations(self) -> pl.DataFrame:
        """The counts of all days up to this one."""
        return tables.evaluations(self.project, self.day)[0]

    @property
    def counts(self) -> pl.DataFrame:
        """The counts of this day's model."""
        return self.evaluations.filter(pl.col("model") == self.day)

    @cached_property
    def checks(self) -> list[Check] | None:
        """What the gate recorded; None where there is no record."""
        if not self.project.gate(self.day).exists():
            return None
        return gate.read(self.project, self.day)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """data/provenance.json of this day; empty where it cannot be had."""
        data = self._committed(self.project.provenance)
        found: dict[str, Any] = json.loads(data) if data else {}
        return found if found.get("day") == self.day else {}

    @cached_property
    def parent(self) -> str:
        """The day before, as the manifest pins it."""
        days = self.history.days
        return days[-2] if len(days) > 1 else ORIGIN

    @cached_property
    def params(self) -> dict[str, Any]:
        """params.yaml of this day, by dotted key."""
        data = self._committed(self.project.params)
        return dotted(yaml.safe_load(data)) if data else {}

    @cached_property
    def params_before(self) -> dict[str, Any]:
        """params.yaml of the day before, by dotted key; empty where there is none."""
        if self.parent == ORIGIN:
            return {}
        try:
            return dotted(yaml.safe_load(self._of_tag(self.parent, self.project.params)))
        except ToolError:
            return {}

    def table(self, path: Path, kind: type[NamedTuple]) -> pl.DataFrame | None:
        """Return a table of this day that its stages write; None, and why, where it is not here."""
        try:
            return tables.read(path if self.is_current else self._brought(path), kind)
        except DayfoldError as error:
            why = error.problems[-1] if error.problems else error.what
            self.missing[self.project.name(path)] = why
            return None

    def keeps(self, path: Path) -> bool:
        """Whether git keeps this file of the day, or the current day has it."""
        if self.is_current:
            return path.exists()
        name = f"{vcs.TAG}{self.day}:{self.project.name(path)}"
        return vcs.git_says(self.project.root, "cat-file", "-e", name)

    def _brought(self, path: Path) -> Path:
        """A file of an earlier day: git has it, or DVC, in its cache or on a remote."""
        target = self.folder / path.name
        if not target.exists():
            if self.keeps(path):
                target.write_text(self._of_tag(self.day, path), encoding="utf-8")
            else:
                pinned = vcs.sealed_outputs(self.project.root, self.day)
                return remotes.bring(self.project.root, pinned[self.project.name(path)])
        return target

    def _committed(self, path: Path) -> str:
        """The text of a file that git keeps, at this day; empty where there is none."""
        try:
            if self.is_current:
                return path.read_text(encoding="utf-8")
            return self._of_tag(self.day, path)
        except (OSError, ToolError) as error:
            self.missing[self.project.name(path)] = str(error)
            return ""

    def _of_tag(self, day: str, path: Path) -> str:
        return vcs.blob(self.project.root, f"{vcs.TAG}{day}:{self.project.name(path)}").decode()


def read(project: Project, day: str | None, folder: Path) -> Day:
    """Return a day, by default the last that has figures."""
    params = params_file.read(project.params)
    at = params.day
    if day and day != at and not project.manifest(day).exists():
        raise CycleError(f"This project has no day {day}.", mend="dayfold log shows its days")
    if day and day != at:
        params = params.model_copy(update={"day": day})
    lines = log.lines(project, params)
    line = log.line_of(lines, day)
    day = line.day
    line, known = log.counted(project, params, line)
    lines = [*(one for one in lines if one.day < day), line]
    return Day(project, day, lines, known, day == at, day in vcs.sealed_days(project.root), folder)


@dataclass(frozen=True)
class Drawn:
    """A class or a data version in today's pool: its images, and their part of the draws."""

    name: str
    today: int
    replayed: int
    share: float


@dataclass(frozen=True)
class Pool:
    """What training drew from; `reasons`: why replayed images are in."""

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
    rows = parse_csv(path.read_bytes(), tables.schema(Row), day.project.name(path))
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
