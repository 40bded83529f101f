"""Where a project stands, and what is next."""

from dayfold.cycle import hand_edits
from dayfold.cycle.hand_edits import DAY_PATHS
from dayfold.errors import CycleError, ToolError
from dayfold.figures import evidence, gate
from dayfold.ledger import corrections, manifest
from dayfold.ledger.intake import finding
from dayfold.ledger.manifest import History
from dayfold.project import journal, pins, vcs
from dayfold.project.console import plural
from dayfold.project.files import is_free, md5_file
from dayfold.project.layout import Project
from dayfold.proof.line import Line


def current_history(now: Line) -> History:
    """Return the history of the sealed days, as the open day's corrections leave it."""
    history = manifest.history(now.project, now.parent)
    lines = corrections.lines(now.project, now.day) if now.is_open else {}
    return corrections.applied(history, lines)


def check_is_as_sealed(now: Line, *, tables_alone: bool = False) -> None:
    """Raise CycleError unless a sealed day's files are here and those of its tag, to the byte.

    A `dvc repro` with other params makes the day again in place. With `tables_alone` git is asked.
    """
    if not now.is_sealed:
        return
    # Without what was added: that is of another day.
    project, tag = now.project, vcs.TAG + now.day
    changed = vcs.changed(project.root, "--diff-filter=a", tag, "--", *DAY_PATHS)
    gone: list[str] = []
    if not tables_alone:
        made = pins.outputs(project.dvc_lock.read_bytes())
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
    tracked = (project.tracked(day), project.parent.with_suffix(".dvc"))
    return vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))


def check_settled(now: Line) -> None:
    """Raise CycleError, with the way on, where a person or a repair is needed first.

    In git, and where a sealed day is not as it was sealed.
    """
    project = now.project
    vcs.check_nothing_under_way(project.root)
    now.check("open day" if now.is_open else "next day")
    note = journal.pending(project) if is_free(project.cycle_lock) else None
    if note:
        raise CycleError(
            f"dayfold {note.command} did not end, and the next command repairs it",
            hint="dayfold check --fix",
        )
    hand_edits.check(now)
    check_is_as_sealed(now)


def _unseen(now: Line) -> list[str]:
    classes = now.params.origin.classes
    unseen = evidence.unseen(manifest.history(now.project, now.parent), classes) if classes else ()
    return [f"known   {evidence.no_image(unseen)}"] * bool(unseen)


def advice(project: Project) -> list[str]:
    """Say where the project stands and what to run next, a line each."""
    now = Line.read(project)
    lost = finding.strays(project, now.params)
    begin = next((stray.command for stray in lost if stray.command), "dayfold add FOLDER")
    known = _unseen(now)
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
        check_settled(now)
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
