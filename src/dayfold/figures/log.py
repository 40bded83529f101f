"""The history as a table, a line a day."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl
from rich.markup import escape
from rich.table import Table

from dayfold.errors import CycleError
from dayfold.figures import counts, evidence, gate, metrics
from dayfold.figures.counts import Counted
from dayfold.figures.evidence import FEW, Evidence
from dayfold.figures.intervals import figure
from dayfold.ledger import manifest, tables
from dayfold.ledger.manifest import History
from dayfold.project import vcs
from dayfold.project.console import plural
from dayfold.project.layout import Project
from dayfold.project.params import Params

LEGEND = (
    "ACC: mean accuracy on each day's test images",
    "forgetting: mean fall of a day's accuracy from its best (below 0: a rise)",
    "new F1: of the classes new that day",
)
MORE_LEGEND = (
    "newly wrong: right with the previous model, wrong with this one",
    "new conf.: mean confidence on images of new classes",
    "found, false alarms: images of new and of known classes called unknown",
)
# What each figure is, by the keys of metrics.json, for the model card and the report.
MEANINGS = {
    "accuracy": "accuracy on all test images",
    "average_accuracy": "ACC: the mean of the accuracies on each day's test images",
    "weighted_f1": "F1, weighted by test images",
    "macro_f1": "F1, mean of the classes",
    "worst_f1": "F1 of the worst class",
    "forgetting": "forgetting: mean fall of a day's accuracy from its best (below 0: a rise)",
    "negative_flip_rate": "right with the previous model, wrong with this one",
    "calibration_error": "expected calibration error, before the temperature",
}
# The five figures of a day's summary, each with its title.
TITLES = {
    "average_accuracy": "Average accuracy",
    "weighted_f1": "Weighted F1",
    "worst_f1": "Worst F1",
    "forgetting": "Forgetting",
    "negative_flip_rate": "Newly wrong",
}
CORRECTED = "~"  # marks a figure measured under labels that were corrected since


@dataclass(frozen=True)
class DayLine:
    """One day: its images, the classes known by then, those new on it, and its figures if any.

    `figures` are those of `metrics.day_metrics` and what `evidence.judge` adds. `corrected` counts
    the test images behind the figures that were corrected or withdrawn on a later day; the figures
    themselves stay as measured. `corrections` counts what the day itself corrected of earlier days,
    by action: relabel, withdraw.
    """

    day: str
    images: int
    classes: int
    new: tuple[str, ...]
    figures: dict[str, Any] | None
    corrected: int = 0
    renamed: Mapping[str, str] = field(default_factory=dict)
    corrections: Mapping[str, int] = field(default_factory=dict)

    @property
    def events(self) -> list[str]:
        """Return what was done to images of earlier days: "60 labels corrected" and so on."""
        kinds = {"relabel": ("label", "corrected"), "withdraw": ("image", "withdrawn")}
        return [
            f"{plural(self.corrections[action], thing)} {done}"
            for action, (thing, done) in kinds.items()
            if action in self.corrections
        ]


def lines(project: Project, params: Params) -> list[DayLine]:
    return read(project, params)[1]


def read(
    project: Project, params: Params, most: int | None = None
) -> tuple[History, list[DayLine]]:
    """Return the history and a line a day, oldest first: of all days, or of the last `most`.

    Figures of sealed days are read from their tags. Those of other days are counted from the
    evaluations, which takes longer with each day before.
    """
    until = params.day if project.manifest(params.day).exists() else params.parent
    history = manifest.history(project, until)
    images = dict(history.images.group_by("day").len().iter_rows())
    tested = history.corrections.filter(split="test").select("day", "on", "image").rows()
    corrections: dict[str, dict[str, int]] = {}
    for day, action, count in history.corrections.group_by("on", "action").len().iter_rows():
        corrections.setdefault(day, {})[action] = count
    chosen = dict([*history.classes().items()][-most if most else 0 :])
    figures = _sealed_figures(project, chosen)
    unsealed = chosen.keys() - figures.keys()
    figures |= counted(project, {day: chosen[day].new for day in unsealed})
    tests = replace(history, images=history.split("test"))
    for day, own in figures.items():
        # Older versions did not record on how many units figures rest.
        if "worst" not in own.get("evidence", {}):
            known = evidence.of(tests, day=day, most=params.evaluate.max_per_cohort)
            evidence.judge(own, known, chosen[day].new)
    return history, [
        DayLine(
            day,
            images=images.get(day, 0),
            classes=len(classes.live),
            new=classes.new,
            renamed=classes.renamed,
            corrections=corrections.get(day, {}),
            figures=figures.get(day),
            corrected=len({image for cohort, on, image in tested if cohort <= day < on}),
        )
        for day, classes in chosen.items()
    ]


def counted(project: Project, days: Mapping[str, Collection[str]]) -> dict[str, dict[str, Any]]:
    """Return day → figures, for those of the days (day → its new classes) with evaluations."""
    new = {day: labels for day, labels in days.items() if project.evaluation(day).exists()}
    if not new:
        return {}
    own = {day: tables.evaluations(project, [day]).filter(model=day) for day in new}
    return measured(project, counts.read(project, max(new)), own, new)


def measured(
    project: Project,
    counted: Counted,
    evaluations: Mapping[str, pl.DataFrame],
    new: Mapping[str, Collection[str]],
) -> dict[str, dict[str, Any]]:
    """Return `metrics.day_metrics` of the days of `new`, with the figures on unknown images."""
    found = metrics.day_metrics(counted, evaluations, new)
    for day, figures in found.items():
        unknown = metrics.unknown(tables.unknown(project, day))
        figures["unknown"], figures["interval"]["unknown"] = unknown
    return found


def _sealed_figures(project: Project, days: Collection[str]) -> dict[str, dict[str, Any]]:
    if not (project.root / ".git").exists():
        return {}  # a backtest's folder: the tags around it belong to the project's days
    sealed = [day for day in vcs.sealed_days(project.root) if day in days]
    names = [*map(project.name, (project.figures, project.class_figures, project.metrics))]
    found = {}
    for day, kept in vcs.at_tags(project.root, sealed, lambda _: names).items():
        with suppress(ValueError):
            # Versions before 0.2.0 had all figures in metrics.json, without intervals of classes.
            own, classes, older = (json.loads(kept.get(name, b"null")) for name in names)
            found[day] = metrics.together(own, classes) if own and classes is not None else older
    return {day: figures for day, figures in found.items() if figures and "interval" in figures}


def line_of(days: list[DayLine], day: str | None) -> DayLine:
    """Return a day's line, by default the last that has figures; CycleError if there is none."""
    for line in reversed(days):
        if line.figures is not None and day in (None, line.day):
            return line
    hint = "dayfold log shows which days have figures" if day else "dvc repro makes the first ones"
    raise CycleError(f"{day or 'This project'} has no figures.", hint=hint)


def verdicts(project: Project, days: list[DayLine], forced: Collection[str]) -> dict[str, str]:
    """Return day → its outcome at the gate: ok, forced or failed; else open or committed.

    "3/8" means that 3 of 8 checks passed and the others are not judged. `forced` are those of
    `gate.forced`.
    """
    found = {}
    sealed, committed = vcs.sealed_days(project.root), vcs.committed_days(project.root)
    for line in days:
        passed = (line.figures or {}).get("gate") == {"passed": True, "not_judged": 0}
        recorded = not passed and project.gate(line.day).exists()
        checks = gate.read(project, line.day) if recorded else []
        if line.day in forced:
            found[line.day] = "forced"
        elif gate.reasons(checks):
            found[line.day] = "failed"
        elif line.day not in sealed:
            found[line.day] = "committed" if line.day in committed else "open"
        else:
            few = len(gate.not_judged(checks))
            found[line.day] = f"{len(checks) - few}/{len(checks)}" if few else "ok"
    return found


# The figures of both tables, by their column heads: those always shown, and more.
COLUMNS = {"ACC": "average_accuracy", "forgetting": "forgetting", "new F1": "new.f1"}
MORE_COLUMNS = {
    "weighted F1": "weighted_f1",
    "worst F1": "worst_f1",
    "newly wrong": "negative_flip_rate",
    "new conf.": "new.confidence",
    "found": "unknown.found",
    "false alarms": "unknown.false_alarms",
}


def table(days: list[DayLine], verdicts: Mapping[str, str], *, unit: str = "image") -> Table:
    tested = "tested" if unit == "image" else f"{unit}s tested"
    drawn = _empty()
    for name in ("images", "classes", tested, *COLUMNS):
        drawn.add_column(name, justify="right", no_wrap=name in COLUMNS)
    drawn.add_column("gate")
    for line in days:
        # Names come from folders and must not be read as markup.
        new = escape(", ".join(line.new)) if len(line.new) < line.classes else ""
        classes = f"{line.classes} +{new}" if new else str(line.classes)
        tested = str(line.figures["evidence"]["all"]) if line.figures else figure(None)
        cells = [_cell(line, key) for key in COLUMNS.values()]
        drawn.add_row(line.day, str(line.images), classes, tested, *cells, verdicts[line.day])
    return drawn


def more(days: list[DayLine]) -> Table:
    """Return a table of the figures that `table` leaves out: each fits 80 columns."""
    drawn = _empty()
    for name in MORE_COLUMNS:
        drawn.add_column(name, justify="right", no_wrap=True)
    for line in days:
        drawn.add_row(line.day, *(_cell(line, key) for key in MORE_COLUMNS.values()))
    return drawn


def _empty() -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("day", no_wrap=True)
    return drawn


def _cell(line: DayLine, key: str) -> str:
    figures = line.figures
    if figures is None:
        return figure(None)
    shown = evidence.as_text(figures, key)
    if key == "average_accuracy":
        low, high = figures["interval"][key].values()
        if evidence.is_judged(figures, key) and low is not None:
            shown += f" ±{(high - low) / 2:.3f}".replace("±0", "±")
        return CORRECTED * bool(line.corrected) + shown
    is_worse = key == "negative_flip_rate" and figures["worse_than_yesterday"]["significant"]
    return shown + "*" * bool(is_worse)


def notes(
    days: list[DayLine],
    verdicts: Mapping[str, str],
    forced: Mapping[str, str],
    known: Evidence,
    *,
    with_more: bool = False,
    withdrawn: int = 0,
) -> list[str]:
    """Return the lines below the table: its marks, what has too few images, days by force."""
    keys = [*COLUMNS.values(), *(MORE_COLUMNS.values() if with_more else ())]
    cells = [_cell(line, key) for line in days for key in keys]
    starred = any(cell.endswith("*") for cell in cells)
    legend = ["* worse than the day before on the same images: McNemar's p below 0.05"] * starred
    corrected = max((line.corrected for line in days), default=0)
    if corrected:
        images = "test image was" if corrected == 1 else "test images were"
        what = f"{corrected} {images} later corrected or withdrawn"
        legend.append(f"{CORRECTED} up to {what}: data/corrections/")
    if withdrawn:
        are = "images are" if withdrawn > 1 else "image is"
        legend.append(f"{withdrawn} withdrawn {are} not counted: data/corrections/")
    if "few" in cells:
        legend.append(f"few: {FEW}; dayfold report --day DAY shows the figure and its interval")
    for verdict in [one for one in verdicts.values() if "/" in one][-1:]:
        of = verdict.replace("/", " of ")
        legend.append(f"{verdict}: {of} checks of the gate passed, the others are not judged")
    legend += known.sentences()
    return legend + [f"{day} was sealed by force: {why}" for day, why in forced.items()]
