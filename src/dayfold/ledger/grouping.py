"""data/groups/<day>.csv: patients and studies by image, where a CSV of labels named them."""

from collections.abc import Mapping

from dayfold.errors import LedgerError
from dayfold.ledger import tables
from dayfold.ledger.tables import ImageGroup
from dayfold.project.layout import Project


def write_empty(project: Project, day: str) -> None:
    """Write a day's file of groups without any, unless it is there."""
    if not project.groups(day).exists():
        tables.write(project.groups(day), ImageGroup, [])


def read(project: Project, day: str) -> dict[str, str]:
    """Return the groups that were told, by image; none where the file is not there.

    Raises LedgerError where one image has two.
    """
    if not project.groups(day).exists():
        return {}
    groups: dict[str, str] = {}
    twice = []
    for image, group in tables.read(project.groups(day), ImageGroup).iter_rows():
        if groups.setdefault(image, group) != group:
            twice.append(f"{image[:12]}… is in {groups[image]!r} and {group!r}")
    if twice:
        name = project.name(project.groups(day))
        raise LedgerError(f"{name} names two groups of an image:", problems=twice)
    return groups


def add(project: Project, day: str, groups: Mapping[str, str]) -> None:
    """Write more groups, by image, into a day's file."""
    known = read(project, day)
    rows = sorted((known | dict(groups)).items())
    tables.write(project.groups(day), ImageGroup, rows)
