"""Notes of commands at work, and repairs.

A command notes what it is about to do before it begins, and removes the note when it ends.
Meanwhile it holds the project's lock (flock). So a note without a held lock is from a command that
was killed. What no note covers was not dayfold's: it is reported and left alone.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import psutil

from dayfold.errors import LedgerError
from dayfold.project import params as params_file
from dayfold.project import pins, vcs
from dayfold.project.files import PART, is_free, write_bytes
from dayfold.project.layout import Project, is_day

RWLOCK = ".dvc/tmp/rwlock"  # in which DVC names the process that runs a stage
YOUNG_SECONDS = 60.0  # a younger lock may belong to a git that cannot be seen from here
_OF_DVC = re.compile(r"\.[\w-]{22}\.tmp")  # files with which dvc_objects tests links
_BROKEN = (ValueError, AttributeError, TypeError, KeyError)  # raised by a half-written rwlock
WRITING_SECONDS = 0.1  # far more than DVC needs to write it
# A file's time may be this much before the note's: file system clocks lag by milliseconds.
_CLOCKS_APART_SECONDS = 0.1


class Note(NamedTuple):
    """The command that began, and when (seconds since 1970); its step, and when that began.

    `facts` are what the repair of the step needs.
    """

    command: str
    began: float
    step: str = ""
    step_began: float = 0.0
    facts: Mapping[str, Any] = MappingProxyType({})


def read(project: Project) -> Note | None:
    """Return the note of a command that is running or was killed; None if there is none."""
    try:
        return Note(**json.loads(project.journal.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # dayfold writes notes atomically, so an unreadable one is not dayfold's


def write(project: Project, note: Note | None) -> None:
    if note is None:
        project.journal.unlink(missing_ok=True)
    else:
        write_bytes(project.journal, json.dumps(note._asdict(), default=dict).encode())


@contextmanager
def step(project: Project, name: str, **facts: Any) -> Iterator[None]:
    """Note a step of a command while it is done, with the facts that its repair needs.

    The note stays until the step is done. A step without facts needs no repair: if it fails, for
    example because git refuses a commit, its note is removed.
    """
    before = read(project)  # None for a function called from Python
    note = before or Note(name, time.time())
    write(project, note._replace(step=name, step_began=time.time(), facts=facts))
    try:
        yield
    except Exception:
        if not facts:
            write(project, before)
        raise
    write(project, before)


class HalfDone(NamedTuple):
    """Something that was left half done: what it is, what repairs it, and the repair in words."""

    what: str
    path: Path
    repair: str
    fix: Callable[[], object]
    is_lock: bool = False  # of git, which may be running

    @property
    def _written(self) -> float:
        try:
            return self.path.lstat().st_mtime
        except FileNotFoundError:
            return time.time()

    @property
    def age(self) -> float:
        """Return its age in seconds; if the clock was put back, how far it is ahead."""
        return abs(time.time() - self._written)

    def is_covered_by(self, note: Note | None) -> bool:
        """Return whether a killed command left it: it was then written after the command began."""
        written = self._written + _CLOCKS_APART_SECONDS
        if note is None or written < note.began:
            return False
        return not self.is_lock or note.step_began <= written < note.step_began + YOUNG_SECONDS


def pending(project: Project) -> Note | None:
    """Return the note of a command that did not end, if there is something to repair."""
    note = read(project)
    is_left = note and (note.step or any(one.is_covered_by(note) for one in half_done(project)))
    return note if is_left else None


def half_done(project: Project) -> list[HalfDone]:
    """Return what is half written in a project, including files that are being written now."""
    if not (project.root / ".dvc").is_dir():
        return []
    # Parts of files come before DVC's files, which are made again without them.
    finders = (_rwlock, _git_locks, _parts, _dvc_files)
    return [one for finder in finders for one in finder(project)]


def _rwlock(project: Project) -> Iterator[HalfDone]:
    """Yield DVC's rwlock if a kill broke it, as DVC writes it in place, or left it behind.

    A lock left behind names a process that has ended. Its number may belong to another program now,
    for instance after a restart; or nobody collected its exit code, as in a container without an
    init. DVC only checks whether there is such a process, and fails.
    """
    path = project.root / RWLOCK
    try:
        try:
            held = list(_holders(project))
        except _BROKEN:  # or DVC is writing it right now
            time.sleep(WRITING_SECONDS)
            held = list(_holders(project))
    except _BROKEN:
        yield HalfDone(".dvc/tmp/rwlock is broken", path, "removed", path.unlink)
        return
    others = [str(pid) for pid, is_dvc in held if not is_dvc]
    if others:
        names = ", ".join(others)
        what = f".dvc/tmp/rwlock names process {names}, which is another program now, or has ended"
        yield HalfDone(what, path, "removed", path.unlink)


def _holders(project: Project) -> Iterator[tuple[int, bool]]:
    """Yield each process that DVC's rwlock names, and whether it is a running DVC that took it."""
    path = project.root / RWLOCK
    try:
        held = json.loads(path.read_bytes())
        written = path.stat().st_mtime
    except FileNotFoundError:
        return
    writers, readers = held.get("write", {}).values(), held.get("read", {}).values()
    for pid in sorted({one["pid"] for one in chain(writers, *readers)}):
        try:
            process = psutil.Process(pid)
            is_dvc = "dvc" in {Path(word).name for word in process.cmdline()[:4]}
            yield pid, is_dvc and process.create_time() <= written + 1
        except psutil.ZombieProcess:
            yield pid, False  # nobody collected its exit code, and DVC waits for ever
        except psutil.Error:
            pass  # DVC notices that it has ended


def _git_locks(project: Project) -> Iterator[HalfDone]:
    words = ("rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir")
    for folder in sorted({Path(line) for line in vcs.git(project.root, *words).splitlines()}):
        for path in (*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")):
            name = os.path.relpath(path, project.root)
            yield HalfDone(f"git holds {name}", path, "removed", path.unlink, is_lock=True)


def _parts(project: Project) -> Iterator[HalfDone]:
    """Yield files that were being written: nobody reads them, but DVC counts them in a folder."""
    root = project.root
    found = [*root.glob(".*"), *root.glob("data/.*"), *root.glob("data/*/.*")]
    # Read without validation, as repairs must work with params of an older version too.
    day = params_file.day_of(project.params.read_bytes())
    if is_day(day):
        found += project.images(day).rglob(".*")
    for path in found:
        if path.name.endswith(PART) or _OF_DVC.fullmatch(path.name):
            what = f"{project.name(path)} is half written"
            yield HalfDone(what, path, "removed", partial(path.unlink, True))


def _dvc_files(project: Project) -> Iterator[HalfDone]:
    tracking = [*(project.data / "images").glob("*.dvc"), project.parent.with_suffix(".dvc")]
    for path in (project.dvc_lock, *tracking):
        name, folder = project.name(path), path.with_suffix("")
        if not path.exists() or _is_whole(name, path.read_bytes()):
            continue
        what = f"{name} is half written"
        kept = vcs.blob(project.root, f"HEAD:{name}", b"")
        if path != project.dvc_lock and folder.is_dir():
            yield HalfDone(what, path, "made again", partial(_add_again, project, path, folder))
        elif _is_whole(name, kept):
            back = partial(write_bytes, path, kept)
            yield HalfDone(what, path, "that of the last commit is back", back)
        elif path == project.dvc_lock:
            yield HalfDone(what, path, "removed; dvc repro makes it again", path.unlink)


def _is_whole(name: str, data: bytes) -> bool:
    with suppress(LedgerError):
        pins.entries(data, name)
        return True
    return False


def _add_again(project: Project, path: Path, folder: Path) -> None:
    path.unlink()
    vcs.dvc(project.root, "add", project.name(folder))


def at_work(project: Project) -> list[str]:
    """Return which DVC and git processes work in this project now, as far as they are visible.

    While DVC runs a stage, it is named in its rwlock; at all other times it holds its lock.
    """
    found = []
    with suppress(*_BROKEN):
        found = [f"dvc (process {pid})" for pid, is_dvc in _holders(project) if is_dvc]
    if not found and not is_free(project.root / ".dvc" / "tmp" / "lock"):
        found.append("dvc")
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or belongs to another user
            if process.name() == "git" and Path(process.cwd()).is_relative_to(project.root):
                found.append(f"git (process {process.pid})")
    return found
