"""Files of sealed days that a hand changed.

git compares the tables. Images are found by their names and file times: a day with a file younger
than the last look at it is read whole, and compared with the manifests.
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
from dayfold.history.line import Line
from dayfold.ledger import corrections
from dayfold.ledger.decode import is_placeholder
from dayfold.ledger.names import is_clutter
from dayfold.project import pins, storage, vcs
from dayfold.project.console import Ticker, first_few
from dayfold.project.cpus import cpus
from dayfold.project.files import FULL, escaped, json_bytes, md5_file, sha256_file, write_bytes
from dayfold.project.layout import DAY_PATHS, TRACKED_IMAGES, Project, is_day

MOST_DAYS = 200  # whose files are looked at by one command: a look takes 2 ms a day of 100 images
EDITED, CHANGED = "is not what git has", "was changed"
DELETED, ADDED = "was deleted", "was added"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, *FULL)
# What the system stamps files with, in ns: on Linux a clock that lags by some milliseconds.
FILE_CLOCK = getattr(time, "CLOCK_REALTIME_COARSE", time.CLOCK_REALTIME)


def check(now: Line) -> None:
    """Raise CycleError, with the way back, where a file of a sealed day is not as it was sealed.

    What the last sealed day made is not looked at while no other is open: it may be made again. A
    day whose images were never seen here is one that was not pulled. Where nothing is found the
    time is noted by day, so that next time only days with younger files are read. Of more than
    MOST_DAYS days those are looked at that were not for longest; the others' turn comes soon.
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
        if not found[EDITED]:  # a manifest among them: first things first
            raise
    noted |= dict.fromkeys(here - noted.keys(), 0)
    if not (parent_back or any(found.values())):
        noted |= dict.fromkeys(due, began)
    try:
        write_bytes(project.last_looks, json_bytes(noted))
    except OSError as error:
        if error.errno not in UNWRITABLE:  # `status` also looks at what cannot be written to
            raise
    _refuse(found, now.params.parent, parent_back)


def check_tables(now: Line) -> None:
    """The same of the tables alone: no image and no pin of one is looked at, nothing written."""
    _refuse({EDITED: _in_git(now, DAY_PATHS)})


def check_last(now: Line, *, tables_alone: bool = False) -> None:
    """Raise CycleError unless the files of the last sealed day are here, and those of its tag.

    A `dvc repro` with other params makes the day again in place. With `tables_alone` git is asked.
    """
    if not now.is_sealed:
        return
    # Without what was added: that is of another day.
    project, tag = now.project, vcs.TAG + now.day
    changed = vcs.changed(project.root, "--diff-filter=a", tag, "--", *DAY_PATHS)
    gone: list[str] = []
    if not tables_alone:
        made = pins.outputs(project.dvc_lock.read_bytes())
        paths = {project.name(path): path for path in (project.model, project.predictions)}
        gone = [name for name, path in paths.items() if not path.exists()]
        changed += [name for name in paths.keys() - gone if md5_file(paths[name]) != made[name]]
    if gone and not changed:
        raise CycleError(
            f"{now.day} is sealed, but not here yet: {', '.join(gone)}.",
            hint=vcs.TO_FETCH,
        )
    if changed:
        raise CycleError(
            f"{now.day} is not as it was sealed: {', '.join(sorted(set(changed)))}.",
            hint="dayfold undo, to have back what was sealed; to keep the new one: "
            "dayfold undo --seal && dayfold seal",
        )


def _refuse(
    found: Mapping[str, Sequence[str]], parent: str = "", parent_back: Sequence[str] = ()
) -> None:
    """Tell what became of files, a line a file, and the command that brings all of it back.

    `parent_back` are the steps for data/parent, where it has not what the day `parent` made.
    """
    problems = [f"data/parent is not what {parent} made"] * bool(parent_back)
    for what, names in found.items():
        problems += first_few([escaped(f"{name} {what}") for name in names])
    if not problems:
        return
    tables = found[EDITED]
    images = [name for what, names in found.items() if what != EDITED for name in names]
    steps = [f"git checkout HEAD -- {' '.join(tables)}"] * bool(tables)
    if folders := pins.tracked(images):
        steps += [f"{vcs.bringing_back(*folders)} || dayfold check --read-data"]
    steps += parent_back
    first = "move what was added elsewhere (DVC deletes it), then: " * bool(found.get(ADDED))
    raise CycleError(
        "Files of sealed days were edited, deleted or added by hand (dayfold relabel corrects "
        "labels):",
        problems=problems,
        hint=first + " && ".join(steps),
    )


def _noted(project: Project) -> dict[str, int]:
    """When each day whose images have been here was last found as sealed, in ns; 0: never.

    A time that has not come is of a clock that was put back since: what changes now is older.
    """
    now = time.clock_gettime_ns(FILE_CLOCK)
    try:
        found = json.loads(project.last_looks.read_bytes())
        return {day: at if at <= now else 0 for day, at in found.items()}
    except (FileNotFoundError, ValueError):
        return {}  # or the file is of an earlier version


def _parent_back(now: Line) -> list[str]:
    """The commands that give data/parent what the day before made; none where it has that.

    None either where it is not here, or no sealed day made it.
    """
    project, day = now.project, now.params.parent
    if day not in now.sealed or not project.parent.is_dir():
        return []
    here = (path for path in project.parent.iterdir() if not is_clutter(path.name))
    files = [path for path in here if path.is_file()]  # no link to what DVC's cache has lost
    made = record.read(project, [day])[day].handed_on
    if {path.name: md5_file(path) for path in files} == made:
        return []
    name, pin = project.name(project.parent), project.parent.with_suffix(".dvc")
    if pins.here(project, pin).get(project.parent.name, {}).get("md5") == storage.folder_md5(made):
        return [vcs.bringing_back(name)]  # a git checkout without one of DVC
    # HEAD has the parent of a day before, and `dvc repro` may have pinned the edit.
    gets = [
        f"dvc get . {project.name(one)} --rev {vcs.TAG}{day} --out {project.name(kept)}"
        for one, kept in project.handed_on().items()
    ]
    return [f"rm -rf {name}", *gets, f"dvc add {name}"]


def _in_git(now: Line, paths: Sequence[str]) -> list[str]:
    project, days = now.project, {day for day in now.sealed if day != now.day}
    if not days:
        return []
    # Without what was added: in the middle of a merge it is what others have sealed.
    names = vcs.changed(project.root, "--diff-filter=a", "HEAD", "--", *paths)
    tables = [name for name in names if PurePosixPath(name).stem in days and name[-4:] != ".dvc"]
    # `open` moves pins to a month's file: to another place, but the same pins.
    blobs = vcs.blobs(project.root, [f"HEAD:{name}" for name in names if name.endswith(".dvc")])
    before = {name.removeprefix("HEAD:"): pins.entries(data, name) for name, data in blobs.items()}
    before = {name: entries for name, entries in before.items() if days & entries.keys()}
    had = {day: entries[day] for entries in before.values() for day in days & entries.keys()}
    is_edited = any(pins.of_images(project, day) != entry for day, entry in had.items())
    return sorted(tables + [*before] * is_edited)


def _files(project: Project, folder: Path, since: int) -> tuple[list[str], bool]:
    """The files below a folder, and whether any, or a folder of theirs, may have changed since."""
    found, is_touched = [], False
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_clutter(name)]
        files = [f"{here}/{name}" for name in names if not is_clutter(name)]
        for path in (here, *files):
            try:
                info = os.stat(path)  # noqa: PTH116 - of very many
            except OSError:  # a link to what DVC's cache has lost: as good as deleted
                is_touched = True
                files.remove(path)
                continue
            # A file of several links is one that DVC's cache has too: read-only, and each link that
            # is made or removed elsewhere changes its st_ctime.
            is_shared = info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)
            youngest = info.st_mtime_ns if is_shared else max(info.st_mtime_ns, info.st_ctime_ns)
            is_touched |= youngest >= since
        found += [file.removeprefix(f"{project.root}/") for file in files]
    return found, is_touched


def _compared(
    now: Line, touched: dict[str, list[str]], gone: Collection[str]
) -> dict[str, list[str]]:
    """What became of the files of touched days, and of days that are gone, by the manifests.

    A withdrawn image may be there or not; a text stands in the place of one that was erased, on
    the open day too. Where no day here knows of that, `dayfold withdraw --erase` notes it.
    """
    if not touched and not gone:
        return {}
    project, known = now.project, now.sealed_history
    mine = known.images.filter(pl.col("day").is_in([*touched, *gone]))
    image_of = dict(mine.select("path", "image").iter_rows())
    erased = corrections.gone(project, corrections.ERASE)
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
