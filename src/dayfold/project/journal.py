"""The note of what a command is about to do, written before it begins: all later repair goes by it.

It goes when the command ends. A command holds the project's lock (flock) while it works: so a note
that is there while the lock is free is of a command that was killed.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from dayfold.errors import CycleError
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project


class Note(NamedTuple):
    """Which command began, and when (seconds since 1970); in which step it is, and since when.

    `facts` are what the repair of the step needs.
    """

    command: str
    began: float
    step: str = ""
    step_began: float = 0.0
    facts: Mapping[str, Any] = MappingProxyType({})


def read(project: Project) -> Note | None:
    """Return the note of a command that is at work, or that did not end; None if there is none."""
    try:
        found = json.loads(project.journal.read_bytes())
        return Note(*(found[name] for name in Note._fields))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None  # it is written at once: one that cannot be read is no note of dayfold's


def write(project: Project, note: Note | None) -> None:
    """Put a note in the place of the one that is there; None removes it."""
    if note is None:
        project.journal.unlink(missing_ok=True)
    else:
        found = {**note._asdict(), "facts": dict(note.facts)}
        write_bytes(project.journal, json.dumps(found).encode())


@contextmanager
def step(project: Project, name: str, **facts: Any) -> Iterator[None]:
    """Note what a command is about to do in several steps, with the facts that its repair needs.

    The note stays until all of it is done. A step without facts needs no repair: where it fails, as
    git refuses a commit, its note goes.
    """
    before = read(project)  # none of a command: a function that was called from Python
    note = before or Note(name, time.time())
    write(project, note._replace(step=name, step_began=time.time(), facts=facts))
    try:
        yield
    except Exception:
        if not facts:
            write(project, before)
        raise
    write(project, before)


def check_writable(project: Project) -> None:
    """Raise CycleError, before any work, where a folder of the project takes no files."""
    folders = (project.root, project.data, project.data / "images", project.root / ".dvc")
    closed = [path for path in folders if path.is_dir() and not os.access(path, os.W_OK)]
    if closed:
        raise CycleError(
            "This project is read-only here:",
            problems=[f"{folder} cannot be written to" for folder in closed],
            hint="mount it writable, or give this user the right to write (ls -ld shows whose "
            "they are)",
        )
