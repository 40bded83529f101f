"""What is known of one day: read from files alone, of an earlier day through git and DVC."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import yaml

from dayfold.errors import CycleError, DayfoldError, ToolError
from dayfold.figures import evidence, gate, log
from dayfold.figures.evidence import Few
from dayfold.figures.log import DayLine
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import History
from dayfold.ledger.tables import Check
from dayfold.project import params as params_file
from dayfold.project import remotes, vcs
from dayfold.project.layout import ORIGIN, Project


@dataclass
class Day:
    """One day of a project, and all that is recorded of it.

    `lines` are those of the days up to this one, `evaluations` their counts; `is_current`: it is
    the day that the working tree is at, whose files are taken as they lie there. `folder` is where
    the files of an earlier day are put; `missing` says which cannot be had, and why.
    """

    project: Project
    day: str
    lines: list[DayLine]
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
    def few(self) -> Few:
        """Which cohorts and classes have too few test images to judge by."""
        return evidence.few(self.history)

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
    """Return a day, by default the last that has figures.

    Raises CycleError where the day has no figures here.
    """
    params = params_file.read(project.params)
    if day and day != params.day and not project.manifest(day).exists():
        raise CycleError(f"{day} is no day of this project.", mend="dayfold log shows its days")
    if day and day != params.day:
        params = params.model_copy(update={"day": day})
    lines = log.lines(project, params)
    day = log.line_of(lines, day).day
    lines = [line for line in lines if line.day <= day]
    at = params_file.read(project.params).day
    return Day(project, day, lines, day == at, day in vcs.sealed_days(project.root), folder)


def dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return a tree of keys as one table of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= (
            dotted(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
        )
    return found
