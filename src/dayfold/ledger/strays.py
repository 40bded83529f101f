"""Images in the folder of a day that is neither sealed nor open: they belong to no data version.

A `git stash`, `git clean` or "Reset workspace" takes a day's tables and leaves its images.
"""

from pathlib import Path
from typing import NamedTuple

from dayfold.ledger.intake import walking
from dayfold.project import vcs
from dayfold.project.layout import UNOPENED, Project, is_day


class Stray(NamedTuple):
    """A folder of such images: how many there are, and the command that takes them in."""

    folder: str
    images: int
    command: str

    def __str__(self) -> str:
        plural = "s" * (self.images != 1)
        return f"{self.folder} holds {self.images} image{plural} that belong to no day"


def find(project: Project, *, day: str, is_open: bool) -> list[Stray]:
    """Return the folders of images that are of no day, in order; nothing is changed.

    `day` is that of params.yaml, open or the last that was sealed. A day is somebody's that has a
    tag, on another branch too, or a manifest in git.
    """
    known = {day, *_tagged(project)}
    folders = project.images(day).parent.glob("*-*-*")
    days = sorted({path.name for path in folders if is_day(path.name) and path.is_dir()} - known)
    days = [one for one in days if one not in _committed(project)] if days else []
    counts = {one: sum(walking.count(project, one).values()) for one in days}
    return [
        Stray(project.name(project.images(one)), count, _command(project, one, day, is_open))
        for one, count in counts.items()
        if count
    ]


def _command(project: Project, stray: str, day: str, is_open: bool) -> str:
    command = f"dayfold add {project.name(project.images(stray))}"
    if is_open:
        return f"{command} --move --day {day}"
    return f"{command} --day {stray}" if day in (UNOPENED, min(day, stray)) else f"{command} --move"


def _tagged(project: Project) -> list[str]:
    words = ("for-each-ref", "--format=%(refname:strip=3)", f"refs/tags/{vcs.TAG}")
    return vcs.git(project.root, *words).split("\n")


def _committed(project: Project) -> set[str]:
    names = vcs.git(project.root, "ls-files", "-z", "--", project.name(project.manifests))
    return {Path(name).stem for name in names.split("\0")}
