"""The cycle without a person."""

import re
import shlex
import sys
import time
from datetime import date, timedelta
from pathlib import Path

from dayfold.cycle import adding, sealing
from dayfold.days.line import Line
from dayfold.days.open_day import check_no_pipe
from dayfold.errors import IntakeError, RefusedError
from dayfold.ledger.intake import finding, workers
from dayfold.project import vcs
from dayfold.project.console import PROGRESS, Say, plural
from dayfold.project.layout import Project, is_day

PROGRESS_SECONDS = 60.0
# What DVC says of a stage as it begins, and of itself.
_BEGUN = re.compile(r"Running stage '(\w+)':")
_OF_DVC = re.compile(
    r"\s*$|> dayfold |Verifying data sources|.* didn't change, skipping"
    r"|(Generat|Updat)ing lock file|To (track the changes|enable auto staging)"
    r"|\t(git add|dvc config) |Use `dvc push`"
)


def run(project: Project, source: Path, *, day: str | None, say: Say, verbose: bool = False) -> int:
    """Add, reproduce and seal a day, or, without `day`, every dated folder of `source` in order.

    Returns how many files were refused, or are known with another label. A day that is sealed is
    passed over; GateError stops at one that does not pass the gate. Of the stages a line each is
    said, with its time; all that they and DVC print with `verbose`.
    """
    refused = 0
    folders = [(source, day)] if day else [(path, path.name) for path in dated(source)]
    times = vcs.times_of_seals(project.root)
    for number, (folder, name) in enumerate(folders, start=1):
        if not day:
            say(f"day {number} of {len(folders)}: {name}")
        now = Line.read(project)
        if name in now.sealed:
            late = _late(project, folder, name, times.get(name))
            way = f"a later day takes them: dayfold run {shlex.quote(str(folder))}"
            say(f"{name} is sealed" + f"; {plural(late, 'file')} came later, {way}" * bool(late))
            continue
        if not day and not now.is_unopened and name < now.day and not _has_new(now, folder):
            say(f"{name} has nothing new")
            continue
        if now.is_open and now.day != name and project.gate(now.day).exists():
            sealing.check_gate(project, now.day, "is still open: it does not pass the gate.")
        try:
            delivery = adding.add(project, folder, day=name)
        except RefusedError as error:  # all files; the days after it may be good
            if day:
                raise
            say(str(error))
            refused += error.count
            continue
        workers.end_idle()
        count = f"{plural(len(delivery.images), 'image')} added, {len(delivery.known)} known"
        head, *said = [name] * (not delivery.opened) + delivery.said
        for line in (f"{head}: {count}", *said, *delivery.unusual()):
            say(line)
        refused += len(delivery.refused) + len(delivery.changed)
        if now.day != name and not delivery.opened:
            say(f"nothing new, so {name} was not opened")
            continue
        check_no_pipe(project, name)
        vcs.repro(project.root, None if verbose else Stages(say).hear)
        for line in sealing.seal(project):
            say(line)
    return refused


def is_dated(source: Path) -> bool:
    """Whether a folder holds folders that are named by day, and not classes."""
    return source.is_dir() and any(is_day(path.name) for path in source.iterdir() if path.is_dir())


def _has_new(now: Line, folder: Path) -> bool:
    """Whether the folder of an earlier day has an image that no day has.

    It had none on its own evening, so that its day was not opened, and can be no more.
    """
    day = now.day
    if now.is_sealed:
        day = (date.fromisoformat(now.day) + timedelta(days=1)).isoformat()
    asked = adding.Options(dry_run=True, yes=True)
    return bool(adding.add(now.project, folder, day=day, options=asked).images)


def _late(project: Project, folder: Path, day: str, sealed: float | None) -> int:
    """How many files came into a folder after its day was sealed; copies of what it has are none.

    A job may start before all files are there.
    """
    if sealed is None or not folder.is_dir():
        return 0
    files = [path for path in folder.glob("*/*") if path.is_file()]
    files = [path for path in files if not finding.is_clutter(path.name)]
    young = [f"/{path.parent.name}/{path.name}" for path in files if path.stat().st_ctime > sealed]
    text = project.manifest(day).read_text(encoding="utf-8") if young else ""
    return sum(finding.composed(name) not in text for name in young)


def dated(source: Path) -> list[Path]:
    """The folders of a folder of days, in order; IntakeError where it holds anything else."""
    found = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    strangers = [
        f"{path.name} is not a {'folder' if is_day(path.name) else 'day'}"
        for path in found
        if not (is_day(path.name) and path.is_dir())
    ]
    if strangers:
        raise IntakeError(
            f"{source} must hold folders named by day only:",
            problems=strangers,
            hint="name them YYYY-MM-DD, or move them elsewhere",
        )
    return found


class Stages:
    """What `dvc repro` prints, cut down to a line a stage: its name, its time, what came of it."""

    def __init__(self, say: Say) -> None:
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
