"""The gate: which limits a day's figures meet.

A limit is compared with a figure's 95% interval, not with the figure itself, so a day fails only
where chance hardly explains it: three points on thirty images fail no day. A figure that rests on
too few units is not judged: its check neither passes nor fails.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dayfold.errors import LedgerError
from dayfold.figures.evidence import Evidence, is_too_few, value_of
from dayfold.figures.intervals import UNKNOWN
from dayfold.ledger import tables
from dayfold.ledger.tables import Check
from dayfold.project import vcs
from dayfold.project.console import first_few, plural
from dayfold.project.layout import Project
from dayfold.project.params import Gate

FORCED = "Gate: forced"  # the last line of a forced seal's message
_NAMES = {
    "max_forgetting": "forgetting",
    "max_negative_flip_rate": "the negative flip rate",
    "min_class_f1": "F1 of class {}",
    "min_new_f1": "F1 of the new class {}",
    "max_unlike_known": "the part of known classes' images that yesterday's model called unknown",
    "require_evidence": "",
}


def checks(
    figures: Mapping[str, Any], *, new: Collection[str], known: Evidence, limits: Gate
) -> list[Check]:
    """Compare a day's figures (`metrics.day_metrics`) with the limits that are not None.

    A maximum fails if the low end of the interval is above it, a minimum if the high end is below
    it. `new` are the classes that arrived on the day. On a first day there is no earlier day to
    compare with.
    """
    found = []
    known_units = value_of(figures, "unknown.units.known") or 0
    for limit, name, most, units in (
        ("max_forgetting", "forgetting", limits.max_forgetting, known.earlier),
        ("max_negative_flip_rate", "negative_flip_rate", limits.max_negative_flip_rate, known.all),
        ("max_unlike_known", "unknown.false_alarms", limits.max_unlike_known, known_units),
    ):
        value = value_of(figures, name)
        if most is not None and (value is not None or len(known.cohorts) > 1):
            low, high = (value_of(figures["interval"], name) or UNKNOWN).values()
            passed = None if low is None or is_too_few(units) else int(low <= most)
            found.append(Check(limit, "", most, value, low, high, passed))
    for limit, labels, least in (
        ("min_class_f1", known.classes, limits.min_class_f1),
        ("min_new_f1", new, limits.min_new_f1),
    ):
        if least is not None:
            for label in sorted(labels):
                f1 = figures["classes"].get(label, {"f1": None})["f1"]
                ends = figures["interval"]["classes"].get(label, {"f1": UNKNOWN})
                low, high = ends["f1"].values()
                is_few = is_too_few(known.classes.get(label, 0))
                passed = None if high is None or is_few else int(high >= least)
                found.append(Check(limit, label, least, f1, low, high, passed))
    if limits.require_evidence:
        count = sum(check.passed is None for check in found)
        found.append(Check("require_evidence", "", 0, count, count, count, int(not count)))
    return found


def reasons(found: Sequence[Check]) -> list[str]:
    return [
        f"{_name(check)} is {check.value:.3f} "
        f"({check.low:.3f} to {check.high:.3f}), "
        f"{'above' if check.limit.startswith('max') else 'below'} {check.limit} {check.bound:g}"
        if check.limit != "require_evidence"
        else "not judged, and require_evidence is set: "
        + ", ".join(first_few([_name(one) for one in not_judged(found)]))
        for check in found
        if check.passed == 0
    ]


def not_judged(found: Sequence[Check]) -> list[Check]:
    return [check for check in found if check.passed is None]


def next_step(found: Sequence[Check]) -> str:
    if reasons(found):
        return 'change the recipe, then dvc repro; or as it is: dayfold seal --force -m "why"'
    return "dayfold diff, then dayfold seal"


def verdict(found: Sequence[Check]) -> str:
    """Return the outcome of the checks: "3 checks passed, 5 not judged"."""
    outcomes = [
        check.passed for check in found if check.limit != "require_evidence" or not check.passed
    ]
    kinds = (("failed", 0), ("passed", 1), ("not judged", None))
    some = [(n, name) for name, kind in kinds if (n := outcomes.count(kind))]
    if not some:
        return "no limit is set"
    (first, what), *rest = some
    return ", ".join([f"{plural(first, 'check')} {what}", *(f"{n} {name}" for n, name in rest)])


def _name(check: Check) -> str:
    return _NAMES[check.limit].format(check.label)


def read(project: Project, day: str) -> list[Check]:
    """Return what `curve` recorded of a day; LedgerError where there is no such record."""
    path = project.gate(day)
    found = [Check(*row) for row in tables.read(path, Check).iter_rows()]
    if not all(map(_is_valid, found)):
        name = project.name(path)
        raise LedgerError(
            f"{name} has a line that `dayfold curve` did not write.",
            hint=f"git checkout HEAD -- {name}; or, on the open day, dvc repro --force curve",
        )
    return found


def _is_valid(check: Check) -> bool:
    figures = (check.value, check.low, check.high)
    known = check.limit in _NAMES and check.passed in (0, 1, None) and check.bound is not None
    return known and (check.passed != 0 or None not in figures)


def forced(project: Project) -> dict[str, str]:
    """Return day → reason, for the days that were sealed although they failed the gate."""
    found = {}
    for day, message in vcs.seals(project.root).items():
        if message.rstrip().endswith(f"\n{FORCED}"):
            lines = list(filter(None, message.split("\n")))
            # Versions before 0.2.0 wrote no subject of their own.
            found[day] = lines[lines[0].startswith(f"day {day}: ")]
    return found


def last_passed(project: Project, sealed: Sequence[str]) -> str | None:
    """Return the last of the sealed days (oldest first) that passed the gate, None if none did."""
    judged = (day for day in reversed(sealed) if project.gate(day).exists())
    return next((day for day in judged if not reasons(read(project, day))), None)
