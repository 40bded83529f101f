"""The open day: opened, checked, closed."""

import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import yaml

from dayfold.create import make_origin
from dayfold.errors import CycleError, ToolError
from dayfold.history import hand_edits, states
from dayfold.history.day_files import put_in_index
from dayfold.history.line import Line
from dayfold.ledger import corrections, manifest
from dayfold.ledger.intake import finding
from dayfold.ledger.names import is_clutter
from dayfold.project import journal, pins, storage, vcs
from dayfold.project import params as params_file
from dayfold.project.console import ask, first_few, plural, say
from dayfold.project.files import escaped, md5_file, write_bytes
from dayfold.project.layout import DAY_PATHS, ORIGIN, STAGES, UNOPENED, Project, check_day

OPEN, CLOSE = "open", "undo"  # names of steps in the journal
KEPT = "What you changed in params.yaml stays."
# What DVC lays out of a sealed day: the outputs of these stages, and the parent.
_MADE = ("weights", "replay", "train", "evaluate")


def open_day(project: Project, day: str) -> str:
    """Make `day` the open day, and return its parent."""
    now = Line.read(project)
    check_may_open(now, day)
    make_open(now, day)
    return now.next_parent


def make_open(now: Line, day: str) -> None:
    """Open a day that `check_may_open` has let pass; each step can be done again."""
    project = now.project
    with journal.step(project, OPEN, day=day, parent=now.next_parent):
        project.images(day).mkdir(parents=True, exist_ok=True)
        corrections.write_empty(project, day)
        if not now.is_unopened:
            keep_made(project)
            fold_into_month(project, now.day)
            inherit(project)
        elif not project.parent_model.exists():
            make_origin(project, now.params)
        tracked = (project.parent, project.images(day))
        vcs.dvc(project.root, "add", *map(project.name, tracked))
        put_in_index(project, day)
        # Last: until params.yaml says so, the day is not open.
        params_file.edit(project.params, {"day": day, "parent": now.next_parent})


def finish_opening(project: Project, facts: Mapping[str, Any]) -> str:
    """Go on with the opening of a day that was killed, by its note; say what was done."""
    day, now = facts["day"], Line.read(project)
    if now.day != day:
        try:
            if now.next_parent != facts.get("parent"):
                raise CycleError(f"the last day is {now.day} now.")
            hand_edits.check_last(now)
        except CycleError as error:
            return f"{day} was not opened: {error.what}"
        make_open(now, day)
    return f"{day} is open"


def check_may_change(now: Line, day: str) -> None:
    """Raise CycleError, with the way on, where a day is neither open nor can be opened next."""
    if now.is_open and now.day == check_day(day):
        states.check(now, "change")
        count_files(now.project, day)
    else:
        check_may_open(now, day)


def check_may_open(now: Line, day: str) -> None:
    """Raise CycleError, with the way on, where `day` cannot be the next open day."""
    check_day(day)
    if day in now.sealed:
        is_last = day == now.day
        back = "take its seal back: dayfold undo; or wait for the next day"
        raise CycleError(
            f"{day} is sealed already.", hint=back if is_last else f"give a --day after {now.day}"
        )
    states.check(now, "open")
    states.check_free(now, day)
    if now.day == day:
        raise CycleError(f"{day} is already open.", hint="dayfold status")
    if now.is_open:
        raise CycleError(
            f"{now.day} is open and not sealed, so {day} cannot be opened.",
            hint=f"dvc repro && dayfold seal, or go on with it: --day {now.day}",
        )
    if now.is_sealed and day < now.day:
        raise CycleError(
            f"{day} comes before {now.day}, which is sealed; days are added in order.",
            hint=f"give a day after {now.day}",
        )
    count_files(now.project, day)


def keep_made(project: Project) -> None:
    """Have DVC's cache what only data/ has of the sealed day and its parent: both are replaced.

    So it is in a project that came back from a backup without .dvc/cache. What is not as it was
    pinned is left alone.
    """
    parent, pin = project.parent, project.parent.with_suffix(".dvc")
    files = (project.weights, project.replay, project.shares, project.model, project.predictions)
    _keep(project, project.dvc_lock, {project.name(path): path for path in files}, _MADE)
    _keep(project, pin, {parent.name: parent}, (project.name(pin),))


def _keep(
    project: Project, source: Path, files: Mapping[str, Path], targets: Collection[str]
) -> None:
    pinned = pins.entries(source.read_bytes(), project.name(source))
    keys = {files[name]: str(entry["md5"]) for name, entry in pinned.items() if name in files}
    if not storage.has(project.root, keys.values()) and all(map(_is_as, keys, keys.values())):
        vcs.dvc(project.root, "commit", "--force", *targets)


def _is_as(path: Path, key: str) -> bool:
    if path.is_dir():
        return storage.folder_md5({one.name: md5_file(one) for one in path.iterdir()}) == key
    return path.is_file() and md5_file(path) == key


def inherit(project: Project) -> None:
    for made, target in project.handed_on().items():
        write_bytes(target, made.read_bytes())


def fold_into_month(project: Project, day: str) -> None:
    """Move a sealed day's entry from its own .dvc file into that of its month.

    DVC parses every .dvc file for every command, which with 200 of them made a `dvc repro` without
    anything to do 1.4 times as long as with two; with one a month, 1.16 to 1.26 times.
    """
    own, month = project.tracked(day), project.tracked_month(day)
    if own.exists():
        both = [path for path in (month, own) if path.exists()]
        found = [pins.entries(path.read_bytes(), project.name(path)) for path in both]
        outs = [*{key: entry for entries in found for key, entry in entries.items()}.values()]
        write_bytes(month, yaml.safe_dump({"outs": outs}, sort_keys=False).encode())
        own.unlink()


def opened(project: Project, day: str, parent: str, *, would: bool = False) -> Iterator[str]:
    """Yield what is to be said of a day that a command opened; nothing without its parent."""
    if not parent:
        return
    yield f"{'would open' if would else 'opened'} {day} (parent {parent})"
    if lying := sum(finding.count(project, day).values()):
        folder = project.name(project.images(day))
        yield f"{plural(lying, 'image')} lay in {folder} already: part of {day} now"


def stale(project: Project, day: str) -> list[str]:
    """What of the open day DVC finds changed; the images of other days are not looked at."""
    count = count_files(project, day)
    _check_nothing_frozen(project)
    tracked = (project.tracked(day), project.parent.with_suffix(".dvc"))
    changed = vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))
    if not changed:
        _check_none_ignored(project, day, count)
    return changed


def _check_none_ignored(project: Project, day: str, count: int) -> None:
    """Raise CycleError where DVC leaves some of the open day's files out, by .dvcignore.

    They would be in no cache and in no clone.
    """
    pinned = (pins.of_images(project, day) or {}).get("nfiles", count)
    if pinned < count:
        folder = project.name(project.images(day))
        raise CycleError(
            f"DVC keeps {pinned} of the {count} files in {folder}: .dvcignore leaves the others "
            "out.",
            hint=f"find {folder} -type f | dvc check-ignore --details --stdin shows the lines; "
            "take them out, then dvc repro",
        )


def _check_nothing_frozen(project: Project) -> None:
    """Raise CycleError where dvc.yaml freezes a stage: DVC takes it for up to date, come what may.

    A day would be sealed whose model was made from other images or settings than it says.
    """
    try:
        stages = yaml.load(project.dvc_yaml.read_bytes(), Loader=yaml.CSafeLoader)["stages"]
        frozen = [name for name in STAGES if stages[name].get("frozen")]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return  # DVC tells what is wrong with it
    if frozen:
        raise CycleError(
            f"dvc.yaml says frozen: true of {', '.join(frozen)}, so DVC does not make that again.",
            hint="take the line out of dvc.yaml, then dvc repro",
        )


def count_files(project: Project, day: str) -> int:
    """Count the files of a day's folder, without hidden and system files.

    Raises CycleError where a pipe or socket is among them: DVC waits for ever at a pipe, and fails
    at a socket. `add` takes neither; a person's copy of a folder brings them along.
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


def agree(description: str, *, yes: bool) -> None:
    """Say what is to be undone; CycleError unless `yes` is set or a person agrees."""
    say(description)
    ask("Undo it?", yes=yes, hint="dayfold undo --yes")


def close(now: Line, *, yes: bool) -> str:
    """Close the open day (as `sealing.undo`)."""
    project = now.project
    lines = corrections.lines(project, now.day).values()
    if erased := sum(line.action == corrections.ERASE for line in lines):
        raise CycleError(
            f"{now.day} erased {plural(erased, 'image')} of earlier days, so it cannot be undone.",
            hint="dvc repro && dayfold seal",
        )
    # An earlier undo may have filled a folder.
    names = chain([now.day], (f"{now.day}-{number}" for number in count(2)))
    folder = project.name(next(path for path in map(project.undone, names) if not path.exists()))
    images = sum(path.is_file() for path in project.images(now.day).rglob("*"))
    agree(
        f"{now.day} is open: its {plural(images, 'image')} and its corrections move to {folder}/. "
        f"Everything else becomes as it was before {now.day}.\n{KEPT}",
        yes=yes,
    )
    facts = {"day": now.day, "parent": now.params.parent, "folder": folder}
    with journal.step(project, CLOSE, **facts):
        return finish_closing(project, facts)


def finish_closing(project: Project, facts: Mapping[str, Any]) -> str:
    """Close an open day, from wherever a kill has interrupted it; say what was done."""
    day, parent, folder = facts["day"], facts["parent"], project.root / facts["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    for given in (project.images, project.corrections, project.groups, project.rejected):
        if (path := given(day)).exists():
            _move(path, folder / path.parent.name / path.name)
    tables = (project.manifest, project.looks, project.evaluation, project.gate, project.unknown)
    own = [path(day) for path in tables]
    own += [project.weights, project.replay, project.shares, project.model, project.predictions]
    if project.dvc_lock.exists():
        made = pins.outputs(project.dvc_lock.read_bytes())
        own += [project.root / name for name in made if name.startswith(DAY_PATHS)]
    for path in (*own, *project.images(day).parent.glob("*.dvc"), project.dvc_lock):
        path.unlink(missing_ok=True)
    bring_back(project, "HEAD" if parent == ORIGIN else vcs.TAG + parent)
    vcs.git_says(project.root, "reset", "--quiet", "--", "data", "dvc.lock", "metrics.json")
    before: dict[str, object] = {"day": UNOPENED, "parent": ORIGIN}
    if parent != ORIGIN:
        data = project.manifest(parent).read_bytes()
        before = {"day": parent, "parent": manifest.parent_of(data, f"{parent}.csv")[0]}
    params_file.edit(project.params, before)
    if parent != ORIGIN:
        with suppress(ToolError):  # what cannot be laid out here, `status` tells
            lay_out(project)
    kept = project.name(folder)
    images = f"images are in {kept}/images/{day}/"
    is_empty = not any(path.is_file() for path in (folder / "images").rglob("*"))
    return f"{day} is closed; its {f'corrections are in {kept}/' if is_empty else images}"


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and target.is_dir():
        for path in source.iterdir():
            _move(path, target / path.name)
        source.rmdir()
    else:
        shutil.move(source, target)


def bring_back(project: Project, commit: str) -> None:
    """Write what a day made, and DVC's pins, as a commit has them; the index too."""
    found = vcs.split(vcs.git(project.root, "ls-tree", "-r", "-z", "--name-only", commit))
    pins = [name for name in found if name.startswith(("data/images/", "data/parent.dvc"))]
    names = [name for name in found if name.startswith(DAY_PATHS)]
    names += [name for name in pins if name.endswith((".dvc", ".gitignore"))]
    given = "".join(f"{name}\0" for name in names)
    paths = ("--pathspec-from-file=-", "--pathspec-file-nul")
    vcs.git(project.root, "checkout", "--quiet", commit, *paths, given=given)


def lay_out(project: Project) -> None:
    parent = f"{project.name(project.parent)}.dvc"
    vcs.dvc(project.root, "checkout", "--force", *_MADE, parent)
