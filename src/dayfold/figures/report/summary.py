"""The day in numbers and sentences."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup

from dayfold.figures import charts, intervals, metrics
from dayfold.figures.evidence import is_judged, is_too_few
from dayfold.figures.intervals import SIGNIFICANT, Ends
from dayfold.figures.log import MEANINGS, TITLES
from dayfold.figures.report.day import Day
from dayfold.ledger import tables
from dayfold.project import params as params_file
from dayfold.project.console import first_few, plural

LOST = "worse beyond chance"  # more was lost than won, on enough to tell
KINDS = {1: "new", 0: "known"}
# The lines of the chart, each with its colour, by `new` of `tables.Unknown`.
LINES = {1: ("found", charts.RAMP[0]), 0: ("false alarms", charts.RAMP[-1])}


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
    then = set(day.evaluations.filter(model=day.before)["label"]) if day.before else set()
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
    """The F1 of a class; with its interval where it rests on too few."""
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
    share = params_file.read(day.project.params).predict.known_share
    ends = intervals.proportion(unknown, images)
    said = (
        f"Of {plural(images, 'image')} of known classes it called {unknown} unknown: "
        f"{unknown / images:.1%} ({ends['low']:.1%} to {ends['high']:.1%})."
    )
    if few := day.known.caveat(units):
        return f"{said} This is {few}."
    if share is None:
        return said
    if ends["low"] is not None and ends["low"] > 1 - share:
        return (
            f"{said} {1 - share:.0%} are expected: today's images look unlike those of before. "
            "Another device, other settings?"
        )
    return f"{said} {1 - share:.0%} are expected."


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
    curves: dict[str, dict[str, float]] = {}
    for on in day.days:
        totals = tables.unknown(day.project, on).filter(label="")
        for row in totals.iter_rows(named=True):
            if row["unknown"] is not None:
                part = row["unknown"] / row["images"]
                curves.setdefault(LINES[row["new"]][0], {})[on] = part
    return (
        charts.lines(
            curves,
            says="Part of the images that yesterday's model called unknown, by day",
            colours=dict(LINES.values()),
            ends=(0.0, 1.0),
            names={name: name for name in curves},
        )
        if curves
        else None
    )
