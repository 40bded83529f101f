"""States of history that commands refuse.

After a rebase, in a clone without tags, or while files are edited, a command would open, seal or
undo the wrong day. Each function raises CycleError, with the next step, for one such state. REFUSED
lists the states that each command refuses.
"""

from collections.abc import Callable, Mapping
from functools import partial

from dayfold.errors import CycleError
from dayfold.history import day_files, hand_edits
from dayfold.history.state import ProjectState
from dayfold.project import journal, vcs
from dayfold.project import params as params_file
from dayfold.project.console import plural
from dayfold.project.files import is_free
from dayfold.project.layout import LOG_DAYS


def check(now: ProjectState, command: str) -> None:
    """Raise CycleError for the first state that REFUSED has for a command."""
    for state in REFUSED[command]:
        state(now)


def _under_way(now: ProjectState) -> None:
    vcs.check_nothing_under_way(now.project.root)


def _moved(now: ProjectState, last: int | None = None) -> None:
    """Raise if a tag of the day and its parent, or of the `last` days (0: all), was moved.

    A partial clone fetches the params of each day for this.
    """
    root, name = now.project.root, now.project.name(now.project.params)
    days = [now.params.parent, now.day] if last is None else now.sealed[-last:]
    for day, files in vcs.at_tags(root, sorted({*days} & {*now.sealed}), lambda _: [name]).items():
        tag = vcs.TAG + day
        if name not in files and vcs.git(root, "ls-tree", tag, "--", name):
            # This fetches the file in a partial clone, and fails if git's object is damaged.
            vcs.git(root, "cat-file", "blob", f"{tag}:{name}")
        found = params_file.day_of(files.get(name, b""))
        if found != day:
            path = now.project.name(now.project.manifest(day))
            commit = vcs.git(root, "log", "--max-count=1", "--format=%h", "--", path).strip()
            raise CycleError(
                f"The tag {tag} was moved: to a commit whose params.yaml says {found or 'no day'}.",
                hint=f'git tag --force --annotate --message "day {day}" {tag} {commit}; or, where '
                "another clone has it right: git fetch --tags --force",
            )


def _untagged(now: ProjectState) -> None:
    """Raise if a committed day has no tag on this branch, as after a rebase or a squash merge."""
    if not now.untagged:
        return
    problems = [
        f"{vcs.TAG}{day} is on a commit that is no longer on this branch"
        if day in now.tagged
        else f"{day} is committed, but has no tag {vcs.TAG}{day} here"
        for day in now.untagged
    ]
    hint = "dayfold seal"
    if vcs.is_shallow(now.project.root):
        hint = "git fetch --unshallow --tags (this is a shallow clone)"
    elif {*now.untagged} - {*now.tagged} and vcs.git(now.project.root, "remote").strip():
        hint = "git fetch --tags; if that brings none: dayfold seal"
    what = "A committed day is sealed by its tag, and the branch lacks tags:"
    raise CycleError(what, problems=problems, hint=hint)


def _lost(now: ProjectState) -> None:
    if now.lost_tags:
        _untagged(now)


def _shallow(now: ProjectState) -> None:
    """Raise as `_untagged` if a shallow clone may lack the history that has the tag."""
    if now.untagged and vcs.is_shallow(now.project.root):
        _untagged(now)


def check_not_taken(now: ProjectState, day: str = "") -> None:
    """Raise if a day that this branch does not have, by default today's, is sealed elsewhere."""
    day = day or now.day
    if day not in now.tagged or day in {*now.sealed, *now.untagged}:
        return
    root, tag = now.project.root, vcs.TAG + day
    branches = vcs.branches_of(root, tag)
    there = branches[0] if branches else f"-b NAME {tag}"
    is_on_any = branches or vcs.branches_of(root, tag, remote=True)
    free = f"; or, as no branch has it, give it up: git tag --delete {tag}" * (not is_on_any)
    other = "give another --day"
    if day == now.day:
        other = f"dayfold undo, then dayfold add data/undone/{day}/images/{day} --day ANOTHER"
    raise CycleError(
        f"{day} is sealed on another line of history, so its tag {tag} is taken.",
        hint=f"{other}; or go on with that line: git checkout {there} && dvc checkout{free}",
    )


def _not_last(now: ProjectState) -> None:
    last = now.sealed[-1] if now.sealed else now.day
    if now.is_open or last == now.day:
        return
    if last in now.committed:
        what = f"params.yaml says that the day is {now.day}; {last} is sealed after it."
        raise CycleError(what, hint=f"git checkout {vcs.TAG}{last} -- params.yaml")
    path = now.project.name(now.project.manifest(last))
    words = ("log", "--max-count=1", "--format=%h", "--diff-filter=D", "--", path)
    commit = vcs.git(now.project.root, *words).strip()
    raise CycleError(
        f"{last} is sealed, and the commit {commit} removed its files.",
        hint=f"to restore it: git revert --no-edit {commit} && dvc checkout; to go on without "
        f"it: git tag --delete {vcs.TAG}{last} && dvc checkout",
    )


def _no_branch(now: ProjectState) -> None:
    if vcs.branch(now.project.root):
        return
    branches = vcs.branches_of(now.project.root, "HEAD")
    way = f"git checkout {branches[0]} && dvc checkout" if branches else "git checkout BRANCH"
    raise CycleError(
        "No branch is checked out (a detached HEAD), so a day sealed here would be on none.",
        hint=f"{way}; or, to begin another history from here: git checkout -b NAME",
    )


def _behind(now: ProjectState) -> None:
    if behind := vcs.behind(now.project.root):
        raise CycleError(
            f"The upstream branch has {plural(behind, 'commit')} that this clone lacks: a day "
            "sealed here would begin a second history.",
            hint="git pull --tags && dvc pull; but if this clone has a day of its own, open or "
            "sealed: docs/operations.md, two clones that sealed",
        )


def _not_sealable(now: ProjectState) -> None:
    if not now.is_open:
        _no_branch(now)
        _behind(now)


def _incomplete(now: ProjectState) -> None:
    if not now.is_open or now.untagged:
        return
    if names := day_files.missing(now.project, now.day):
        what = f"{now.day} is open, and this is gone: {', '.join(names)}."
        raise CycleError(what, hint="dayfold check --fix; or, to close the day: dayfold undo")


def _killed(now: ProjectState) -> None:
    if note := journal.pending(now.project) if is_free(now.project.cycle_lock) else None:
        what = f"dayfold {note.command} did not end, and the next command repairs it"
        raise CycleError(what, hint="dayfold check --fix")


# In the order of the checks. `open` is for opening the next day, by `add` or `relabel`, and for
# `status`; `change` is for changing the open day; `unseal` is for undoing a seal. `seal` restores
# lost tags itself.
REFUSED: Mapping[str, tuple[Callable[[ProjectState], None], ...]] = {
    "open": (
        *(_under_way, _moved, _untagged, check_not_taken, _not_last, _not_sealable, _killed),
        *(_incomplete, hand_edits.check, hand_edits.check_last),
    ),
    "change": (hand_edits.check,),
    "seal": (_no_branch, _behind, _moved, _shallow, check_not_taken, _incomplete, hand_edits.check),
    "undo": (_moved, _lost, _not_last),
    "unseal": (_no_branch,),
    "check": (partial(_moved, last=0), _no_branch),
    "stage": (hand_edits.check_tables,),
    "log": (
        *(partial(_moved, last=LOG_DAYS), hand_edits.check_tables),
        partial(hand_edits.check_last, tables_alone=True),
    ),
}
