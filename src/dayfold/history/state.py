"""The state of a project: its params, days and tags."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from dayfold.ledger import corrections, manifest
from dayfold.ledger.intake.delivery import Delivery
from dayfold.ledger.intake.finding import walk_day
from dayfold.ledger.manifest import History
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import plural
from dayfold.project.files import sha256_file
from dayfold.project.layout import ORIGIN, UNOPENED, Project, is_day
from dayfold.project.params import Params


@dataclass(frozen=True)
class ProjectState:
    """A project's params, and the days of the branch that is checked out.

    `sealed` days have a tag that HEAD contains, `tagged` days a tag anywhere, and `committed` days
    a manifest in HEAD.
    """

    project: Project
    params: Params
    sealed: list[str]
    tagged: list[str]
    committed: list[str]

    @classmethod
    def read(cls, project: Project) -> "ProjectState":
        params, root = params_file.read(project.params), project.root
        days = (vcs.sealed_days(root), vcs.tagged_days(root), vcs.committed_days(root))
        return cls(project, params, *days)

    @cached_property
    def untagged(self) -> list[str]:
        """The days of this branch that are committed and have no tag on it."""
        untagged = {*self.committed} - {*self.sealed}
        # After a merge of two histories the manifests of both are there.
        days = manifest.ancestors(self.project, self.day, self.params.parent) if untagged else ()
        return sorted(untagged.intersection(days))

    @property
    def day(self) -> str:
        """The open or last sealed day."""
        return self.params.day

    @property
    def is_unopened(self) -> bool:
        return self.day == UNOPENED

    @property
    def is_sealed(self) -> bool:
        return self.day in self.sealed

    @property
    def is_open(self) -> bool:
        return not (self.is_unopened or self.is_sealed)

    @property
    def lost_tags(self) -> list[str]:
        """The untagged days, but not the open day if a person has committed it."""
        return [day for day in self.untagged if day in self.tagged or day != self.day]

    @property
    def next_parent(self) -> str:
        return ORIGIN if self.is_unopened else self.day

    @property
    def parent(self) -> str:
        return self.params.parent if self.is_open else self.next_parent

    @cached_property
    def sealed_history(self) -> History:
        return manifest.history(self.project, self.parent)

    def history(self) -> History:
        """Return the history of the sealed days, with the open day's corrections applied."""
        noted = corrections.of_day(self.project, self.day) if self.is_open else {}
        return corrections.applied(self.sealed_history, noted)


class UnusedFolder(NamedTuple):
    """Images in the folder of a day that is neither sealed nor open, so in no data version.

    A `git stash`, `git clean` or "Reset workspace" removes a day's tables and leaves its images.
    `command` adds them; it is empty if earlier days have them all.
    """

    folder: str
    images: int
    command: str

    def __str__(self) -> str:
        what = "belong to no day"
        if not self.command:
            what = "earlier days have too; the folder is not needed"
        return f"{self.folder} holds {plural(self.images, 'image')} that {what}"


def unused_folders(now: ProjectState) -> list[UnusedFolder]:
    """Return the folders of images that no day of any branch uses, in order."""
    project = now.project
    folders = {path.name for path in project.images("").glob("*-*-*") if path.is_dir()}
    found = []
    for day in sorted(filter(is_day, folders - {now.day, *now.tagged, *now.committed})):
        if files := walk_day(project, day, Delivery()):
            had = {*now.sealed_history.images["image"], *now.sealed_history.withdrawn}
            is_new = any(sha256_file(one.path) not in had for one in files)
            folder = project.name(project.images(day))
            options = f"--day {day}" if now.is_unopened or now.day <= day else "--move"
            if now.is_open:
                options = f"--move --day {now.day}"
            command = f"dayfold add {folder} {options}" if is_new else ""
            found.append(UnusedFolder(folder, len(files), command))
    return found
