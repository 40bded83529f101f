"""The chain from a day to the origin: what each sealed day says of itself, and of the one before.

Everything here is read from git's tags and compared with itself and the working tree: no image and
no model is read, so a thousand days take seconds.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dayfold.errors import DayfoldError
from dayfold.ledger import manifest
from dayfold.ledger.corrections import ERASE
from dayfold.project import cache, vcs
from dayfold.project.files import md5, sha256
from dayfold.project.layout import ORIGIN, STAGES, Project
from dayfold.proof.record import UNREADABLE, Sealed


class Finding(NamedTuple):
    """One damaged thing: its day, what is wrong, and the command that brings it back."""

    day: str
    what: str
    fix: str


def _checkout(day: str, name: str) -> str:
    """The command that brings back a file that git has; git takes a file of its size for whole."""
    return f"rm -f {name} && git checkout {vcs.TAG}{day} -- {name}"


def walk(project: Project, known: dict[str, Sealed], last: str) -> tuple[list[str], list[Finding]]:
    """Return the days from `last` back to the origin, oldest first, and where the walk broke."""
    days: list[str] = []
    found: list[Finding] = []
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
        except (DayfoldError, OSError, *UNREADABLE) as error:
            found.append(Finding(day, f"its manifest cannot be read: {error}", "git fsck"))
            break
    return days[::-1], found


def _untagged(project: Project, day: str) -> Finding:
    tag = f"{vcs.TAG}{day}"
    if day in vcs.tagged_days(project.root):
        return Finding(day, f"{tag} is on a commit that this branch has no longer", "dayfold seal")
    fix = "git fetch --tags; if no clone has it: dayfold seal"
    return Finding(day, f"the tag {tag} is missing", fix)


def check(project: Project, line: Sequence[Sealed], *, current: str) -> Iterator[Finding]:
    """Check each day of a line, oldest first, against itself, its parent and the working tree.

    `current` is the sealed day whose outputs lie in the working tree, or nothing.
    """
    parents: list[Sealed | None] = [None, *line]
    withdrawn: set[str] = set()
    for parent, sealed in zip(parents, line, strict=False):
        try:
            yield from _of_itself(sealed, withdrawn)
            if parent is None or parent.day == sealed.parent[0]:  # or its tag is missing
                yield from _of_its_parent(sealed, parent)
            yield from _working_tree(project, sealed, is_current=sealed.day == current)
        except (DayfoldError, *UNREADABLE) as error:
            said = str(error).replace("\n", " ")
            yield Finding(
                sealed.day, f"its files in git cannot be read: {said}", "git fsck, git fetch"
            )
    yield from _origin(project)


def _origin(project: Project) -> Iterator[Finding]:
    path = project.manifest(ORIGIN)
    name = project.name(path)
    kept = vcs.blobs(project.root, [f"HEAD:{name}"]).get(f"HEAD:{name}")
    if kept is None or not path.exists() or path.read_bytes() != kept:
        yield Finding(
            ORIGIN, f"{name} is not what git has", f"rm -f {name} && git checkout HEAD -- {name}"
        )


def _of_itself(sealed: Sealed, withdrawn: set[str]) -> Iterator[Finding]:
    """What a day says of itself: params, dvc.lock, provenance and manifest agree.

    `withdrawn` are the images that earlier days have withdrawn; the day's own are added.
    """
    project, day = sealed.project, sealed.day
    tag = f"{vcs.TAG}{day}"
    if sealed.params["day"] != day or sealed.params["parent"] != sealed.parent[0]:
        yield Finding(day, f"params.yaml at {tag} is of {sealed.params['day']}", _resealed(day))
    yield from _lock(sealed)
    name = project.name(project.manifest(day))
    if sealed.provenance["sha256"]["manifest"] != sha256(sealed.file(name)):
        yield Finding(day, f"the model was made from another {name}", _resealed(day))
    yield from _applied(sealed, name, withdrawn)


def _resealed(day: str) -> str:
    """What to do about a commit or tag that is not what dayfold has sealed."""
    log = f"git log {vcs.TAG}{day} shows who sealed it"
    return f"{log}; take it from another clone: git fetch --tags --force"


def _lock(sealed: Sealed) -> Iterator[Finding]:
    """A day's dvc.lock has all stages, made from each other's outputs, and git has those bytes."""
    project, day = sealed.project, sealed.day
    tag = f"{vcs.TAG}{day}"
    missing = [stage for stage in STAGES if stage not in sealed.lock]
    if missing:
        yield Finding(day, f"dvc.lock at {tag} lacks {', '.join(missing)}", _resealed(day))
    made = dict(sealed.outs())
    if sealed.images:
        made[project.name(project.images(day))] = sealed.images.md5
    made[project.name(project.parent)] = sealed.parent_pin.md5
    for name, data in sealed.files.items():
        if name.startswith(("data/corrections/", "data/groups/")):
            made[name] = md5(data)
        elif name in made and md5(data) != made[name]:
            what = f"{name} at {tag} is not the one that dvc.lock pins"
            yield Finding(day, what, _resealed(day))
    for stage, entry in sealed.lock.items():
        for dep in entry.get("deps", []):
            if made.get(dep["path"], dep["md5"]) != dep["md5"]:
                what = f"{stage} was made from another {dep['path']} at {tag}"
                yield Finding(day, what, _resealed(day))


def _applied(sealed: Sealed, name: str, withdrawn: set[str]) -> Iterator[Finding]:
    """The day's manifest, called `name`, has its corrections: relabelled and withdrawn images."""
    project, day = sealed.project, sealed.day
    lines = _corrections(sealed.files.get(project.name(project.corrections(day)), b""))
    # Who erases an image withdraws it, unless that was done before.
    wanted = {
        ("withdraw" if action == ERASE else action, image)
        for action, image in lines
        if not (action == ERASE and image in withdrawn)
    }
    rows = {row for row in _corrections(sealed.file(name)) if row[0] not in ("parent", "add")}
    if wanted != rows:
        what = f"{name} does not apply data/corrections/{day}.csv"
        yield Finding(day, what, _resealed(day))
    withdrawn |= {image for action, image in rows if action == "withdraw"}


def _corrections(data: bytes) -> set[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(data.decode()))
    return {(row["action"], row["image"]) for row in rows}


def _of_its_parent(sealed: Sealed, parent: Sealed | None) -> Iterator[Finding]:
    """What a day says of the one before: its manifest, and its model as this one's parent."""
    project, day = sealed.project, sealed.day
    if parent is None:
        path = project.manifest(ORIGIN)
        if (
            sealed.parent[0] == ORIGIN
            and path.exists()
            and sha256(path.read_bytes()) != sealed.parent[1]
        ):
            yield Finding(
                day, f"it pins another {project.name(path)}", _checkout(day, "data/manifests")
            )
        return
    before = parent.day
    redo = f"see who sealed {before} anew: git log {vcs.TAG}{before} {vcs.TAG}{day}"
    name = project.name(project.manifest(before))
    if sha256(parent.file(name)) != sealed.parent[1]:
        yield Finding(before, f"{name} at its tag is not the one that {day} pins", redo)
    if sealed.provenance["sha256"]["parent"] != parent.provenance["sha256"]["model"]:
        yield Finding(day, f"its parent is not the model that {before} sealed", redo)
    if sealed.parent_pin.md5 != cache.folder_md5(handed_on(project, dict(parent.outs()))):
        yield Finding(day, f"data/parent.dvc is not what {before} made", redo)


def handed_on(project: Project, made: Mapping[str, str]) -> dict[str, str]:
    """The files of data/parent with their MD5, of what the day before made (path → MD5)."""
    return {kept.name: made[project.name(own)] for own, kept in project.handed_on().items()}


def _working_tree(project: Project, sealed: Sealed, *, is_current: bool) -> Iterator[Finding]:
    """The files of a day that later days read: as they were sealed, byte by byte."""
    day = sealed.day
    for name in _settled(project, sealed, is_current=is_current):
        kept, path = sealed.files.get(name), project.root / name
        if kept is None:
            continue
        if not path.exists():
            yield Finding(day, f"{name} is missing", _checkout(day, name))
        elif path.read_bytes() != kept:
            yield Finding(day, f"{name} is not as it was sealed", _checkout(day, name))
    if sealed.images:
        yield from _tracked(project, sealed)


def _settled(project: Project, sealed: Sealed, *, is_current: bool) -> Iterator[str]:
    """What of a day stays as it is: its own files for ever, the others until the next day."""
    yield project.name(project.corrections(sealed.day))
    yield project.name(project.groups(sealed.day))
    for pin in sealed.outs():
        if is_current or sealed.day in pin.path:
            yield pin.path
    if is_current:
        pins = (project.parent.with_suffix(".dvc"), project.tracked(sealed.day))
        yield from map(project.name, (project.dvc_lock, *pins))


def _tracked(project: Project, sealed: Sealed) -> Iterator[Finding]:
    """The day's images are still pinned, by its own .dvc file or by its month's."""
    day = sealed.day
    name = project.name(tracking(project, day))
    if pinned(project, day) != sealed.tracked:
        back = f"rm -f {name} && git checkout HEAD -- {name}"
        yield Finding(day, f"{name} does not pin the images that were sealed", back)


def tracking(project: Project, day: str) -> Path:
    """The .dvc file that tracks the day's images now."""
    own = project.tracked(day)
    return own if own.exists() else project.tracked_month(day)


def pinned(project: Project, day: str) -> dict[str, Any] | None:
    """What the day's .dvc file says of its images now; None where it cannot be read, or says none.

    The file is the day's own, or its month's.
    """
    return entries(project, tracking(project, day)).get(day)


def entries(project: Project, path: Path) -> dict[str, dict[str, Any]]:
    """What a .dvc file says of each path now; nothing where it cannot be read."""
    try:
        return cache.entries(path.read_bytes(), project.name(path))
    except (DayfoldError, OSError):
        return {}
