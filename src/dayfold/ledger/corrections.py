"""data/corrections/<day>.csv: labels corrected and images withdrawn on a day."""

from typing import NamedTuple

from dayfold.errors import LedgerError
from dayfold.ledger import tables
from dayfold.ledger.intake import walking
from dayfold.ledger.manifest import History, Row
from dayfold.project.layout import Project


class Correction(NamedTuple):
    """One line: `relabel` an image of an earlier day to `label`, or `withdraw` it."""

    action: str
    image: str
    label: str
    reason: str


def write_empty(project: Project, day: str) -> None:
    """Write a day's file of corrections without any, unless it is there."""
    if not project.corrections(day).exists():
        tables.write(project.corrections(day), Correction, [])


def read(project: Project, day: str, known: History) -> list[Row]:
    """Return the day's corrections as rows of its manifest.

    Each line names an image of an earlier day by its sha256: `relabel` with the new label, or
    `withdraw`. Raises LedgerError that lists every line that does not fit.
    """
    name = project.name(project.corrections(day))
    table = tables.read(project.corrections(day), Correction)
    images = {row["image"]: row for row in known.images.iter_rows(named=True)}
    rows, problems, seen = [], [], set()
    for number, line in enumerate(table.iter_rows(named=True), start=2):
        action, image = line["action"], line["image"]
        at = images.get(image)
        if action not in ("relabel", "withdraw"):
            problems.append(f"line {number}: action {action!r} is neither relabel nor withdraw")
        elif at is None:
            problems.append(f"line {number}: no image {image[:12]!r}… on an earlier day")
        elif image in seen:
            problems.append(f"line {number}: a second correction of {at['path']}")
        elif action == "relabel" and not line["label"].strip():
            problems.append(f"line {number}: relabel of {at['path']} without a label")
        else:
            seen.add(image)
            label = line["label"].strip() if action == "relabel" else ""
            rows.append(Row(action, image, at["path"], label, at["group"], at["split"]))
    names = {row.label for row in rows if row.label} | set(known.images["label"])
    problems += walking.clashes(names)
    if problems:
        raise LedgerError(f"{name} has lines that do not fit:", problems=problems)
    return rows
