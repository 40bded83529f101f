"""Opening, checking and closing a day."""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml

from dayfold.create import make_origin
from dayfold.errors import CycleError, ToolError
from dayfold.history import hand_edits, refusals
from dayfold.history.day_files import put_in_index
from dayfold.history.state import ProjectState
from dayfold.ledger import corrections, manifest, tables
from dayfold.ledger.intake import finding
from dayfold.ledger.names import is_clutter
from dayfold.ledger.tables import ImageGroup
from dayfold.project import journal, pins, storage, vcs
from dayfold.project import params as params_file
from dayfold.project.console import ask, first_few, plural, say
from dayfold.project.files import escaped, sha256_file, write_bytes, write_csv
from dayfold.project.layout import DAY_PATHS, ORIGIN, STAGES, UNOPENED, Project, check_day

OPEN, CLOSE = "open", "undo"  # names of steps in the journal
LABELS = "labels.csv"  # of a closed day's images
KEPT = "Your changes to params.yaml stay."
# The stages whose outputs DVC keeps; a checkout restores these and the parent.
_CACHED_STAGES = ("weights", "replay", "train", "evaluate")


def open_day(project: Project, day: str) -> str:
    now = ProjectState.read(project)
    check_may_open(now, day)
    make_open(now, day)
    return now.next_parent


def make_open(now: ProjectState, day: str) -> None:
    """Open a day that has passed `check_may_open`; each step can be repeated."""
    project = now.project
    with journal.step(project, OPEN, day=day, parent=now.next_parent):
        project.images(day).mkdir(parents=True, exist_ok=True)
        corrections.write_empty(project, day)
        if not now.is_unopened:
            cache_outputs(project)
            fold_into_month(project, now.day)
            inherit(project)
        elif not project.parent_model.exists():
            make_origin(project, now.params)
        tracked = (project.parent, project.images(day))
        vcs.dvc(project.root, "add", *map(project.name, tracked))
        put_in_index(project, day)
        # Last, as the day is open once params.yaml says so.
        params_file.edit(project.params, {"day": day, "parent": now.next_parent})


def finish_opening(project: Project, facts: Mapping[str, Any]) -> str:
    """Finish opening a day after a kill, by the journal's note; return what was done."""
    day, now = facts["day"], ProjectState.read(project)
    if now.day != day:
        try:
            if now.next_parent != facts.get("parent"):
                raise CycleError(f"the last day is {now.day} now.")
            hand_edits.check_last(now)
        except CycleError as error:
            return f"{day} was not opened: {error.what}"
        make_open(now, day)
    return f"{day} is open"


def check_may_change(now: ProjectState, day: str) -> None:
    """Raise CycleError unless the day is open or can be opened next."""
    if now.is_open and now.day == check_day(day):
        refusals.check(now, "change")
        count_files(now.project, day)
    else:
        check_may_open(now, day)


def check_may_open(now: ProjectState, day: str) -> None:
    """Raise CycleError unless `day` can be the next open day."""
    check_day(day)
    if day in now.sealed:
        back = "undo the seal: dayfold undo; or wait for the next day"
        hint = back if day == now.day else f"give a --day after {now.day}"
        raise CycleError(f"{day} is sealed already.", hint=hint)
    refusals.check(now, "open")
    refusals.check_not_taken(now, day)
    if now.day == day:
        raise CycleError(f"{day} is already open.", hint="dayfold status")
    if now.is_open:
        what = f"{now.day} is open and not sealed, so {day} cannot be opened."
        raise CycleError(what, hint=f"dvc repro && dayfold seal, or go on with it: --day {now.day}")
    if now.is_sealed and day < now.day:
        what = f"{day} comes before {now.day}, which is sealed; days are added in order."
        raise CycleError(what, hint=f"give a day after {now.day}")
    count_files(now.project, day)


def cache_outputs(project: Project) -> None:
    """Put the last day's outputs and parent into DVC's cache, before they are replaced.

    The cache lacks them in a project that was restored from a backup without .dvc/cache. Files that
    differ from their pins are left alone.
    """
    pin = project.parent.with_suffix(".dvc")
    made = (project.weights, project.replay, project.shares, project.model, project.predictions)
    for source, targets, files in (
        (project.dvc_lock, _CACHED_STAGES, {project.name(path): path for path in made}),
        (pin, [project.name(pin)], {project.parent.name: project.parent}),
    ):
        pinned = pins.entries(source.read_bytes(), project.name(source))
        keys = {files[name]: str(entry["md5"]) for name, entry in pinned.items() if name in files}
        is_cached = storage.has(project.root, keys.values())
        if not is_cached and all(map(storage.has_md5, keys, keys.values())):
            vcs.dvc(project.root, "commit", "--force", *targets)


def inherit(project: Project) -> None:
    for made, target in project.handed_on().items():
        write_bytes(target, made.read_bytes())


def fold_into_month(project: Project, day: str) -> None:
    """Move a sealed day's entry from its own .dvc file into that of its month.

    DVC parses every .dvc file in every command. A `dvc repro` with nothing to do took 1.4 times as
    long with 200 of them as with two; with one a month, 1.16 to 1.26 times.
    """
    own, month = project.tracked(day), project.tracked_month(day)
    if own.exists():
        both = [path for path in (month, own) if path.exists()]
        found = [pins.entries(path.read_bytes(), project.name(path)) for path in both]
        outs = [*{key: entry for entries in found for key, entry in entries.items()}.values()]
        write_bytes(month, yaml.safe_dump({"outs": outs}, sort_keys=False).encode())
        own.unlink()


def opening_lines(project: Project, day: str, parent: str, *, would: bool = False) -> Iterator[str]:
    if not parent:
        return
    yield f"{'would open' if would else 'opened'} {day} (parent {parent})"
    if present := sum(finding.count_by_class(project, day).values()):
        folder = project.name(project.images(day))
        yield f"{day} includes {plural(present, 'image')} that {folder} held already"


def stale(project: Project, day: str) -> list[str]:
    """List what DVC finds changed in the open day. Images of other days are not checked."""
    count = count_files(project, day)
    _check_nothing_frozen(project)
    tracked = (project.tracked(day), project.parent.with_suffix(".dvc"))
    changed = vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))
    if not changed:
        _check_none_ignored(project, day, count)
    return changed


def _check_none_ignored(project: Project, day: str, count: int) -> None:
    # What .dvcignore hides from DVC would be in no cache and in no clone.
    pinned = (pins.of_images(project, day) or {}).get("nfiles", count)
    if pinned < count:
        folder = project.name(project.images(day))
        raise CycleError(
            f"DVC keeps {pinned} of the {count} files in {folder}: .dvcignore leaves the others "
            "out.",
            hint=f"find {folder} -type f | dvc check-ignore --details --stdin shows the lines; "
            "remove them, then dvc repro",
        )


def _check_nothing_frozen(project: Project) -> None:
    # DVC takes a frozen stage for up to date, so the model could come from other images or settings
    # than the day records.
    try:
        stages = yaml.load(project.dvc_yaml.read_bytes(), Loader=yaml.CSafeLoader)["stages"]
        frozen = [name for name in STAGES if stages[name].get("frozen")]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return  # DVC reports what is wrong with the file
    if frozen:
        what = f"dvc.yaml has frozen: true for {', '.join(frozen)}, so DVC does not run it again."
        raise CycleError(what, hint="remove the line from dvc.yaml, then dvc repro")


def count_files(project: Project, day: str) -> int:
    """Count the files of a day's folder, without hidden and system files.

    Raises CycleError if there is a pipe, at which DVC hangs, or a socket, at which it fails.
    """
    folder = project.images(day)
    paths = [path for path in folder.rglob("*") if not path.is_dir()]
    if pipes := sorted(project.name(one) for one in paths if one.is_fifo() or one.is_socket()):
        raise CycleError(
            f"{project.name(folder)} holds what DVC cannot read:",
            problems=first_few([f"{escaped(name)} is a pipe or a socket" for name in pipes]),
            hint=f"rm -- {shlex.join(pipes)}",
        )
    names = (path.relative_to(folder).parts for path in paths)
    return sum(not any(map(is_clutter, parts)) for parts in names)


def confirm_undo(description: str, *, yes: bool) -> None:
    say(description)
    ask("Undo it?", yes=yes, hint="dayfold undo --yes")


def close(now: ProjectState, *, yes: bool) -> str:
    """Close the open day (see `sealing.undo`); return what was done."""
    project = now.project
    noted = corrections.of_day(project, now.day).values()
    if erased := sum(one.action == corrections.ERASE for one in noted):
        raise CycleError(
            f"{now.day} erased {plural(erased, 'image')} of earlier days, so it cannot be undone.",
            hint="dvc repro && dayfold seal",
        )
    # An earlier undo may have used the name.
    names = chain([now.day], (f"{now.day}-{number}" for number in count(2)))
    folder = project.name(next(path for path in map(project.undone, names) if not path.exists()))
    images = sum(path.is_file() for path in project.images(now.day).rglob("*"))
    confirm_undo(
        f"{now.day} is open: its {plural(images, 'image')} and {plural(len(noted), 'correction')} "
        f"move to {folder}/. Everything else becomes as it was before {now.day}.\n{KEPT}",
        yes=yes,
    )
    facts = {"day": now.day, "parent": now.params.parent, "folder": folder}
    with journal.step(project, CLOSE, **facts):
        return finish_closing(project, facts)


def finish_closing(project: Project, facts: Mapping[str, Any]) -> str:
    """Close an open day, also after a kill at any step; return what was done."""
    day, parent, folder = facts["day"], facts["parent"], project.root / facts["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    for given in (project.images, project.corrections, project.groups, project.rejected):
        if (path := given(day)).exists():
            _move(path, folder / path.parent.name / path.name)
    has_groups = _write_labels(folder, day)
    own_tables = (project.manifest, project.looks, project.evaluation)
    own = [path(day) for path in (*own_tables, project.gate, project.unknown)]
    own += [project.weights, project.replay, project.shares, project.model, project.predictions]
    if project.dvc_lock.exists():
        made = pins.outputs(project.dvc_lock.read_bytes())
        own += [project.root / name for name in made if name.startswith(DAY_PATHS)]
    for path in (*own, *project.images(day).parent.glob("*.dvc"), project.dvc_lock):
        path.unlink(missing_ok=True)
    restore_files(project, "HEAD" if parent == ORIGIN else vcs.TAG + parent)
    vcs.git_succeeds(project.root, "reset", "--quiet", "--", "data", "dvc.lock", "metrics.json")
    before: dict[str, object] = {"day": UNOPENED, "parent": ORIGIN}
    if parent != ORIGIN:
        data = project.manifest(parent).read_bytes()
        before = {"day": parent, "parent": manifest.parent_of(data, f"{parent}.csv")[0]}
    params_file.edit(project.params, before)
    if parent != ORIGIN:
        with suppress(ToolError):  # `status` reports what cannot be checked out here
            checkout(project)
    kept = project.name(folder)
    if not any(path.is_file() for path in (folder / "images").rglob("*")):
        return f"{day} is closed; its corrections are in {kept}/"
    images = f"{kept}/images/{day}"
    patients = f" --labels {kept}/{LABELS} (it has their patients)" * has_groups
    again = f"to add them again: dayfold add {images}{patients}"
    return f"{day} is closed; its images are in {images}/\n{again}"


def _write_labels(folder: Path, day: str) -> bool:
    """Write a closed day's patients that a label file had named, if any; return whether it did."""
    groups, images = folder / "groups" / f"{day}.csv", folder / "images" / day
    named = dict(tables.read(groups, ImageGroup).iter_rows()) if groups.exists() else {}
    if not named:
        return False
    paths = sorted(path for path in images.glob("*/*") if not is_clutter(path.name))
    rows = [
        (path.relative_to(images).as_posix(), path.parent.name, named.get(sha256_file(path), ""))
        for path in paths
    ]
    write_csv(folder / LABELS, ("path", "label", "group"), rows)
    return True


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and target.is_dir():
        for path in source.iterdir():
            _move(path, target / path.name)
        source.rmdir()
    else:
        shutil.move(source, target)


def restore_files(project: Project, commit: str) -> None:
    """Restore what a day made, and DVC's pins, from a commit; in the index too."""
    found = vcs.split(vcs.git(project.root, "ls-tree", "-r", "-z", "--name-only", commit))
    pins = [name for name in found if name.startswith(("data/images/", "data/parent.dvc"))]
    names = [name for name in found if name.startswith(DAY_PATHS)]
    names += [name for name in pins if name.endswith((".dvc", ".gitignore"))]
    given = "".join(f"{name}\0" for name in names)
    paths = ("--pathspec-from-file=-", "--pathspec-file-nul")
    vcs.git(project.root, "checkout", "--quiet", commit, *paths, given=given)


def checkout(project: Project) -> None:
    parent = f"{project.name(project.parent)}.dvc"
    vcs.dvc(project.root, "checkout", "--force", *_CACHED_STAGES, parent)
