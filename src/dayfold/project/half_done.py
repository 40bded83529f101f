"""What a kill leaves half written: by DVC, by git, by dayfold; and what is still at work.

Repaired is only what the note of a killed command covers (journal.py). All else that looks half
done is somebody's: it is told, with its age, and left alone.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from dayfold.errors import LedgerError
from dayfold.project import cache, journal, vcs
from dayfold.project import params as params_file
from dayfold.project.files import PART, is_free, write_bytes
from dayfold.project.journal import Note
from dayfold.project.layout import STAGES, Project, is_day

YOUNG_SECONDS = 60.0  # a lock of this age may be of a git that nobody sees from here
_OF_DVC = re.compile(r"\.[\w-]{22}\.tmp")  # as dvc_objects names what it tries links with
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
# How far a file's time may lie before the note's: the file system's clock lags by milliseconds.
_CLOCKS_APART_SECONDS = 0.1


class HalfDone(NamedTuple):
    """One thing that was left half done: what it is, what repairs it, and how that is said."""

    what: str
    path: Path
    said: str
    fix: Callable[[], object]
    is_lock: bool = False  # of git, which may be at work

    @property
    def age(self) -> float:
        """Return how long ago it was written, in seconds; 0 where it is gone."""
        try:
            return max(0.0, time.time() - self.path.lstat().st_mtime)
        except FileNotFoundError:
            return 0.0

    def is_covered_by(self, note: Note | None) -> bool:
        """Whether a killed command left it: written since it began, a lock as its step began."""
        written = time.time() - self.age + _CLOCKS_APART_SECONDS
        if note is None or written < note.began:
            return False
        return not self.is_lock or note.step_began <= written < note.step_began + YOUNG_SECONDS


def find(project: Project) -> list[HalfDone]:
    """Return what lies half written in a project, also what is being written now."""
    if not (project.root / ".dvc").is_dir():
        return []
    # The parts of files before what DVC tracks: it is made again without them.
    finders = (_rwlock, _git_locks, _parts, _dvc_files)
    return [one for finder in finders for one in finder(project)]


def pending(project: Project) -> Note | None:
    """Return the note of a command that did not end, if there is something to repair by it."""
    note = journal.read(project)
    if note and (note.step or any(one.is_covered_by(note) for one in find(project))):
        return note
    return None


def _rwlock(project: Project) -> Iterator[HalfDone]:
    """What a kill leaves in .dvc/tmp/rwlock, and DVC then fails on.

    An empty file, as it is written in place; or the lock of a process whose number went to another
    program since, after a restart for instance: DVC asks only whether there is such a process.
    """
    path = project.root / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(path.read_bytes())
        writers, readers = held.get("write", {}).values(), held.get("read", {}).values()
        holders = {one["pid"] for one in (*writers, *(one for some in readers for one in some))}
        written = path.stat().st_mtime
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, TypeError, KeyError):
        yield HalfDone(".dvc/tmp/rwlock is broken", path, "removed", path.unlink)
        return
    others = ", ".join(str(pid) for pid in sorted(holders) if _is_another_program(pid, written))
    if others:
        what = f".dvc/tmp/rwlock names process {others}, which is another program now"
        yield HalfDone(what, path, "removed", path.unlink)


def _is_another_program(pid: int, written: float) -> bool:
    """Whether a process runs that took no lock of DVC's in a file of this time, in seconds."""
    try:
        process = psutil.Process(pid)
        is_dvc = "dvc" in {Path(word).name for word in process.cmdline()[:4]}
        return not is_dvc or process.create_time() > written + 1
    except psutil.Error:
        return False  # DVC sees itself that there is none


def _git_locks(project: Project) -> Iterator[HalfDone]:
    """A git that was killed leaves the lock of what it wrote; every later one refuses to go on."""
    words = ("rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir")
    for folder in sorted({Path(line) for line in vcs.git(project.root, *words).splitlines()}):
        for path in (*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")):
            name = os.path.relpath(path, project.root)
            yield HalfDone(f"git holds {name}", path, "removed", path.unlink, is_lock=True)


def _dvc_files(project: Project) -> Iterator[HalfDone]:
    """What DVC writes in place: dvc.lock, and the .dvc files of images and parent."""
    tracking = [*(project.data / "images").glob("*.dvc"), project.parent.with_suffix(".dvc")]
    for path in (project.dvc_lock, *tracking):
        name, folder = project.name(path), path.with_suffix("")
        if not path.exists() or _is_whole(name, path.read_bytes()):
            continue
        what = f"{name} is half written"
        kept = vcs.blobs(project.root, [f"HEAD:{name}"]).get(f"HEAD:{name}", b"")
        if path != project.dvc_lock and folder.is_dir():
            yield HalfDone(what, path, "made again", partial(_add_again, project, path, folder))
        elif _is_whole(name, kept):
            back = partial(write_bytes, path, kept)
            yield HalfDone(what, path, "that of the last commit is back", back)
        elif path == project.dvc_lock:
            yield HalfDone(what, path, "removed; dvc repro makes it again", path.unlink)


def _is_whole(name: str, data: bytes) -> bool:
    """Whether all that a .dvc file or a dvc.lock has made or tracks has its path and MD5."""
    try:
        if name.endswith(".dvc"):
            md5s = [entry["md5"] for entry in cache.entries(data, name).values()]
        else:
            md5s = [*vcs.outputs(data).values()]
    except LedgerError:
        return False
    return all(_MD5.fullmatch(str(md5)) for md5 in md5s)


def _add_again(project: Project, path: Path, folder: Path) -> None:
    path.unlink()
    vcs.dvc(project.root, "add", "--quiet", project.name(folder))


def _parts(project: Project) -> Iterator[HalfDone]:
    """Files that were being written: never read by anyone, but DVC would count them in a folder."""
    # Unchecked: what is half done is repaired beside params of an older version, too.
    day = params_file.day_of(project.params.read_bytes())
    inner = (project.data, *(path for path in project.data.glob("*") if path.is_dir()))
    found = [path for folder in (project.root, *inner) for path in folder.glob(".*")]
    if is_day(day):
        found += project.images(day).rglob(".*")
    for path in found:
        if path.name.endswith(PART) or _OF_DVC.fullmatch(path.name):
            what = f"{project.name(path)} is half written"
            yield HalfDone(what, path, "removed", partial(path.unlink, True))


def at_work(project: Project) -> list[str]:
    """Say which git, which `dvc repro` or `dvc exp`, and which stages work in this project now."""
    me = psutil.Process()
    mine = {me.pid, *(process.pid for process in me.parents())}
    found = []
    for process in psutil.process_iter():
        try:
            words = _program(process.cmdline())
            if not words or process.pid in mine:
                continue
            if project.root in (Path(process.cwd()), *Path(process.cwd()).parents):
                found.append(f"{' '.join(words)} (process {process.pid})")
        except (psutil.Error, OSError):
            continue  # it has ended, or is another user's
    if not found and not is_free(project.root / ".dvc" / "tmp" / "lock"):
        found.append("dvc")  # in another container
    return found


def _program(words: list[str]) -> list[str]:
    """The program and its command, of a command line that changes a project; else nothing.

    Python's own options are passed over: `python -m dvc repro` is dvc repro.
    """
    words = words[:6]
    if words and Path(words[0]).name.startswith("python"):
        words = words[2:] if words[1:2] == ["-m"] else words[1:]
        words = words[1:] if words[:1] == ["dayfold.project.lifeline"] else words
    program, *rest = (Path(word).name for word in words) if words else ("",)
    command = next((word for word in rest if not word.startswith("-")), "")
    makes = {"dvc": ("repro", "exp"), "dayfold": STAGES}
    is_at_work = program == "git" or command in makes.get(program, ())
    return [program, command] if is_at_work else []
