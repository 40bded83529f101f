"""The line of history that is checked out, and which of its states each command refuses.

A day is sealed when its tag is on the branch. A rebase, a clone without tags or a second clone that
seals leave a line on which a command would open, seal or undo the wrong day. Each such state is a
function here: it returns the error that tells it, with the way on, or None where the line is not in
it. REFUSED says which of them a command refuses.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from dayfold.errors import CycleError
from dayfold.ledger import manifest
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.layout import ORIGIN, UNOPENED, Project
from dayfold.project.params import Params


@dataclass(frozen=True)
class Line:
    """A project's params, and the days of the line of history that is checked out.

    What git is asked is asked once.
    """

    project: Project
    params: Params

    @classmethod
    def read(cls, project: Project) -> "Line":
        """Read params.yaml."""
        return cls(project, params_file.read(project.params))

    @cached_property
    def sealed(self) -> list[str]:
        """The days whose tag HEAD contains."""
        return vcs.sealed_days(self.project.root)

    @cached_property
    def tagged(self) -> list[str]:
        """The days that have a tag anywhere."""
        return vcs.tagged_days(self.project.root)

    @cached_property
    def committed(self) -> list[str]:
        """The days whose manifest HEAD has."""
        return vcs.committed_days(self.project.root)

    @cached_property
    def untagged(self) -> list[str]:
        """The days of this line that are committed, and have no tag on it."""
        untagged = {*self.committed} - {*self.sealed}
        # After a merge of two lines the other one's manifests are there too.
        days = manifest.line(self.project, self.day, self.params.parent) if untagged else ()
        return sorted(untagged.intersection(days))

    @property
    def day(self) -> str:
        """The open or last sealed day."""
        return self.params.day

    @property
    def is_unopened(self) -> bool:
        """Whether no day was ever opened."""
        return self.day == UNOPENED

    @property
    def is_sealed(self) -> bool:
        """Whether the day has its tag."""
        return self.day in self.sealed

    @property
    def is_open(self) -> bool:
        """Whether the day was opened and has no tag yet."""
        return not (self.is_unopened or self.is_sealed)

    @property
    def lost_tags(self) -> list[str]:
        """The untagged days, without the open one where a person has committed that."""
        return [day for day in self.untagged if day in self.tagged or day != self.day]

    @property
    def next_parent(self) -> str:
        """The parent of the next day that is opened."""
        return ORIGIN if self.is_unopened else self.day

    @property
    def parent(self) -> str:
        """The parent of the open day, or else of the next one."""
        return self.params.parent if self.is_open else self.next_parent

    def check(self, command: str) -> None:
        """Raise the first of the states that a command refuses, by REFUSED."""
        for state in REFUSED[command]:
            if error := state(self):
                raise error


def _moved(line: Line) -> CycleError | None:
    """The tag of the day or of its parent is on the commit of another."""
    root, project = line.project.root, line.project
    name = project.name(project.params)
    days = {line.params.parent, line.day} & {*line.sealed}
    for day, files in vcs.at_tags(root, sorted(days), lambda _: [name]).items():
        tag, found = vcs.TAG + day, params_file.day_of(files.get(name, b""))
        if found != day:
            last = ("log", "--max-count=1", "--format=%h", "--")
            commit = vcs.git(root, *last, project.name(project.manifest(day))).strip()
            return CycleError(
                f"The tag {tag} was moved: to a commit whose params.yaml says {found or 'no day'}.",
                hint=f'git tag --force --annotate --message "day {day}" {tag} {commit}; or, where '
                "another clone has it right: git fetch --tags --force",
            )
    return None


def _untagged(line: Line) -> CycleError | None:
    """A day has no tag on this line.

    A rebase, an amended commit and a squash merge make a commit again, and leave its tag behind.
    """
    if not line.untagged:
        return None
    problems = [
        f"{vcs.TAG}{day} is on a commit that this branch has no longer"
        if day in line.tagged
        else f"{day} is committed, but has no tag {vcs.TAG}{day} here"
        for day in line.untagged
    ]
    hint = "dayfold seal"
    if vcs.is_shallow(line.project.root):
        hint = "git fetch --unshallow --tags (this is a shallow clone)"
    elif {*line.untagged} - {*line.tagged} and vcs.git(line.project.root, "remote").strip():
        hint = "git fetch --tags; if that brings none: dayfold seal"
    what = "A committed day is sealed by its tag, and the branch lacks tags:"
    return CycleError(what, problems=problems, hint=hint)


def _lost(line: Line) -> CycleError | None:
    """As `_untagged`, unless it is the open day that a person has committed."""
    return _untagged(line) if line.lost_tags else None


def _shallow(line: Line) -> CycleError | None:
    """As `_untagged`, where the tag may be in the history that this clone lacks."""
    is_cut = line.untagged and vcs.is_shallow(line.project.root)
    return _untagged(line) if is_cut else None


def taken(line: Line, day: str = "") -> CycleError | None:
    """The day, or another that this line does not have, is sealed on another one."""
    root, day = line.project.root, day or line.day
    if day not in line.tagged or day in {*line.sealed, *line.untagged}:
        return None
    tag = vcs.TAG + day
    branches = vcs.branches_of(root, tag)
    there = branches[0] if branches else f"-b NAME {tag}"
    is_on_any = branches or vcs.branches_of(root, tag, remote=True)
    free = f"; or, as no branch has it, give it up: git tag --delete {tag}" * (not is_on_any)
    other = "give another --day"
    if day == line.day:
        other = f"dayfold undo, then dayfold add data/undone/{day}/images/{day} --day ANOTHER"
    return CycleError(
        f"{day} is sealed on another line of history, so its tag {tag} is taken.",
        hint=f"{other}; or go on with that line: git checkout {there} && dvc checkout{free}",
    )


def _no_branch(line: Line) -> CycleError | None:
    """No branch is checked out: what is sealed then is on none."""
    if vcs.branch(line.project.root):
        return None
    branches = vcs.branches_of(line.project.root, "HEAD")
    way = f"git checkout {branches[0]} && dvc checkout" if branches else "git checkout BRANCH"
    return CycleError(
        "No branch is checked out (a detached HEAD), so a day sealed here would be on none.",
        hint=f"{way}; or, to begin another history from here: git checkout -b NAME",
    )


def _behind(line: Line) -> CycleError | None:
    """The upstream branch has commits that this one has not."""
    behind = vcs.behind(line.project.root)
    if not behind:
        return None
    return CycleError(
        f"The upstream branch has {behind} commits that this clone has not: a day sealed here "
        "would begin a second history.",
        hint="git pull --tags && dvc pull, if this clone has no day of its own, open or not; "
        "otherwise docs/operations.md, two clones that sealed",
    )


def _not_last(line: Line) -> CycleError | None:
    """No day is open, and the day is not the last of those that are sealed."""
    root, last = line.project.root, line.sealed[-1] if line.sealed else line.day
    if line.is_open or last == line.day:
        return None
    if last in line.committed:
        return CycleError(
            f"params.yaml says that the day is {line.day}; {last} is sealed after it.",
            hint=f"git checkout {vcs.TAG}{last} -- params.yaml",
        )
    gone = ("--diff-filter=D", "--", line.project.name(line.project.manifest(last)))
    commit = vcs.git(root, "log", "--max-count=1", "--format=%h", *gone).strip()
    return CycleError(
        f"{last} is sealed, and the commit {commit} took its files out again.",
        hint=f"to have it back: git revert --no-edit {commit} && dvc checkout; to go on without "
        f"it: git tag --delete {vcs.TAG}{last} && dvc checkout",
    )


# By command, the first to be told first. `next day` is what `add`, `relabel`, `withdraw` and `run`
# open, and what `status` advises while no day is open; `open day` is `status` while one is. A tag
# that is missing `seal` makes itself. `unseal` is `undo` of a seal.
REFUSED: Mapping[str, tuple[Callable[[Line], CycleError | None], ...]] = {
    "next day": (_moved, _untagged, taken, _not_last, _no_branch, _behind),
    "open day": (_moved, _untagged, taken, _not_last),
    "seal": (_no_branch, _behind, _moved, _shallow, taken),
    "undo": (_moved, _lost, _not_last),
    "unseal": (_no_branch,),
    "check": (_no_branch,),
}
