"""Adding images: checked one by one; what is good comes into the day's folder at once."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from dayfold.cycle import patients
from dayfold.cycle.opening import check_may_change, make_open, opened
from dayfold.cycle.standing import Standing, standing
from dayfold.errors import IntakeError
from dayfold.ledger import corrections, looks, manifest, splits, tables
from dayfold.ledger.intake import checking, labels
from dayfold.ledger.intake.delivery import (
    Delivered,
    Delivery,
    Found,
    Remark,
    safe_cell,
    suspicions,
    tally,
    write_down,
)
from dayfold.ledger.intake.finding import (
    MOST_BYTES,
    composed,
    folded,
    substitute,
    unpacked,
    walk,
    walk_day,
)
from dayfold.ledger.manifest import History
from dayfold.ledger.tables import Rejected
from dayfold.project import params as params_file
from dayfold.project.console import Ticker, first_few, plural
from dayfold.project.cpus import cpus
from dayfold.project.files import escaped, sha256_file, sync_folder, write_bytes
from dayfold.project.layout import Project, is_day


@dataclass(frozen=True)
class Options:
    """How `add` is to behave: see its options on the command line (docs/cli.md)."""

    move: bool = False
    strict: bool = False
    dry_run: bool = False
    yes: bool = False
    labels: Path | None = None
    group: str | None = None


def add(
    project: Project, source: Path, *, day: str, options: Options | None = None
) -> tuple[str, Delivery]:
    """Check what `source` holds and take the good images into data/images/<day>/.

    `source` is a folder of <class>/<image>, a zip or tar archive of one, or any folder with a CSV
    of labels. Opens `day` if it is not open and there is a new image, also one that lies there. The
    bytes that were checked wait in .dvc/tmp until all are. Returns the day and what was found.
    """
    options, source, now = options or Options(), Path(source), standing(project)
    check_may_change(project, now, day, what="images")
    group = now.params.data.group if options.group is None else options.group
    params_file.changed(now.params, {"data.group": group})  # refuses what is no expression
    _check_given(source, options)
    delivery = Delivery()
    with _scratch(project) as scratch:
        found = _find(project, source, options, delivery, scratch)
        lying = _today(project, day)
        history, had = _known(project, now, day)
        _ask(source, suspicions(tally(found), {*history.images["label"]}), delivery, options)
        stage = scratch / "stage"
        stage.mkdir()
        with Ticker("checking", len(found), "files") as ticker:
            checking.inspect(
                found,
                delivery,
                history,
                max_pixels=now.params.data.max_pixels,
                today=lying,
                had=had,
                stage=None if options.dry_run else stage,
                progress=ticker.so_far,
            )
        recorded = splits.read_groups(project, day) if delivery.groups else {}
        delivery.groups = dict(delivery.groups.items() - recorded.items())
        targets = _targets(project, day, delivery, group)
        is_by_csv = options.labels is not None
        delivery.patients = [*patients.found(project, targets, group, is_by_csv=is_by_csv)]
        checking.warn_of_lookalikes(delivery, history, looks.read(project, history.days))
        if now.day != day:
            delivery.lying = len(lying)
            if targets or lying.keys() - {*history.images["image"], *history.withdrawn}:
                delivery.opened = now.next_parent
        _list(project, day, source, delivery, is_of_day=now.day == day and not options.dry_run)
        _check_outcome(source, delivery, options)
        if not options.dry_run:
            if delivery.opened:
                make_open(project, now, day)
                _list(project, day, source, delivery, is_of_day=True)
            if group != now.params.data.group and (delivery.opened or now.day == day):
                params_file.edit(project.params, {"data.group": group})
                delivery.patients += patients.changed(now.params.data.group, group, now.sealed)
            _take_in(project, day, targets, stage, delivery.groups)
            if options.move:
                _remove_given(delivery)
    return day, delivery


def _find(
    project: Project, source: Path, options: Options, delivery: Delivery, scratch: Path
) -> list[Found]:
    if is_day(source.name) and source.resolve() == project.images(source.name).resolve():
        return walk_day(project, source.name, delivery)
    folder = unpacked(source, delivery, scratch, has_labels=options.labels is not None)
    if options.labels:
        return labels.read(options.labels, folder, delivery)
    return walk(folder, delivery)


def _known(project: Project, now: Standing, day: str) -> tuple[History, dict[str, set[str]]]:
    """The history as the day's corrections leave it, and the classes that images had before."""
    if now.day != day:
        return manifest.history(project, now.next_parent), {}
    history = manifest.history(project, now.params.parent)
    lines = corrections.lines(project, day)
    return corrections.applied(history, lines), corrections.labels_before(history, lines)


@contextmanager
def _scratch(project: Project) -> Iterator[Path]:
    """A new folder on the project's own disk; what an earlier `add` was killed over goes too."""
    top = project.scratch / "adding"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    try:
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _check_given(source: Path, options: Options) -> None:
    if not source.is_dir():
        if not source.is_file():
            what = "is neither a folder nor a file" if source.exists() else "is not there"
            raise IntakeError(f"{source} {what}.", hint="give the folder of class folders")
        if options.move:
            raise IntakeError(f"{source} is an archive.", hint="leave out --move")


def _ask(source: Path, odd: list[str], delivery: Delivery, options: Options) -> None:
    if odd and not (options.dry_run or options.yes):
        raise IntakeError(
            f"{source} looks odd, so nothing was added:",
            problems=odd,
            hint="if it is as you mean it: dayfold add … --yes",
        )
    for line in odd:
        delivery.warn(str(source), f"is odd: {line}")


def _today(project: Project, day: str) -> dict[str, tuple[str, str]]:
    """The images that are in the day's folder already: sha256 → (class, place), unchecked."""
    there = walk_day(project, day, Delivery())
    with ThreadPoolExecutor(cpus()) as pool:
        hashes = pool.map(lambda one: sha256_file(one.path), there)
        return {
            image: (one.label, project.name(one.path))
            for image, one in zip(hashes, there, strict=True)
        }


def _targets(
    project: Project, day: str, delivery: Delivery, expression: str
) -> list[tuple[Delivered, Path]]:
    """Where each image goes: its own name (NFC), with the head of its id where that is taken.

    An image without a group, or whose group another name would change, is refused.
    """
    taken = {folded(path) for path in project.images(day).glob("*/*")}
    targets, kept = [], []
    for item in delivery.images:
        name = composed(item.path.name)
        own = target = project.images(day) / item.label / name
        # A composed name can be longer than the one it was.
        if folded(own) in taken or len(name.encode()) > MOST_BYTES:
            target = own.with_name(substitute(name, item.image))
        try:
            own_group, group = (
                item.told or splits.group_of(project.name(path), expression, item.ids)
                for path in (own, target)
            )
        except IntakeError:
            delivery.refuse(item.place, f"has {splits.NO_GROUP}", item.image)
            continue
        if own_group != group:
            delivery.refuse(
                item.place,
                "has a name that is taken today, and another would change its group",
                item.image,
            )
            continue
        taken.add(folded(target))
        targets.append((item, target))
        kept.append(item)
    delivery.images = kept
    return targets


def _check_outcome(source: Path, delivery: Delivery, options: Options) -> None:
    """Raise IntakeError where the refused files leave nothing to go on with."""
    refused = delivery.refused
    is_all = not (delivery.images or delivery.known) and not options.dry_run
    if refused and (options.strict or is_all):
        raise IntakeError(
            f"{len(refused)} problems in {source}; nothing was added:",
            problems=first_few([str(problem) for problem in refused], delivery.listed["refused"]),
            hint=_hint(refused),
        )


def _hint(refused: list[Remark]) -> str:
    """What to do about the refused files; where the depth is wrong, that."""
    reasons = {remark.said for remark in refused}
    if len(reasons) == 1:
        (reason,) = reasons
        if reason.startswith("is a folder"):
            return "give each of the folders inside by itself: one level deeper"
        if reason.startswith("lies in no class folder"):
            return "pass the parent folder, which contains the class folders"
    return "fix or remove these files, then run the command again"


def _list(project: Project, day: str, source: Path, delivery: Delivery, *, is_of_day: bool) -> None:
    """Write down what is said of files, so that what is printed may be short; `listed` says where.

    What is refused of an open day is kept in data/rejected/<day>.csv, all else in .dvc/tmp.
    """
    kinds = {"known": delivery.known, "refused": delivery.refused, "warned": delivery.warned}
    if is_of_day:
        _record_refused(project, day, source, delivery)
        delivery.listed["refused"] = project.name(project.rejected(day))
        del kinds["refused"]
    delivery.listed |= dict.fromkeys(kinds, write_down(project, kinds))


def _record_refused(project: Project, day: str, source: Path, delivery: Delivery) -> None:
    """Bring data/rejected/<day>.csv up to date."""
    path, given = project.rejected(day), safe_cell(escaped(os.path.relpath(source, project.root)))
    before = tables.read(path, Rejected).rows() if path.exists() else []
    rows = {row for row in before if row[0] != given}
    rows |= {
        (given, safe_cell(one.place), one.image, escaped(one.said)) for one in delivery.refused
    }
    if rows != set(before):
        tables.write(path, Rejected, sorted(rows))


def _take_in(
    project: Project,
    day: str,
    targets: list[tuple[Delivered, Path]],
    stage: Path,
    groups: dict[str, str],
) -> None:
    """Move the checked bytes from the stage to their places in the open day."""
    if groups:
        splits.add_groups(project, day, groups)
    folders = {target.parent for _, target in targets}
    for folder in sorted(folders):
        folder.mkdir(parents=True, exist_ok=True)
    for item, target in targets:
        try:
            (stage / item.image).rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # data/ lies on another disk than .dvc/.
            write_bytes(target, (stage / item.image).read_bytes())
    for folder in sorted({*folders, *(folder.parent for folder in folders)}):
        sync_folder(folder)


def _remove_given(delivery: Delivery) -> None:
    """Take away what was added from where it was given."""
    for item in delivery.images:
        try:
            item.path.unlink()
        except OSError as error:
            said = f"was added, but stays where it is, too ({error.strerror})"
            delivery.warn(item.place, said)


def said_of_day(project: Project, day: str, delivery: Delivery, options: Options) -> Iterator[str]:
    """Yield what is to be said of patients, and where `add` opened the day, or would, or not."""
    if delivery.opened:
        would = options.dry_run
        yield from opened(project, day, delivery.opened, lying=delivery.lying, would=would)
    elif delivery.lying:
        folder = project.name(project.images(day))
        yield f"{plural(delivery.lying, 'image')} lay in {folder}, but earlier days have them too"
    yield from delivery.patients


def table(day: str, delivery: Delivery, options: Options) -> Table:
    """Return what was added, known, refused, warned of and ignored: how many files, and which."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column(day)
    shown.add_column("files", justify="right")
    shown.add_column("", overflow="fold")
    would = "would be " * options.dry_run
    classes = sorted(tally(delivery.images).items())
    said = ", ".join(f"{escaped(label)} {count}" for label, count in classes)
    shown.add_row(f"{would}added", str(len(delivery.images)), Text(said))
    if delivery.groups:
        shown.add_row(f"{would}grouped", str(len(delivery.groups)), "patients or studies recorded")
    for name, kind, remarks in (
        ("already known", "known", delivery.known),
        (f"{would}refused", "refused", delivery.refused),
        ("warned", "warned", delivery.warned),
    ):
        lines = Text("\n".join(_first(remarks, delivery.listed[kind])))
        shown.add_row(name, str(len(remarks)), lines)
    if delivery.ignored:
        shown.add_row("ignored", str(delivery.ignored), "hidden and system files")
    return shown


def unusual(delivery: Delivery) -> Iterator[str]:
    """Yield a line a file that is refused or warned of, and where all of them stand."""
    for kind, remarks in (("refused", delivery.refused), ("warned", delivery.warned)):
        yield from (f"  {kind}: {line}" for line in _first(remarks, delivery.listed[kind]))


def next_step(delivery: Delivery, options: Options) -> str:
    """Return what to do next."""
    if options.dry_run:
        return "nothing was changed; without --dry-run it is done"
    is_new = delivery.images or delivery.groups or delivery.opened
    return "next: dvc repro" if is_new else "nothing new"


def _first(remarks: Sequence[Remark], where: str) -> list[str]:
    return first_few([str(remark) for remark in remarks], where)
