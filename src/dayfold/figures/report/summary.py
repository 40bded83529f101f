"""A day in numbers, sentences and a chart."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup

from dayfold.figures import charts, intervals, metrics
from dayfold.figures.day import Day
from dayfold.figures.evidence import is_judged, is_too_few
from dayfold.figures.intervals import SIGNIFICANT
from dayfold.figures.log import MEANINGS, TITLES
from dayfold.ledger import tables
from dayfold.project.console import arrows, first_few, plural

WORSE = "worse beyond chance"  # the note on a class with a significant drop
KINDS = {1: "new", 0: "known"}  # keys are `new` of `tables.Unknown`
# The lines of the chart, by their names in `metrics.unknown`.
LINES = {"false_alarms": "false alarms", "found": "found"}


class Change(NamedTuple):
    """A class compared with the day before on the same test images; `says` is the verdict."""

    label: str
    recall: float
    recall_before: float
    images: int
    newly_wrong: int
    newly_right: int
    p: float | None
    says: str


def changes(day: Day) -> list[Change]:
    """Return the classes that both days' models were tested on, the largest drop first."""
    both = tables.evaluations(day.project, day.days[-2:])
    before = set(both.filter(model=day.before)["label"]) if day.before else set()
    parts = sorted(day.counts.filter(pl.col("label").is_in(before)).group_by("label"))
    flips = {str(key[0]): metrics.flips(part) for key, part in parts}
    flips = {label: counts for label, counts in flips.items() if counts.asked}
    adjusted = intervals.holm([intervals.mcnemar(n.negative, n.positive) for n in flips.values()])
    found = []
    for (label, (tested, wrong, right)), p in zip(flips.items(), adjusted, strict=True):
        recall, says = day.figures["classes"][label]["recall"], day.evidence.of_class(label)
        if not says and wrong < right:
            says = "better"
        elif not says and wrong > right:
            says = WORSE if p < SIGNIFICANT else "worse, may be chance"
        recall_before = recall + (wrong - right) / tested
        judged = None if day.evidence.of_class(label) else p
        found.append(Change(label, recall, recall_before, tested, wrong, right, judged, says))
    return sorted(found, key=lambda one: (one.newly_right - one.newly_wrong, one.label))


def numbers(day: Day) -> list[dict[str, Any]]:
    """Return the five numbers of a day, each with its interval and what it means."""
    figures = day.figures
    f1s = {label: scores["f1"] for label, scores in figures["classes"].items()}
    worst = first_few([label for label, f1 in f1s.items() if f1 == figures["worst_f1"]])
    more = {"worst_f1": f": {', '.join(worst)}" * bool(worst), "negative_flip_rate": _of_flips(day)}
    return [
        {
            "title": title,
            "value": figures[key],
            "ends": figures["interval"][key],
            "is_few": not is_judged(figures, key),
            "says": MEANINGS[key] + more.get(key, ""),
        }
        for key, title in TITLES.items()
    ]


def _of_flips(day: Day) -> str:
    asked, wrong, right = metrics.flips(day.counts)
    if not asked:
        return ": there is no earlier model to compare with"
    p, verdict = intervals.mcnemar(wrong, right), "within what chance explains"
    if p < SIGNIFICANT:
        verdict = f"{'worse' if wrong > right else 'better'} beyond chance"
    verdict = day.evidence.caveat(day.evidence.all) or f"{verdict} (McNemar, {intervals.p_text(p)})"
    counts = f"{wrong:,} newly wrong, {right:,} newly right"
    return f": of {plural(asked, 'test image')} {counts}; {verdict}"


def headline(day: Day, changed: list[Change]) -> str:
    new = ", ".join(first_few([_of_class(day, label) for label in day.line.new]))
    first = f"New: {new}. " * bool(new)
    first += f"Renamed or merged: {arrows(day.line.renamed)}. " * bool(day.line.renamed)
    if day.before is None:
        return f"The first day. {first}".strip()
    if worse := [change.label for change in changed if change.says == WORSE]:
        return f"{first}Worse beyond chance: {', '.join(first_few(worse))}."
    if day.figures["worse_than_yesterday"]["significant"]:
        return f"{first}All classes together got worse beyond chance, no single one did."
    if is_too_few(day.evidence.all):
        few = f"Too few test {day.evidence.unit}s to judge whether anything got worse"
        return f"{first}{few}: {day.evidence.all} in all."
    return f"{first}Nothing got worse beyond chance."


def _of_class(day: Day, label: str) -> str:
    if label not in day.figures["classes"]:
        return f"{label} (untested)"
    text = f"{label} with F1 {day.figures['classes'][label]['f1']:.3f}"
    few = day.evidence.of_class(label)
    low, high = day.figures["interval"]["classes"][label]["f1"].values()
    return f"{text} ({low:.3f} to {high:.3f}; {few})" if few else text


def unknown_sentences(day: Day) -> Iterator[str]:
    table = tables.unknown(day.project, day.day)
    if table.is_empty():
        yield "No model before this day knows what its classes look like."
        return
    totals = {row["new"]: row for row in table.filter(label="").iter_rows(named=True)}
    for new, row in sorted(totals.items(), reverse=True):
        labels = table.filter(pl.col("new") == new, pl.col("label") != "")["label"].to_list()
        named, of = ", ".join(first_few(labels)), "class" if len(labels) == 1 else "classes"
        images, called = plural(row["images"], "image"), row["unknown"]
        if called is not None and new:
            flagged = f"{called} of {images} of the new {of} {named}"
            few = day.evidence.caveat(row["units"])
            yield f"Yesterday's model would have flagged {flagged}" + f" ({few})" * bool(few) + "."
        elif called is not None:
            yield _of_known(day, called, row["images"], row["units"])
        if row["auroc"] is not None:
            few = day.evidence.caveat(min(row["units"] for row in totals.values()))
            caveat = f" ({few})" * bool(few)
            yield f"AUROC of new against known classes: {row['auroc']:.3f}{caveat}."
    if any(row["unknown"] is None for row in totals.values()):
        few = "there were too few validation images or patients for a limit"
        yield f"It called nothing unknown, as {few}."


def _of_known(day: Day, unknown: int, images: int, units: int) -> str:
    share, (low, high) = day.params.predict.known_share, intervals.wilson(unknown, images)
    sentence = (
        f"Of {plural(images, 'image')} of known classes it called {unknown} unknown: "
        f"{unknown / images:.1%} ({low:.1%} to {high:.1%})."
    )
    if few := day.evidence.caveat(units):
        return f"{sentence} {few.capitalize()}."
    if share is None:
        return sentence
    unlike = ": today's images look unlike those of before. Another device, other settings?"
    return f"{sentence} {1 - share:.0%} are expected{unlike if low > 1 - share else '.'}"


def unknown_counts(day: Day) -> list[dict[str, Any]]:
    """Return each class's row of `tables.Unknown` with `kind`, `part` unknown and `ends`."""
    found = []
    for row in tables.unknown(day.project, day.day).iter_rows(named=True):
        if row["label"] and row["unknown"] is not None:
            part = row["unknown"] / row["images"]
            ends = intervals.proportion(row["unknown"], row["images"])
            found.append(row | {"kind": KINDS[row["new"]], "part": part, "ends": ends})
    return found


def unknown_chart(day: Day) -> Markup | None:
    parts = {on: metrics.unknown(tables.unknown(day.project, on))[0] for on in day.days}
    curves = {
        name: {on: part[key] for on, part in parts.items() if part[key] is not None}
        for key, name in LINES.items()
    }
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return None
    return charts.lines(
        curves,
        says="Part of the images that yesterday's model called unknown, by day",
        colours=dict(zip(LINES.values(), (charts.RAMP[-1], charts.RAMP[0]), strict=True)),
        ends=(0.0, 1.0),
        names={name: name for name in curves},
    )
