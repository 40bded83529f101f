"""Lock and repair, before a command begins."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dayfold.cycle import opening
from dayfold.errors import CycleError
from dayfold.project import journal, vcs
from dayfold.project.console import duration, say
from dayfold.project.files import only_one
from dayfold.project.journal import Note
from dayfold.project.layout import Project

# Functions that finish an interrupted step, by its name. A step without one needs no repair:
# `dayfold seal` run again goes on.
_REPAIRS = {opening.OPEN: opening.finish_opening, opening.CLOSE: opening.finish_closing}
WAIT_SECONDS = 30.0  # for processes of a killed command to end


@contextmanager
def ready(project: Project, command: str) -> Iterator[None]:
    """Hold the project's lock, and note the command in the journal.

    First repairs, and reports, what a killed command left half done. The note stays if this command
    is killed, or fails with something left to repair.
    """
    vcs.check_nothing_under_way(project.root)
    with only_one(project.cycle_lock, "at work"):
        _repair(project)
        _refuse([one for one in journal.at_work(project) if not one.startswith("git ")])
        journal.write(project, Note(command, time.time()))
        try:
            yield
        finally:
            if not journal.pending(project):
                journal.write(project, None)


def _repair(project: Project) -> None:
    note, found = journal.read(project), journal.half_done(project)
    if any(one.is_covered_by(note) for one in found):
        _wait(project)
        found = journal.half_done(project)
    for item in found:
        if note and item.is_covered_by(note):
            item.fix()
            say(f"dayfold {note.command} was killed: {item.what}: {item.repair}")
            continue
        say(
            f"warning: {item.what}, since {duration(item.age)}; dayfold did not begin it, so it "
            "was left alone. If nothing else runs here or in a container: dayfold check --fix"
        )
    if note and note.step in _REPAIRS:
        say(f"dayfold {note.command} was killed: {_REPAIRS[note.step](project, note.facts)}")
    journal.write(project, None)


def _wait(project: Project) -> None:
    until, busy = time.monotonic() + WAIT_SECONDS, journal.at_work(project)
    if busy:
        say(f"waiting for {', '.join(busy)}, which a killed command had started")
    while busy and time.monotonic() < until:
        time.sleep(0.2)
        busy = journal.at_work(project)
    _refuse(busy)


def _refuse(busy: list[str]) -> None:
    if busy:
        what = f"{', '.join(busy)} is at work in this project."
        raise CycleError(what, hint="wait for it, or stop it; then run the command again")
