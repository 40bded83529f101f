"""What a kill of DVC, git or dayfold leaves behind: found, told, and mended before all else."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from dayfold.errors import CycleError, LedgerError
from dayfold.project import cache, vcs
from dayfold.project import params as params_file
from dayfold.project.files import PART, only_one, write_bytes
from dayfold.project.layout import STAGES, UNOPENED, Project, check_day

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")


class Wound(NamedTuple):
    """One thing that was left half done: what it is, how it is mended, and what does it."""

    what: str
    mend: str
    fix: Callable[[], object]


@contextmanager
def ready(project: Project, *, say: Callable[[str], None]) -> Iterator[None]:
    """Work on a project alone, after mending what an earlier command that was killed left behind.

    Says of each thing what was mended. Raises CycleError where the project cannot be written to,
    or where another command of dayfold's or a `dvc repro` is at work in it.
    """
    check_writable(project)
    with only_one(project.cycle_lock, "at work"):
        found, busy = wounds(project), at_work(project)
        # A git or `dvc push` beside us does no harm, unless what we found is what it is writing.
        making = [one for one in busy if {"repro", "exp", *STAGES} & set(one.split())]
        if making or (found and busy):
            raise CycleError(
                f"{', '.join(making or busy)} is at work in this project.",
                problems=[wound.what for wound in found],
                mend="wait for it, or stop it; then give the command again",
            )
        for wound in found:
            wound.fix()
            say(f"{wound.what}: {wound.mend}")
        yield


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


def wounds(project: Project) -> list[Wound]:
    """Return what was left half done, or, while DVC or git are `at_work`, what they are doing."""
    if not (project.root / ".dvc").is_dir():
        return []
    finders = (_rwlock, _git_locks, _dvc_lock, _tracking, _parts, _half_open)
    return [wound for finder in finders for wound in finder(project)]


def at_work(project: Project) -> list[str]:
    """Say which processes of DVC and git, and which stages, work in this project now."""
    me = psutil.Process()
    mine = {me.pid, *(process.pid for process in me.parents())}
    found = []
    for process in psutil.process_iter():
        try:
            words = [Path(word).name for word in process.cmdline()[:4]]
            works = {"dvc", "git"} & set(words) or ("dayfold" in words and set(STAGES) & set(words))
            if not works or process.pid in mine:
                continue
            if project.root in (Path(process.cwd()), *Path(process.cwd()).parents):
                found.append(f"{' '.join(words)} (process {process.pid})")
        except (psutil.Error, OSError):
            continue  # it has ended, or is another user's
    if not found and not _is_free(project.root / ".dvc" / "tmp" / "lock"):
        found.append("dvc")
    return found


def _is_free(lock: Path) -> bool:
    """Whether nobody holds a lock of DVC's: the file stays when its holder dies, the lock not."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False
    return True


def _rwlock(project: Project) -> Iterator[Wound]:
    """What a kill leaves in .dvc/tmp/rwlock, and DVC then fails on.

    An empty file, as it is written in place; or the lock of a process whose number went to another
    program since, after a restart for instance: DVC asks only whether there is such a process.
    """
    path = project.root / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(path.read_bytes())
        writers, readers = held.get("write", {}).values(), held.get("read", {}).values()
        holders = {one["pid"] for one in (*writers, *chain.from_iterable(readers))}
        written = path.stat().st_mtime
    except FileNotFoundError:
        return
    except (ValueError, AttributeError, TypeError, KeyError):
        yield Wound("DVC was killed: .dvc/tmp/rwlock is broken", "removed", path.unlink)
        return
    others = ", ".join(str(pid) for pid in sorted(holders) if _is_another_program(pid, written))
    if others:
        what = f"DVC was killed: .dvc/tmp/rwlock names process {others}, now another program"
        yield Wound(what, "removed", path.unlink)


def _is_another_program(pid: int, written: float) -> bool:
    """Whether a process runs that took no lock of DVC's in a file of this time, in seconds."""
    try:
        process = psutil.Process(pid)
        is_dvc = "dvc" in {Path(word).name for word in process.cmdline()[:4]}
        return not is_dvc or process.create_time() > written + 1
    except psutil.Error:
        return False  # DVC sees itself that there is none


def _git_locks(project: Project) -> Iterator[Wound]:
    """A git that was killed leaves the lock of what it wrote; every later one refuses to go on."""
    words = ("rev-parse", "--path-format=absolute", "--git-dir", "--git-common-dir")
    for folder in sorted({Path(line) for line in vcs.git(project.root, *words).splitlines()}):
        for path in (*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")):
            name = os.path.relpath(path, project.root)
            yield Wound(f"git was killed: {name} was left", "removed", path.unlink)


def _dvc_lock(project: Project) -> Iterator[Wound]:
    """DVC writes dvc.lock in place too; a stage that it does not have whole runs again."""
    if not project.dvc_lock.exists() or _is_whole_lock(project.dvc_lock.read_bytes()):
        return
    kept = _at_head(project, project.dvc_lock)
    what = "DVC was killed: dvc.lock is half written"
    if kept is not None and _is_whole_lock(kept):
        back = partial(write_bytes, project.dvc_lock, kept)
        yield Wound(what, "that of the last commit is back; dvc repro makes today's again", back)
    else:
        yield Wound(what, "removed; dvc repro makes it again", project.dvc_lock.unlink)


def _is_whole_lock(data: bytes) -> bool:
    try:
        stages = yaml.load(data, Loader=yaml.CSafeLoader)["stages"]
        return all(
            isinstance(stage["cmd"], str)
            and all(
                isinstance(entry["path"], str) and _MD5.fullmatch(entry["md5"])
                for entry in (*stage.get("deps", []), *stage["outs"])
            )
            for stage in stages.values()
        )
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        return False


def _at_head(project: Project, path: Path) -> bytes | None:
    name = f"HEAD:{project.name(path)}"
    return vcs.blobs(project.root, [name]).get(name)


def _tracking(project: Project) -> Iterator[Wound]:
    """The .dvc files of images and parent: written in place by DVC, whole or made again."""
    for path in (*(project.data / "images").glob("*.dvc"), project.parent.with_suffix(".dvc")):
        name = project.name(path)
        try:
            if not path.exists() or cache.pins(path.read_bytes(), name):
                continue
        except LedgerError:
            pass
        folder, kept = path.with_suffix(""), _at_head(project, path)
        what = f"DVC was killed: {name} is half written"
        if folder.is_dir():
            yield Wound(what, "made again", partial(_add_again, project, path, folder))
        elif kept is not None:
            back = partial(write_bytes, path, kept)
            yield Wound(what, "that of the last commit is back", back)


def _add_again(project: Project, path: Path, folder: Path) -> None:
    path.unlink()
    vcs.dvc(project.root, "add", "--quiet", project.name(folder))


def _parts(project: Project) -> Iterator[Wound]:
    """Files that were being written: never read by anyone, but DVC would count them in a folder."""
    day = params_file.read(project.params).day
    inner = (project.data, *(path for path in project.data.glob("*") if path.is_dir()))
    found = [path for folder in (project.root, *inner) for path in folder.glob(f".*{PART}")]
    if day != UNOPENED:
        found += project.images(day).rglob(f".*{PART}")
    if found:
        names = f"{len(found)} half-written files were left in {project.name(found[0].parent)}/"

        def remove() -> None:
            for path in found:
                path.unlink(missing_ok=True)

        yield Wound(f"a command was killed: {names}", "removed", remove)


def _half_open(project: Project) -> Iterator[Wound]:
    """A day that `open` had begun: until params.yaml says so it is not open, and is taken back."""
    params = params_file.read(project.params)
    if params.day != UNOPENED and params.day not in vcs.sealed_days(project.root):
        return
    days = sorted(
        day
        for day in _days(project)
        if (day > params.day or params.day == UNOPENED)
        and (project.tracked(day).exists() or project.corrections(day).exists())
    )
    if days:
        yield Wound(
            f"`dayfold open` of {days[0]} was killed",
            "taken back; give the command again",
            partial(_take_back, project, days),
        )


def _days(project: Project) -> Iterator[str]:
    for folder in (project.data / "images").glob("*/"):
        try:
            yield check_day(folder.name)
        except CycleError:
            continue


def _take_back(project: Project, days: list[str]) -> None:
    for day in days:
        project.tracked(day).unlink(missing_ok=True)
        path = project.corrections(day)
        if path.exists() and len(path.read_bytes().splitlines()) < 2:  # a header alone
            path.unlink()
        if not any(one.is_file() for one in project.images(day).rglob("*")):
            shutil.rmtree(project.images(day))
    # Yesterday's images went into their month's file, and the parent became today's.
    kept = vcs.git(project.root, "ls-tree", "--name-only", "HEAD", "data/", "data/images/")
    names = [name for name in kept.splitlines() if name.endswith(".dvc")]
    if names:
        vcs.git(project.root, "checkout", "HEAD", "--", *names)
        vcs.dvc(project.root, "checkout", "--quiet", "--force", "data/parent.dvc")
