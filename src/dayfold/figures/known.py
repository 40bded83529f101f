"""What days' figures came to, kept beside the project: a sealed day's are not counted again.

To count the figures of a day takes the evaluations of all days before it, so that those of all days
grow with the cube of the history.
"""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from dayfold import __version__
from dayfold.figures import metrics
from dayfold.ledger import tables
from dayfold.project.files import (
    canonical_json,
    json_bytes,
    sha256,
    sha256_file,
    with_digest,
    without_digest,
    write_bytes,
)
from dayfold.project.layout import Project

KEPT_FROM = 20  # days; a shorter history is counted again faster than it is looked up

Figures = dict[str, Any]


def day_figures(
    project: Project, until: str, new: Mapping[str, Collection[str]]
) -> dict[str, Figures]:
    """Return day → figures (`metrics.day_metrics`) of the days up to `until` that have some.

    `new` maps each day to the classes that arrived on it. What is kept of a day is named by the
    sha256 of all that its figures are counted from, and of the version that counted them.
    """
    pins = _pins(project, until, new)
    kept = _read(project) if len(pins) >= KEPT_FROM else {}
    found = {day: kept[pin] for day, pin in pins.items() if pin in kept}
    if missing := {day: new[day] for day in pins if day not in found and day in new}:
        evaluations, days = tables.evaluations(project, max(missing))
        found |= metrics.day_metrics(evaluations, days, missing)
        if len(pins) >= KEPT_FROM:
            with suppress(OSError):  # a project that one may only read
                data = json_bytes({pins[day]: figures for day, figures in found.items()})
                write_bytes(project.known_figures, with_digest(data))
    return {day: found[day] for day in pins if day in found}


def _pins(project: Project, until: str, new: Mapping[str, Collection[str]]) -> dict[str, str]:
    """What the figures of each day are counted from, as a hash that has in it the day before's."""
    pins, pin = {}, __version__
    for day in tables.evaluated(project, until):
        facts = [pin, day, sha256_file(project.evaluation(day)), sorted(new.get(day, ()))]
        pins[day] = pin = sha256(canonical_json(facts).encode())
    return pins


def _read(project: Project) -> dict[str, Figures]:
    with suppress(OSError, ValueError):
        return dict(json.loads(without_digest(project.known_figures.read_bytes())))
    return {}
