"""Before a command changes a project: it is alone, and what a kill left half done is repaired."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dayfold.cycle import opening, undoing
from dayfold.errors import CycleError
from dayfold.project import journal, vcs
from dayfold.project.files import only_one
from dayfold.project.layout import Project

Say = Callable[[str], None]
# What finishes or takes back a step that a kill interrupted. What is not here needs nothing:
# `dayfold seal` run again goes on where it was.
_REPAIRS = {opening.STEP: opening.take_back, undoing.STEP: undoing.finish}


@contextmanager
def ready(project: Project, command: str, *, say: Say) -> Iterator[None]:
    """Work on a project alone, with a note of the command in the journal.

    Repairs first what an earlier command that was killed left half done, and says so.
    """
    journal.check_writable(project)
    vcs.check_nothing_under_way(project.root)
    with only_one(project.cycle_lock, "at work"):
        repair(project, say=say)
        journal.check_alone(project)
        with journal.noted(project, command):
            yield


def repair(project: Project, *, say: Say) -> None:
    """Repair what the note of a killed command covers; the caller holds the project's lock."""
    journal.repair(project, say=say)
    note = journal.read(project)
    if note and note.step in _REPAIRS:
        try:
            said = _REPAIRS[note.step](project, note.facts)
        except KeyError as error:
            raise CycleError(
                f"The note of `dayfold {note.command}`, which was killed, lacks {error}.",
                mend=f"look at {project.journal}, and remove it when nothing is half done",
            ) from None
        say(f"dayfold {note.command} was killed: {said}")
    journal.forget(project)
