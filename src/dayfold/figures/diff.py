"""Two days compared.

The later day's own figures are on all its test images. The comparison is on the images that both
days tested, under the later day's labels, as figures on different images are not comparable.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import yaml
from rich.table import Table

from dayfold.errors import CycleError
from dayfold.figures import evidence, intervals, log, metrics
from dayfold.figures.counts import counted
from dayfold.figures.day import Day
from dayfold.figures.evidence import FEW, is_too_few
from dayfold.figures.intervals import figure
from dayfold.figures.log import DayLine
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Prediction
from dayfold.project import vcs
from dayfold.project.console import arrows, first_few, plural
from dayfold.project.files import dotted
from dayfold.project.layout import Project
from dayfold.project.params import Params

FIGURES = {
    "average_accuracy": "ACC",
    "forgetting": "forgetting",
    "weighted_f1": "weighted F1",
    "worst_f1": "F1, worst class",
    "new.f1": "F1, new classes",
}
COMPARED = ("average_accuracy", "weighted_f1", "worst_f1")  # shown for both days
LEAST_F1 = 0.01  # change of F1 below which a class is not named
LEAST_DRAWS = 0.1  # change of the part of the draws below which it is not reported


@dataclass(frozen=True)
class Side:
    """One of the two days: its line, its params by dotted key, its model's predictions.

    `predictions` is None if the table is not on this machine. `drawn` is the part of the draws that
    the day's own images had; None if an older version did not record it.
    """

    line: DayLine
    params: dict[str, Any]
    predictions: pl.DataFrame | None
    drawn: float | None


@dataclass(frozen=True)
class Shared:
    """The test images of both days, and the figures of both models on them.

    `images` has the columns image, path, label, group, day, predicted, was (predicted by the
    earlier day's model). `was` and `now` are figures of `metrics.day_metrics`.
    """

    images: pl.DataFrame
    unit: str
    was: dict[str, Any]
    now: dict[str, Any]

    def few(self, **of: str) -> str:
        """Return "too few to judge: 3 patients", of all images or of a `label`, or ""."""
        units = self.images.filter(**of).select(evidence.UNITS).item()
        return f"{FEW}: {plural(units, self.unit)}" if is_too_few(units) else ""


def sides(project: Project, params: Params, days: list[str]) -> list[Side]:
    """Return the earlier and the later day, or the first day alone.

    `days` names both, or the later one; if it is empty, the later one is the last with figures.
    Raises CycleError if a day has no figures or no tag.
    """
    lines = [line for line in log.lines(project, params) if line.figures is not None]
    *earlier, last = days or [log.line_of(lines, None).day]
    at = [line.day for line in lines].index(log.line_of(lines, last).day)
    before = [log.line_of(lines, day) for day in earlier] or lines[max(0, at - 1) : at]
    return [_side(project, params, line) for line in (*before, lines[at])]


def _side(project: Project, params: Params, line: DayLine) -> Side:
    day = Day(project, line, params)
    own = day.file(project.params)
    if own is None:
        what = f"{vcs.TAG}{line.day} is not here, or is damaged."
        raise CycleError(what, hint="dayfold status says more")
    if line.day != params.parent or not project.parent_predictions.is_file():
        predictions = day.table(project.predictions, Prediction)
    else:
        predictions = tables.read(project.parent_predictions, Prediction)
    return Side(line, dotted(yaml.safe_load(own)), predictions, day.draws.get("today"))


def shared(project: Project, compared: list[Side]) -> Shared | None:
    """Return the images that both days tested; None if there is one day, or no predictions."""
    before, last = compared[0], compared[-1]
    if before is last or before.predictions is None or last.predictions is None:
        return None
    history = manifest.history(project, last.line.day)
    renamed = pl.col("predicted")
    for day, classes in history.classes().items():
        if day > before.line.day:
            renamed = renamed.replace(classes.renamed)
    earlier = before.predictions.select("image", was=renamed)
    tested = last.predictions.filter(pl.col("split") == "test").join(earlier, on="image")
    images = tested.join(history.images.select("image", "path", "group"), on="image").sort("path")
    was, now = (_figures(images, column) for column in ("was", "predicted"))
    return Shared(images, evidence.unit_of(history.images), was, now)


def _figures(images: pl.DataFrame, column: str) -> dict[str, Any]:
    at, days = "model", [*images["day"].unique().sort(), "model"]
    groups = images.group_by(cohort="day", label="label", predicted=column)
    counts = groups.agg(images=pl.len().cast(pl.Int64)).with_columns(
        model=pl.lit(at), bin=0, confidence=0.0, parent_correct=pl.lit(None, pl.Int64)
    )
    return metrics.day_metrics(counted(counts, days), {at: counts}, {at: []})[at]


def table(compared: list[Side], both: Shared | None) -> Table:
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("", no_wrap=True)
    last = compared[-1].line
    figures = last.figures or {}
    result.add_column(last.day, justify="right", no_wrap=True)
    result.add_column("95%", no_wrap=True)
    tested = [str(sum(scores["images"] for scores in figures["classes"].values())), ""]
    if both:
        result.add_column(f"{compared[0].line.day} → {last.day}", no_wrap=True)
        tested.append(f"{len(both.images)}")
    result.add_row("test images", *tested)
    units = figures["evidence"]["all"]
    if str(units) != tested[0]:  # equal if no image has a patient
        patients = [str(units), ""]
        patients += [str(both.images.select(evidence.UNITS).item())] if both else []
        result.add_row("test patients", *patients)
    for key, name, value, ends in evidence.text_rows(figures, FIGURES):
        cells = [value, ends.replace(FEW, "few")]
        if both and key in COMPARED:
            cells.append(f"{figure(both.was[key])} → {figure(both.now[key])}")
        result.add_row(name, *cells)
    return result


def sentences(compared: list[Side], both: Shared | None) -> Iterator[str]:
    last = compared[-1]
    notes = [f"new: {', '.join(last.line.new)}"] * bool(last.line.new)
    notes += [f"renamed or merged: {arrows(last.line.renamed)}"] * bool(last.line.renamed)
    classes = plural(last.line.classes, "class") + f" ({'; '.join(notes)})" * bool(notes)
    added = f"{plural(last.line.images, 'image')} added"
    yield f"{last.line.day}: {', '.join([added, *last.line.events, classes])}"
    if worst := _worst(last.line.figures or {}):
        yield f"worst class{'es' * (len(worst) > 1)}: {', '.join(first_few(worst))}"
    if any(FEW in ends for *_, ends in evidence.text_rows(last.line.figures or {}, FIGURES)):
        yield f"few: {FEW}, on fewer than {evidence.ENOUGH} patients (or images without a patient)"
    if len(compared) == 1:
        yield "It is the first day, so there is nothing to compare it with."
        return
    before = compared[0]
    if both:
        yield from _changes(both)
    else:
        without = before if before.predictions is None else last
        yield (
            f"The predictions of {without.line.day} are not on this machine, so nothing is "
            "compared; they come with: dvc fetch --all-tags"
        )
    keys = [key for key in {**before.params, **last.params} if key not in ("day", "parent")]
    values = {key: (before.params.get(key), last.params.get(key)) for key in keys}
    changed = [f"{key} {first} → {then}" for key, (first, then) in values.items() if first != then]
    if changed:
        yield f"params:  {', '.join(changed)}"
    was, drawn = before.drawn, last.drawn
    if was is not None and drawn is not None and abs(drawn - was) >= LEAST_DRAWS:
        yield f"training samples: {was:.0%} → {drawn:.0%} from the day's own images"


def _worst(figures: dict[str, Any]) -> list[str]:
    least = figures.get("worst_f1")
    if least is None or least == 1:
        return []
    return [label for label, scores in figures["classes"].items() if scores["f1"] == least]


def _changes(both: Shared) -> Iterator[str]:
    hit, was_hit = (pl.col(name) == pl.col("label") for name in ("predicted", "was"))
    wrong, right = both.images.filter(was_hit & ~hit), both.images.filter(hit & ~was_hit)
    verdict = both.few()
    if not verdict and wrong.height + right.height:
        p = intervals.mcnemar(len(wrong), len(right))
        more = "more" if p < intervals.SIGNIFICANT else "no more"
        verdict = f"{more} than chance (McNemar, {intervals.p_text(p)})"
    yield (
        f"On the {plural(len(both.images), 'test image')} of both days: {len(wrong)} newly wrong, "
        f"{len(right)} newly right" + f"; {verdict}" * bool(verdict)
    )
    old, now = both.was["classes"], both.now["classes"]
    shifts = {label: now[label]["f1"] - old[label]["f1"] for label in now}
    for word, sign in (("better", 1), ("worse", -1)):
        moved = [label for label in shifts if sign * shifts[label] >= LEAST_F1]
        named = [
            f"F1 of {label}: {figure(old[label]['f1'])} → {figure(now[label]['f1'])} "
            f"({both.few(label=label) or plural(now[label]['images'], 'image')})"
            for label in sorted(moved, key=lambda label: -sign * shifts[label])
        ]
        yield from (f"  {word}  {line}" for line in first_few(named))
    for word, rows in (("wrong", wrong), ("right", right)):
        lines = [
            f"{path}: was {was}, now {now}" + f", is {label}" * (word == "wrong")
            for path, was, now, label in rows.select("path", "was", "predicted", "label").rows()
        ]
        yield from (f"  newly {word}  {line}" for line in first_few(lines))
