"""The day's cycle: open, add, (dvc repro,) seal; unseal; and what to do next."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from dayfold.create import make_origin, require_identity
from dayfold.errors import CycleError, GateError, IntakeError
from dayfold.figures import gate
from dayfold.ledger import corrections, intake, manifest, splits
from dayfold.ledger.intake import Delivered, Delivery
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import Ticker
from dayfold.project.files import md5_file, sha256, write_bytes
from dayfold.project.layout import ORIGIN, UNOPENED, Project, check_day
from dayfold.project.params import Params

# What a day makes, in git: the same in the tag and in the working tree, or the day was made again.
DAY_PATHS = (
    "dvc.lock",
    "metrics.json",
    "data/corrections",
    "data/manifests",
    "data/evaluations",
    "data/gates",
    "data/plots",
    "data/provenance.json",
)
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
    current day is not sealed or is no longer as it was sealed, or where `day` is not after it.
    """
    now = standing(project)
    _check_may_open(project, now, day)
    project.images(day).mkdir(parents=True, exist_ok=True)
    corrections.write_empty(project, day)
    if now.is_unopened:
        if not project.parent_model.exists():
            make_origin(project, now.params)
    else:
        _fold_into_month(project, now.day)
        _inherit(project)
    tracked = (project.parent, project.images(day))
    vcs.dvc(project.root, "add", "--quiet", *map(project.name, tracked))
    # Last: until params.yaml says so, the day is not open, and opening it again is harmless.
    params_file.edit(project.params, {"day": day, "parent": now.next_parent})


def _check_may_open(project: Project, now: Standing, day: str) -> None:
    check_day(day)
    if day in now.sealed:
        raise CycleError(f"{day} is already sealed.", mend="dayfold status")
    if now.day == day:
        raise CycleError(f"{day} is already open.", mend="dayfold status")
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
    if now.sealed[-1] > now.day:
        raise CycleError(
            f"This is the checkout of {now.day}; days up to {now.sealed[-1]} are sealed.",
            mend="git checkout the branch of the last day, then dvc checkout",
        )
    _check_is_as_sealed(project, now.day)


def _check_is_as_sealed(project: Project, day: str) -> None:
    """Raise CycleError unless the sealed day's files are those of its tag, to the byte.

    An experiment, or a `dvc repro` with other params, makes the day again in place; the next day
    must not be built on that without a word.
    """
    tag = vcs.TAG + day
    changed = vcs.git(project.root, "diff", "--name-only", tag, "--", *DAY_PATHS).split()
    made = vcs.outputs(project.dvc_lock)
    for path in (project.model, project.predictions):
        if not path.exists() or md5_file(path) != made[project.name(path)]:
            changed.append(project.name(path))
    if changed:
        raise CycleError(
            f"{day} is not as it was sealed: {', '.join(sorted(set(changed)))}.",
            mend=f"to go back to what was sealed: git checkout {tag} -- {' '.join(DAY_PATHS)} "
            "&& dvc checkout --force; to keep the new one: dayfold unseal && dayfold seal",
        )


def _inherit(project: Project) -> None:
    """Make the day's model and predictions the parent's."""
    for source, target in (
        (project.model, project.parent_model),
        (project.predictions, project.parent_predictions),
    ):
        write_bytes(target, source.read_bytes())


def _fold_into_month(project: Project, day: str) -> None:
    """Move a sealed day's entry from its own .dvc file into that of its month.

    DVC parses every .dvc file for every command, which with 200 of them made a `dvc repro` without
    anything to do 1.4 times as long as with two; with one a month, 1.16 to 1.26 times.
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

    Opens `day` if it is not open and there is a new image. All files are checked before the first
    is copied; if any is refused, IntakeError lists every one and nothing is added. Images that are
    known stay where they are. Returns the day and what was found.
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
        _check_may_open(project, now, day)
    history = manifest.history(project, now.next_parent if opening else now.params.parent)
    present = intake.inspect(project.images(day), history)
    today = {item.image: (item.label, project.name(item.path)) for item in present.images}
    with Ticker("checking", 0, "files") as ticker:
        delivery = intake.inspect(source, history, today=today, progress=ticker.so_far)
    targets = _targets(project, day, delivery, now.params.data.group)
    if delivery.problems:
        raise IntakeError(
            f"{len(delivery.problems)} problems in {source}; nothing was added:",
            problems=delivery.problems,
            mend="mend or remove these files and give the folder again",
        )
    if opening and delivery.images:
        open_day(project, day)
    with (
        Ticker("copying", len(targets), "files") as ticker,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for _ in pool.map(_copy, delivery.images, targets):
            ticker.advance(1)
    if move:
        for item in delivery.images:
            item.path.unlink()
    return day, delivery


def _targets(project: Project, day: str, delivery: Delivery, expression: str) -> list[Path]:
    """A free name for each image: its own, or with the head of its id where that is taken.

    An image without a group, or whose group another name would change, is a problem.
    """
    taken: set[Path] = set()
    targets = []
    for item in delivery.images:
        own = target = project.images(day) / item.label / item.path.name
        if own in taken or own.exists():
            stem = own.stem.encode()[:200].decode(errors="ignore")
            target = own.with_stem(f"{stem}-{item.image[:8]}")
        taken.add(target)
        targets.append(target)
        try:
            groups = {splits.group_of(project.name(path), expression) for path in (own, target)}
        except IntakeError as error:
            delivery.problems.append(error.what)
        else:
            if len(groups) > 1:
                delivery.problems.append(
                    f"{item.path}: the name is taken today, and another would change its group"
                )
    return targets


def _copy(item: Delivered, target: Path) -> None:
    data = item.path.read_bytes()
    if sha256(data) != item.image:
        raise IntakeError(f"{item.path} changed while it was being added.", mend="add it again")
    write_bytes(target, data)


def repro(project: Project) -> None:
    """Run `dvc repro`, its output shown."""
    vcs.dvc(project.root, "repro", show=True)


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
    stale = _stale(project, now.day)
    if stale:
        raise CycleError(
            f"{now.day} is not up to date: {', '.join(stale)}.", mend="dvc repro, then seal"
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


def _stale(project: Project, day: str) -> list[str]:
    """What of the open day DVC finds changed; the images of other days are not looked at."""
    tracked = (project.tracked(day), project.parent.with_suffix(".dvc"))
    return vcs.stale(project.root, "dvc.yaml", *map(project.name, tracked))


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
        try:
            _check_is_as_sealed(project, now.day)
        except CycleError as error:
            return [*lines, *str(error).splitlines()]
        return [*lines, "next    dayfold add FOLDER"]
    labels = intake.count(project.images(now.day))
    history = manifest.history(project, now.params.parent)
    new = sorted(set(labels) - set(history.images["label"].unique()))
    lines.append(
        f"images  {sum(labels.values())} in {len(labels)} classes"
        + (f"; new: {', '.join(new)}" if new else "")
    )
    stale = _stale(project, now.day)
    if stale:
        return [*lines, f"stale   {', '.join(stale)}", "next    dvc repro"]
    reasons = gate.reasons(gate.read(project, now.day))
    if reasons:
        lines += ["gate    failed", *(f"  - {reason}" for reason in reasons)]
        return [*lines, 'next    another recipe and dvc repro, or dayfold seal --force -m "why"']
    return [*lines, "gate    passed", "next    dvc metrics diff, then dayfold seal"]
