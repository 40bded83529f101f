"""What dayfold begins, noted before it begins; after a kill only what the note covers is repaired.

A command's note says which command, when, on which host, since which boot, as which process; it
goes when the command ends. A command holds the project's lock (flock) while it works. So a note
that is there when the lock is free is of a command that was killed, and what git, DVC and dayfold
left half written since then is its. All else that looks half done is somebody's: it is told, with
its age, and left alone.
"""

import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import psutil
import yaml

from dayfold.errors import CycleError
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import duration
from dayfold.project.files import PART, is_free, write_bytes
from dayfold.project.layout import STAGES, Project, is_day

WAIT_SECONDS = 30.0  # for what a killed command had started, and what ends by itself
YOUNG_SECONDS = 60.0  # a lock of this age may be of a git that nobody sees from here
_OF_DVC = re.compile(r"\.[\w-]{22}\.tmp")  # as dvc_objects names what it tries links with
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
# How far a file's time may lie before the note's: the file system's clock lags by milliseconds.
_CLOCKS_APART_SECONDS = 0.1


class Note(NamedTuple):
    """Which command began, when (seconds since 1970) and where; and the step that it was in.

    `facts` are what the repair of the step needs.
    """

    command: str
    began: float
    host: str
    boot: str
    process: int
    step: str = ""
    step_began: float = 0.0
    facts: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def of(cls, command: str) -> "Note":
        """Return the note of a command that begins here and now."""
        return cls(command, time.time(), platform.node(), _boot(), os.getpid())


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


@contextmanager
def noted(project: Project, command: str) -> Iterator[None]:
    """Keep a note while a command works; the caller holds the project's lock.

    It stays where the command was killed, and where it failed with something left to repair.
    """
    _write(project, Note.of(command))
    try:
        yield
    finally:
        if not pending(project):
            forget(project)


def pending(project: Project) -> Note | None:
    """Return the note of a command that did not end, if there is something to repair by it."""
    note = read(project)
    if note and (note.step or any(one.is_covered_by(note) for one in half_done(project))):
        return note
    return None


@contextmanager
def step(project: Project, name: str, **facts: Any) -> Iterator[None]:
    """Note what a command is about to do in several steps, with the facts that its repair needs.

    The note stays until all of it is done. A step without facts needs no repair: where it fails, as
    git refuses a commit, its note goes.
    """
    before = read(project)  # none of a command: a function that was called from Python
    note = before or Note.of(name)
    _write(project, note._replace(step=name, step_began=time.time(), facts=facts))
    try:
        yield
    except Exception:
        if not facts:
            _go_back(project, before)
        raise
    _go_back(project, before)


def _go_back(project: Project, note: Note | None) -> None:
    """Keep the note of before the step, if there was one."""
    if note:
        _write(project, note)
    else:
        forget(project)


def read(project: Project) -> Note | None:
    """Return the note of a command that is at work, or that did not end; None if there is none."""
    try:
        return Note(**json.loads(project.journal.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # it is written at once: one that cannot be read is no note of dayfold's


def forget(project: Project) -> None:
    """Remove the note: all that it covers is repaired."""
    project.journal.unlink(missing_ok=True)


def _write(project: Project, note: Note) -> None:
    write_bytes(project.journal, json.dumps({**note._asdict(), "facts": dict(note.facts)}).encode())


def _boot() -> str:
    """What is the same from one start of the machine's kernel to the next, in containers too."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return str(round(psutil.boot_time()))


def half_done(project: Project) -> list[HalfDone]:
    """Return what lies half written in a project, also what is being written now."""
    if not (project.root / ".dvc").is_dir():
        return []
    finders = (_rwlock, _git_locks, _dvc_files, _parts)
    return [one for finder in finders for one in finder(project)]


def repair(project: Project, *, say: Callable[[str], None]) -> None:
    """Repair what the note of a killed command covers, and tell all else that is half done.

    The caller holds the project's lock, and sees to the note's step.
    """
    note, found = read(project), half_done(project)
    if any(one.is_covered_by(note) for one in found):
        _wait(project, say)
        found = half_done(project)
    for one in found:
        if note and one.is_covered_by(note):
            one.fix()
            say(f"dayfold {note.command} was killed: {one.what}: {one.said}")
        else:
            say(f"warning: {told(one)}")


def told(one: HalfDone) -> str:
    """Say of a half-done thing that no note covers how old it is, and what a person can do."""
    return (
        f"{one.what}, since {duration(one.age)}; it is not dayfold's and was left alone. "
        "If nothing is at work here, also in no other container: dayfold check --fix"
    )


def _wait(project: Project, say: Callable[[str], None]) -> None:
    """Wait for what a killed command had started and what is still at work, if anything is."""
    until, is_said = time.monotonic() + WAIT_SECONDS, False
    while (busy := at_work(project)) and time.monotonic() < until:
        if not is_said:
            say(f"waiting for {', '.join(busy)}, which a killed command had started")
            is_said = True
        time.sleep(0.2)
    if busy:
        raise CycleError(
            f"{', '.join(busy)} is still at work in this project.",
            mend="wait for it, or stop it; then run the command again",
        )


def check_writable(project: Project) -> None:
    """Raise CycleError, before any work, where a folder of the project takes no files."""
    folders = (project.root, project.data, project.data / "images", project.root / ".dvc")
    problems = [
        f"{folder} cannot be written to"
        for folder in folders
        if folder.is_dir() and not os.access(folder, os.W_OK)
    ]
    if problems:
        raise CycleError(
            "This project is read-only here:",
            problems=problems,
            mend="mount it writable, or give this user the right to write (ls -ld shows whose "
            "they are)",
        )


def check_alone(project: Project) -> None:
    """Raise CycleError while a `dvc repro`, an experiment or a stage is at work in the project."""
    making = [one for one in at_work(project) if not one.startswith("git ")]
    if making:
        raise CycleError(
            f"{', '.join(making)} is at work in this project.",
            mend="wait for it, or stop it; then run the command again",
        )


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
        if not path.exists() or _is_whole(path.read_bytes()):
            continue
        what = f"{name} is half written"
        kept = vcs.blobs(project.root, [f"HEAD:{name}"]).get(f"HEAD:{name}", b"")
        if path != project.dvc_lock and folder.is_dir():
            yield HalfDone(what, path, "made again", partial(_add_again, project, path, folder))
        elif _is_whole(kept):
            back = partial(write_bytes, path, kept)
            yield HalfDone(what, path, "that of the last commit is back", back)
        elif path == project.dvc_lock:
            yield HalfDone(what, path, "removed; dvc repro makes it again", path.unlink)


def _is_whole(data: bytes) -> bool:
    """Whether all that a .dvc file or a dvc.lock names has its path and MD5."""
    try:
        found = yaml.load(data, Loader=yaml.CSafeLoader)
        stages = found["stages"].values() if "stages" in found else [{**found, "cmd": ""}]
        return all(
            isinstance(stage["cmd"], str)
            and all(
                entry["path"] and _MD5.fullmatch(entry["md5"])
                for entry in (*stage.get("deps", []), *stage["outs"])
            )
            for stage in stages
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        return False


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
        if not path.name.endswith(PART) and not _OF_DVC.fullmatch(path.name):
            continue
        name = project.name(path)
        yield HalfDone(f"{name} is half written", path, "removed", partial(path.unlink, True))
