"""Adding images: checked, the good taken."""

import errno
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dayfold.cycle.correcting import Desk, relabel
from dayfold.cycle.opening import check_may_change, make_open, opened
from dayfold.errors import IntakeError, RefusedError, ToolError
from dayfold.history.line import Line
from dayfold.ledger import grouping, looks, tables
from dayfold.ledger.intake import delivery as deliveries
from dayfold.ledger.intake import finding, labels
from dayfold.ledger.intake.delivery import Delivery, Found, Remark, safe_cell, tally, write_down
from dayfold.ledger.manifest import History
from dayfold.ledger.names import MOST_BYTES, composed, folded, substitute
from dayfold.ledger.tables import Rejected
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import ask, first_few, plural
from dayfold.project.cpus import cpus
from dayfold.project.files import escaped, sha256_file, sync_folder, write_bytes, write_csv
from dayfold.project.layout import Project, is_day

STAGE = "stage"  # where checked bytes wait


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


def add(project: Project, source: Path, *, day: str, options: Options | None = None) -> Delivery:
    """Check what `source` holds and take the good images into data/images/<day>/.

    `source` is a folder of <class>/<image>, a zip or tar archive of one, or any folder with a CSV
    of labels. Opens `day` if it is not open and there is a new image, also one that lies there. The
    bytes that were checked wait in .dvc/tmp until all are. Returns what was found.
    """
    options, now = options or Options(), Line.read(project)
    check_may_change(now, day)
    group = now.params.data.group if options.group is None else options.group
    params_file.changed(now.params, {"data.group": group})  # it refuses what is no expression
    _check_given(source, options)
    delivery = Delivery(is_dry=options.dry_run, relabels=options.relabel)
    with _scratch(project) as scratch:
        # What is given, beside what is known.
        found = _found(project, source, scratch, delivery, options)
        history, lying = now.history(), _lying(project, day)
        _tell_odd(source, tally(found), {*history.images["label"]}, delivery, options)
        (scratch / STAGE).mkdir()
        stage = None if options.dry_run else scratch / STAGE
        deliveries.inspect(found, delivery, history, today=lying, stage=stage)
        _tell_old_names(delivery, history)
        # What it comes to.
        desk = _corrections(project, day, delivery, options)
        groups = delivery.groups.items() - grouping.read_groups(project, day).items()
        delivery.groups = dict(groups)
        targets = _targets(project, day, delivery, group)
        known = history.images["group"].unique().to_list()
        for names in grouping.alike(delivery.groups.values(), known if delivery.groups else ()):
            delivery.warn(names, "are taken for different patients: is one of them misspelt?")
        deliveries.warn_of_lookalikes(delivery, history, looks.read(project, history.days))
        paths = [(item, project.name(path)) for item, path in targets]
        patients = grouping.patients(paths, group, is_by_csv=options.labels is not None)
        if options.group is not None and not paths:
            patients = grouping.patients_again(delivery.known, lying, group)
        delivery.said[:0] = [*patients, *grouping.returning(paths, group, known)]
        if not now.is_open:
            had = {*history.images["image"], *history.withdrawn}
            is_new = bool(targets or desk or lying.keys() - had)
            delivery.opened = now.next_parent if is_new else ""
            delivery.said[:0] = opened(project, day, delivery.opened, would=delivery.is_dry)
        _list(project, source, day if now.is_open and stage else "", delivery)
        _check_outcome(source, delivery, options)
        if stage:  # and now it is done, the images last
            if desk:
                desk.close()
            if delivery.opened:
                if not (desk and desk.opened):
                    make_open(now, day)
                _list(project, source, day, delivery)
            _record(now, day, group, delivery, options)
            _take_in(targets, stage)
            if project.tracked(day).exists():
                _keep(project, day)
            if options.move:
                _remove_given(delivery)
    return delivery


def _check_given(source: Path, options: Options) -> None:
    if not source.is_dir():
        if not source.is_file():
            what = "is neither a folder nor a file" if source.exists() else "is not there"
            raise IntakeError(f"{source} {what}.", hint="give the folder of class folders")
        if options.move:
            raise IntakeError(f"{source} is an archive.", hint="leave out --move")
    if options.columns and not options.labels:
        raise IntakeError("--columns says which columns --labels has.", hint="--labels FILE")


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


def _found(
    project: Project, source: Path, scratch: Path, delivery: Delivery, options: Options
) -> list[Found]:
    kept = options.classes or project.classes
    classes = labels.read_classes(kept) if options.classes or kept.exists() else {}
    if is_day(source.name) and source.resolve() == project.images(source.name).resolve():
        return finding.walk_day(project, source.name, delivery)
    folder = finding.unpacked(source, delivery, scratch, has_labels=options.labels is not None)
    if not options.labels:
        found = finding.walk(folder, delivery)
        return [one._replace(label=classes.get(one.label, one.label)) for one in found]
    found = labels.read(options.labels, folder, delivery, columns=options.columns, classes=classes)
    if delivery.guess:
        guess, option = delivery.guess
        same = shlex.join(["dayfold", "add", str(source), "--labels", str(options.labels)])
        ask(f"{guess}. Is this right?", yes=options.yes, hint=f"{same} {option}")
    return found


def _lying(project: Project, day: str) -> dict[str, tuple[str, str]]:
    """The images that are in the day's folder already: sha256 → (class, place)."""
    there = finding.walk_day(project, day, Delivery())
    with ThreadPoolExecutor(cpus()) as pool:
        images = pool.map(sha256_file, (one.path for one in there))
        places = ((one.label, project.name(one.path)) for one in there)
        return dict(zip(images, places, strict=True))


def _tell_odd(
    source: Path, counts: Mapping[str, int], known: set[str], delivery: Delivery, options: Options
) -> None:
    odd = deliveries.suspicions(counts, known)
    if odd and not (options.dry_run or options.yes):
        raise IntakeError(
            f"{source} looks odd, so nothing was added:",
            problems=odd,
            hint="if it is as you mean it: dayfold add … --yes",
        )
    for line in odd:
        delivery.warn(str(source), f"is odd: {line}")


def _tell_old_names(delivery: Delivery, history: History) -> None:
    """Warn of new images of a class whose earlier images have all been given another name."""
    live, now = history.images["label"].unique(), history.images.select("image", "label")
    gone = history.corrections.filter(~pl.col("before").is_in(live.implode()))
    names = gone.select("image", "before").join(now, on="image").select("before", "label").unique()
    for label in tally(delivery.images):
        if later := sorted(names.filter(before=label)["label"]):
            was = f"has new images, and all its earlier ones were relabelled {' or '.join(later)}"
            delivery.warn(label, f"{was}; if these are too: --classes FILE, or relabel --class")


def _corrections(project: Project, day: str, delivery: Delivery, options: Options) -> Desk | None:
    """Return the corrections of images that are given with another label, if asked for."""
    if not options.relabel or not delivery.changed:
        return None
    desk = Desk(project, day)
    reason = f"given in {escaped(options.labels.name)}" if options.labels else "given again"
    for path, label in {one.known: one.label for one in delivery.changed}.items():
        relabel(desk, [project.root / path], to=label, reason=reason)
    desk.check()
    return desk


def _targets(
    project: Project, day: str, delivery: Delivery, group: str
) -> list[tuple[Found, Path]]:
    """Where each image goes: its own name (NFC), with the head of its id where that is taken.

    An image without a group, or whose group another name would change, is refused.
    """
    folder = project.images(day)
    taken = {folded(path) for path in folder.glob("*/*")}
    # Where corrected ones may go.
    taken |= {folded(folder / one.label / Path(one.known).name) for one in delivery.changed}
    targets = []
    for item in delivery.images:
        name = composed(item.path.name)
        own = target = folder / item.label / name
        # A composed name can be longer than the one it was.
        if folded(own) in taken or len(name.encode()) > MOST_BYTES:
            target = own.with_name(substitute(name, item.image))
        try:
            own_group, its_group = (
                item.group or grouping.group_of(project.name(path), group, item.ids)
                for path in (own, target)
            )
        except IntakeError:
            delivery.refuse(item.place, f"has {grouping.NO_GROUP}", item.image)
            continue
        if own_group != its_group:
            said = "has a name that is taken today, and another would change its group"
            delivery.refuse(item.place, said, item.image)
            continue
        taken.add(folded(target))
        targets.append((item, target))
    delivery.images = [item for item, _ in targets]
    return targets


def _list(project: Project, source: Path, open_day: str, delivery: Delivery) -> None:
    """Write down what is said of files, so that what is printed may be short.

    What is refused of an open day is kept in data/rejected/<day>.csv, all else in .dvc/tmp;
    `listed` says where.
    """
    kinds = ("known", "changed", "refused", "warned")
    said = {kind: getattr(delivery, kind) for kind in kinds}
    if open_day:
        path = project.rejected(open_day)
        _record_refused(path, os.path.relpath(source, project.root), said.pop("refused"))
        delivery.listed["refused"] = project.name(path)
    delivery.listed |= dict.fromkeys(said, write_down(project, said))


def _record_refused(path: Path, source: str, refused: Sequence[Remark]) -> None:
    """Bring data/rejected/<day>.csv up to date: of the same source these are refused now."""
    given = safe_cell(escaped(source))
    before = tables.read(path, Rejected).rows() if path.exists() else []
    rows = {row for row in before if row[0] != given}
    rows |= {(given, safe_cell(one.place), one.image, escaped(one.said)) for one in refused}
    if rows != set(before):
        tables.write(path, Rejected, sorted(rows))


def _check_outcome(source: Path, delivery: Delivery, options: Options) -> None:
    refused = delivery.refused + delivery.changed * (options.strict and not options.relabel)
    is_all = not (delivery.images or delivery.known or delivery.changed or options.dry_run)
    if refused and (options.strict or is_all):
        error = RefusedError(
            f"{plural(len(refused), 'problem')} in {source}; nothing was added:",
            problems=first_few([str(one) for one in refused], delivery.listed["refused"]),
            hint=_hint(refused, is_folder=source.is_dir()),
        )
        error.count = len(refused)
        raise error


def _hint(refused: list[Remark], *, is_folder: bool) -> str:
    reasons, by_labels = {remark.said for remark in refused}, "or give the classes by --labels FILE"
    if len(reasons) == 1:
        (reason,) = reasons
        if reason.startswith("is a folder"):
            if all(is_day(remark.place.partition("/")[0]) for remark in refused):
                return "a folder of days is for dayfold run; or pass the folder of one day"
            return "give each of the folders inside by itself: one level deeper"
        if grouping.NO_GROUP in reason:
            other = "give another expression by --group REGEX"
            return f"{other}, or write the ids into the names or in the column group of --labels"
        if reason.startswith("lies in no class folder"):
            if is_folder:
                return f"pass the parent folder, which contains the class folders, {by_labels}"
            return f"pack a folder that contains class folders, {by_labels}"
    return "fix or remove these files, then run the command again"


def _record(now: Line, day: str, group: str, delivery: Delivery, options: Options) -> None:
    """Keep what was said of classes and groups, where the day that it is said of is open."""
    project = now.project
    before = now.params.data.group
    if group != before and (now.is_open or delivery.opened):
        params_file.edit(project.params, {"data.group": group})
        delivery.is_regrouped = True
        delivery.said += grouping.regrouped(before, group, now.sealed)
    if options.classes:
        classes = labels.read_classes(options.classes)
        write_csv(project.classes, ("theirs", "ours"), sorted(classes.items()))
    if delivery.groups:
        grouping.add_groups(project, day, delivery.groups)


def _take_in(targets: Sequence[tuple[Found, Path]], stage: Path) -> None:
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


def _keep(project: Project, day: str) -> None:
    """Have DVC's cache keep what was added: a forced checkout would leave none of it.

    The next `dvc repro` has that much less to do.
    """
    folder = project.name(project.images(day))
    try:
        vcs.dvc(project.root, "add", folder)
    except ToolError as error:
        raise ToolError(
            f"The images are in {folder}, but DVC's cache has no copy: {error.what}",
            problems=error.problems,
            hint=error.hint or "mend that, then run the command again",
        ) from None


def _remove_given(delivery: Delivery) -> None:
    for item in delivery.images:
        try:
            item.path.unlink()
        except OSError as error:
            said = f"was added, but stays where it is, too ({error.strerror})"
            delivery.warn(item.place, said)
