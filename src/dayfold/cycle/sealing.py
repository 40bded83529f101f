"""Sealing a day, and undo."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from dayfold.create import require_identity
from dayfold.cycle import opening
from dayfold.errors import CycleError, GateError, ToolError
from dayfold.figures import gate
from dayfold.figures.evidence import FEW, is_judged
from dayfold.figures.intervals import figure
from dayfold.history import hand_edits, refusals
from dayfold.history.day_files import put_in_index
from dayfold.history.state import ProjectState
from dayfold.project import journal, storage, vcs
from dayfold.project import params as params_file
from dayfold.project.console import plural
from dayfold.project.layout import DAY_PATHS, TRACKED_IMAGES, Project

# `seal` commits these paths and no others.
OWN_PATHS = (
    *DAY_PATHS,
    ".gitattributes",
    ".gitignore",
    "dvc.yaml",
    "params.yaml",
    "data/parent.dvc",
    "data/classes",
    "data/rejected",
    "data/.gitignore",
    "data/images/.gitignore",
)
# Add the files even if the user's own ignore file names them.
_NOT_IGNORED = ("-c", f"core.excludesFile={os.devnull}")


def seal(project: Project, message: str = "", *, force: bool = False) -> list[str]:
    """Commit the project's paths and tag the open day; return the lines to print.

    Committed days without a tag are tagged first (`_tag_again`). `force` seals a day that fails the
    gate; `message` then gives the reason, which the tag keeps.
    """
    now = ProjectState.read(project)
    if now.is_unopened:
        raise CycleError("No day is open.", hint="dayfold add FOLDER")
    if now.is_sealed and not now.untagged:
        raise CycleError(f"{now.day} is sealed already.", hint="dayfold add FOLDER --day NEXT")
    if force and not message.strip():
        raise CycleError("--force needs a message.", hint='dayfold seal --force -m "why"')
    require_identity(project.root)
    refusals.check(now, "seal")
    days = _tag_again(now)
    if not now.is_sealed and now.day not in days:
        if changed := opening.stale(project, now.day):
            what = f"{now.day} is not up to date: {', '.join(changed)}."
            raise CycleError(what, hint="dvc repro, then seal")
        if not force:
            check_gate(project, now.day)
        _commit(now, message.strip())
        days = [*days, now.day]
        from dayfold.figures.report import page  # slow to import, and only a seal needs it

        try:
            page.write_index(project)
        except OSError as error:  # the day is sealed, so the command succeeds
            print(f"warning: {error.filename}: {error.strerror}", file=sys.stderr)
    verdicts = {day: gate.verdict(gate.read(project, day)) for day in days}
    said = [f"sealed as {vcs.TAG}{day}; gate: {verdict}" for day, verdict in verdicts.items()]
    return [*said, *next_steps(project)]


def _commit(now: ProjectState, message: str) -> None:
    project, root = now.project, now.project.root
    text = _subject(project, now.day) + f"\n\n{message}" * bool(message)
    if reasons := gate.reasons(gate.read(project, now.day)):
        text += "\n\n" + "\n".join(f"- {reason}" for reason in reasons) + f"\n\n{gate.FORCED}"
    paths = [*(name for name in OWN_PATHS if (root / name).exists()), TRACKED_IMAGES]
    # By default git drops lines that begin with #.
    words = ("--cleanup=verbatim", "--message", text)
    with journal.step(project, "seal"):
        _unhide_changes(project, paths)
        # There is nothing to commit if an earlier `seal` was stopped before the tag, or a person
        # committed.
        status = ("status", "--porcelain", "--untracked-files=all", "--", *paths)
        if vcs.git(root, *_NOT_IGNORED, *status):
            vcs.git(root, *_NOT_IGNORED, "add", "--", *paths)
            staged = vcs.git(root, "write-tree").strip()
            # Only these paths, whatever else is staged; git refuses to commit an empty folder.
            known = vcs.split(vcs.git(root, "ls-files", "-z", "--with-tree=HEAD", "--", *paths))
            folders = {str(folder) for name in known for folder in PurePosixPath(name).parents}
            paths = [path for path in paths if path in {*known, *folders, TRACKED_IMAGES}]
            try:
                vcs.git(root, "commit", "--quiet", "--only", *words, "--", *paths)
            except ToolError:
                # A hook such as pre-commit may change files and then refuse the commit.
                _restore_changed(project, now.day, staged, vcs.changed(root, staged, "--", *paths))
                raise
            if different := vcs.changed(root, staged, "HEAD", "--", *paths):
                vcs.git(root, "reset", "--quiet", "--soft", "HEAD^")
                _restore_changed(project, now.day, staged, different)
        commit = _commit_of(now, now.day)
        vcs.git(root, "tag", "--annotate", *words, vcs.TAG + now.day, commit)


def _unhide_changes(project: Project, paths: Sequence[str]) -> None:
    # A person may have used `git update-index --assume-unchanged` or `--skip-worktree`, for example
    # against conflicts in params.yaml. The commit would then lack the day's changes.
    said = vcs.split(vcs.git(project.root, "ls-files", "-v", "-z", "--", *paths))
    unseen = [one[2:] for one in said if one[0] == "S" or one[0].islower()]
    names = "".join(f"{name}\0" for name in unseen if (project.root / name).exists())
    for flag in ("--no-assume-unchanged", "--no-skip-worktree") if names else ():
        vcs.git(project.root, "update-index", flag, "-z", "--stdin", given=names)


def _restore_changed(project: Project, day: str, staged: str, different: list[str]) -> None:
    if not different:
        return
    back = ("restore", f"--source={staged}", "--staged", "--worktree")
    vcs.git(project.root, *back, "--", *different)
    raise CycleError(
        f"A git hook changed files of {day} during the commit. They were restored, and the day "
        f"is not sealed: {', '.join(different[:5])}.",
        hint="have the hook leave data/, dvc.lock and metrics.json as they are, then dayfold seal",
    )


def check_gate(project: Project, day: str, what: str = "does not pass the gate:") -> None:
    """Raise GateError if the open day fails the gate."""
    checks = gate.read(project, day)
    if reasons := gate.reasons(checks):
        raise GateError(f"{day} {what}", problems=reasons, hint=gate.next_step(checks))


def _subject(project: Project, day: str) -> str:
    figures = json.loads(project.figures.read_bytes())
    said = [plural(figures["images"]["today"], "image")]
    for name, key in (("ACC", "average_accuracy"), ("forgetting", "forgetting")):
        few = f" ({FEW})" * (not is_judged(figures, key))
        said += [f"{name} {figure(figures[key])}{few}"] * (figures[key] is not None)
    return f"day {day}: {', '.join(said)}"


def _tag_again(now: ProjectState) -> list[str]:
    """Tag the days of this branch that have lost their tag; return them.

    A rebase, an amended commit or a squash merge leaves a tag behind. The tag moves, with its
    message, to the commit that has the day now, if the day's files are as they were sealed.
    """
    root = now.project.root
    for day in now.lost_tags:
        tag, commit = vcs.TAG + day, _commit_of(now, day)
        is_own = params_file.day_of(vcs.blob(root, f"{commit}:params.yaml")) == day
        different = ["its params.yaml names another day"] * (not is_own)
        if day in now.tagged:
            different += vcs.changed(root, tag, commit, "--", *DAY_PATHS)
        ours = f"to keep the tag, and the files of this branch: git merge --strategy=ours {tag}"
        fetch = f"git fetch --tags from another clone; or: git tag --annotate {tag} COMMIT"
        if different:
            raise CycleError(
                f"This branch has other files of {day} than {tag} has "
                f"({', '.join(different[:5])}).",
                hint=ours if day in now.tagged else fetch,
            )
        # A missing tag has no contents.
        text = vcs.git(root, "for-each-ref", "--format=%(contents)", f"refs/tags/{tag}")
        text = text or vcs.git(root, "log", "--max-count=1", "--format=%B", commit)
        how = ("--force", "--annotate", "--cleanup=verbatim", "--file=-")
        vcs.git(root, "tag", *how, tag, commit, given=text.rstrip("\n") + "\n")
    return now.lost_tags


def _commit_of(now: ProjectState, day: str) -> str:
    project = now.project
    own = (project.manifest(day), project.evaluation(day), project.gate(day))
    paths = DAY_PATHS if day == now.day else tuple(map(project.name, own))
    return vcs.git(project.root, "log", "--max-count=1", "--format=%H", "--", *paths).strip()


def next_steps(project: Project) -> Iterator[str]:
    """Yield the lines after a seal: what to push, or how to set up a remote."""
    root, sealed = project.root, vcs.sealed_days(project.root)
    if storage.default_remote(root):
        late = storage.remote_is_newer(root, sealed)
        which = ("--merged=HEAD", "--no-merged=@{upstream}")
        unpushed = vcs.tagged_days(root, *which) if vcs.has_upstream(root) else []
        # `dvc push` pushes the last day only.
        push = storage.push_command(root, all_tags=late or len(unpushed) > 1)
        yield "next: " + "dayfold check --fix; " * late + push
    elif not storage.remote_urls(root) and len(sealed) == 1:
        yield "There is no DVC remote, so this machine has the only copy of the images."
        yield (
            "To share or back up: dvc remote add --default NAME URL && "
            'git commit -m "Add a remote" .dvc/config; dayfold check --fix; dvc push --all-tags'
        )


def undo(project: Project, *, seal: bool = False, yes: bool = False) -> str:
    """Undo the last step: an experiment on a sealed day, a seal, or the opening of a day.

    With `seal` only a seal is undone. Asks unless `yes` is set. Returns what was done.
    """
    now = ProjectState.read(project)
    refusals.check(now, "undo")
    if now.is_unopened:
        raise CycleError("No day was opened yet.", hint="dayfold add FOLDER")
    if not now.is_sealed:
        if seal:
            raise CycleError(f"{now.day} is open, so it has no seal.", hint="dayfold status")
        return opening.close(now, yes=yes)
    try:
        if not seal:
            hand_edits.check_last(now)
    except CycleError:
        again = "is not as it was sealed: its sealed files are restored"
        opening.confirm_undo(f"{now.day} {again}\n{opening.KEPT}", yes=yes)
        opening.restore_files(project, vcs.TAG + now.day)
        hint = ""
        with suppress(ToolError):  # as in a clone that has pulled nothing yet
            opening.checkout(project)
            hint = "dayfold check --read-data; DVC's cache may be damaged"
        try:
            hand_edits.check_last(now)
        except CycleError as error:
            raise CycleError(error.what, hint=hint or error.hint) from None
        return f"{now.day} is as it was sealed"
    return _unseal(now, yes=yes)


def _unseal(now: ProjectState, *, yes: bool) -> str:
    project, root, day, tag = now.project, now.project.root, now.day, vcs.TAG + now.day
    refusals.check(now, "unseal")
    commit = vcs.git(root, "rev-parse", f"{tag}^{{commit}}").strip()
    local, pushed = (vcs.branches_of(root, commit, remote=remote) for remote in (False, True))
    if others := {*local, *pushed} - {vcs.branch(root)}:
        way = "go on with a new day, or delete those branches"
        if pushed:
            way = "others may have it: correct it on the next day (dayfold relabel, withdraw)"
        there = ", ".join(sorted(others))
        raise CycleError(f"The seal of {day} is on other branches too: {there}.", hint=way)
    own = [*DAY_PATHS, TRACKED_IMAGES, "data/parent.dvc"]
    if changed := vcs.changed(root, commit, "HEAD", "--", *own):
        what = f"Later commits changed what the seal of {day} has: {', '.join(changed[:5])}."
        raise CycleError(what, hint="go on with a new day")
    # If the commit's message does not contain the tag's, a person made or amended the commit. Hooks
    # may add to a message: the number of a ticket, a Change-Id.
    words = vcs.git(root, "log", "--max-count=1", "--format=%B", commit)
    is_own = vcs.seals(root)[day].strip() in words
    goes = "its tag and commit are removed" if is_own else "its tag is removed, its commit stays"
    opening.confirm_undo(f"{day} is sealed: {goes}; all files stay as they are", yes=yes)
    if is_own:
        _drop(project, commit, day)
    else:
        vcs.git(root, "tag", "--delete", tag)
    put_in_index(project, day)
    return f"{day} is open again. Change it, then dvc repro and dayfold seal"


def _drop(project: Project, commit: str, day: str) -> None:
    """Remove a seal's commit from the branch, and its tag, in one step; no file is changed.

    If it is the last commit, the branch moves back. If later commits follow, a new commit reverts
    its changes, except in files that the later ones changed too, such as params.yaml.
    """
    root = project.root
    before, head = vcs.git(root, "rev-parse", f"{commit}^", "HEAD").split()
    names, new = vcs.changed(root, before, commit), before
    if head != commit:
        later = {*vcs.changed(root, commit, head)}
        index = {"GIT_INDEX_FILE": str(project.scratch / "undo-index")}
        vcs.git(root, "read-tree", head, more=index)
        kept = sorted({*names} - later)
        vcs.git(root, "restore", "--staged", f"--source={before}", "--", *kept, more=index)
        tree = vcs.git(root, "write-tree", more=index).strip()
        text = f"Undo the seal of {day}"
        new = vcs.git(root, "commit-tree", tree, "-p", head, "-m", text).strip()
        (project.scratch / "undo-index").unlink()
    # In one transaction: a kill never leaves only one of them done.
    moves = f"update HEAD {new} {head}\ndelete refs/tags/{vcs.TAG}{day}\n"
    vcs.git(root, "update-ref", "-m", f"dayfold undo: {day}", "--stdin", given=moves)
    vcs.git(root, "reset", "--quiet", "--", *names)
