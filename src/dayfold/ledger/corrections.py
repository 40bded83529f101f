"""data/corrections/<day>.csv: labels corrected and images withdrawn on a day."""

from collections.abc import Iterable
from typing import NamedTuple

import polars as pl

from dayfold.errors import LedgerError
from dayfold.ledger import tables
from dayfold.ledger.intake import walking
from dayfold.ledger.manifest import History, Row
from dayfold.project.layout import Project

LONGEST = 255  # bytes of a class's name: it must do as a folder's


class Correction(NamedTuple):
    """One line: what became of an image of an earlier day.

    `relabel` gives it the class `label`; `withdraw` takes it out of all data versions from this one
    on. `reason` is a person's.
    """

    action: str
    image: str
    label: str
    reason: str


def write_empty(project: Project, day: str) -> None:
    """Write a day's file of corrections without any, unless it is there."""
    if not project.corrections(day).exists():
        tables.write(project.corrections(day), Correction, [])


def write(project: Project, day: str, lines: Iterable[Correction]) -> None:
    """Write a day's corrections, sorted by action and image."""
    tables.write(project.corrections(day), Correction, sorted(lines))


def lines(project: Project, day: str) -> dict[str, Correction]:
    """Return a day's corrections by image, unchecked; none where there is no such file."""
    if not project.corrections(day).exists():
        return {}
    table = tables.read(project.corrections(day), Correction)
    return {row[1]: Correction(*row) for row in table.iter_rows()}


def label_problem(label: str) -> str:
    """Say what is wrong with a class's name; nothing if it would do as a folder's."""
    if wrong := walking.name_problem(label, "class"):
        return wrong
    if "\\" in label:
        return "has a backslash in it"
    return f"is longer than {LONGEST} bytes" if len(label.encode()) > LONGEST else ""


def read(project: Project, day: str, known: History) -> list[Row]:
    """Return the day's corrections as rows of its manifest.

    Each line names an image of an earlier day by its sha256: `relabel` with the new label, or
    `withdraw`. Raises LedgerError that lists every line that does not fit.
    """
    name = project.name(project.corrections(day))
    table = tables.read(project.corrections(day), Correction)
    given = table["image"].implode()
    images = {
        row["image"]: row
        for part in (known.corrections.filter(action="withdraw"), known.images)
        for row in part.filter(pl.col("image").is_in(given)).iter_rows(named=True)
    }
    rows, problems, seen = [], [], set()
    for number, line in enumerate(table.iter_rows(named=True), start=2):
        action, image, label = line["action"], line["image"], line["label"].strip()
        at = images.get(image)
        if action not in ("relabel", "withdraw"):
            problems.append(f"line {number}: action {action!r} is neither relabel nor withdraw")
        elif at is None:
            problems.append(f"line {number}: no image {image[:12]!r}… on an earlier day")
        elif image in known.withdrawn:
            problems.append(f"line {number}: {at['path']} was withdrawn on an earlier day")
        elif image in seen:
            problems.append(f"line {number}: a second correction of {at['path']}")
        elif action == "relabel" and not label:
            problems.append(f"line {number}: relabel of {at['path']} without a label")
        elif action == "relabel" and (wrong := label_problem(label)):
            problems.append(f"line {number}: the class {label!r} {wrong}")
        else:
            seen.add(image)
            kept = (at["path"], label if action == "relabel" else "", at["group"], at["split"])
            rows.append(Row(action, image, *kept))
    problems += walking.clashes(_classes_after(known, rows))
    if problems:
        raise LedgerError(
            f"{name} has lines that do not fit:",
            problems=problems,
            mend=f"edit {name}, or git checkout -- {name}",
        )
    return rows


def _classes_after(known: History, rows: list[Row]) -> set[str]:
    """The classes that have images once these rows are applied."""
    corrected = [row.image for row in rows]
    left = known.images.filter(~pl.col("image").is_in(corrected))["label"].unique()
    return {row.label for row in rows if row.label} | set(left)
