"""Files of sealed days that were changed by hand.

git compares the tables. For images, names and file times are checked: if a file of a day is newer
than the last check, all images of the day are hashed and compared with the manifests.
"""

import errno
import json
import os
import stat
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import polars as pl

from dayfold.errors import CycleError, LedgerError
from dayfold.history import record
from dayfold.history.state import ProjectState
from dayfold.ledger import corrections
from dayfold.ledger.decode import is_placeholder
from dayfold.ledger.names import is_clutter
from dayfold.project import pins, storage, vcs
from dayfold.project.console import Ticker, first_few
from dayfold.project.cpus import cpus
from dayfold.project.files import FULL, escaped, json_bytes, md5_file, sha256_file, write_bytes
from dayfold.project.layout import DAY_PATHS, TRACKED_IMAGES, Project, is_day

MOST_DAYS = 200  # checked by one command: 2 ms for a day of 100 images
EDITED, CHANGED = "differs from git", "was changed"
DELETED, ADDED = "was deleted", "was added"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, *FULL)
# The clock of file times, in ns; on Linux it lags by some milliseconds.
FILE_CLOCK = getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME)


def check(now: ProjectState) -> None:
    """Raise CycleError, with how to restore it, if a file of a sealed day was changed.

    Outputs of the last sealed day are skipped while no other day is open, as they may be made
    again. Days whose images were never here are skipped too: they were not pulled. Of more than
    MOST_DAYS days, those are checked whose last check is longest ago.
    """
    project, began = now.project, time.clock_gettime_ns(FILE_CLOCK)
    noted, parent_back = _noted(project), _parent_back(now)
    here = {day for day in (*now.sealed, now.day) if project.images(day).is_dir()}
    days = {day for day in now.sealed if is_day(now.parent) and day <= now.parent}
    found = {EDITED: _in_git(now, (*DAY_PATHS, TRACKED_IMAGES))}
    due = sorted(days & here, key=lambda day: (noted.get(day, 0), day))[:MOST_DAYS]
    looked = {day: _files(project, project.images(day), noted.get(day, 0)) for day in due}
    touched = {day: files for day, (files, is_touched) in looked.items() if is_touched}
    try:
        found |= _compared(now, touched, days & noted.keys() - here)
    except LedgerError:
        if not found[EDITED]:  # the edited manifest itself is reported below
            raise
    noted |= dict.fromkeys(here - noted.keys(), 0)
    if not (parent_back or any(found.values())):
        noted |= dict.fromkeys(due, began)
    try:
        write_bytes(project.last_checked, json_bytes(noted))
    except OSError as error:
        if error.errno not in UNWRITABLE:  # `status` works in a read-only project too
            raise
    if parent_back and now.is_sealed and not any(found.values()) and _is_behind_git(now):
        raise CycleError(
            f"{now.day} is sealed, but not here yet: git was pulled, and DVC was not "
            "(data/parent is still that of an earlier day).",
            hint=vcs.TO_FETCH,
        )
    _refuse(found, now.params.parent, parent_back)


def check_tables(now: ProjectState) -> None:
    """Raise CycleError if a table of a sealed day was changed; images are not checked."""
    _refuse({EDITED: _in_git(now, DAY_PATHS)})


def check_last(now: ProjectState, *, tables_alone: bool = False) -> None:
    """Raise CycleError unless the last sealed day's files are here, and as its tag has them.

    A `dvc repro` with other params makes the day again in place. `tables_alone` skips the files
    that DVC keeps.
    """
    if not now.is_sealed:
        return
    # Added files belong to another day.
    project, tag = now.project, vcs.TAG + now.day
    changed = vcs.changed(project.root, "--diff-filter=a", tag, "--", *DAY_PATHS)
    gone: list[str] = []
    if not tables_alone:
        made = pins.outputs(project.dvc_lock.read_bytes())
        paths = {project.name(path): path for path in (project.model, project.predictions)}
        gone = [name for name, path in paths.items() if not path.exists()]
        changed += [name for name in paths.keys() - gone if md5_file(paths[name]) != made[name]]
    if gone and not changed:
        what = f"{now.day} is sealed, but not here yet: {', '.join(gone)}."
        raise CycleError(what, hint=vcs.TO_FETCH)
    if changed:
        raise CycleError(
            f"{now.day} is not as it was sealed: {', '.join(sorted(set(changed)))}.",
            hint="dayfold undo, to restore what was sealed; to keep the new one: "
            "dayfold undo --seal && dayfold seal",
        )


def _refuse(
    found: Mapping[str, Sequence[str]], parent: str = "", parent_back: Sequence[str] = ()
) -> None:
    problems = [f"data/parent is not what {parent} made"] * bool(parent_back)
    for what, names in found.items():
        problems += first_few([escaped(f"{name} {what}") for name in names])
    if not problems:
        return
    tables = found[EDITED]
    images = [name for what, names in found.items() if what != EDITED for name in names]
    steps = [f"git checkout HEAD -- {' '.join(tables)}"] * bool(tables)
    if folders := pins.tracked(images):
        steps += [f"{vcs.restore_command(*folders)} || dayfold check --read-data"]
    steps += parent_back
    first = "move added files elsewhere (DVC deletes them), then: " * bool(found.get(ADDED))
    raise CycleError(
        "Files of sealed days were edited, deleted or added by hand (dayfold relabel corrects "
        "labels):",
        problems=problems,
        hint=first + " && ".join(steps),
    )


def _noted(project: Project) -> dict[str, int]:
    """Return day → time in ns at which its images were last found unchanged; 0 for never."""
    now = time.clock_gettime_ns(FILE_CLOCK)
    try:
        found = json.loads(project.last_checked.read_bytes())
        # If the clock was put back since, changes look older.
        return {day: at if at <= now else 0 for day, at in found.items()}
    except (FileNotFoundError, ValueError):
        return {}  # missing, or written by an earlier version


def _parent_back(now: ProjectState) -> list[str]:
    """Return the commands that restore data/parent; none if it is as the day before made it."""
    project, day = now.project, now.params.parent
    if day not in now.sealed or not project.parent.is_dir():
        return []
    made = record.read(project, [day])[day].handed_on
    if _parent_files(project) == made:
        return []
    name, pin = project.name(project.parent), project.parent.with_suffix(".dvc")
    if pins.read(project, pin).get(project.parent.name, {}).get("md5") == storage.folder_md5(made):
        return [vcs.restore_command(name)]  # after `git checkout` without `dvc checkout`
    # HEAD may have an earlier day's parent, and `dvc repro` may have pinned the edit.
    gets = [
        f"dvc get . {project.name(one)} --rev {vcs.TAG}{day} --out {project.name(kept)}"
        for one, kept in project.handed_on().items()
    ]
    return [f"rm -rf {name}", *gets, f"dvc add {name}"]


def _parent_files(project: Project) -> dict[str, str]:
    here = (path for path in project.parent.iterdir() if not is_clutter(path.name))
    # A link to a lost cache object is no file.
    return {path.name: md5_file(path) for path in here if path.is_file()}


def _is_behind_git(now: ProjectState) -> bool:
    """Return whether data/parent is as an earlier sealed day had it, as before a `dvc pull`."""
    project, found = now.project, storage.folder_md5(_parent_files(now.project))
    name = project.name(project.parent.with_suffix(".dvc"))
    earlier = [day for day in now.sealed if day < now.day]
    at = vcs.at_tags(project.root, earlier, lambda _: [name])
    before = (pins.entries(files[name], name) for files in at.values() if name in files)
    return any(pinned[project.parent.name]["md5"] == found for pinned in before)


def _in_git(now: ProjectState, paths: Sequence[str]) -> list[str]:
    project, days = now.project, {*now.sealed} - {now.day}
    if not days:
        return []
    # Added files are left out: during a merge they are days that others sealed.
    names = vcs.changed(project.root, "--diff-filter=a", "HEAD", "--", *paths)
    tables = [name for name in names if PurePosixPath(name).stem in days and name[-4:] != ".dvc"]
    # Opening a day moves pins into the file of a month, but does not change them.
    blobs = vcs.blobs(project.root, [f"HEAD:{name}" for name in names if name.endswith(".dvc")])
    before = {name.removeprefix("HEAD:"): pins.entries(data, name) for name, data in blobs.items()}
    before = {name: entries for name, entries in before.items() if days & entries.keys()}
    had = {day: entries[day] for entries in before.values() for day in days & entries.keys()}
    is_edited = any(pins.of_images(project, day) != entry for day, entry in had.items())
    return sorted(tables + [*before] * is_edited)


def _files(project: Project, folder: Path, since: int) -> tuple[list[str], bool]:
    found, is_touched = [], False
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_clutter(name)]
        files = [f"{here}/{name}" for name in names if not is_clutter(name)]
        for path in (here, *files):
            try:
                info = os.stat(path)  # noqa: PTH116 - of very many
            except OSError:  # a link to a lost cache object counts as deleted
                is_touched = True
                files.remove(path)
                continue
            # A file with several links is shared with DVC's cache. It is read-only, and its
            # st_ctime changes whenever a link is made or removed elsewhere.
            is_shared = info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)
            youngest = info.st_mtime_ns if is_shared else max(info.st_mtime_ns, info.st_ctime_ns)
            is_touched |= youngest >= since
        found += [file.removeprefix(f"{project.root}/") for file in files]
    return found, is_touched


def _compared(
    now: ProjectState, touched: dict[str, list[str]], gone: Collection[str]
) -> dict[str, list[str]]:
    """Return the changed, deleted and added files of days: `touched` ones, and those `gone`.

    A withdrawn image may be missing. An erased image may be its placeholder, even if no day here
    records that it was erased: `dayfold withdraw --erase` then records it.
    """
    if not touched and not gone:
        return {}
    project, known = now.project, now.sealed_history
    images = known.images.filter(pl.col("day").is_in([*touched, *gone]))
    image_of = dict(images.select("path", "image").iter_rows())
    erased = corrections.withdrawals(project, corrections.ERASE)
    free = set(known.corrections.filter(action="withdraw")["path"])
    free |= {name for name, image in image_of.items() if image in erased}
    sealed = image_of.keys() - free
    files = {name for day in touched.keys() & set(known.days) for name in touched[day]} - free
    names, changed = sorted(sealed & files), []
    with Ticker("reading", len(names), "files") as ticker, ThreadPoolExecutor(cpus()) as pool:
        hashes = pool.map(lambda name: sha256_file(project.root / name), names)
        for done, (name, image) in enumerate(zip(names, hashes, strict=True), start=1):
            ticker.so_far(done, len(names))
            sealed_as = image_of[name]
            if image != sealed_as and not is_placeholder(project.root / name, sealed_as):
                changed.append(name)
    return {CHANGED: changed, DELETED: sorted(sealed - files), ADDED: sorted(files - sealed)}
