"""The day in five numbers and a sentence, and the classes that got worse."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from dayfold.figures import intervals, metrics
from dayfold.figures.evidence import FEW, is_judged, is_too_few
from dayfold.figures.intervals import SIGNIFICANT, Ends
from dayfold.figures.report.day import Day
from dayfold.project.console import plural

KEYS = ("average_accuracy", "weighted_f1", "worst_f1", "forgetting", "negative_flip_rate")
LEAST_P = 0.001  # a smaller p is not told to the digit
NAMED = 3  # new classes that are named one by one


@dataclass(frozen=True)
class Number:
    """One of the five: its value and interval, what it rests on too little, and what it says."""

    title: str
    value: float | None
    ends: Ends
    few: str
    says: str


@dataclass(frozen=True)
class Change:
    """A class against the day before, both on the same images: recall, and the flips."""

    label: str
    recall: float
    recall_before: float
    asked: int
    negative: int
    positive: int
    p: float
    few: str

    @property
    def is_beyond_chance(self) -> bool:
        """Whether more was lost than won, hardly by chance, and on enough to tell."""
        return not self.few and self.negative > self.positive and self.p < SIGNIFICANT

    @property
    def says(self) -> str:
        """What became of the class."""
        if self.few or self.negative == self.positive:
            return self.few
        if self.negative < self.positive:
            return "better"
        return "worse beyond chance" if self.is_beyond_chance else "worse, may be chance"


def changes(day: Day) -> list[Change]:
    """Return the classes that both days' models were asked about, most flips lost first."""
    if day.before is None or day.before.figures is None:
        return []
    now, then, known = day.figures["classes"], day.before.figures["classes"], day.known
    flips = {
        label: found
        for label, found in metrics.class_flips(day.counts).items()
        if label in then and found.asked
    }
    adjusted = intervals.holm(
        [intervals.mcnemar(found.negative, found.positive) for found in flips.values()]
    )
    found = []
    for (label, counts), p in zip(flips.items(), adjusted, strict=True):
        recall, few = now[label]["recall"], known.of_class(label)
        before = recall + (counts.negative - counts.positive) / counts.asked
        found.append(Change(label, recall, before, *counts, p, few))
    return sorted(found, key=lambda one: (one.positive - one.negative, one.label))


def numbers(day: Day) -> list[Number]:
    """Return the five numbers of the day."""
    figures, said = day.figures, dict(_sentences(day))
    titles = ("Average accuracy", "Weighted F1", "Worst F1", "Forgetting", "Negative flips")
    return [
        Number(title, figures[key], figures["interval"][key], _few(day, key), said[key])
        for key, title in zip(KEYS, titles, strict=True)
    ]


def _few(day: Day, key: str) -> str:
    return "" if is_judged(day.figures, key) else f"{FEW}."


def _sentences(day: Day) -> Iterator[tuple[str, str]]:
    figures = day.figures
    cohorts = day.counts["cohort"].n_unique()
    yield (
        "average_accuracy",
        f"The mean of the accuracies on the test images of {plural(cohorts, 'day')}: "
        f"each day's images count alike.{_before(day)}",
    )
    classes = figures["classes"]
    yield (
        "weighted_f1",
        f"The mean F1 of {plural(len(classes), 'class')}, each weighted by its "
        f"{sum(scores['images'] for scores in classes.values()):,} test images in all.",
    )
    yield "worst_f1", _of_worst(classes)
    yield "forgetting", _of_forgetting(figures["forgetting"], cohorts - 1)
    yield "negative_flip_rate", _of_flips(day)


def _before(day: Day) -> str:
    """What yesterday's model reaches on today's test images, judged by today's labels."""
    asked = day.counts.filter(pl.col("parent_correct").is_not_null())
    if asked.is_empty():
        return ""
    each = asked.group_by("cohort").agg(pl.col("parent_correct", "images").sum())
    before = each.select((pl.col("parent_correct") / pl.col("images")).mean()).item()
    images = plural(int(each["images"].sum()), "image")
    return f" On the same {images} yesterday's model has {before:.3f}."


def _of_worst(classes: dict[str, Any]) -> str:
    lowest = min((scores["f1"] for scores in classes.values()), default=None)
    worst = [label for label, scores in classes.items() if scores["f1"] == lowest]
    if not worst:
        return "No class has test images yet."
    if len(worst) == len(classes) > 1:
        return f"All {len(classes)} classes have the same F1."
    images = plural(sum(classes[label]["images"] for label in worst), "test image")
    if len(worst) > 1:
        return f"{len(worst)} classes have the lowest F1, on {images} together."
    return f"Class {worst[0]} has the lowest F1, on {images}."


def _of_forgetting(value: float | None, earlier: int) -> str:
    if value is None:
        return "Nothing to forget yet: there are no earlier test images."
    where = "above" if value < 0 else "below"
    if not round(abs(value), 3):
        return f"{plural(earlier, 'earlier day').capitalize()}: as well known as they ever were."
    return (
        f"On the test images of {plural(earlier, 'earlier day')}, accuracy is on average "
        f"{abs(value):.3f} {where} its best of the days before."
    )


def _of_flips(day: Day) -> str:
    asked, negative, positive = metrics.flips(day.counts)
    if not asked:
        return "There is no earlier model to compare with."
    p = day.figures["worse_than_yesterday"]["p"]
    verdict = day.known.caveat(day.known.all) or "within what chance explains"
    if p < SIGNIFICANT and not is_too_few(day.known.all):
        verdict = f"{'worse' if negative > positive else 'better'} beyond chance"
    return (
        f"{plural(asked, 'test image')}: {negative:,} newly wrong, {positive:,} newly right; "
        f"{verdict} (McNemar, p {'< 0.001' if p < LEAST_P else f'= {p:.3f}'})."
    )


def headline(day: Day, changed: list[Change]) -> str:
    """Say in a sentence or two how the day went: what is new, and what got worse."""
    new = [_of_new(day)] if day.line.new else []
    if day.before is None:
        return f"The first day: {'; '.join(new) or 'no classes yet'}."
    lost = [change.label for change in changed if change.is_beyond_chance]
    if lost:
        new.append(f"{listed(lost)} got worse beyond chance")
    elif day.figures["worse_than_yesterday"]["significant"]:
        new.append("all classes together got worse beyond chance, no single one did")
    elif few := day.known.caveat(day.known.all):
        new.append(f"whether anything got worse is {few}")
    else:
        new.append(f"nothing {'else ' * bool(new)}got worse beyond chance")
    text = "; ".join(new)
    # A class's own name keeps its case.
    return (text if day.line.new or lost else text[0].upper() + text[1:]) + "."


def _of_new(day: Day) -> str:
    """What became of the classes that arrived on the day."""
    new, classes = day.line.new, day.figures["classes"]
    scores = [classes[label]["f1"] for label in new if label in classes]
    if not scores:
        return f"{listed(list(new))}: no test images on the day of arrival"
    if len(new) <= NAMED:
        each = ", ".join(_of_class(day, label) for label in new)
        return f"{each} on the day {'it' if len(new) == 1 else 'they'} arrived"
    few = sum(is_too_few(day.known.classes.get(label, 0)) for label in new)
    return (
        f"{len(new)} new classes: F1 {min(scores):.3f} to {max(scores):.3f} on arrival"
        + f", {few} of them {FEW}" * bool(few)
    )


def _of_class(day: Day, label: str) -> str:
    """The F1 of a class; with its interval where it rests on too few."""
    if label not in day.figures["classes"]:
        return f"{label}: untested"
    said = f"{label}: F1 {day.figures['classes'][label]['f1']:.3f}"
    few = day.known.of_class(label)
    low, high = day.figures["interval"]["classes"][label]["f1"].values()
    return f"{said} ({low:.3f} to {high:.3f}; {few})" if few else said


def listed(names: list[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
