"""The open day's files: what is changed, missed by DVC, or gone."""

import shlex
from contextlib import suppress

import yaml

from dayfold.errors import CycleError, ToolError
from dayfold.ledger import corrections
from dayfold.ledger.intake import finding
from dayfold.project import pins, vcs
from dayfold.project.console import first_few
from dayfold.project.files import escaped
from dayfold.project.layout import STAGES, Project


def stale(project: Project, day: str) -> list[str]:
    """What of the open day DVC finds changed; the images of other days are not looked at."""
    check_no_pipe(project, day)
    _check_nothing_frozen(project)
    tracked = (project.tracked(day), project.parent.with_suffix(".dvc"))
    changed = vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))
    if not changed:
        _check_none_ignored(project, day)
    return changed


def _check_none_ignored(project: Project, day: str) -> None:
    """Raise CycleError where DVC leaves images of the open day out, as .dvcignore tells it to.

    They would be in no cache and in no clone.
    """
    count = sum(finding.count(project, day).values())
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


def check_no_pipe(project: Project, day: str) -> None:
    """Raise CycleError where a pipe or socket lies among a day's images.

    DVC waits for ever at a pipe, and fails at a socket. `add` takes neither: a person's copy of a
    folder brings them along.
    """
    folder = project.images(day)
    paths = (path for path in folder.rglob("*") if path.is_fifo() or path.is_socket())
    if pipes := sorted(map(project.name, paths)):
        raise CycleError(
            f"{project.name(folder)} holds what DVC cannot read:",
            problems=first_few([f"{escaped(name)} is a pipe or a socket" for name in pipes]),
            hint=f"rm -- {shlex.join(pipes)}",
        )


def gone(project: Project, day: str) -> list[str]:
    """What was made as the day was opened and is not there: DVC fails without it."""
    own = (project.images(day), project.tracked(day), project.corrections(day), project.groups(day))
    parent = (project.parent, project.parent.with_suffix(".dvc"))
    return [project.name(path) for path in (*own, *parent) if not path.exists()]


def bring_back(project: Project, day: str) -> None:
    """Have again what is `gone`: git's files from its index, DVC's by these or made anew."""
    for name in gone(project, day):
        vcs.git_says(project.root, "checkout", "--", name)  # of no folder
    corrections.write_empty(project, day)
    for folder in (project.images(day), project.parent):
        pin = folder.with_suffix(".dvc")
        if not pin.exists():
            folder.mkdir(exist_ok=True)
            vcs.dvc(project.root, "add", project.name(folder))
        elif not folder.exists():
            with suppress(ToolError):
                vcs.dvc(project.root, "checkout", project.name(pin))
                continue
            vcs.dvc(project.root, "pull", project.name(pin))
    put_in_index(project, day)


def put_in_index(project: Project, day: str) -> None:
    """Have git know the open day's files: `dvc exp run --temp` and `--queue` take no others.

    `dvc exp run` without these takes them out again.
    """
    own = (project.tracked(day), project.corrections(day), project.groups(day))
    names = [project.name(path) for path in own if path.exists()]
    if len(vcs.split(vcs.git(project.root, "ls-files", "-z", "--", *names))) < len(names):
        vcs.git_says(project.root, "add", "--", *names)
