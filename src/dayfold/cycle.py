"""The day's cycle: open, add, (dvc repro,) seal; unseal; and the unattended run and backfill."""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from dayfold.create import make_origin, require_identity
from dayfold.errors import CycleError, IntakeError
from dayfold.ledger import corrections, intake, manifest
from dayfold.ledger.intake import Delivered, Delivery
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import Ticker
from dayfold.project.files import sha256, sha256_file, write_bytes
from dayfold.project.layout import ORIGIN, UNOPENED, Project, check_day
from dayfold.project.params import Params

# What `seal` commits: the project's own paths, never a stranger's.
OWN_PATHS = ("dvc.yaml", "dvc.lock", "params.yaml", "metrics.json", "data", ".dvc")


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


def open_day(project: Project, day: str) -> None:
    """Make `day` the open day: yesterday's outputs become its parent, its folder is made.

    The first day's parent is the origin, made here if `init` has not. Raises CycleError while the
    current day is not sealed, or where `day` does not come after it.
    """
    now = standing(project)
    _check_may_open(now, day)
    if now.is_unopened:
        if not project.parent_model.exists():
            make_origin(project, now.params)
    else:
        _inherit(project, now.day)
        _fold_into_month(project, now.day)
    project.images(day).mkdir(parents=True, exist_ok=True)
    corrections.write_empty(project, day)
    tracked = (project.parent, project.images(day))
    vcs.dvc(project.root, "add", "--quiet", *map(project.name, tracked))
    # Last: until params.yaml says so, the day is not open, and opening it again is harmless.
    params_file.edit(project.params, {"day": day, "parent": now.next_parent})


def _check_may_open(now: Standing, day: str) -> None:
    check_day(day)
    if now.day == day:
        raise CycleError(
            f"{day} is already {'sealed' if now.is_sealed else 'open'}.", mend="dayfold status"
        )
    if now.is_unopened:
        return
    if not now.is_sealed:
        raise CycleError(
            f"{now.day} is open and not sealed, so {day} cannot be opened.",
            mend=f"dvc repro && dayfold seal, or go on with it: --day {now.day}",
        )
    if day < now.day:
        raise CycleError(
            f"{day} comes before {now.day}, which is sealed; days are added in order.",
            mend=f"give a day after {now.day}",
        )


def _inherit(project: Project, day: str) -> None:
    """Make the sealed day's model and predictions the parent's."""
    recorded = json.loads(project.provenance.read_bytes())["sha256"]["model"]
    if not project.model.exists() or not project.predictions.exists():
        raise CycleError(f"The outputs of {day} are not here.", mend="dvc checkout, or dvc pull")
    if sha256_file(project.model) != recorded:
        raise CycleError(
            f"{project.name(project.model)} is not the model that {day} was sealed with.",
            mend="dvc checkout --force data/model.safetensors",
        )
    for source, target in (
        (project.model, project.parent_model),
        (project.predictions, project.parent_predictions),
    ):
        write_bytes(target, source.read_bytes())


def _fold_into_month(project: Project, day: str) -> None:
    """Move a sealed day's entry from its own .dvc file into that of its month.

    DVC parses every .dvc file for every command, which with 200 of them made a `dvc repro` without
    anything to do 1.4 times as long as with two; with one a month, 1.1 to 1.2 times.
    """
    own, month = project.tracked(day), project.tracked_month(day)
    if not own.exists():
        return
    entries = yaml.safe_load(month.read_text(encoding="utf-8"))["outs"] if month.exists() else []
    entries = [entry for entry in entries if entry["path"] != day]
    entries += yaml.safe_load(own.read_text(encoding="utf-8"))["outs"]
    write_bytes(month, yaml.safe_dump({"outs": entries}, sort_keys=False).encode())
    own.unlink()


def add(project: Project, source: Path, *, day: str, move: bool = False) -> tuple[str, Delivery]:
    """Check the images of `source`/<class>/ and copy them to data/images/<day>/, or move them.

    Opens `day` if it is not open. All files are checked before the first is copied; if any is
    refused, IntakeError lists every one and nothing is added. Images that are known stay where
    they are. Returns the day and what was found.
    """
    source = Path(source)
    if not source.is_dir():
        raise IntakeError(f"{source} is not a folder.", mend="give the folder of class folders")
    now = standing(project)
    if now.day == check_day(day) and now.is_sealed:
        raise CycleError(
            f"{day} is sealed; its images are settled.",
            mend="give a later --day, or take the seal back: dayfold unseal",
        )
    opening = now.day != day
    if opening:
        _check_may_open(now, day)
    history = manifest.history(project, now.next_parent if opening else now.params.parent)
    present = intake.inspect(project.images(day), history)
    today = {item.image: (item.label, project.name(item.path)) for item in present.images}
    delivery = _inspect(source, history, today)
    if delivery.problems:
        raise IntakeError(
            f"{len(delivery.problems)} problems in {source}; nothing was added:",
            problems=delivery.problems,
            mend="mend or remove these files and give the folder again",
        )
    if opening:
        open_day(project, day)
    targets = _targets(project.images(day), delivery.images)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_copy, delivery.images, targets))
    if move:
        for item in delivery.images:
            item.path.unlink()
    return day, delivery


def _inspect(
    source: Path, history: manifest.History, today: dict[str, tuple[str, str]]
) -> Delivery:
    with Ticker("checking", 0, "files") as ticker:
        return intake.inspect(source, history, today=today, progress=ticker.so_far)


def _targets(folder: Path, images: list[Delivered]) -> list[Path]:
    """A free name for each image: its own, or with the head of its id where that is taken."""
    taken: set[Path] = set()
    targets = []
    for item in images:
        target = folder / item.label / item.path.name
        if target in taken or target.exists():
            target = target.with_stem(f"{target.stem[:200]}-{item.image[:8]}")
        taken.add(target)
        targets.append(target)
    return targets


def _copy(item: Delivered, target: Path) -> None:
    data = item.path.read_bytes()
    if sha256(data) != item.image:
        raise IntakeError(f"{item.path} changed while it was being added.", mend="add it again")
    write_bytes(target, data)


def repro(project: Project) -> None:
    """Run `dvc repro`, its output shown."""
    vcs.dvc(project.root, "repro", show=True)


def seal(project: Project, message: str = "") -> str:
    """Commit the project's own paths and tag the open day; return the tag.

    Raises CycleError unless a day is open and DVC finds all its outputs up to date.
    """
    now = standing(project)
    if now.is_unopened:
        raise CycleError("No day is open.", mend="dayfold add FOLDER")
    if now.is_sealed:
        raise CycleError(f"{now.day} is sealed already.", mend="dayfold add FOLDER --day NEXT")
    require_identity(project.root)
    stale = _stale(project)
    if stale:
        raise CycleError(
            f"{now.day} is not up to date: {', '.join(stale)}.", mend="dvc repro, then seal"
        )
    paths = [name for name in OWN_PATHS if (project.root / name).exists()]
    vcs.git(project.root, "add", "--", *paths)
    text = message or f"Seal {now.day}"
    # Only these paths, whatever else is staged; a commit even if someone committed them by hand,
    # so that one commit is one day.
    vcs.git(
        project.root,
        "commit",
        "--quiet",
        "--allow-empty",
        "--only",
        "--message",
        text,
        "--",
        *paths,
    )
    tag = vcs.TAG + now.day
    vcs.git(project.root, "tag", "--annotate", "--message", text, tag)
    return tag


def _stale(project: Project) -> list[str]:
    """What of the open day DVC finds changed; the images of other days are not looked at."""
    tracked = (
        project.tracked(params_file.read(project.params).day),
        project.parent.with_suffix(".dvc"),
    )
    return vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))


def unseal(project: Project) -> str:
    """Take back the last day's seal: the tag and its commit go, all files stay; return the day.

    Raises CycleError where other commits followed or the seal was pushed.
    """
    now = standing(project)
    root, tag = project.root, vcs.TAG + now.day
    if not now.is_sealed:
        raise CycleError(f"{now.day} is not sealed.", mend="dayfold status")
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


def run(project: Project, source: Path, *, day: str, say: Callable[[str], None]) -> None:
    """Add, reproduce and seal one day without a person; a day that is sealed is left alone."""
    if day in standing(project).sealed:
        say(f"{day} is sealed")
        return
    _, delivery = add(project, source, day=day)
    say(f"{day}: {len(delivery.images)} images added, {len(delivery.known)} known")
    repro(project)
    say(f"sealed as {seal(project)}")


def backfill(project: Project, source: Path, *, say: Callable[[str], None]) -> None:
    """Run every dated folder of `source` in order; what is sealed already is passed over."""
    folders = sorted(path for path in Path(source).iterdir() if not path.name.startswith("."))
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
        run(project, folder, day=folder.name, say=say)


def advice(project: Project) -> list[str]:
    """Say where the project stands and what to run next, a line each."""
    now = standing(project)
    if now.is_unopened:
        return ["no day yet", "next: dayfold add FOLDER"]
    lines = [
        f"day     {now.day}, {'sealed' if now.is_sealed else 'open'}; parent {now.params.parent}",
        f"sealed  {len(now.sealed)} days",
    ]
    if now.is_sealed:
        return [*lines, "next    dayfold add FOLDER"]
    images = sum(1 for path in project.images(now.day).glob("*/*") if path.is_file())
    lines.append(f"images  {images} in {project.name(project.images(now.day))}")
    stale = _stale(project)
    if stale:
        return [*lines, f"stale   {', '.join(stale)}", "next    dvc repro"]
    return [*lines, "next    dvc metrics diff, then dayfold seal"]
