"""Images in folders of no day.

A `git stash`, `git clean` or "Reset workspace" takes a day's tables and leaves its images.
"""

from pathlib import Path
from typing import NamedTuple

from dayfold.ledger import manifest
from dayfold.ledger.intake.delivery import Delivery
from dayfold.ledger.intake.finding import walk_day
from dayfold.project import vcs
from dayfold.project.console import plural
from dayfold.project.files import sha256_file
from dayfold.project.layout import ORIGIN, UNOPENED, Project, is_day
from dayfold.project.params import Params


class Stray(NamedTuple):
    """A folder of such images: how many are in it, and the command that takes them in."""

    folder: str
    images: int
    command: str

    def __str__(self) -> str:
        what = "belong to no day" if self.command else "earlier days have too; it is not needed"
        return f"{self.folder} holds {plural(self.images, 'image')} that {what}"


def find(project: Project, params: Params, *, is_open: bool) -> list[Stray]:
    """Return the folders of images that are of no day, in order; nothing is changed.

    `is_open` says whether the day of params.yaml is. A day is somebody's that has a tag, on another
    branch too, or a manifest in git.
    """
    folders = {path.name for path in project.images("").glob("*-*-*") if path.is_dir()}
    known = {params.day, *vcs.tagged_days(project.root)}
    days = sorted(filter(is_day, folders - known))
    if not days:
        return []
    in_git = vcs.git(project.root, "ls-files", "-z", "--", project.name(project.manifests))
    committed = {Path(name).stem for name in vcs.split(in_git)}
    last = ORIGIN if params.day == UNOPENED else params.parent if is_open else params.day
    history = manifest.history(project, last)
    had = {*history.images["image"], *history.withdrawn}
    found = []
    for day in (day for day in days if day not in committed):
        if files := walk_day(project, day, Delivery()):
            is_new = any(sha256_file(one.path) not in had for one in files)
            folder = project.name(project.images(day))
            command = f"dayfold add {folder}{_how(day, params.day, is_open)}" if is_new else ""
            found.append(Stray(folder, len(files), command))
    return found


def _how(stray: str, day: str, is_open: bool) -> str:
    """The options with which `add` takes a day's folder in: as that day if it may still come."""
    if is_open:
        return f" --move --day {day}"
    return f" --day {stray}" if day in (UNOPENED, min(day, stray)) else " --move"
