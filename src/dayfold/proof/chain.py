"""The chain from a day to the origin.

Everything here is read from git's tags and compared with itself and the working tree. No image and
no model is read, so a thousand days take seconds.
"""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dayfold.errors import DayfoldError
from dayfold.history import record
from dayfold.history.record import UNREADABLE, Sealed
from dayfold.ledger import manifest
from dayfold.ledger.corrections import ERASE
from dayfold.project import pins, storage, vcs
from dayfold.project.files import md5, sha256
from dayfold.project.layout import ORIGIN, STAGES, Project


class Finding(NamedTuple):
    """Something damaged: its day, what is wrong, and the command that restores it."""

    day: str
    what: str
    fix: str


def walk(
    project: Project, sealed: Sequence[str], last: str
) -> tuple[list[str], list[Sealed], list[Finding]]:
    """Follow the chain from `last` back to the origin.

    Returns the days, oldest first; those of them that are `sealed`, as git has them; and where the
    chain is broken.
    """
    known = record.read(project, [day for day in sealed if day <= last])
    days, found = list[str](), list[Finding]()
    day = last
    while day != ORIGIN and day not in days:
        days.append(day)
        try:
            if day in known:
                day = known[day].parent[0]
            else:
                found.append(_untagged(project, day))
                path = project.manifest(day)
                day, _ = manifest.parent_of(path.read_bytes(), project.name(path))
        except (OSError, *UNREADABLE) as error:
            found.append(Finding(day, f"its manifest cannot be read: {_told(error)}", "git fsck"))
            break
    days.reverse()
    return days, [known[day] for day in days if day in known], found


def _told(error: Exception) -> str:
    return (error.what if isinstance(error, DayfoldError) else str(error)).replace("\n", " ")


def _untagged(project: Project, day: str) -> Finding:
    what, fix = "is on a commit that is no longer on this branch", "dayfold seal"
    if day not in vcs.tagged_days(project.root):
        fix = "git fetch --tags (a shallow clone: --unshallow --tags); if it has none: dayfold seal"
        return Finding(day, f"the tag {vcs.TAG}{day} is missing", fix)
    return Finding(day, f"{vcs.TAG}{day} {what}", fix)


def check(project: Project, records: Sequence[Sealed], *, current: str) -> Iterator[Finding]:
    """Check each day, oldest first, against itself, its parent and the working tree.

    `current` is the sealed day whose outputs are in the working tree, or "".
    """
    parents: list[Sealed | None] = [None, *records]
    withdrawn: set[str] = set()
    for parent, sealed in zip(parents, records, strict=False):
        day = sealed.day
        log = f"git log {vcs.TAG}{day} shows who sealed it"
        other = f"{log}; git fetch --tags --force takes another"
        claims = itertools.chain(_of_itself(sealed, withdrawn), _of_its_parent(sealed, parent))
        try:
            yield from (Finding(day, what, other) for what in claims)
            for path, what, commit in _working_tree(project, sealed, is_current=day == current):
                name = project.name(path)
                # git skips the checkout of a file whose size and time are unchanged.
                fix = f"rm -f {name} && git checkout {commit} -- {name}"
                yield Finding(day, f"{name} {what}", fix)
        except UNREADABLE as error:
            what = f"its files in git cannot be read: {_told(error)}"
            yield Finding(day, what, "git fsck, git fetch")


def _of_itself(sealed: Sealed, withdrawn: set[str]) -> Iterator[str]:
    # Adds the day's own withdrawals to `withdrawn`, the images that earlier days withdrew.
    project, day = sealed.project, sealed.day
    if sealed.params["day"] != day or sealed.params["parent"] != sealed.parent[0]:
        yield f"params.yaml is of {sealed.params['day']}"
    if missing := [stage for stage in STAGES if stage not in sealed.lock]:
        yield f"dvc.lock lacks {', '.join(missing)}"
    made = {**sealed.pins}
    for name, data in sealed.files.items():
        if name.startswith(("data/corrections/", "data/groups/")):
            made[name] = md5(data)
        elif md5(data) != made.get(name, md5(data)):
            yield f"{name} is not the one that dvc.lock pins"
    for stage, entry in sealed.lock.items():
        for dep in entry.get("deps", []):
            if made.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{stage} was made from another {dep['path']} "
    name = project.name(project.manifest(day))
    if sealed.provenance["sha256"]["manifest"] != sha256(sealed.file(name)):
        yield f"the model was made from another {name} "
    noted = _corrections(sealed.files.get(project.name(project.corrections(day)), b""))
    # Erasing withdraws an image, unless that was done before.
    erased = {image for action, image in noted if action == ERASE}
    wanted = {one for one in noted if one[0] != ERASE}
    wanted |= {("withdraw", image) for image in erased - withdrawn}
    rows = {row for row in _corrections(sealed.file(name)) if row[0] not in ("parent", "add")}
    if wanted != rows:
        yield f"{name} does not apply data/corrections/{day}.csv"
    withdrawn |= {image for action, image in rows if action == "withdraw"}


def _corrections(data: bytes) -> set[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(data.decode()))
    return {(row["action"], row["image"]) for row in rows}


def _of_its_parent(sealed: Sealed, parent: Sealed | None) -> Iterator[str]:
    project, before = sealed.project, sealed.parent[0]
    if parent is None or parent.day != before:
        return  # the parent is the origin, or its tag is missing
    name = project.name(project.manifest(before))
    if sha256(parent.file(name)) != sealed.parent[1]:
        yield f"its manifest pins another {name} than {before} sealed"
    if sealed.provenance["sha256"]["parent"] != parent.provenance["sha256"]["model"]:
        yield f"its parent is not the model that {before} sealed"
    if sealed.parent_md5 != storage.folder_md5(parent.handed_on):
        yield f"data/parent.dvc is not what {before} made"


def _working_tree(
    project: Project, sealed: Sealed, *, is_current: bool
) -> Iterator[tuple[Path, str, str]]:
    # The tables named by day stay for ever, the others until the next day.
    day, origin = sealed.day, project.manifest(ORIGIN)
    pinned = sha256(origin.read_bytes()) if origin.exists() else ""
    if sealed.parent[0] == ORIGIN and sealed.parent[1] != pinned:
        yield origin, "is not what the first day pins", "HEAD"
    paths = [project.corrections(day), project.groups(day)]
    paths += [project.root / name for name in sealed.outs() if is_current or day in name]
    if is_current:
        paths += [project.dvc_lock, project.parent.with_suffix(".dvc"), project.tracked(day)]
    for path in paths:
        kept = sealed.files.get(project.name(path))
        if kept is not None and not path.exists():
            yield path, "is missing", vcs.TAG + day
        elif kept is not None and path.read_bytes() != kept:
            yield path, "is not as it was sealed", vcs.TAG + day
    if sealed.tracked and pins.of_images(project, day) != sealed.tracked:
        yield pins.tracking(project, day), "does not pin the images that were sealed", "HEAD"
