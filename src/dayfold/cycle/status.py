"""Where a project stands, what is next."""

import shlex

import yaml

from dayfold.days import states
from dayfold.days.line import Line
from dayfold.errors import CycleError, LedgerError, ParamsError, ToolError
from dayfold.figures import evidence, gate
from dayfold.ledger import corrections
from dayfold.ledger.intake import finding
from dayfold.project import journal, pins, vcs
from dayfold.project.console import first_few, plural
from dayfold.project.files import escaped
from dayfold.project.layout import STAGES, Project


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
    count = sum(finding.count(project, day).values())
    pinned = (pins.of_images(project, day) or {}).get("nfiles", count)
    if pinned < count:
        folder = project.name(project.images(day))
        raise CycleError(
            f"DVC keeps {pinned} of the {count} files in {folder}: .dvcignore leaves the others "
            "out.",
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


def _unseen(now: Line) -> list[str]:
    classes = now.params.origin.classes
    unseen = evidence.unseen(now.sealed_history, classes) if classes else ()
    return [f"known   {evidence.no_image(unseen)}"] * bool(unseen)


def advice(project: Project) -> list[str]:
    """Say where the project stands and what to run next, a line each."""
    try:
        now = Line.read(project)
        is_untagged = now.day in now.untagged
    except (LedgerError, ParamsError):
        vcs.check_nothing_under_way(project.root, conflicts_only=True)  # their text is no file's
        raise
    lost = finding.strays(project, now.params)
    begin = next((stray.command for stray in lost if stray.command), "dayfold add FOLDER")
    known = _unseen(now)
    if now.is_unopened and not now.sealed:
        return ["no day yet", *known, *map(str, lost), f"next    {begin}"]
    state = "sealed" if now.is_sealed else "committed" if is_untagged else "open"
    lines = [
        f"day     {now.day}, {state}; parent {now.params.parent}",
        f"sealed  {plural(len(now.sealed), 'day')}",
        *known,
        *(f"stray   {stray}" + f": {stray.command}" * bool(stray.command) for stray in lost),
    ]
    try:
        states.check(now, "open")
    except CycleError as error:
        problems = [f"  - {one}" for one in error.problems]
        return [*lines, error.what, *problems, f"next    {error.hint}"]
    if now.is_sealed:
        return [*lines, f"next    {begin}"]
    labels = finding.count(project, now.day)
    new = sorted(set(labels) - set(now.sealed_history.images["label"].unique()))
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
