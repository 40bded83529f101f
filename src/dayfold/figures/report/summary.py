"""The day in five numbers and a sentence, and the classes that got worse."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dayfold.figures import intervals, metrics
from dayfold.figures.intervals import SIGNIFICANT, Ends
from dayfold.figures.report.day import Day
from dayfold.project.console import plural

KEYS = ("average_accuracy", "weighted_f1", "worst_f1", "forgetting", "negative_flip_rate")
LEAST_P = 0.001  # a smaller p is not told to the digit
NAMED = 3  # new classes that are named one by one


@dataclass(frozen=True)
class Number:
    """One of the five: its value and interval, yesterday's value, and what it says."""

    title: str
    value: float | None
    ends: Ends
    before: float | None
    says: str


@dataclass(frozen=True)
class Change:
    """A class against the day before: F1, and the flips on the same images."""

    label: str
    f1: float
    f1_before: float
    asked: int
    negative: int
    positive: int
    p: float

    @property
    def is_beyond_chance(self) -> bool:
        """Whether more was lost than won, and hardly by chance."""
        return self.negative > self.positive and self.p < SIGNIFICANT


def changes(day: Day) -> list[Change]:
    """Return the classes that both days' models were asked about, most flips lost first."""
    if day.before is None or day.before.figures is None:
        return []
    now, then = day.figures["classes"], day.before.figures["classes"]
    flips = {
        label: found
        for label, found in metrics.class_flips(day.counts).items()
        if label in then and found.asked
    }
    adjusted = intervals.holm(
        [intervals.mcnemar(found.negative, found.positive) for found in flips.values()]
    )
    found = [
        Change(label, now[label]["f1"], then[label]["f1"], *counts, p)
        for (label, counts), p in zip(flips.items(), adjusted, strict=True)
    ]
    return sorted(found, key=lambda one: (one.positive - one.negative, one.label))


def numbers(day: Day) -> list[Number]:
    """Return the five numbers of the day."""
    figures, said = day.figures, dict(_sentences(day))
    before = (day.before.figures if day.before else None) or {}
    titles = ("Average accuracy", "Weighted F1", "Worst F1", "Forgetting", "Negative flips")
    return [
        Number(title, figures[key], figures["interval"][key], before.get(key), said[key])
        for key, title in zip(KEYS, titles, strict=True)
    ]


def _sentences(day: Day) -> Iterator[tuple[str, str]]:
    figures = day.figures
    cohorts = day.counts["cohort"].n_unique()
    yield (
        "average_accuracy",
        f"The mean of the accuracies on the test images of {plural(cohorts, 'day')}: "
        "each day's images count alike.",
    )
    classes = figures["classes"]
    yield (
        "weighted_f1",
        f"The mean F1 of {plural(len(classes), 'class')}, each weighted by its "
        f"{sum(scores['images'] for scores in classes.values()):,} test images in all.",
    )
    worst = _worst(classes)
    yield (
        "worst_f1",
        f"Class {worst} has the lowest F1, on {plural(classes[worst]['images'], 'test image')}."
        if worst is not None
        else "No class has test images yet.",
    )
    yield "forgetting", _of_forgetting(figures["forgetting"], cohorts - 1)
    yield "negative_flip_rate", _of_flips(day)


def _worst(classes: dict[str, Any]) -> str | None:
    return min(classes, key=lambda label: classes[label]["f1"], default=None)


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
    verdict = "within what chance explains"
    if p < SIGNIFICANT:
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
        each = [
            f"{label}: F1 {classes[label]['f1']:.3f}" if label in classes else f"{label}: untested"
            for label in new
        ]
        return f"{', '.join(each)} on the day {'it' if len(new) == 1 else 'they'} arrived"
    return f"{len(new)} new classes: F1 {min(scores):.3f} to {max(scores):.3f} on arrival"


def listed(names: list[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
