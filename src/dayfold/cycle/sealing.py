"""Sealing a day: one commit and one tag, of the project's own paths; and taking it back."""

from dayfold.create import require_identity
from dayfold.cycle.standing import DAY_PATHS, stale, standing
from dayfold.errors import CycleError, GateError
from dayfold.figures import gate
from dayfold.project import vcs
from dayfold.project.layout import Project

# What `seal` commits: these paths of the project's own, never a stranger's.
OWN_PATHS = (
    *DAY_PATHS,
    "dvc.yaml",
    "params.yaml",
    "data/parent.dvc",
    "data/.gitignore",
    "data/images/.gitignore",
)
TRACKED_IMAGES = ":(glob)data/images/*.dvc"
FORCED = "Gate: forced"  # the last line of the message of a day that was sealed by force


def seal(project: Project, message: str = "", *, force: bool = False) -> str:
    """Commit the project's own paths and tag the open day; return the tag.

    Raises CycleError unless a day is open and DVC finds all its outputs up to date, GateError where
    it does not pass the gate. With `force` it is sealed all the same: `message`, then required,
    says why, and the commit and the tag keep it with the reasons.
    """
    now = standing(project)
    if now.is_unopened:
        raise CycleError("No day is open.", mend="dayfold add FOLDER")
    if now.is_sealed:
        raise CycleError(f"{now.day} is sealed already.", mend="dayfold add FOLDER --day NEXT")
    if force and not message.strip():
        raise CycleError("--force needs a message.", mend='dayfold seal --force -m "why"')
    require_identity(project.root)
    changed = stale(project, now.day)
    if changed:
        raise CycleError(
            f"{now.day} is not up to date: {', '.join(changed)}.", mend="dvc repro, then seal"
        )
    root, text = project.root, message.strip() or f"Seal {now.day}"
    reasons = gate.reasons(gate.read(project, now.day))
    if reasons and not force:
        raise GateError(
            f"{now.day} does not pass the gate:",
            problems=reasons,
            mend="dayfold log --classes and data/plots/flips.csv show more; change train, replay "
            "or gate in params.yaml and dvc repro; or keep the day as it is: "
            'dayfold seal --force -m "why"',
        )
    if reasons:
        text += "\n\n" + "\n".join(f"- {reason}" for reason in reasons) + f"\n\n{FORCED}"
    paths = [*(name for name in OWN_PATHS if (root / name).exists()), TRACKED_IMAGES]
    # As it is: git would leave out lines that begin with #.
    words = ("--cleanup=verbatim", "--message", text)
    # Nothing to commit: an earlier `seal` was stopped before the tag.
    if vcs.git(root, "status", "--porcelain", "--", *paths):
        vcs.git(root, "add", "--", *paths)
        # Only these paths, whatever else is staged.
        vcs.git(root, "commit", "--quiet", "--only", *words, "--", *paths)
    vcs.git(root, "tag", "--annotate", *words, vcs.TAG + now.day)
    return vcs.TAG + now.day


def forced(project: Project) -> dict[str, str]:
    """Return the days that were sealed although they failed the gate, each with why."""
    return {
        day: message.partition("\n")[0]
        for day, message in vcs.seals(project.root).items()
        if message.rstrip().endswith(f"\n{FORCED}")
    }


def unseal(project: Project) -> str:
    """Take back the last day's seal: the tag and its commit go, all files stay; return the day.

    Raises CycleError where other commits followed or the seal was pushed.
    """
    now = standing(project)
    root, tag = project.root, vcs.TAG + now.day
    if now.is_unopened or not now.is_sealed:
        raise CycleError("The open day is not sealed.", mend="dayfold status")
    if now.day != now.sealed[-1]:
        raise CycleError(
            f"{now.day} is not the last sealed day; {now.sealed[-1]} builds on it.",
            mend="git checkout the branch of the last day",
        )
    if vcs.git(root, "rev-parse", "HEAD") != vcs.git(root, "rev-parse", f"{tag}^{{commit}}"):
        raise CycleError(
            f"Other commits followed the seal of {now.day}.", mend="go on with a new day"
        )
    if vcs.git(root, "branch", "--remotes", "--contains", "HEAD").strip():
        raise CycleError(
            f"The seal of {now.day} was pushed; others may build on it.",
            mend="go on with a new day",
        )
    vcs.git(root, "tag", "--delete", tag)
    vcs.git(root, "reset", "--quiet", "HEAD^")
    return now.day
