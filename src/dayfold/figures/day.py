"""One day and its records, from files or its tag."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from dayfold.errors import CycleError, DayfoldError
from dayfold.figures import evidence, gate, log
from dayfold.figures.evidence import Evidence
from dayfold.figures.log import DayLine
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import History
from dayfold.ledger.tables import Check
from dayfold.project import params as params_file
from dayfold.project import pins, storage, vcs
from dayfold.project.files import parse_csv
from dayfold.project.layout import Project
from dayfold.project.params import Params


@dataclass
class Day:
    """One day of a project and its records.

    `line` has its figures; `params` are those of the working tree, which may be of another day.
    `missing` maps a file that cannot be read to the reason.
    """

    project: Project
    line: DayLine
    params: Params
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def day(self) -> str:
        return self.line.day

    @property
    def figures(self) -> dict[str, Any]:
        """This day's figures, by the keys of `metrics.day_metrics`."""
        return self.line.figures or {}

    @property
    def is_current(self) -> bool:
        return self.day == self.params.day

    @cached_property
    def is_sealed(self) -> bool:
        return self.day in vcs.sealed_days(self.project.root)

    @cached_property
    def evidence(self) -> Evidence:
        most, origin = self.params.evaluate.max_per_cohort, self.params.origin.classes
        return evidence.of(self.history, most=most, origin=origin)

    @cached_property
    def history(self) -> History:
        return manifest.history(self.project, self.day)

    @cached_property
    def days(self) -> list[str]:
        return tables.evaluated(self.project, self.day)

    @property
    def before(self) -> str | None:
        return self.days[-2] if len(self.days) > 1 else None

    @property
    def splits(self) -> dict[str, int]:
        counts = Counter(manifest.added(self.history, self.day)["split"].to_list())
        return {split: counts[split] for split in manifest.SPLITS}

    @cached_property
    def counts(self) -> pl.DataFrame:
        return tables.evaluations(self.project, [self.day]).filter(model=self.day)

    @cached_property
    def checks(self) -> list[Check] | None:
        """The checks that the gate recorded; None where there is no record."""
        is_recorded = self.project.gate(self.day).exists()
        return gate.read(self.project, self.day) if is_recorded else None

    @property
    def draws(self) -> dict[str, float | None]:
        """The shares of the draws, as `curve` recorded them; older versions recorded none."""
        return dict(json.loads(self.file(self.project.figures) or b"{}").get("draws", {}))

    def file(self, path: Path) -> bytes | None:
        """Return the bytes of a file that git keeps, as of this day; None if there is none."""
        if self.is_current:
            return path.read_bytes() if path.exists() else None
        name = self.project.name(path)
        return vcs.at_tags(self.project.root, [self.day], lambda _: [name])[self.day].get(name)

    def table(self, path: Path, kind: type[NamedTuple]) -> pl.DataFrame | None:
        """Return a table that this day's stages wrote: from data/, git, DVC's cache or a remote.

        If it cannot be read, returns None and notes the reason in `missing`.
        """
        name = self.project.name(path)
        try:
            if self.is_current:
                return tables.read(path, kind)
            if data := self.file(path):
                return parse_csv(data, tables.schema(kind), name)
            pinned = pins.sealed_outputs(self.project.root, self.day)
            return tables.read(storage.fetch(self.project.root, pinned[name]), kind)
        except DayfoldError as error:
            self.missing[name] = error.problems[-1] if error.problems else error.what
            return None


def read(project: Project, day: str | None) -> Day:
    """Return a day, by default the last that has figures; CycleError where there is none."""
    params = params_file.read(project.params)
    if day and day != params.day and not project.manifest(day).exists():
        raise CycleError(f"This project has no day {day}.", hint="dayfold log shows its days")
    until = params.model_copy(update={"day": day or params.day})
    line = log.line_of(log.lines(project, until), day)
    # Recomputed from the evaluations, as the record has no intervals of classes.
    figures = log.counted(project, {line.day: line.new})[line.day]
    found = Day(project, replace(line, figures=figures), params)
    evidence.judge(found.figures, found.evidence, line.new)
    return found


def minutes(project: Project, days: Sequence[str]) -> dict[str, float]:
    """Return the minutes of decoding and training of each day, where they are recorded."""
    name = project.name(project.provenance)
    tagged = vcs.at_tags(project.root, days, lambda _: [name])
    files = [data for of_day in tagged.values() for data in of_day.values()]
    if project.provenance.exists():
        files.append(project.provenance.read_bytes())
    records = {record.get("day"): record for record in map(json.loads, files)}
    return {
        day: sum(records[day]["seconds"].values()) / 60
        for day in days
        if "seconds" in records.get(day, ())
    }
