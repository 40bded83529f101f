"""Taking back the last thing done: an experiment on a sealed day, its seal, or an open day."""

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from dayfold.cycle import opening
from dayfold.cycle import standing as stands
from dayfold.cycle.hand_edits import DAY_PATHS, TRACKED_IMAGES
from dayfold.cycle.standing import Standing
from dayfold.errors import CycleError, ToolError
from dayfold.ledger import manifest
from dayfold.project import journal, vcs
from dayfold.project import params as params_file
from dayfold.project.layout import ORIGIN, UNOPENED, Project

STEP = "undo"  # its name in the journal
# What DVC lays out of a sealed day: the outputs of these stages, and the parent.
_MADE = ("weights", "replay", "train", "evaluate")


class Undo(NamedTuple):
    """What `undo` would take back: said in a line or more, and done by `carry_out`."""

    lines: list[str]
    carry_out: Callable[[], str]


def plan(project: Project, *, seal: bool = False) -> Undo:
    """Find the last thing done. With `seal` it is the seal, and all files stay as they are."""
    now = stands.standing(project)
    if now.lost_tags:
        stands.check_tags(project, now)
    if now.is_unopened:
        raise CycleError("No day was opened yet.", hint="dayfold add FOLDER")
    if not now.is_sealed:
        if seal:
            raise CycleError(f"{now.day} is open, so it has no seal.", hint="dayfold status")
        return _of_open_day(project, now)
    try:
        if not seal:
            stands.check_is_as_sealed(project, now.day)
    except CycleError:
        return _of_experiment(project, now)
    return _of_seal(project, now)


def _of_experiment(project: Project, now: Standing) -> Undo:
    def carry_out() -> str:
        _bring_back(project, vcs.TAG + now.day)
        _lay_out(project)
        return f"{now.day} is as it was sealed"

    line = f"{now.day} was made again since it was sealed: its files come back as they were sealed"
    return Undo([line, "params.yaml keeps what you changed"], carry_out)


def _of_seal(project: Project, now: Standing) -> Undo:
    root, tag = project.root, vcs.TAG + now.day
    stands.check_branch(project)
    commit = vcs.git(root, "rev-parse", f"{tag}^{{commit}}").strip()
    others = set(vcs.branches_of(root, commit)) - {vcs.branch(root)}
    if others:
        raise CycleError(
            f"The seal of {now.day} is on other branches too: {', '.join(sorted(others))}.",
            hint="go on with a new day, or delete those branches",
        )
    if vcs.branches_of(root, commit, remote=True):
        raise CycleError(
            f"The seal of {now.day} was pushed; others may build on it.",
            hint="go on with a new day",
        )
    own = [*DAY_PATHS, TRACKED_IMAGES, "data/parent.dvc"]
    changed = vcs.split(vcs.git(root, "diff", "--name-only", "-z", commit, "HEAD", "--", *own))
    if changed:
        raise CycleError(
            f"Later commits changed what the seal of {now.day} has: {', '.join(changed[:5])}.",
            hint="go on with a new day",
        )

    # A commit with other words is a person's: the day was committed by hand, or amended.
    words = vcs.git(root, "log", "--max-count=1", "--format=%B", commit)
    is_own = words.strip() == vcs.seals(root)[now.day].strip()

    def carry_out() -> str:
        if is_own:
            _drop_commit(project, commit, tag)
        else:
            vcs.git(root, "tag", "--delete", tag)
        opening.put_in_index(project, now.day)
        return f"{now.day} is open again. Change it, then dvc repro and dayfold seal"

    goes = "its tag and its commit go" if is_own else "its tag goes, its commit is not dayfold's"
    return Undo([f"{now.day} is sealed: {goes}; all files stay as they are"], carry_out)


def _drop_commit(project: Project, commit: str, tag: str) -> None:
    """Take a commit's changes out of the branch, and the tag away, at once; no file is touched.

    The last commit goes. Behind others, which stay, a new one takes its changes back: but what
    they changed again, params.yaml for one, is left to them.
    """
    root = project.root
    head = vcs.git(root, "rev-parse", "HEAD").strip()
    raw = vcs.split(vcs.git(root, "diff-tree", "-r", "-z", "--no-commit-id", f"{commit}^", commit))
    entries = list(zip(raw[::2], raw[1::2], strict=True))
    new = vcs.git(root, "rev-parse", f"{commit}^").strip()
    if head != commit:
        later = {*vcs.split(vcs.git(root, "diff", "--name-only", "-z", commit, head))}
        index = {"GIT_INDEX_FILE": str(project.scratch / "undo-index")}
        before = [
            f"{meta.split()[0].removeprefix(':')} {meta.split()[2]}\t{name}\0"
            for meta, name in entries
            if name not in later
        ]
        vcs.git(root, "read-tree", head, more=index)
        vcs.git(root, "update-index", "-z", "--index-info", more=index, given="".join(before))
        tree = vcs.git(root, "write-tree", more=index).strip()
        text = f"Take back the seal of {tag.removeprefix(vcs.TAG)}"
        new = vcs.git(root, "commit-tree", tree, "-p", head, "-m", text).strip()
        Path(index["GIT_INDEX_FILE"]).unlink()
    # One transaction: a kill leaves both as they were, or neither.
    moves = f"update HEAD {new} {head}\ndelete refs/tags/{tag}\n"
    vcs.git(root, "update-ref", "-m", f"dayfold undo: {tag}", "--stdin", given=moves)
    vcs.git(root, "reset", "--quiet", "--", *(name for _, name in entries))


def _of_open_day(project: Project, now: Standing) -> Undo:
    # An earlier undo may have filled one.
    names = chain([now.day], (f"{now.day}-{number}" for number in count(2)))
    folder = next(path for path in map(project.undone, names) if not path.exists())
    images = sum(path.is_file() for path in project.images(now.day).rglob("*"))
    parent = now.params.parent

    def carry_out() -> str:
        facts = {"day": now.day, "parent": parent, "folder": project.name(folder)}
        with journal.step(project, STEP, **facts):
            return finish(project, facts)

    return Undo(
        [
            f"{now.day} is open: its {images} images and its corrections move to "
            f"{project.name(folder)}/, and all else is as before",
            "params.yaml keeps what you changed",
        ],
        carry_out,
    )


def finish(project: Project, facts: Mapping[str, Any]) -> str:
    """Close an open day, from wherever a kill has interrupted it; say what was done."""
    day, parent, folder = facts["day"], facts["parent"], project.root / facts["folder"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / ".gitignore").write_text("*\n", encoding="utf-8")
    moved = (project.images(day), project.corrections(day), project.groups(day))
    for path in (*moved, project.rejected(day)):
        if path.exists():
            _move(path, folder / path.parent.name / path.name)
    own = (project.manifest(day), project.looks(day), project.evaluation(day), project.gate(day))
    for path in (project.tracked(day), project.unknown(day), *own):
        path.unlink(missing_ok=True)
    pinned = (TRACKED_IMAGES, f"{project.name(project.parent)}.dvc", "data/images/.gitignore")
    if parent == ORIGIN:
        made = [project.model, project.predictions, project.weights, project.replay]
        made += [project.shares, project.provenance, project.dvc_lock]
        made += [project.figures, project.class_figures]
        for path in (*made, *project.plot("any").parent.glob("*.csv")):
            path.unlink(missing_ok=True)
        _bring_back(project, "HEAD", *pinned)
        before: dict[str, object] = {"day": UNOPENED, "parent": ORIGIN}
    else:
        for path in project.images(day).parent.glob("*.dvc"):
            path.unlink()
        _bring_back(project, vcs.TAG + parent, *pinned)
        name = project.manifest(parent)
        before = {"day": parent, "parent": manifest.parent_of(name.read_bytes(), name.name)[0]}
    vcs.git_says(project.root, "reset", "--quiet", "--", "data", "dvc.lock", "metrics.json")
    params_file.edit(project.params, before)
    if parent != ORIGIN:
        with suppress(ToolError):  # what cannot be laid out here, `status` tells
            _lay_out(project)
    return f"{day} is closed; its images are in {facts['folder']}/images/"


def _move(source: Path, target: Path) -> None:
    """Move a file or a folder; into a folder that is there already, file by file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and target.is_dir():
        for path in source.iterdir():
            _move(path, target / path.name)
        source.rmdir()
    else:
        shutil.move(source, target)


def _bring_back(project: Project, commit: str, *more: str) -> None:
    """Write the files of a day as a commit has them, the index too."""
    words = ("ls-tree", "-r", "-z", "--name-only", commit)
    names = vcs.split(vcs.git(project.root, *words, "--", *DAY_PATHS))
    found = vcs.split(vcs.git(project.root, *words))
    for pattern in more:
        name = pattern.removeprefix(":(glob)")
        names += [one for one in found if Path(one).match(name)]
    given = "".join(f"{name}\0" for name in names)
    paths = ("--pathspec-from-file=-", "--pathspec-file-nul")
    vcs.git(project.root, "checkout", "--quiet", commit, *paths, given=given)


def _lay_out(project: Project) -> None:
    """Have DVC lay out what the sealed day's stages made, and its parent."""
    parent = f"{project.name(project.parent)}.dvc"
    vcs.dvc(project.root, "checkout", "--quiet", "--force", *_MADE, parent)
