"""Adding images: each is checked, the good are taken."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dayfold.cycle import added
from dayfold.cycle.correcting import RELABEL, Desk
from dayfold.cycle.opening import check_may_change, make_open
from dayfold.cycle.standing import Standing, standing
from dayfold.errors import IntakeError, RefusedError
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
from dayfold.project.console import first_few
from dayfold.project.cpus import cpus
from dayfold.project.files import escaped, sha256_file, sync_folder, write_bytes, write_csv
from dayfold.project.layout import Project, is_day


def _nobody_agrees(guess: str, option: str) -> None:
    raise IntakeError(f"The columns are guessed: {guess}.", hint=f"dayfold add … {option}")


@dataclass(frozen=True)
class Options:
    """How `add` is to behave: see its options on the command line (docs/cli.md)."""

    move: bool = False
    strict: bool = False
    dry_run: bool = False
    yes: bool = False
    labels: Path | None = None
    columns: str = ""
    relabel: bool = False
    classes: Path | None = None
    group: str | None = None
    # Asks whether a guess of columns is right, and raises where nobody says so (labels.read).
    agree: Callable[[str, str], None] = field(default=_nobody_agrees, compare=False)


def add(project: Project, source: Path, *, day: str, options: Options | None = None) -> Delivery:
    """Check what `source` holds and take the good images into data/images/<day>/.

    `source` is a folder of <class>/<image>, a zip or tar archive of one, or any folder with a CSV
    of labels. Opens `day` if it is not open and there is a new image, also one that lies there. The
    bytes that were checked wait in .dvc/tmp until all are. Returns what was found.
    """
    options, source, now = options or Options(), Path(source), standing(project)
    check_may_change(project, now, day, what="images")
    group = now.params.data.group if options.group is None else options.group
    params_file.changed(now.params, {"data.group": group})  # refuses what is no expression
    _check_given(source, options)
    delivery = Delivery()
    with _scratch(project) as scratch:
        lying, history = _inspect(project, now, day, source, delivery, options, scratch)
        desk = _corrections(project, day, delivery, options)
        recorded = splits.read_groups(project, day) if delivery.groups else {}
        delivery.groups = dict(delivery.groups.items() - recorded.items())
        targets = _targets(project, day, delivery, group)
        is_by_csv = options.labels is not None
        delivery.patients = [*added.patients(project, targets, group, is_by_csv=is_by_csv)]
        if options.group is not None and not targets:
            delivery.patients = [*added.patients_again(delivery.known, lying, group)]
        checking.warn_of_lookalikes(delivery, history, looks.read(project, history.days))
        if now.day != day:
            delivery.lying = len(lying)
            if targets or desk or lying.keys() - {*history.images["image"], *history.withdrawn}:
                delivery.opened = now.next_parent
        _list(project, day, source, delivery, is_of_day=now.day == day and not options.dry_run)
        _check_outcome(source, delivery, options)
        if not options.dry_run:
            if desk:
                desk.close()
            if delivery.opened:
                if not (desk and desk.opened):
                    make_open(project, now, day)
                _list(project, day, source, delivery, is_of_day=True)
            if group != now.params.data.group and (delivery.opened or now.day == day):
                params_file.edit(project.params, {"data.group": group})
                delivery.is_regrouped = True
                delivery.patients += added.regrouped(now.params.data.group, group, now.sealed)
            if options.classes:
                kept = sorted(_classes(project, options).items())
                write_csv(project.classes, ("theirs", "ours"), kept)
            if delivery.groups:
                splits.add_groups(project, day, delivery.groups)
            _take_in(targets, scratch / "stage")
            if options.move:
                _remove_given(delivery)
    return delivery


def _inspect(
    project: Project,
    now: Standing,
    day: str,
    source: Path,
    delivery: Delivery,
    options: Options,
    scratch: Path,
) -> tuple[dict[str, tuple[str, str]], History]:
    """Find and check what is given; what lies in the day's folder already, and the history."""
    found = _find(project, source, options, delivery, scratch)
    lying = _today(project, day)
    history, had = known(project, now, day)
    _ask(source, suspicions(tally(found), {*history.images["label"]}), delivery, options)
    stage = scratch / "stage"
    stage.mkdir()
    checking.inspect(
        found,
        delivery,
        history,
        max_pixels=now.params.data.max_pixels,
        today=lying,
        had=had,
        stage=None if options.dry_run else stage,
    )
    return lying, history


def _find(
    project: Project, source: Path, options: Options, delivery: Delivery, scratch: Path
) -> list[Found]:
    if is_day(source.name) and source.resolve() == project.images(source.name).resolve():
        return walk_day(project, source.name, delivery)
    folder = unpacked(source, delivery, scratch, has_labels=options.labels is not None)
    classes = _classes(project, options)
    if not options.labels:
        found = walk(folder, delivery)
        return [one._replace(label=classes.get(one.label, one.label)) for one in found]
    return labels.read(
        options.labels,
        folder,
        delivery,
        columns=options.columns,
        classes=classes,
        agree=options.agree,
    )


def _classes(project: Project, options: Options) -> dict[str, str]:
    """Our names of classes by theirs: of the file that is given, or that the project keeps."""
    kept = options.classes or project.classes
    return labels.read_classes(kept) if options.classes or kept.exists() else {}


def known(project: Project, now: Standing, day: str) -> tuple[History, dict[str, set[str]]]:
    """Return the history as a day's corrections leave it, and the classes images had before."""
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
    if options.columns and not options.labels:
        raise IntakeError("--columns says which columns --labels has.", hint="--labels FILE")


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
    folder = project.images(day)
    taken = {folded(path) for path in folder.glob("*/*")}
    # Where corrected ones may go.
    taken |= {folded(folder / one.label / Path(one.known).name) for one in delivery.changed}
    targets, kept = [], []
    for item in delivery.images:
        name = composed(item.path.name)
        own = target = folder / item.label / name
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


def _corrections(project: Project, day: str, delivery: Delivery, options: Options) -> Desk | None:
    """Take images of another label out of the refused; their corrections, checked, if asked for."""
    places = {one.place for one in delivery.changed}
    delivery.refused = [one for one in delivery.refused if one.place not in places]
    if not options.relabel or not delivery.changed:
        return None
    desk, given = Desk(project, day), {one.known: one.label for one in delivery.changed}
    reason = f"given in {escaped(options.labels.name)}" if options.labels else "given again"
    for path, label in given.items():
        desk.check_class(label)
        for target in desk.targets([project.root / path]):
            desk.correct(RELABEL, target, label, reason)
    desk.check()
    return desk


def _check_outcome(source: Path, delivery: Delivery, options: Options) -> None:
    """Raise RefusedError where the refused files leave nothing to go on with."""
    refused = delivery.refused + delivery.changed * (options.strict and not options.relabel)
    is_all = not (delivery.images or delivery.known or delivery.changed) and not options.dry_run
    if refused and (options.strict or is_all):
        raise RefusedError(
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
    kinds = {name: getattr(delivery, name) for name in ("known", "changed", "refused", "warned")}
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


def _take_in(targets: Sequence[tuple[Delivered, Path]], stage: Path) -> None:
    """Move the checked bytes from the stage to their places in the open day."""
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
