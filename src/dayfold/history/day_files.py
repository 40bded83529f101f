"""The open day's own files: find and restore missing ones."""

from contextlib import suppress

from dayfold.errors import ToolError
from dayfold.ledger import corrections
from dayfold.project import vcs
from dayfold.project.layout import Project


def missing(project: Project, day: str) -> list[str]:
    """List missing files that were made when the day was opened; DVC fails without them."""
    own = (project.images(day), project.tracked(day), project.corrections(day), project.groups(day))
    parent = (project.parent, project.parent.with_suffix(".dvc"))
    return [project.name(path) for path in (*own, *parent) if not path.exists()]


def restore(project: Project, day: str) -> None:
    """Restore missing files: git's from its index, DVC's from DVC, or else anew."""
    for name in missing(project, day):
        vcs.git_succeeds(project.root, "checkout", "--", name)  # git has no folders
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
    """Add the open day's files to git's index, as `dvc exp run --temp` and `--queue` need.

    `dvc exp run` without these options removes them from the index.
    """
    own = (project.tracked(day), project.corrections(day), project.groups(day))
    names = [project.name(path) for path in own if path.exists()]
    if len(vcs.split(vcs.git(project.root, "ls-files", "-z", "--", *names))) < len(names):
        vcs.git_succeeds(project.root, "add", "--", *names)
