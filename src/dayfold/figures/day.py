"""One day: what is known of it, from files or tags, in numbers and sentences."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup

from dayfold.errors import CycleError, DayfoldError
from dayfold.figures import charts, evidence, gate, intervals, log, metrics
from dayfold.figures.evidence import Evidence, is_judged, is_too_few
from dayfold.figures.intervals import SIGNIFICANT, Ends
from dayfold.figures.log import MEANINGS, TITLES, DayLine
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import History
from dayfold.ledger.tables import Check
from dayfold.project import params as params_file
from dayfold.project import pins, storage, vcs
from dayfold.project.console import first_few, plural
from dayfold.project.files import parse_csv
from dayfold.project.layout import Project
from dayfold.project.params import Params

LOST = "worse beyond chance"  # more was lost than won, on enough to tell
KINDS = {1: "new", 0: "known"}  # by `new` of `tables.Unknown`
# The lines of the chart, by their names in `metrics.unknown`.
LINES = {"false_alarms": "false alarms", "found": "found"}


@dataclass
class Day:
    """One day of a project, and all that is recorded of it.

    `line` has its figures. `params` are those of the working tree, of whose day `is_current` may
    be true. `missing` says which files cannot be had, and why.
    """

    project: Project
    line: DayLine
    params: Params
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def day(self) -> str:
        """The day itself, as in 2025-06-04."""
        return self.line.day

    @property
    def figures(self) -> dict[str, Any]:
        """This day's figures, by the keys of `metrics.day_metrics`."""
        return self.line.figures or {}

    @property
    def is_current(self) -> bool:
        """Whether it is the day of the working tree."""
        return self.day == self.params.day

    @cached_property
    def is_sealed(self) -> bool:
        """Whether it is sealed here."""
        return self.day in vcs.sealed_days(self.project.root)

    @cached_property
    def known(self) -> Evidence:
        """What its figures rest on."""
        most, origin = self.params.evaluate.max_per_cohort, self.params.origin.classes
        return evidence.of(self.history, most=most, origin=origin)

    @cached_property
    def history(self) -> History:
        """All images as they stand after this day."""
        return manifest.history(self.project, self.day)

    @cached_property
    def days(self) -> list[str]:
        """The days with evaluations, up to this one."""
        return tables.evaluated(self.project, self.day)

    @property
    def before(self) -> str | None:
        """The evaluated day before this one."""
        return self.days[-2] if len(self.days) > 1 else None

    @property
    def splits(self) -> dict[str, int]:
        """How many of the day's own images are for training, validation and test."""
        mine = Counter(manifest.added(self.history, self.day)["split"].to_list())
        return {split: mine[split] for split in manifest.SPLITS}

    @property
    def counts(self) -> pl.DataFrame:
        """The counts of this day's model."""
        return tables.evaluations(self.project, [self.day]).filter(model=self.day)

    @cached_property
    def checks(self) -> list[Check] | None:
        """What the gate recorded; None where there is no record."""
        if not self.project.gate(self.day).exists():
            return None
        return gate.read(self.project, self.day)

    @property
    def draws(self) -> dict[str, float | None]:
        """What training drew, as `curve` recorded it; nothing of an older day."""
        found = json.loads(self.file(self.project.figures) or b"{}")
        return dict(found.get("draws", {}))

    def file(self, path: Path) -> bytes | None:
        """Return the bytes of a file that git keeps, as of this day; None where it has none."""
        if self.is_current:
            return path.read_bytes() if path.exists() else None
        name = self.project.name(path)
        return vcs.at_tags(self.project.root, [self.day], lambda _: [name])[self.day].get(name)

    def table(self, path: Path, kind: type[NamedTuple]) -> pl.DataFrame | None:
        """Return a table of this day that its stages write; None, and why, where it is not here.

        That of an earlier day is git's or DVC's, from its cache or a remote.
        """
        name = self.project.name(path)
        try:
            if self.is_current:
                return tables.read(path, kind)
            if data := self.file(path):
                return parse_csv(data, tables.schema(kind), name)
            pinned = pins.sealed_outputs(self.project.root, self.day)
            return tables.read(storage.bring(self.project.root, pinned[name]), kind)
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
    # Counted from the evaluations, so that they have the intervals of classes too.
    found = Day(project, replace(line, figures=log.counted(project, [line])[line.day]), params)
    evidence.judge(found.figures, found.known, line.new)
    return found


def minutes(project: Project, days: Sequence[str]) -> dict[str, float]:
    """Return what it took to make each day's model, decoding and training, where that is kept."""
    name = project.name(project.provenance)
    kept = vcs.at_tags(project.root, days, lambda _: [name])
    records = [data for files in kept.values() for data in files.values()]
    if project.provenance.exists():
        records.append(project.provenance.read_bytes())
    made = {record.get("day"): record for record in map(json.loads, records)}
    return {
        day: sum(made[day]["seconds"].values()) / 60
        for day in days
        if "seconds" in made.get(day, ())
    }


class Number(NamedTuple):
    """One of the five: its value and interval, whether these rest on too few, and what it says."""

    title: str
    value: float | None
    ends: Ends
    is_few: bool
    says: str


class Change(NamedTuple):
    """A class against the day before, both on the same images: recall, and what became of them."""

    label: str
    recall: float
    recall_before: float
    images: int
    newly_wrong: int
    newly_right: int
    p: float
    says: str


def changes(day: Day) -> list[Change]:
    """Return the classes that both days' models were asked about, those that lost most first."""
    both = tables.evaluations(day.project, day.days[-2:])
    then = set(both.filter(model=day.before)["label"]) if day.before else set()
    parts = sorted(day.counts.filter(pl.col("label").is_in(then)).group_by("label"))
    flips = {str(key[0]): metrics.flips(part) for key, part in parts}
    flips = {label: counts for label, counts in flips.items() if counts.asked}
    adjusted = intervals.holm([intervals.mcnemar(n.negative, n.positive) for n in flips.values()])
    found = []
    for (label, (asked, wrong, right)), p in zip(flips.items(), adjusted, strict=True):
        recall, says = day.figures["classes"][label]["recall"], day.known.of_class(label)
        if not says and wrong < right:
            says = "better"
        elif not says and wrong > right:
            says = LOST if p < SIGNIFICANT else "worse, may be chance"
        before = recall + (wrong - right) / asked
        found.append(Change(label, recall, before, asked, wrong, right, p, says))
    return sorted(found, key=lambda one: (one.newly_right - one.newly_wrong, one.label))


def numbers(day: Day) -> list[Number]:
    """Return the five numbers of the day."""
    figures = day.figures
    f1s = {label: scores["f1"] for label, scores in figures["classes"].items()}
    worst = first_few([label for label, f1 in f1s.items() if f1 == figures["worst_f1"]])
    more = {"worst_f1": f": {', '.join(worst)}" * bool(worst), "negative_flip_rate": _of_flips(day)}
    return [
        Number(
            title,
            figures[key],
            figures["interval"][key],
            not is_judged(figures, key),
            MEANINGS[key] + more.get(key, ""),
        )
        for key, title in TITLES.items()
    ]


def _of_flips(day: Day) -> str:
    asked, wrong, right = metrics.flips(day.counts)
    if not asked:
        return ": there is no earlier model to compare with"
    p = intervals.mcnemar(wrong, right)
    verdict = day.known.caveat(day.known.all) or "within what chance explains"
    if p < SIGNIFICANT and not is_too_few(day.known.all):
        verdict = f"{'worse' if wrong > right else 'better'} beyond chance"
    return (
        f": of {plural(asked, 'test image')} {wrong:,} newly wrong, {right:,} newly right; "
        f"{verdict} (McNemar, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})"
    )


def headline(day: Day, changed: list[Change]) -> str:
    """Say in a sentence or two how the day went: what is new, and what got worse."""
    new = ", ".join(first_few([_of_class(day, label) for label in day.line.new]))
    said = f"New: {new}. " * bool(new)
    if day.before is None:
        return f"The first day. {said}".strip()
    if lost := [change.label for change in changed if change.says == LOST]:
        return f"{said}Worse beyond chance: {', '.join(first_few(lost))}."
    if day.figures["worse_than_yesterday"]["significant"]:
        return f"{said}All classes together got worse beyond chance, no single one did."
    if few := day.known.caveat(day.known.all):
        return f"{said}Whether anything got worse is {few}."
    return f"{said}Nothing got worse beyond chance."


def _of_class(day: Day, label: str) -> str:
    if label not in day.figures["classes"]:
        return f"{label} (untested)"
    said = f"{label} with F1 {day.figures['classes'][label]['f1']:.3f}"
    few = day.known.of_class(label)
    low, high = day.figures["interval"]["classes"][label]["f1"].values()
    return f"{said} ({low:.3f} to {high:.3f}; {few})" if few else said


def flagged(day: Day) -> Iterator[str]:
    """Say how many of today's images yesterday's model would have flagged, a sentence each."""
    table = tables.unknown(day.project, day.day)
    if table.is_empty():
        yield "There is no model before this day that knows what its classes look like."
        return
    totals = {row["new"]: row for row in table.filter(label="").iter_rows(named=True)}
    for new, row in sorted(totals.items(), reverse=True):
        labels = table.filter(pl.col("new") == new, pl.col("label") != "")["label"].to_list()
        named, of = ", ".join(first_few(labels)), "class" if len(labels) == 1 else "classes"
        images, called = plural(row["images"], "image"), row["unknown"]
        if called is not None and new:
            flagged = f"{called} of {images} of the new {of} {named}"
            few = day.known.caveat(row["units"])
            yield f"Yesterday's model would have flagged {flagged}" + f" ({few})" * bool(few) + "."
        elif called is not None:
            yield _of_known(day, called, row["images"], row["units"])
        if row["auroc"] is not None:
            few = day.known.caveat(min(row["units"] for row in totals.values()))
            said = f" ({few})" * bool(few)
            yield f"AUROC of new against known classes: {row['auroc']:.3f}{said}."
    if any(row["unknown"] is None for row in totals.values()):
        yield "It called nothing unknown: it had too few validation images to draw a line."


def _of_known(day: Day, unknown: int, images: int, units: int) -> str:
    share, (low, high) = day.params.predict.known_share, intervals.wilson(unknown, images)
    said = (
        f"Of {plural(images, 'image')} of known classes it called {unknown} unknown: "
        f"{unknown / images:.1%} ({low:.1%} to {high:.1%})."
    )
    if few := day.known.caveat(units):
        return f"{said} This is {few}."
    if share is None:
        return said
    unlike = ": today's images look unlike those of before. Another device, other settings?"
    return f"{said} {1 - share:.0%} are expected{unlike if low > 1 - share else '.'}"


def flags(day: Day) -> list[dict[str, Any]]:
    """Return the counts of each class, with the part that was called unknown and its interval."""
    found = []
    for row in tables.unknown(day.project, day.day).iter_rows(named=True):
        if row["label"] and row["unknown"] is not None:
            part = row["unknown"] / row["images"]
            ends = intervals.proportion(row["unknown"], row["images"])
            found.append(row | {"kind": KINDS[row["new"]], "part": part, "ends": ends})
    return found


def flag_chart(day: Day) -> Markup | None:
    """Draw the parts that were called unknown over the days; None where there is none."""
    parts = {on: metrics.unknown(tables.unknown(day.project, on))[0] for on in day.days}
    curves = {
        said: {on: part[key] for on, part in parts.items() if part[key] is not None}
        for key, said in LINES.items()
    }
    curves = {said: points for said, points in curves.items() if points}
    if not curves:
        return None
    return charts.lines(
        curves,
        says="Part of the images that yesterday's model called unknown, by day",
        colours=dict(zip(LINES.values(), (charts.RAMP[-1], charts.RAMP[0]), strict=True)),
        ends=(0.0, 1.0),
        names={name: name for name in curves},
    )
