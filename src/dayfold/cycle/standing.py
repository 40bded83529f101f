"""Where a project stands: the open day, what is sealed and as it was sealed, what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass

from dayfold.cycle import settled
from dayfold.cycle.settled import DAY_PATHS
from dayfold.errors import CycleError
from dayfold.figures import gate
from dayfold.ledger import manifest, strays
from dayfold.ledger.intake import walking
from dayfold.ledger.strays import Stray
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.files import md5_file
from dayfold.project.layout import ORIGIN, UNOPENED, Project
from dayfold.project.params import Params


@dataclass(frozen=True)
class Standing:
    """Where a project stands: its params, whether a day is open, and the days sealed so far."""

    params: Params
    sealed: list[str]

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
    def next_parent(self) -> str:
        """The parent of the next day that is opened."""
        return ORIGIN if self.is_unopened else self.day


def standing(project: Project) -> Standing:
    """Read params.yaml and the tags."""
    return Standing(params_file.read(project.params), vcs.sealed_days(project.root))


def check_history(project: Project) -> None:
    """Raise CycleError where what is sealed now would be on no branch, or beside another history.

    Of the upstream branch it knows what the last `git fetch` told; no network is asked.
    """
    root = project.root
    if not vcs.branch(root):
        sealed = vcs.sealed_days(root)
        branches = vcs.branches_of(root, vcs.TAG + sealed[-1]) if sealed else []
        way = f"git checkout {branches[0]} && dvc checkout" if branches else "git checkout BRANCH"
        raise CycleError(
            "No branch is checked out (a detached HEAD), so a day sealed here would be on none.",
            mend=f"{way}; or, to begin another history from here: git checkout -b NAME",
        )
    behind = vcs.behind(root)
    if behind:
        raise CycleError(
            f"The upstream branch has {behind} commits that this clone has not: a day sealed here "
            "would begin a second history.",
            mend="git pull --tags && dvc pull, if no day is open here; otherwise "
            "docs/operations.md, two clones that sealed",
        )


def is_committed(project: Project, day: str) -> bool:
    """Whether the last commit has the day already: sealed elsewhere, or a seal was stopped."""
    name = f"HEAD:{project.name(project.manifest(day))}"
    return name in vcs.blobs(project.root, [name])


def check_is_as_sealed(project: Project, day: str, *, tables_alone: bool = False) -> None:
    """Raise CycleError unless the sealed day's files are those of its tag, to the byte.

    An experiment, or a `dvc repro` with other params, makes the day again in place; the next day
    must not be built on that without a word. With `tables_alone` git alone is asked.
    """
    tag = vcs.TAG + day
    changed = vcs.git(project.root, "diff", "--name-only", tag, "--", *DAY_PATHS).split()
    if not tables_alone:
        made = vcs.outputs(project.dvc_lock.read_bytes())
        for path in (project.model, project.predictions):
            if not path.exists() or md5_file(path) != made[project.name(path)]:
                changed.append(project.name(path))
    if changed:
        raise CycleError(
            f"{day} is not as it was sealed: {', '.join(sorted(set(changed)))}.",
            mend=f"to go back to what was sealed: git checkout {tag} -- {' '.join(DAY_PATHS)} "
            "&& dvc checkout --force; to keep the new one: dayfold unseal && dayfold seal",
        )


def check_tables(project: Project, now: Standing) -> None:
    """Raise CycleError where tables that figures are read from are not as they were sealed."""
    settled.check_tables(project, now.params, now.sealed)
    if now.is_sealed:
        check_is_as_sealed(project, now.day, tables_alone=True)


def stale(project: Project, day: str) -> list[str]:
    """What of the open day DVC finds changed; the images of other days are not looked at."""
    tracked = (project.tracked(day), project.parent.with_suffix(".dvc"))
    return vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))


def _next(lost: Sequence[Stray]) -> str:
    """How the next day is begun: with the images that are of no day, where there are any."""
    return next((stray.command for stray in lost if stray.command), "dayfold add FOLDER")


def advice(project: Project) -> list[str]:
    """Say where the project stands and what to run next, a line each."""
    now = standing(project)
    is_open = not (now.is_unopened or now.is_sealed)
    lost = strays.find(project, now.params, is_open=is_open)
    if now.is_unopened:
        return ["no day yet", *map(str, lost), f"next: {_next(lost)}"]
    lines = [
        f"day     {now.day}, {'sealed' if now.is_sealed else 'open'}; parent {now.params.parent}",
        f"sealed  {len(now.sealed)} days",
        *(f"stray   {stray}" + f": {stray.command}" * bool(stray.command) for stray in lost),
    ]
    by_hand = settled.edits(project, now.params, now.sealed)
    if found := by_hand.lines():
        lines += ["sealed days were edited by hand", *(f"  - {one}" for one in found)]
        return [*lines, f"next    {by_hand.undo()}"]
    if now.is_sealed:
        try:
            check_is_as_sealed(project, now.day)
        except CycleError as error:
            return [*lines, *str(error).splitlines()]
        return [*lines, f"next    {_next(lost)}"]
    labels = walking.count(project, now.day)
    history = manifest.history(project, now.params.parent)
    new = sorted(set(labels) - set(history.images["label"].unique()))
    lines.append(
        f"images  {sum(labels.values())} in {len(labels)} classes"
        + (f"; new: {', '.join(new)}" if new else "")
    )
    changed = stale(project, now.day)
    if changed:
        return [*lines, f"stale   {', '.join(changed)}", "next    dvc repro"]
    reasons = gate.reasons(gate.read(project, now.day))
    if reasons:
        lines += ["gate    failed", *(f"  - {reason}" for reason in reasons)]
        return [*lines, 'next    another recipe and dvc repro, or dayfold seal --force -m "why"']
    return [*lines, "gate    passed", "next    dvc metrics diff, then dayfold seal"]
