"""The gate: what a day's figures have to keep, and which days did.

A limit is held against the figure's 95% interval and not against the figure: a day fails only where
it is hardly by chance that the limit is passed, so three points on thirty images fail no day.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dayfold.errors import LedgerError
from dayfold.figures.intervals import UNKNOWN
from dayfold.ledger import tables
from dayfold.ledger.tables import Check
from dayfold.project.layout import Project

_NAMES = {
    "max_forgetting": "forgetting",
    "max_negative_flip_rate": "the negative flip rate",
    "min_class_f1": "F1 of class {}",
    "min_new_f1": "F1 of the new class {}",
}


def checks(
    figures: Mapping[str, Any],
    *,
    new: Collection[str],
    max_forgetting: float | None,
    max_negative_flip_rate: float | None,
    min_class_f1: float | None,
    min_new_f1: float | None,
) -> list[Check]:
    """Hold a day's figures (`metrics.day_metrics`) against the limits that are not None.

    "At most" fails where the low end of the interval is above the limit, "at least" where its high
    end is below; what is undefined fails nothing. `new` are the classes that arrived on the day.
    """
    found = []
    for limit, name, most in (
        ("max_forgetting", "forgetting", max_forgetting),
        ("max_negative_flip_rate", "negative_flip_rate", max_negative_flip_rate),
    ):
        if most is not None:
            ends = figures["interval"][name]
            passed = ends["low"] is None or ends["low"] <= most
            of_all = (figures[name], ends["low"], ends["high"])
            found.append(Check(limit, "", most, *of_all, int(passed)))
    for limit, labels, least in (
        ("min_class_f1", figures["classes"], min_class_f1),
        ("min_new_f1", new, min_new_f1),
    ):
        if least is not None:
            for label in sorted(labels):
                scores = figures["classes"].get(label, {"f1": None})
                ends = figures["interval"]["classes"].get(label, {"f1": UNKNOWN})["f1"]
                passed = ends["high"] is None or ends["high"] >= least
                of_class = (scores["f1"], ends["low"], ends["high"])
                found.append(Check(limit, label, least, *of_class, int(passed)))
    return found


def reasons(found: Sequence[Check]) -> list[str]:
    """Say why a day fails, a sentence a limit and class; nothing if it passes."""
    return [
        f"{_NAMES[check.limit].format(check.label)} is {check.value:.3f} "
        f"({check.low:.3f} to {check.high:.3f}), "
        f"{'above' if check.limit.startswith('max') else 'below'} {check.limit} {check.bound:g}"
        for check in found
        if not check.passed
    ]


def read(project: Project, day: str) -> list[Check]:
    """Return what `curve` recorded of a day; LedgerError where there is no such record."""
    path = project.gate(day)
    found = [Check(*row) for row in tables.read(path, Check).iter_rows()]
    if not all(map(_is_whole, found)):
        name = project.name(path)
        raise LedgerError(
            f"{name} has a line that `dayfold curve` did not write.",
            mend=f"git checkout HEAD -- {name}; or, of the open day, dvc repro --force curve",
        )
    return found


def _is_whole(check: Check) -> bool:
    """Whether a check is of a limit that is known, and has the figures that its reason names."""
    figures = (check.value, check.low, check.high)
    known = check.limit in _NAMES and check.passed in (0, 1) and check.bound is not None
    return known and (bool(check.passed) or None not in figures)


def last_passed(project: Project, sealed: Sequence[str]) -> str | None:
    """Return the last of the sealed days (oldest first) that passed the gate, None if none did."""
    for day in reversed(sealed):
        if project.gate(day).exists() and not reasons(read(project, day)):
            return day
    return None
