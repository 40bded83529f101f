"""The cycle without a person: one day, or a whole archive of days."""

from collections.abc import Callable
from pathlib import Path

from dayfold.cycle import adding, sealing
from dayfold.cycle.standing import standing
from dayfold.errors import CycleError, GateError, IntakeError
from dayfold.figures import gate
from dayfold.ledger.intake import workers
from dayfold.project import vcs
from dayfold.project.layout import Project, check_day, is_day


def run(
    project: Project, source: Path, *, day: str, say: Callable[[str], None], zip_names: str = ""
) -> None:
    """Add, reproduce and seal one day; a day that is sealed is left alone."""
    now = standing(project)
    if day in now.sealed:
        say(f"{day} is sealed")
        return
    if now.is_open and now.day != day:
        _check_gate_of_open_day(project, now.day)
    options = adding.Options(zip_names=zip_names)
    _, delivery = adding.add(project, source, day=day, options=options)
    workers.end_idle()
    for line in adding.said_of_day(project, day, delivery, options):
        say(line)
    say(f"{day}: {len(delivery.images)} images added, {len(delivery.known)} known")
    for line in adding.unusual(delivery):
        say(line)
    if now.day != day and not delivery.opened:
        say(f"nothing new, so {day} was not opened")
        return
    vcs.dvc(project.root, "repro", show=True)
    tags = sealing.seal(project)
    sealed = [line for tag in tags for line in sealing.said(project, tag)]
    for line in (*sealed, *sealing.warnings(project), *sealing.sharing(project)):
        say(line)


def _check_gate_of_open_day(project: Project, day: str) -> None:
    """Raise GateError where the open day is one that failed: the exit code of that is its own."""
    reasons = gate.reasons(gate.read(project, day)) if project.gate(day).exists() else []
    if reasons:
        raise GateError(
            f"{day} is still open: it does not pass the gate.",
            problems=reasons,
            mend="another recipe and dvc repro, then dayfold seal; or as it is: "
            'dayfold seal --force -m "why"',
        )


def is_dated(source: Path) -> bool:
    """Whether a folder holds folders that are named by day, and not classes."""
    return source.is_dir() and any(is_day(path.name) for path in source.iterdir() if path.is_dir())


def backfill(
    project: Project, source: Path, *, say: Callable[[str], None], zip_names: str = ""
) -> None:
    """Run every dated folder of `source` in order; what is sealed already is passed over.

    Stops with GateError at a day that does not pass the gate.
    """
    if not source.is_dir():
        raise IntakeError(f"{source} is not a folder.", mend="give the folder of dated folders")
    folders = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    strangers = []
    for folder in folders:
        try:
            check_day(folder.name)
        except CycleError:
            strangers.append(f"{folder.name} is not a day")
        else:
            if not folder.is_dir():
                strangers.append(f"{folder.name} is not a folder")
    if strangers:
        raise IntakeError(
            f"{source} must hold folders named by day only:",
            problems=strangers,
            mend="name them YYYY-MM-DD, or move them elsewhere",
        )
    for number, folder in enumerate(folders, start=1):
        say(f"day {number} of {len(folders)}: {folder.name}")
        run(project, folder, day=folder.name, say=say, zip_names=zip_names)
