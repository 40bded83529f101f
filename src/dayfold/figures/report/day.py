"""What is known of a day and of what went into it: from files, or for older days git and DVC."""

import json
from collections import Counter
from collections.abc import Sequence
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
from dayfold.figures.report.html import ABSENT
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import History, Row
from dayfold.ledger.tables import Check, PoolShare, Replayed
from dayfold.project import params as params_file
from dayfold.project import remotes, vcs
from dayfold.project.files import dotted, parse_csv
from dayfold.project.layout import ORIGIN, Project

OWN = ("day", "parent")  # params that differ every day


@dataclass
class Day:
    """One day of a project, and all that is recorded of it.

    `line` has its figures, and `known` what these rest on. `is_current`: it is the day of the
    working tree. `folder` takes files of an earlier day; `missing` says which cannot be had, and
    why.
    """

    project: Project
    line: DayLine
    known: Evidence
    is_current: bool
    is_sealed: bool
    folder: Path
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def day(self) -> str:
        """The day itself, as in 2025-06-04."""
        return self.line.day

    @property
    def figures(self) -> dict[str, Any]:
        """This day's figures, by the keys of `metrics.day_metrics`."""
        return self.line.figures or {}

    @cached_property
    def history(self) -> History:
        """All images as they stand after this day."""
        return manifest.history(self.project, self.day)

    @cached_property
    def evaluations(self) -> pl.DataFrame:
        """The counts of all days up to this one."""
        return tables.evaluations(self.project, self.day)[0]

    @cached_property
    def days(self) -> list[str]:
        """The days with evaluations, up to this one."""
        return tables.evaluated(self.project, self.day)

    @property
    def before(self) -> str | None:
        """The evaluated day before this one."""
        return self.days[-2] if len(self.days) > 1 else None

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
    if day and day != at:
        if not project.manifest(day).exists():
            raise CycleError(f"This project has no day {day}.", mend="dayfold log shows its days")
        params = params.model_copy(update={"day": day})
    line = log.line_of(log.lines(project, params), day)
    line, known = log.counted(project, params, line)
    is_sealed = line.day in vcs.sealed_days(project.root)
    return Day(project, line, known, line.day == at, is_sealed, folder)


def minutes(project: Project, days: Sequence[str]) -> dict[str, float]:
    """Return what it took to make each day's model, decoding and training, where that is kept."""
    name = project.name(project.provenance)
    records = list(vcs.blobs(project.root, [f"{vcs.TAG}{day}:{name}" for day in days]).values())
    if project.provenance.exists():
        records.append(project.provenance.read_bytes())
    made = {record.get("day"): record for record in map(json.loads, records)}
    return {
        day: sum(made[day]["seconds"].values()) / 60
        for day in days
        if "seconds" in made.get(day, ())
    }


def splits(day: Day) -> dict[str, int]:
    """Return how many of the day's own images are for training, validation and test."""
    mine = Counter(manifest.added(day.history, day.day)["split"].to_list())
    return {split: mine[split] for split in manifest.SPLITS}


def pool(day: Day) -> dict[str, Any] | None:
    """Return what training drew from, by class and by data version, and why images are replayed.

    None where data/shares.csv of the day cannot be had.
    """
    shares = day.table(day.project.shares, PoolShare)
    if shares is None:
        return None
    replayed = day.table(day.project.replay, Replayed)
    reasons = Counter([] if replayed is None else replayed["reason"].to_list())
    is_today = pl.col("day") == day.day
    of_today = pl.col("images").filter(is_today).sum()
    columns = (of_today.alias("today"), pl.col("images").sum() - of_today, pl.col("share").sum())
    return {
        "class": shares.group_by("label").agg(*columns).sort("label").rows(),
        "images of": shares.group_by("day").agg(*columns).sort("day").rows(),
        "today": float(shares.filter(is_today)["share"].sum()),
        "reasons": dict(reasons.most_common()),
    }


def corrections(day: Day) -> list[tuple[str, str, str]]:
    """Return the day's corrections, as its manifest has them: path, old label, new one or ""."""
    path = day.project.manifest(day.day)
    rows = parse_csv(path.read_bytes(), tables.schema(Row), day.project.name(path))
    changed = rows.filter(pl.col("action").is_in(["relabel", "withdraw"]))
    earlier = manifest.history(day.project, day.parent).images if len(changed) else pl.DataFrame()
    before = dict(earlier.select("image", "label").iter_rows()) if len(changed) else {}
    return [
        (path, before.get(image, ""), label)
        for image, path, label in changed.select("image", "path", "label").iter_rows()
    ]


def changed_params(day: Day) -> list[tuple[str, Any, Any]]:
    """Return the params that differ from the day before: key, then, now; `ABSENT` if not there."""
    now, then = day.params, day.params_before
    if not now or not then:
        return []
    keys = sorted({*now, *then} - set(OWN))
    both = [(key, then.get(key, ABSENT), now.get(key, ABSENT)) for key in keys]
    return [(key, before, after) for key, before, after in both if before != after]
