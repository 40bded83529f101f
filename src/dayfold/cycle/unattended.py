"""The cycle without a person."""

import shlex
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from dayfold.create import require_identity
from dayfold.cycle import adding, sealing
from dayfold.errors import IntakeError, RefusedError
from dayfold.history.state import ProjectState
from dayfold.ledger.intake import workers
from dayfold.ledger.names import composed, is_clutter
from dayfold.project import vcs
from dayfold.project.console import Stages, plural, say
from dayfold.project.layout import Project, is_day


def run(project: Project, sources: Sequence[Path], *, day: str | None, verbose: bool) -> int:
    """Add, train and seal `day`; without it, the day of each dated folder, in order.

    Sealed days are skipped. Returns how many files were refused or are known under another label.
    Raises GateError at the first day that fails the gate.
    """
    require_identity(project.root)  # not after hours of training
    refused, now = 0, ProjectState.read(project)
    times = vcs.times_of_seals(project.root)
    for number, folder in enumerate(sources, start=1):
        name = day or folder.name
        if not day:
            say(f"day {number} of {len(sources)}: {name}")
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
        except RefusedError as error:  # every file was refused; later days may be good
            if day:
                raise
            say(str(error))
            refused += error.count
            continue
        workers.end_idle()
        count = f"{plural(len(delivery.images), 'image')} added, {len(delivery.known)} known"
        head, *said = [name] * (not delivery.opened) + delivery.notes
        say("\n".join([f"{head}: {count}", *said, *delivery.unusual()]))
        refused += len(delivery.refused) + len(delivery.changed)
        if now.day != name and not delivery.opened:
            say(f"nothing new, so {name} was not opened")
            continue
        vcs.repro(project.root, None if verbose else Stages(say).handle)
        say("\n".join(sealing.seal(project)))
        now = ProjectState.read(project)
    return refused


def _has_new(now: ProjectState, folder: Path) -> bool:
    # The day of this folder was skipped because it had no new image then, and cannot be opened now.
    day = now.day
    if now.is_sealed:
        day = (date.fromisoformat(now.day) + timedelta(days=1)).isoformat()
    asked = adding.Options(dry_run=True, yes=True)
    return bool(adding.add(now.project, folder, day=day, options=asked).images)


def _late(project: Project, folder: Path, day: str, sealed: float | None) -> int:
    """Count the new files that came into a folder after its day was sealed, without copies."""
    if sealed is None or not folder.is_dir():
        return 0
    # A new file changes the time of its folder, so on most nights no file is checked.
    classes = [path for path in folder.iterdir() if path.is_dir()]
    classes = [path for path in classes if path.stat().st_ctime > sealed]
    files = [path for one in classes for path in one.iterdir() if path.is_file()]
    files = [path for path in files if not is_clutter(path.name)]
    young = [f"/{path.parent.name}/{path.name}" for path in files if path.stat().st_ctime > sealed]
    text = project.manifest(day).read_text(encoding="utf-8") if young else ""
    return sum(composed(name) not in text for name in young)


def dated_folders(source: Path) -> list[Path]:
    """Return the dated folders in `source`, in order; none if no folder is named by day.

    Raises IntakeError if it holds anything else too.
    """
    paths = source.iterdir() if source.is_dir() else ()
    found = sorted(path for path in paths if not path.name.startswith("."))
    others = [path for path in found if not (is_day(path.name) and path.is_dir())]
    if len(others) == len(found):
        return []
    if others:
        kinds = {path.name: "folder" if is_day(path.name) else "day" for path in others}
        raise IntakeError(
            f"{source} must hold folders named by day only:",
            problems=[f"{name} is not a {kind}" for name, kind in kinds.items()],
            hint="name them YYYY-MM-DD, or move them elsewhere",
        )
    return found
