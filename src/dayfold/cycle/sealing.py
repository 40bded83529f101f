"""Sealing a day: one commit and one tag, of the project's own paths; and taking it back."""

from pathlib import Path

from dayfold.create import require_identity
from dayfold.cycle import settled
from dayfold.cycle.settled import DAY_PATHS, TRACKED_IMAGES
from dayfold.cycle.standing import check_history, stale, standing
from dayfold.errors import CycleError, GateError
from dayfold.figures import gate
from dayfold.project import cache, remotes, vcs
from dayfold.project.layout import Project

# What `seal` commits: these paths of the project's own, never a stranger's.
OWN_PATHS = (
    *DAY_PATHS,
    "dvc.yaml",
    "params.yaml",
    "data/parent.dvc",
    "data/rejected",
    "data/.gitignore",
    "data/images/.gitignore",
)
SAMPLED = 9  # sealed days whose models are looked for when a day is sealed
FORCED = "Gate: forced"  # the last line of the message of a day that was sealed by force


def seal(project: Project, message: str = "", *, force: bool = False) -> str:
    """Commit the project's own paths and tag the open day; return the tag.

    Raises CycleError unless a day is open, DVC finds all its outputs up to date and the files of
    sealed days are as they were; GateError where it does not pass the gate. With `force` it is
    sealed all the same: `message`, then required, says why, and the commit and the tag keep it with
    the reasons.
    """
    now = standing(project)
    if now.is_unopened:
        raise CycleError("No day is open.", mend="dayfold add FOLDER")
    if now.is_sealed:
        raise CycleError(f"{now.day} is sealed already.", mend="dayfold add FOLDER --day NEXT")
    if force and not message.strip():
        raise CycleError("--force needs a message.", mend='dayfold seal --force -m "why"')
    require_identity(project.root)
    check_history(project)
    settled.check(project, now.params, now.sealed)
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


def lost(project: Project) -> list[str]:
    """Return sealed days whose model is neither in the cache nor, as no remote is set, elsewhere.

    Cheap, so that sealing costs the same after ten days as after a thousand: at most SAMPLED days
    are looked at, the first, the last and others evenly between. A `dvc gc` that was not told
    --all-tags deletes the models of all days but today's, so any of them shows it.
    """
    sealed = vcs.sealed_days(project.root)
    count = min(SAMPLED, len(sealed))
    days = [sealed[place * (len(sealed) - 1) // max(1, count - 1)] for place in range(count)]
    names = {f"{vcs.TAG}{day}:{project.name(project.dvc_lock)}": day for day in days}
    models = {
        names[name]: vcs.outputs(lock).get(project.name(project.model), "")
        for name, lock in vcs.blobs(project.root, list(names)).items()
    }

    def missing(objects: Path) -> list[str]:
        return [day for day, key in models.items() if not cache.object_path(objects, key).exists()]

    # DVC is asked where its cache is, and for remotes, only where something is missing: it is slow.
    found = missing(project.root / ".dvc" / "cache")
    found = found and missing(cache.folder(project.root))
    return [] if found and vcs.dvc(project.root, "remote", "list").strip() else found


def warnings(project: Project) -> list[str]:
    """Say, a line each, which sealed days are `lost`, and the way to have them back; or nothing."""
    days = lost(project)
    if not days:
        return []
    return [
        f"warning: DVC's cache has lost the models of sealed days: {', '.join(days)} "
        f"(of {SAMPLED} looked at)",
        "  take them from another clone, or: dayfold reproduce --all --from-scratch --restore",
        "  free space with `dvc gc --all-tags` only: `dvc gc -w` deletes all other days' models",
    ]


def sharing(project: Project) -> list[str]:
    """Say what to push next; after the first seal, without a remote, how to set one up."""
    found, sealed = remotes.setup(project.root), vcs.sealed_days(project.root)
    if found.default:
        late = remotes.late(project.root, sealed)
        first = "dayfold doctor --fix; " * bool(late)
        return [f"next: {first}{remotes.pushing(project.root, all_tags=bool(late))}"]
    if found.names or len(sealed) > 1:
        return []
    return [
        "Nothing leaves this machine: no DVC remote is set up, so no copy of the images is made.",
        "To share or back up: dvc remote add --default NAME URL && "
        'git commit -m "Add a remote" .dvc/config; dayfold doctor --fix; dvc push --all-tags',
    ]


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
