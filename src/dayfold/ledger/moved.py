"""Which class a file of the open day was given as, before `relabel` moved it to another's folder.

Noted on this machine only, so that `add` knows the image when its folder is given again. A note
that is lost costs nothing but that: `add` then asks about the two classes.
"""

from collections.abc import Iterable

from dayfold.ledger import tables
from dayfold.ledger.tables import Moved
from dayfold.project.layout import Project


def given(project: Project, day: str) -> dict[str, set[str]]:
    """Return the classes that a day's images had before they were moved, by image."""
    found: dict[str, set[str]] = {}
    if project.moved(day).exists():
        for image, label in tables.read(project.moved(day), Moved).iter_rows():
            found.setdefault(image, set()).add(label)
    return found


def note(project: Project, day: str, moves: Iterable[Moved]) -> None:
    """Note more images and the classes that they had."""
    moves = set(moves)
    if not moves:
        return
    before = {Moved(image, label) for image, had in given(project, day).items() for label in had}
    tables.write(project.moved(day), Moved, sorted(before | moves))
