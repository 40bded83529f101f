"""Two days against each other: five figures, the classes, the images, the params."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
import yaml
from rich.table import Table

from dayfold.errors import CycleError
from dayfold.figures import evidence, intervals, log
from dayfold.figures.intervals import figure
from dayfold.figures.log import DayLine
from dayfold.ledger import manifest, tables
from dayfold.ledger.tables import Prediction
from dayfold.project import cache, vcs
from dayfold.project.console import first_few, plural
from dayfold.project.files import dotted
from dayfold.project.layout import Project
from dayfold.project.params import Params

FIGURES = {
    "ACC": "average_accuracy",
    "forgetting": "forgetting",
    "weighted F1": "weighted_f1",
    "F1 of the worst class": "worst_f1",
    "F1 of new classes": "new.f1",
}
LEAST = 0.01  # a class whose F1 changed by less is not named
LEAST_DRAWS = 0.1  # a change of the part of the draws that is told


@dataclass(frozen=True)
class Side:
    """One of the two days: its line, its params by dotted key, its model's predictions.

    `predictions` is None where their table is not on this machine, `drawn` (the part of the draws
    that the day's own images had) where no version has recorded it.
    """

    line: DayLine
    params: dict[str, Any]
    predictions: pl.DataFrame | None
    drawn: float | None

    @property
    def f1(self) -> dict[str, float]:
        """The F1 of each class that has test images."""
        return {label: own["f1"] for label, own in (self.line.figures or {})["classes"].items()}


def sides(project: Project, params: Params, days: list[str]) -> list[Side]:
    """Return what is compared: the day before and the day, or the first day alone.

    `days` names none (the last that has figures), one, or two. Raises CycleError where a day has
    no figures, or no tag.
    """
    lines = [line for line in log.lines(project, params) if line.figures is not None]
    *earlier, last = days or [log.line_of(lines, None).day]
    at = [line.day for line in lines].index(log.line_of(lines, last).day)
    before = [log.line_of(lines, day) for day in earlier] or lines[max(0, at - 1) : at]
    return [_side(project, params, line) for line in (*before, lines[at])]


def _side(project: Project, params: Params, line: DayLine) -> Side:
    path = {params.day: project.predictions, params.parent: project.parent_predictions}
    recorded: Any = line.figures
    if line.day == params.day:
        own = project.params.read_bytes()
        if project.figures.exists():
            recorded = json.loads(project.figures.read_bytes())
    else:
        names = {
            file: f"{vcs.TAG}{line.day}:{project.name(file)}"
            for file in (project.params, project.dvc_lock)
        }
        found = vcs.blobs(project.root, list(names.values()))
        if len(found) < len(names):
            raise CycleError(
                f"{vcs.TAG}{line.day} is not here, or not whole.", hint="dayfold status says more"
            )
        own = found[names[project.params]]
        pinned = vcs.outputs(found[names[project.dvc_lock]])
        key = pinned.get(project.name(project.predictions), "")
        path.setdefault(line.day, cache.object_path(cache.folder(project.root), key))
    file = path[line.day]
    predictions = tables.read(file, Prediction) if file.is_file() else None
    drawn = evidence.value_of(recorded, "draws.today")
    return Side(line, dotted(yaml.safe_load(own)), predictions, drawn)


def table(compared: list[Side]) -> Table:
    """Return the five figures of one or two days, the later one's with 95% intervals."""
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    drawn.add_column("")
    for side in compared:
        drawn.add_column(side.line.day, justify="right", no_wrap=True)
    drawn.add_column("95%", no_wrap=True)
    if len(compared) > 1:
        drawn.add_column("change", justify="right", no_wrap=True)
    for name, key in FIGURES.items():
        values = [evidence.value_of(side.line.figures, key) for side in compared]
        if values[-1] is None:
            continue
        # The new classes of two days are different ones.
        is_known = None not in values and not key.startswith("new.")
        change = [f"{values[-1] - values[0]:+.3f}" if is_known else ""] * (len(compared) > 1)
        ends = evidence.interval(compared[-1].line.figures or {}, key)
        drawn.add_row(name, *map(figure, values), ends, *change)
    return drawn


def sentences(project: Project, compared: list[Side]) -> Iterator[str]:
    """Say what the days are, and what changed between them, a line each."""
    last = compared[-1]
    new = f" (new: {', '.join(last.line.new)})" * bool(last.line.new)
    added = plural(last.line.images, "image")
    yield f"{last.line.day}: {added} added, {plural(last.line.classes, 'class')}{new}"
    if len(compared) == 1:
        yield "It is the first day, so there is none to compare it with."
        return
    before = compared[0]
    old, now = before.f1, last.f1
    shifts = {label: now[label] - old[label] for label in sorted(old.keys() & now.keys())}
    for word, sign in (("better", 1), ("worse", -1)):
        moved = sorted(
            (label for label in shifts if sign * shifts[label] >= LEAST),
            key=lambda label: -sign * shifts[label],
        )
        if moved:
            named = [f"{label}: {figure(old[label])} → {figure(now[label])}" for label in moved]
            yield f"{word + ':':9}{', '.join(first_few(named))} (F1)"
    yield from _images(project, before, last)
    keys = [key for key in {**before.params, **last.params} if key not in ("day", "parent")]
    values = {key: (before.params.get(key), last.params.get(key)) for key in keys}
    changed = [f"{key} {first} → {then}" for key, (first, then) in values.items() if first != then]
    if changed:
        yield f"params:  {', '.join(changed)}"
    was, drawn = before.drawn, last.drawn
    if was is not None and drawn is not None and abs(drawn - was) >= LEAST_DRAWS:
        yield f"draws:   {was:.0%} → {drawn:.0%} of the day's own images"


def _images(project: Project, before: Side, last: Side) -> Iterator[str]:
    """What became of the images that both days tested, under the labels of the later one."""
    if before.predictions is None or last.predictions is None:
        lacking = before if before.predictions is None else last
        yield (
            f"The predictions of {lacking.line.day} are not on this machine; they come with: "
            "dvc fetch --all-tags"
        )
        return
    then = before.predictions.select("image", was="predicted")
    tested = last.predictions.filter(pl.col("split") == "test").join(then, on="image")
    hit, was_hit = (pl.col(name) == pl.col("label") for name in ("predicted", "was"))
    wrong, right = tested.filter(was_hit & ~hit), tested.filter(hit & ~was_hit)
    p = intervals.mcnemar(len(wrong), len(right))
    said = (
        f"; {'more' if p < intervals.SIGNIFICANT else 'no more'} than chance (McNemar, p = {p:.3f})"
    )
    yield (
        f"On the {plural(len(tested), 'test image')} of both days: {len(wrong)} newly wrong, "
        f"{len(right)} newly right" + said * bool(len(wrong) + len(right))
    )
    paths = manifest.history(project, last.line.day).images.select("image", "path")
    for word, rows in (("wrong", wrong), ("right", right)):
        named = rows.join(paths, on="image").sort("path")
        lines = [
            f"{path}: was {was}, now {now}" + f", is {label}" * (word == "wrong")
            for path, was, now, label in named.select("path", "was", "predicted", "label").rows()
        ]
        for line in first_few(lines):
            yield f"  newly {word}  {line}"
