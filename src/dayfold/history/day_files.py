"""The open day's own files: which are gone, and are brought back."""

from contextlib import suppress

from dayfold.errors import ToolError
from dayfold.ledger import corrections
from dayfold.project import vcs
from dayfold.project.layout import Project


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
