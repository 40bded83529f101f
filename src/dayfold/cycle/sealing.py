"""Sealing a day: one commit and one tag, of the project's own paths."""

import json
import os
from pathlib import Path

from dayfold.create import require_identity
from dayfold.cycle import hand_edits
from dayfold.cycle.hand_edits import DAY_PATHS, TRACKED_IMAGES
from dayfold.cycle.standing import Standing, check_history, stale, standing
from dayfold.errors import CycleError, GateError
from dayfold.figures import gate
from dayfold.figures.intervals import figure
from dayfold.project import cache, journal, remotes, vcs
from dayfold.project import params as params_file
from dayfold.project.console import plural
from dayfold.project.layout import Project

# What `seal` commits: these paths of the project's own, never a stranger's.
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
# Whatever a person's own ignore file says.
_NOT_IGNORED = ("-c", f"core.excludesFile={os.devnull}")
SAMPLED = 9  # sealed days whose models are looked for when a day is sealed
FORCED = "Gate: forced"  # the last line of the message of a day that was sealed by force


def seal(project: Project, message: str = "", *, force: bool = False) -> list[str]:
    """Commit the project's own paths and tag the open day; return the tags that were made.

    The commit's subject has the day's first figures.

    Days that are committed without their tag are tagged first (`tag_again`). A day that fails the
    gate is sealed with `force` only: `message` then says why, and the tag keeps it.
    """
    now = standing(project)
    if now.is_unopened:
        raise CycleError("No day is open.", hint="dayfold add FOLDER")
    if now.is_sealed and not now.untagged:
        raise CycleError(f"{now.day} is sealed already.", hint="dayfold add FOLDER --day NEXT")
    if force and not message.strip():
        raise CycleError("--force needs a message.", hint='dayfold seal --force -m "why"')
    require_identity(project.root)
    check_history(project)
    hand_edits.check(project, now.params, now.sealed)
    tags = [vcs.TAG + day for day in tag_again(project, now)]
    if now.is_sealed or vcs.TAG + now.day in tags:
        return tags
    changed = stale(project, now.day)
    if changed:
        raise CycleError(
            f"{now.day} is not up to date: {', '.join(changed)}.", hint="dvc repro, then seal"
        )
    root = project.root
    reasons = gate.reasons(gate.read(project, now.day))
    if reasons and not force:
        raise GateError(
            f"{now.day} does not pass the gate:",
            problems=reasons,
            hint="dayfold log --classes and data/plots/flips.csv show more; change train, replay "
            "or gate in params.yaml and dvc repro; or keep the day as it is: "
            'dayfold seal --force -m "why"',
        )
    text = _subject(project, now.day) + f"\n\n{message.strip()}" * bool(message.strip())
    if reasons:
        text += "\n\n" + "\n".join(f"- {reason}" for reason in reasons) + f"\n\n{FORCED}"
    paths = [*(name for name in OWN_PATHS if (root / name).exists()), TRACKED_IMAGES]
    # As it is: git would leave out lines that begin with #.
    words = ("--cleanup=verbatim", "--message", text)
    with journal.step(project, "seal"):
        # Nothing to commit: an earlier `seal` was stopped before the tag, or a person did.
        status = ("status", "--porcelain", "--untracked-files=all", "--", *paths)
        if vcs.git(root, *_NOT_IGNORED, *status):
            vcs.git(root, *_NOT_IGNORED, "add", "--", *paths)
            # Only these paths, whatever else is staged.
            vcs.git(root, "commit", "--quiet", "--only", *words, "--", *paths)
        commit = _commit_of(project, now, now.day)
        vcs.git(root, "tag", "--annotate", *words, vcs.TAG + now.day, commit)
    from dayfold.figures.report import index  # here, as it takes time, and only a seal needs it

    index.write(project, forced=forced(project))
    return [*tags, vcs.TAG + now.day]


def _subject(project: Project, day: str) -> str:
    """The first line of a day's commit: what it brought, and its first figures."""
    figures = json.loads(project.figures.read_bytes())
    said = [plural(figures["images"]["today"], "image")]
    for name, key in (("ACC", "average_accuracy"), ("forgetting", "forgetting")):
        said += [f"{name} {figure(figures[key])}"] * (figures[key] is not None)
    return f"day {day}: {', '.join(said)}"


def said(project: Project, tag: str) -> str:
    """Say that a day is sealed, and what its gate says."""
    verdict = gate.verdict(gate.read(project, tag.removeprefix(vcs.TAG)))
    return f"sealed as {tag}; gate: {verdict}"


def tag_again(project: Project, now: Standing) -> list[str]:
    """Tag the days of this branch whose tag it has lost; return which.

    A rebase, an amended commit and a squash merge leave a tag behind. It comes to the commit that
    has the day now, with its message, if that is the day as it was sealed.
    """
    root = project.root
    for day in now.lost_tags:
        tag, commit = vcs.TAG + day, _commit_of(project, now, day)
        is_own = params_file.day_of(vcs.blob(root, f"{commit}:params.yaml")) == day
        different = ["its params.yaml is of another day"] * (not is_own)
        if day in now.tagged:
            compare = ("diff", "--name-only", "-z", tag, commit, "--", *DAY_PATHS)
            different += vcs.split(vcs.git(root, *compare))
        if different:
            raise CycleError(
                f"What this branch has of {day} is not what {tag} has "
                f"({', '.join(different[:5])}).",
                hint=f"to keep the tag, and the files of this branch: git merge --strategy=ours "
                f"{tag}"
                if day in now.tagged
                else f"git fetch --tags from another clone; or: git tag --annotate {tag} COMMIT",
            )
        kept = ("for-each-ref", "--format=%(contents)", f"refs/tags/{tag}")
        text = vcs.git(root, *kept) if day in now.tagged else ""
        text = text or vcs.git(root, "log", "--max-count=1", "--format=%B", commit)
        how = ("--force", "--annotate", "--cleanup=verbatim", "--file=-")
        vcs.git(root, "tag", *how, tag, commit, given=text.rstrip("\n") + "\n")
    return now.lost_tags


def _without_subject(day: str, message: str) -> str:
    """What a person said of a seal; versions before 0.2.0 wrote no subject of their own."""
    subject, _, text = message.partition("\n")
    return text.lstrip("\n") if subject.startswith(f"day {day}: ") else message


def _commit_of(project: Project, now: Standing, day: str) -> str:
    """The last commit of this branch that changed what the day made."""
    own = (project.manifest(day), project.evaluation(day), project.gate(day))
    paths = DAY_PATHS if day == now.day else tuple(map(project.name, own))
    return vcs.git(project.root, "log", "--max-count=1", "--format=%H", "--", *paths).strip()


def lost(project: Project) -> list[str]:
    """Return sealed days whose model is neither in the cache nor, as no remote is set, elsewhere.

    At most SAMPLED days are looked at: a `dvc gc` that was not told --all-tags deletes the models
    of all days but today's, so any of them shows it.
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
    sealed = vcs.sealed_days(project.root)
    if remotes.default(project.root):
        late = remotes.is_late(project.root, sealed)
        first = "dayfold check --fix; " * late
        return [f"next: {first}{remotes.pushing(project.root, all_tags=late)}"]
    if remotes.names(project.root) or len(sealed) > 1:
        return []
    return [
        "Nothing leaves this machine: no DVC remote is set up, so no copy of the images is made.",
        "To share or back up: dvc remote add --default NAME URL && "
        'git commit -m "Add a remote" .dvc/config; dayfold check --fix; dvc push --all-tags',
    ]


def forced(project: Project) -> dict[str, str]:
    """Return the days that were sealed although they failed the gate, each with why."""
    return {
        day: _without_subject(day, message).partition("\n")[0]
        for day, message in vcs.seals(project.root).items()
        if message.rstrip().endswith(f"\n{FORCED}")
    }
