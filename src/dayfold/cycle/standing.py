"""Where a project stands, and what is next."""

import shlex
from dataclasses import dataclass

import yaml

from dayfold.cycle import hand_edits
from dayfold.cycle.hand_edits import DAY_PATHS
from dayfold.errors import CycleError, LedgerError, ParamsError, ToolError
from dayfold.figures import evidence, gate
from dayfold.ledger import corrections, manifest
from dayfold.ledger.intake import finding
from dayfold.ledger.manifest import History
from dayfold.project import journal, vcs
from dayfold.project import params as params_file
from dayfold.project.console import first_few, plural
from dayfold.project.files import escaped, is_free, md5_file
from dayfold.project.layout import ORIGIN, STAGES, UNOPENED, Project
from dayfold.project.params import Params


@dataclass(frozen=True)
class Standing:
    """Where a project stands: its params, and the days of its line of history.

    `sealed` are those whose tag HEAD contains, `untagged` those that are committed without it,
    `tagged` those with a tag anywhere.
    """

    params: Params
    sealed: list[str]
    untagged: list[str]
    tagged: list[str]

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


def standing(project: Project) -> Standing:
    """Read params.yaml, the tags and the last commit."""
    params, sealed = params_file.read(project.params), vcs.sealed_days(project.root)
    untagged = set(vcs.committed_days(project.root)) - set(sealed)
    # After a merge of two lines the other one's manifests are there too.
    line = list(manifest.line(project, params.day, params.parent)) if untagged else []
    on_line = [day for day in sorted(line) if day in untagged]
    return Standing(params, sealed, on_line, vcs.tagged_days(project.root))


def current_history(project: Project, now: Standing) -> History:
    """Return the history of the sealed days, as the open day's corrections leave it."""
    history = manifest.history(project, now.parent)
    lines = corrections.lines(project, now.day) if now.is_open else {}
    return corrections.applied(history, lines)


def check_tags(project: Project, now: Standing) -> None:
    """Raise CycleError, with the way on, where a day of this line has no tag on it.

    A rebase, an amended commit and a squash merge make a commit again, and leave its tag behind.
    """
    check_not_moved(project, now)
    if not now.untagged:
        return
    problems = [
        f"{vcs.TAG}{day} is on a commit that this branch has no longer"
        if day in now.tagged
        else f"{day} is committed, but has no tag {vcs.TAG}{day} here"
        for day in now.untagged
    ]
    hint = "dayfold seal"
    if vcs.is_shallow(project.root):
        hint = "git fetch --unshallow --tags (this is a shallow clone)"
    elif {*now.untagged} - {*now.tagged} and vcs.git(project.root, "remote").strip():
        hint = "git fetch --tags; if that brings none: dayfold seal"
    what = "A committed day is sealed by its tag, and the branch lacks tags:"
    raise CycleError(what, problems=problems, hint=hint)


def check_not_moved(project: Project, now: Standing) -> None:
    """Raise CycleError where the tag of the day or of its parent is on the commit of another."""
    name = project.name(project.params)
    days = {now.params.parent, now.day} & {*now.sealed}
    for day, files in vcs.at_tags(project.root, sorted(days), lambda _: [name]).items():
        tag = vcs.TAG + day
        if name not in files and vcs.git(project.root, "ls-tree", tag, "--", name):
            # A partial clone asks its server for it; or git's object is damaged.
            vcs.git(project.root, "cat-file", "blob", f"{tag}:{name}")
        found = params_file.day_of(files.get(name, b""))
        if found != day:
            manifest_name = project.name(project.manifest(day))
            words = ("log", "--max-count=1", "--format=%h", "--", manifest_name)
            commit = vcs.git(project.root, *words).strip()
            raise CycleError(
                f"The tag {tag} was moved: to a commit whose params.yaml says {found or 'no day'}.",
                hint=f'git tag --force --annotate --message "day {day}" {tag} {commit}; or, where '
                "another clone has it right: git fetch --tags --force",
            )


def check_tag_is_free(project: Project, now: Standing, day: str) -> None:
    """Raise CycleError where a day that this line does not have is sealed on another one."""
    if day not in now.tagged or day in {*now.sealed, *now.untagged}:
        return
    tag = vcs.TAG + day
    branches = vcs.branches_of(project.root, tag)
    there = branches[0] if branches else f"-b NAME {tag}"
    is_on_any = branches or vcs.branches_of(project.root, tag, remote=True)
    free = f"; or, as no branch has it, give it up: git tag --delete {tag}" * (not is_on_any)
    other = "give another --day"
    if day == now.day:
        other = f"dayfold undo, then dayfold add data/undone/{day}/images/{day} --day ANOTHER"
    raise CycleError(
        f"{day} is sealed on another line of history, so its tag {tag} is taken.",
        hint=f"{other}; or go on with that line: git checkout {there} && dvc checkout{free}",
    )


def check_branch(project: Project) -> None:
    """Raise CycleError where no branch is checked out: what is sealed then is on none."""
    if not vcs.branch(project.root):
        branches = vcs.branches_of(project.root, "HEAD")
        way = f"git checkout {branches[0]} && dvc checkout" if branches else "git checkout BRANCH"
        raise CycleError(
            "No branch is checked out (a detached HEAD), so a day sealed here would be on none.",
            hint=f"{way}; or, to begin another history from here: git checkout -b NAME",
        )


def check_history(project: Project) -> None:
    """Raise CycleError where a seal would be on no branch, or begin a second history."""
    check_branch(project)
    behind = vcs.behind(project.root)
    if behind:
        raise CycleError(
            f"The upstream branch has {behind} commits that this clone has not: a day sealed here "
            "would begin a second history.",
            hint="git pull --tags && dvc pull, if this clone has no day of its own, open or not; "
            "otherwise docs/operations.md, two clones that sealed",
        )


def check_is_last(project: Project, now: Standing) -> None:
    """Raise CycleError, with the way on, where the day is not the last of those that are sealed."""
    last = now.sealed[-1] if now.sealed else now.day
    if now.is_open or last == now.day:
        return
    if last in vcs.committed_days(project.root):
        raise CycleError(
            f"params.yaml says that the day is {now.day}; {last} is sealed after it.",
            hint=f"git checkout {vcs.TAG}{last} -- params.yaml",
        )
    gone = ("--diff-filter=D", "--", project.name(project.manifest(last)))
    commit = vcs.git(project.root, "log", "--max-count=1", "--format=%h", *gone).strip()
    raise CycleError(
        f"{last} is sealed, and the commit {commit} took its files out again.",
        hint=f"to have it back: git revert --no-edit {commit} && dvc checkout; to go on without "
        f"it: git tag --delete {vcs.TAG}{last} && dvc checkout",
    )


def check_is_as_sealed(project: Project, now: Standing, *, tables_alone: bool = False) -> None:
    """Raise CycleError unless a sealed day's files are here and those of its tag, to the byte.

    A `dvc repro` with other params makes the day again in place. With `tables_alone` git is asked.
    """
    if not now.is_sealed:
        return
    # Without what was added: that is of another day.
    tag = vcs.TAG + now.day
    changed = vcs.changed(project.root, "--diff-filter=a", tag, "--", *DAY_PATHS)
    gone: list[str] = []
    if not tables_alone:
        made = vcs.outputs(project.dvc_lock.read_bytes())
        paths = {project.name(path): path for path in (project.model, project.predictions)}
        gone = [name for name, path in paths.items() if not path.exists()]
        changed += [name for name in paths.keys() - gone if md5_file(paths[name]) != made[name]]
    if gone and not changed:
        raise CycleError(
            f"{now.day} is sealed, but not here yet: {', '.join(gone)}.",
            hint="dvc checkout || dvc pull",
        )
    if changed:
        raise CycleError(
            f"{now.day} is not as it was sealed: {', '.join(sorted(set(changed)))}.",
            hint="dayfold undo, to have back what was sealed; to keep the new one: "
            "dayfold undo --seal && dayfold seal",
        )


def stale(project: Project, day: str) -> list[str]:
    """What of the open day DVC finds changed; the images of other days are not looked at."""
    check_no_pipe(project, day)
    _check_nothing_frozen(project)
    tracked = (project.tracked(day), project.parent.with_suffix(".dvc"))
    changed = vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))
    if not changed:
        _check_none_ignored(project, day)
    return changed


def _check_none_ignored(project: Project, day: str) -> None:
    """Raise CycleError where DVC leaves images of the open day out, as .dvcignore tells it to.

    They would be in no cache and in no clone.
    """
    pin, here = project.tracked(day), sum(finding.count(project, day).values())
    pinned = vcs.entries(pin.read_bytes(), project.name(pin)) if pin.exists() else {}
    kept = pinned.get(day, {}).get("nfiles", here)
    if kept < here:
        folder = project.name(project.images(day))
        raise CycleError(
            f"DVC keeps {kept} of the {here} files in {folder}: .dvcignore leaves the others out.",
            hint=f"find {folder} -type f | dvc check-ignore --details --stdin shows the lines; "
            "take them out, then dvc repro",
        )


def _check_nothing_frozen(project: Project) -> None:
    """Raise CycleError where dvc.yaml freezes a stage: DVC takes it for up to date, come what may.

    A day would be sealed whose model was made from other images or settings than it says.
    """
    try:
        stages = yaml.load(project.dvc_yaml.read_bytes(), Loader=yaml.CSafeLoader)["stages"]
        frozen = [name for name in STAGES if stages[name].get("frozen")]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError):
        return  # DVC tells what is wrong with it
    if frozen:
        raise CycleError(
            f"dvc.yaml says frozen: true of {', '.join(frozen)}, so DVC does not make that again.",
            hint="take the line out of dvc.yaml, then dvc repro",
        )


def check_no_pipe(project: Project, day: str) -> None:
    """Raise CycleError where a pipe or socket lies among a day's images.

    DVC waits for ever at a pipe, and fails at a socket. `add` takes neither: a person's copy of a
    folder brings them along.
    """
    folder = project.images(day)
    paths = (path for path in folder.rglob("*") if path.is_fifo() or path.is_socket())
    if pipes := sorted(map(project.name, paths)):
        raise CycleError(
            f"{project.name(folder)} holds what DVC cannot read:",
            problems=first_few([f"{escaped(name)} is a pipe or a socket" for name in pipes]),
            hint=f"rm -- {shlex.join(pipes)}",
        )


def check_settled(project: Project, now: Standing) -> None:
    """Raise CycleError, with the way on, where a person or a repair is needed first.

    In git, and where a sealed day is not as it was sealed.
    """
    vcs.check_nothing_under_way(project.root)
    check_tags(project, now)
    check_tag_is_free(project, now, now.day)
    check_is_last(project, now)
    if not now.is_open:
        check_history(project)
    note = journal.pending(project) if is_free(project.cycle_lock) else None
    if note:
        raise CycleError(
            f"dayfold {note.command} did not end, and the next command repairs it",
            hint="dayfold check --fix",
        )
    hand_edits.check(project, now.params, now.sealed)
    check_is_as_sealed(project, now)


def _unseen(project: Project, now: Standing) -> list[str]:
    classes = now.params.origin.classes
    unseen = evidence.unseen(manifest.history(project, now.parent), classes) if classes else ()
    return [f"known   {evidence.no_image(unseen)}"] * bool(unseen)


def advice(project: Project) -> list[str]:
    """Say where the project stands and what to run next, a line each."""
    try:
        now = standing(project)
    except (ParamsError, LedgerError):
        vcs.check_nothing_under_way(project.root, conflicts_only=True)  # their text is no file's
        raise
    lost = finding.strays(project, now.params)
    begin = next((stray.command for stray in lost if stray.command), "dayfold add FOLDER")
    known = _unseen(project, now)
    if now.is_unopened and not now.sealed:
        return ["no day yet", *known, *map(str, lost), f"next    {begin}"]
    is_untagged = now.day in now.untagged
    state = "sealed" if now.is_sealed else "committed" if is_untagged else "open"
    lines = [
        f"day     {now.day}, {state}; parent {now.params.parent}",
        f"sealed  {plural(len(now.sealed), 'day')}",
        *known,
        *(f"stray   {stray}" + f": {stray.command}" * bool(stray.command) for stray in lost),
    ]
    try:
        check_settled(project, now)
    except CycleError as error:
        problems = [f"  - {one}" for one in error.problems]
        return [*lines, error.what, *problems, f"next    {error.hint}"]
    if now.is_sealed:
        return [*lines, f"next    {begin}"]
    labels = finding.count(project, now.day)
    history = manifest.history(project, now.params.parent)
    new = sorted(set(labels) - set(history.images["label"].unique()))
    said = f"{sum(labels.values())} in {plural(len(labels), 'class')}"
    lines.append(f"images  {said}" + f"; new: {', '.join(new)}" * bool(new))
    if not labels and not corrections.lines(project, now.day):
        return [*lines, "next    dayfold add FOLDER, or dayfold undo to close the day"]
    try:
        changed = stale(project, now.day)
    except ToolError:
        if busy := journal.at_work(project):
            return [*lines, f"busy    {', '.join(busy)}", "next    wait for it, or stop it"]
        raise
    if changed:
        return [*lines, f"stale   {', '.join(changed)}", "next    dvc repro"]
    checks = gate.read(project, now.day)
    reasons = [f"  - {reason}" for reason in gate.reasons(checks)]
    lines += [f"gate    {gate.verdict(checks)}", *reasons]
    return [*lines, f"next    {gate.next_step(checks)}"]
