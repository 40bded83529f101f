"""The cycle without a person: one day, or a whole archive of days."""

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dayfold.cycle import added, adding, sealing
from dayfold.cycle.standing import standing
from dayfold.errors import CycleError, GateError, IntakeError
from dayfold.figures import gate
from dayfold.ledger.intake import workers
from dayfold.project import vcs
from dayfold.project.console import PROGRESS, plural
from dayfold.project.layout import Project, check_day, is_day

PROGRESS_SECONDS = 60.0
# What DVC says of a stage as it begins, and of itself.
_BEGUN = re.compile(r"Running stage '(\w+)':")
_OF_DVC = re.compile(
    r"\s*$|> dayfold |Verifying data sources|.* didn't change, skipping"
    r"|(Generat|Updat)ing lock file|To (track the changes|enable auto staging)"
    r"|\t(git add|dvc config) |Use `dvc push`"
)


def run(
    project: Project,
    source: Path,
    *,
    day: str,
    say: Callable[[str], None],
    verbose: bool = False,
) -> int:
    """Add, reproduce and seal one day; a day that is sealed is left alone.

    Returns how many files were refused, or are known with another label.
    Of the stages a line each is said, with its time; all that they and DVC print with `verbose`.
    """
    now = standing(project)
    if day in now.sealed:
        say(f"{day} is sealed")
        return 0
    if now.is_open and now.day != day:
        _check_gate_of_open_day(project, now.day)
    options = adding.Options()
    _, delivery = adding.add(project, source, day=day, options=options)
    workers.end_idle()
    count = f"{plural(len(delivery.images), 'image')} added, {len(delivery.known)} known"
    said = [*added.said_of_day(project, day, delivery, options)]
    head = said.pop(0) if delivery.opened else day
    for line in (f"{head}: {count}", *said, *added.unusual(delivery)):
        say(line)
    refused = len(delivery.refused) + len(delivery.changed)
    if now.day != day and not delivery.opened:
        say(f"nothing new, so {day} was not opened")
        return refused
    vcs.repro(project.root, None if verbose else Stages(say).hear)
    sealed = [sealing.said(project, tag) for tag in sealing.seal(project)]
    for line in (*sealed, *sealing.warnings(project), *sealing.sharing(project)):
        say(line)
    return refused


class Stages:
    """What `dvc repro` prints, cut down to a line a stage: its name, its time, what came of it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._stage, self._began, self._shown = say, "", 0.0, 0.0

    def hear(self, line: str) -> None:
        """Take a line that DVC or a brief stage printed."""
        begun = _BEGUN.match(line)
        if line.startswith(PROGRESS):
            self._progress(line.removeprefix(PROGRESS))
        elif begun:
            self._stage, self._began = begun[1], time.monotonic()
        elif not _OF_DVC.match(line):
            self._progress("")
            at = f"{time.monotonic() - self._began:6.1f} s" if self._stage else ""
            self._say(f"{self._stage:9}{at:8}  {line}")
            self._stage = ""

    def _progress(self, text: str) -> None:
        """Show a line for a while: on a terminal until the next one, elsewhere one a minute."""
        if sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)
        elif text and time.monotonic() - max(self._began, self._shown) > PROGRESS_SECONDS:
            self._shown = time.monotonic()
            self._say(f"{'':19}{text}")


def _check_gate_of_open_day(project: Project, day: str) -> None:
    """Raise GateError where the open day is one that failed: the exit code of that is its own."""
    reasons = gate.reasons(gate.read(project, day)) if project.gate(day).exists() else []
    if reasons:
        raise GateError(
            f"{day} is still open: it does not pass the gate.",
            problems=reasons,
            hint="another recipe and dvc repro, then dayfold seal; or as it is: "
            'dayfold seal --force -m "why"',
        )


def is_dated(source: Path) -> bool:
    """Whether a folder holds folders that are named by day, and not classes."""
    return source.is_dir() and any(is_day(path.name) for path in source.iterdir() if path.is_dir())


def backfill(
    project: Project,
    source: Path,
    *,
    say: Callable[[str], None],
    verbose: bool = False,
) -> int:
    """Run every dated folder of `source` in order; what is sealed already is passed over.

    Returns how many files were refused. Stops with GateError at a day that does not pass the gate.
    """
    if not source.is_dir():
        raise IntakeError(f"{source} is not a folder.", hint="give the folder of dated folders")
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
            hint="name them YYYY-MM-DD, or move them elsewhere",
        )
    refused = 0
    for number, folder in enumerate(folders, start=1):
        say(f"day {number} of {len(folders)}: {folder.name}")
        refused += run(project, folder, day=folder.name, say=say, verbose=verbose)
    return refused
