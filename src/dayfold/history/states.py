"""States of history that commands refuse.

After a rebase, in a clone without tags, or while files are edited, a command would open, seal or
undo the wrong day. Each function raises CycleError, with the next step, for one such state. REFUSED
lists the states that each command refuses.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from dayfold.errors import CycleError
from dayfold.history import day_files, hand_edits
from dayfold.history.line import Line
from dayfold.project import journal, vcs
from dayfold.project import params as params_file
from dayfold.project.files import is_free
from dayfold.project.layout import LOG_DAYS


def check(line: Line, command: str) -> None:
    """Raise CycleError for the first state that REFUSED has for a command."""
    for state in REFUSED[command]:
        state(line)


def _under_way(line: Line) -> None:
    vcs.check_nothing_under_way(line.project.root)


def _moved(line: Line) -> None:
    """Raise if the tag of the day or of its parent is on another day's commit."""
    _check_not_moved(line, [line.params.parent, line.day])


def _any_moved(line: Line, last: int = 0) -> None:
    """Raise if the tag of any of the `last` days (0: all) is on another day's commit.

    A partial clone fetches the params of each day for this.
    """
    _check_not_moved(line, line.sealed[-last:])


def _check_not_moved(line: Line, days: Sequence[str]) -> None:
    root, name = line.project.root, line.project.name(line.project.params)
    days = sorted({*days} & {*line.sealed})
    for day, files in vcs.at_tags(root, days, lambda _: [name]).items():
        tag = vcs.TAG + day
        if name not in files and vcs.git(root, "ls-tree", tag, "--", name):
            # This fetches the file in a partial clone, and fails if git's object is damaged.
            vcs.git(root, "cat-file", "blob", f"{tag}:{name}")
        found = params_file.day_of(files.get(name, b""))
        if found != day:
            path = line.project.name(line.project.manifest(day))
            commit = vcs.git(root, "log", "--max-count=1", "--format=%h", "--", path).strip()
            raise CycleError(
                f"The tag {tag} was moved: to a commit whose params.yaml says {found or 'no day'}.",
                hint=f'git tag --force --annotate --message "day {day}" {tag} {commit}; or, where '
                "another clone has it right: git fetch --tags --force",
            )


def _untagged(line: Line) -> None:
    """Raise if a committed day has no tag on this branch.

    A rebase, an amended commit or a squash merge makes a new commit and leaves the tag on the old
    one.
    """
    if not line.untagged:
        return
    problems = [
        f"{vcs.TAG}{day} is on a commit that is no longer on this branch"
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
    raise CycleError(what, problems=problems, hint=hint)


def _lost(line: Line) -> None:
    """Raise as `_untagged`, but not for the open day if a person has committed it."""
    if line.lost_tags:
        _untagged(line)


def _shallow(line: Line) -> None:
    """Raise as `_untagged` if a shallow clone may lack the history that has the tag."""
    if line.untagged and vcs.is_shallow(line.project.root):
        _untagged(line)


def check_free(line: Line, day: str) -> None:
    """Raise if a day that this branch does not have is sealed elsewhere."""
    if day not in line.tagged or day in {*line.sealed, *line.untagged}:
        return
    root, tag = line.project.root, vcs.TAG + day
    branches = vcs.branches_of(root, tag)
    there = branches[0] if branches else f"-b NAME {tag}"
    is_on_any = branches or vcs.branches_of(root, tag, remote=True)
    free = f"; or, as no branch has it, give it up: git tag --delete {tag}" * (not is_on_any)
    other = "give another --day"
    if day == line.day:
        other = f"dayfold undo, then dayfold add data/undone/{day}/images/{day} --day ANOTHER"
    raise CycleError(
        f"{day} is sealed on another line of history, so its tag {tag} is taken.",
        hint=f"{other}; or go on with that line: git checkout {there} && dvc checkout{free}",
    )


def _taken(line: Line) -> None:
    """Raise if the day of params.yaml is sealed on another branch."""
    check_free(line, line.day)


def _not_last(line: Line) -> None:
    """Raise if no day is open and params.yaml does not name the last sealed day."""
    last = line.sealed[-1] if line.sealed else line.day
    if line.is_open or last == line.day:
        return
    if last in line.committed:
        raise CycleError(
            f"params.yaml says that the day is {line.day}; {last} is sealed after it.",
            hint=f"git checkout {vcs.TAG}{last} -- params.yaml",
        )
    gone = ("--diff-filter=D", "--", line.project.name(line.project.manifest(last)))
    words = ("log", "--max-count=1", "--format=%h", *gone)
    commit = vcs.git(line.project.root, *words).strip()
    raise CycleError(
        f"{last} is sealed, and the commit {commit} removed its files.",
        hint=f"to restore it: git revert --no-edit {commit} && dvc checkout; to go on without "
        f"it: git tag --delete {vcs.TAG}{last} && dvc checkout",
    )


def _no_branch(line: Line) -> None:
    """Raise if no branch is checked out: a day sealed then would be on none."""
    if vcs.branch(line.project.root):
        return
    branches = vcs.branches_of(line.project.root, "HEAD")
    way = f"git checkout {branches[0]} && dvc checkout" if branches else "git checkout BRANCH"
    raise CycleError(
        "No branch is checked out (a detached HEAD), so a day sealed here would be on none.",
        hint=f"{way}; or, to begin another history from here: git checkout -b NAME",
    )


def _behind(line: Line) -> None:
    """Raise if the upstream branch has commits that this branch lacks."""
    if behind := vcs.behind(line.project.root):
        raise CycleError(
            f"The upstream branch has {behind} commits that this clone lacks: a day sealed here "
            "would begin a second history.",
            hint="git pull --tags && dvc pull, if this clone has no day of its own, open or not; "
            "otherwise docs/operations.md, two clones that sealed",
        )


def _not_sealable(line: Line) -> None:
    """Raise if no day is open and the next one could not be sealed."""
    if not line.is_open:
        _no_branch(line)
        _behind(line)


def _incomplete(line: Line) -> None:
    """Raise if files of the open day are missing, for example after `git clean` or `rm`."""
    if not line.is_open or line.untagged:
        return
    if names := day_files.gone(line.project, line.day):
        raise CycleError(
            f"{line.day} is open, and this is gone: {', '.join(names)}.",
            hint="dayfold check --fix; or, to close the day: dayfold undo",
        )


def _killed(line: Line) -> None:
    """Raise if a command was killed and its note says what to repair."""
    note = journal.pending(line.project) if is_free(line.project.cycle_lock) else None
    if note:
        raise CycleError(
            f"dayfold {note.command} did not end, and the next command repairs it",
            hint="dayfold check --fix",
        )


# In the order of the checks. `open` is for opening the next day, by `add` or `relabel`, and for
# `status`; `change` is for changing the open day; `unseal` is for undoing a seal. `seal` restores
# lost tags itself.
REFUSED: Mapping[str, tuple[Callable[[Line], None], ...]] = {
    "open": (
        *(_under_way, _moved, _untagged, _taken, _not_last, _not_sealable, _killed),
        *(_incomplete, hand_edits.check, hand_edits.check_last),
    ),
    "change": (hand_edits.check,),
    "seal": (_no_branch, _behind, _moved, _shallow, _taken, _incomplete, hand_edits.check),
    "undo": (_moved, _lost, _not_last),
    "unseal": (_no_branch,),
    "check": (_any_moved, _no_branch),
    "stage": (hand_edits.check_tables,),
    "log": (
        *(partial(_any_moved, last=LOG_DAYS), hand_edits.check_tables),
        partial(hand_edits.check_last, tables_alone=True),
    ),
}
