"""Adding images: checked one by one; what is good comes into the day's folder at once."""

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dayfold.cycle.opening import check_may_change, make_open
from dayfold.cycle.standing import Standing, standing
from dayfold.errors import IntakeError
from dayfold.ledger import corrections, grouping, looks, manifest, moved, splits, tables
from dayfold.ledger.decode import IMAGE_ENDINGS
from dayfold.ledger.intake import archives, checking, labels, shapes, workers
from dayfold.ledger.intake.delivery import (
    Delivered,
    Delivery,
    Found,
    Remark,
    safe_cell,
    write_down,
)
from dayfold.ledger.intake.walking import (
    MOST_BYTES,
    composed,
    folded,
    is_clutter,
    substitute,
    tally,
    walk,
    walk_day,
)
from dayfold.ledger.manifest import History
from dayfold.ledger.tables import Rejected
from dayfold.project.console import Ticker, first_few
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
    zip_names: str = ""


def add(
    project: Project, source: Path, *, day: str, options: Options | None = None
) -> tuple[str, Delivery]:
    """Check what `source` holds and take the good images into data/images/<day>/.

    `source` is a folder of <class>/<image>, a zip or tar archive of one, or any folder with a CSV
    of labels. Opens `day` if it is not open and there is a new image, or if images lie in its
    folder already. Every file is read once; its checked bytes wait in .dvc/tmp and are moved into
    the day's folder when all are checked. What is refused stays where it is and is listed in
    data/rejected/<day>.csv; known images stay too.

    Returns the day and what was found. Raises IntakeError, with nothing added, where nothing but
    refused files was given, where `strict` and any is refused, and where the delivery has an odd
    shape that `yes` does not confirm.
    """
    options = options or Options()
    source = Path(source)
    now = standing(project)
    check_may_change(project, now, day, what="images")
    delivery = Delivery()
    with _scratch(project) as scratch:
        found = _find(project, source, delivery, options, scratch)
        lying = _today(project, day)
        history, had = _known(project, now, day)
        if odd := shapes.suspicions(tally(found), set(history.images["label"].unique())):
            _ask(source, odd, delivery, options)
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
        targets = _targets(project, day, delivery, now.params.data.group)
        delivery.groups = _new_groups(project, day, delivery)
        earlier = looks.read(project, history.days)
        checking.warn_of_lookalikes(delivery, history, earlier)
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
            if targets or delivery.groups:
                _take_in(project, day, targets, stage, delivery.groups)
            if options.move:
                _remove_given(delivery)
    return day, delivery


def _known(project: Project, now: Standing, day: str) -> tuple[History, dict[str, set[str]]]:
    """The history as the day's corrections leave it, and the classes that images had before."""
    if now.day != day:
        return manifest.history(project, now.next_parent), {}
    history = manifest.history(project, now.params.parent)
    lines = corrections.lines(project, day)
    had = moved.given(project, day)
    for image, label in corrections.labels_before(history, lines):
        had.setdefault(image, set()).add(label)
    return corrections.applied(history, lines), had


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


def _find(
    project: Project, source: Path, delivery: Delivery, options: Options, scratch: Path
) -> list[Found]:
    """The files that a folder or an archive holds, by its class folders or by a CSV."""
    folder = source
    if options.zip_names and not archives.is_encoding(options.zip_names):
        raise IntakeError(
            f"{options.zip_names!r} is no encoding of names in an archive.",
            mend="--zip-names cp437 (DOS), cp1252 (Windows), cp932 (Japan), gbk (China) …",
        )
    if not source.is_dir():
        if not source.is_file():
            what = "is neither a folder nor a file" if source.exists() else "is not there"
            raise IntakeError(f"{source} {what}.", mend="give the folder of class folders")
        if options.move:
            raise IntakeError(f"{source} is an archive.", mend="leave out --move")
        folder = scratch / "unpacked"
        folder.mkdir()
        for name, reason in workers.unpack(source, folder, encoding=options.zip_names):
            delivery.refuse(escaped(name), reason)
        if options.labels is None:
            folder = _below_the_top(folder)
    if options.labels is not None:
        return labels.read(options.labels, folder, delivery)
    if is_day(source.name) and source.resolve() == project.images(source.name).resolve():
        return walk_day(project, source.name, delivery)
    return walk(folder, delivery)


def _below_the_top(folder: Path) -> Path:
    """The folder inside, where all of an archive is in one: it was packed by its name.

    What may be an image and lies beside the folders there tells that it is a class.
    """
    entries = [entry for entry in folder.iterdir() if not is_clutter(entry.name)]
    if len(entries) != 1 or not entries[0].is_dir():
        return folder
    inner = [entry for entry in entries[0].iterdir() if not is_clutter(entry.name)]
    loose = {entry.suffix.lower() for entry in inner if not entry.is_dir()}
    is_class = not loose.isdisjoint({*IMAGE_ENDINGS, ""}) or len(loose) == len(inner)
    return folder if is_class else entries[0]


def _ask(source: Path, odd: list[str], delivery: Delivery, options: Options) -> None:
    if options.dry_run or options.yes:
        for line in odd:
            delivery.warn(str(source), f"is odd: {line}")
        return
    raise IntakeError(
        f"{source} looks odd, so nothing was added:",
        problems=odd,
        mend="if it is as you mean it: dayfold add … --yes",
    )


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


def _new_groups(project: Project, day: str, delivery: Delivery) -> dict[str, str]:
    """The groups that a CSV names and the day does not have yet."""
    recorded = grouping.read(project, day) if delivery.groups else {}
    return {
        image: group for image, group in delivery.groups.items() if recorded.get(image) != group
    }


def _check_outcome(source: Path, delivery: Delivery, options: Options) -> None:
    """Raise IntakeError where the refused files leave nothing to go on with."""
    refused = delivery.refused
    is_all = not (delivery.images or delivery.known) and not options.dry_run
    if refused and (options.strict or is_all):
        raise IntakeError(
            f"{len(refused)} problems in {source}; nothing was added:",
            problems=first_few([str(problem) for problem in refused], delivery.listed["refused"]),
            mend=_mend(refused),
        )


def _mend(refused: list[Remark]) -> str:
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

    What is refused is kept in data/rejected/<day>.csv: of this source, what is refused now. Where
    nothing of the day may be left behind it stands with the rest, in .dvc/tmp.
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
        grouping.add(project, day, groups)
    folders = {target.parent for _, target in targets}
    for folder in sorted(folders):
        folder.mkdir(parents=True, exist_ok=True)
    for item, target in targets:
        _place(stage / item.image, target)
    for folder in sorted(folders | {project.images(day)}):
        sync_folder(folder)


def _remove_given(delivery: Delivery) -> None:
    """Take away what was added from where it was given."""
    for item in delivery.images:
        try:
            item.path.unlink()
        except OSError as error:
            said = f"was added, but stays where it is, too ({error.strerror})"
            delivery.warn(item.place, said)


def _place(staged: Path, target: Path) -> None:
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # data/ lies on another disk than .dvc/.
        write_bytes(target, staged.read_bytes())
