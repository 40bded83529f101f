"""Adding images: each is checked, the good are taken."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dayfold.cycle.correcting import RELABEL, Desk
from dayfold.cycle.opening import check_may_change, make_open, opened
from dayfold.cycle.standing import Standing, standing
from dayfold.errors import IntakeError, RefusedError
from dayfold.ledger import corrections, looks, manifest, splits, tables
from dayfold.ledger.intake import checking, labels
from dayfold.ledger.intake import delivery as deliveries
from dayfold.ledger.intake.delivery import Delivery, Found, Remark, safe_cell
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
from dayfold.project.console import first_few, plural
from dayfold.project.cpus import cpus
from dayfold.project.files import escaped, sha256_file, sync_folder, write_bytes, write_csv
from dayfold.project.layout import Project, is_day

STAGE = "stage"  # where checked bytes wait


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
    adding = _Adding(project, Path(source), day, options or Options())
    with _scratch(project) as scratch:
        adding.inspect(scratch)
        adding.plan()
        if not adding.options.dry_run:
            adding.carry_out(scratch / STAGE)
    return adding.delivery


class _Adding:
    """One `add`: what is given for which day, what it comes to, and the taking in of that.

    `lying` are the images that are in the day's folder already: sha256 → (class, place).
    """

    def __init__(self, project: Project, source: Path, day: str, options: Options) -> None:
        self.project, self.source, self.day, self.options = project, source, day, options
        self.now = standing(project)
        check_may_change(project, self.now, day, what="images")
        known = self.now.params.data.group
        self.group = known if options.group is None else options.group
        # It refuses what is no expression.
        params_file.changed(self.now.params, {"data.group": self.group})
        _check_given(source, options)
        kept = options.classes or project.classes
        is_kept = options.classes or kept.exists()
        self.classes = labels.read_classes(kept) if is_kept else dict[str, str]()  # theirs → ours
        self.delivery = Delivery(is_dry=options.dry_run, relabels=options.relabel)

    def inspect(self, scratch: Path) -> None:
        """Find and check what is given, beside what lies there and the history."""
        found = self._found(scratch)
        there = walk_day(self.project, self.day, Delivery())
        with ThreadPoolExecutor(cpus()) as pool:
            hashes = pool.map(lambda one: sha256_file(one.path), there)
            names = ((one.label, self.project.name(one.path)) for one in there)
            self.lying = dict(zip(hashes, names, strict=True))
        self.history = known(self.project, self.now, self.day)
        odd = deliveries.suspicions(deliveries.tally(found), {*self.history.images["label"]})
        if odd and not (self.options.dry_run or self.options.yes):
            raise IntakeError(
                f"{self.source} looks odd, so nothing was added:",
                problems=odd,
                hint="if it is as you mean it: dayfold add … --yes",
            )
        for line in odd:
            self.delivery.warn(str(self.source), f"is odd: {line}")
        (scratch / STAGE).mkdir()
        stage = None if self.options.dry_run else scratch / STAGE
        checking.inspect(found, self.delivery, self.history, today=self.lying, stage=stage)

    def _found(self, scratch: Path) -> list[Found]:
        source, options = self.source, self.options
        if is_day(source.name) and source.resolve() == self.project.images(source.name).resolve():
            return walk_day(self.project, source.name, self.delivery)
        folder = unpacked(source, self.delivery, scratch, has_labels=options.labels is not None)
        if not options.labels:
            found = walk(folder, self.delivery)
            return [one._replace(label=self.classes.get(one.label, one.label)) for one in found]
        return labels.read(
            options.labels,
            folder,
            self.delivery,
            columns=options.columns,
            classes=self.classes,
            agree=options.agree,
        )

    def plan(self) -> None:
        """Say what each file comes to; RefusedError where that leaves nothing to go on with."""
        project, day, delivery, options = self.project, self.day, self.delivery, self.options
        self.desk = self._corrections()
        recorded = splits.read_groups(project, day) if delivery.groups else {}
        delivery.groups = dict(delivery.groups.items() - recorded.items())
        self.targets = self._targets()
        paths = [(item, project.name(path)) for item, path in self.targets]
        is_by_csv = options.labels is not None
        patients = deliveries.patients(paths, self.group, is_by_csv=is_by_csv)
        if options.group is not None and not paths:
            patients = deliveries.patients_again(delivery.known, self.lying, self.group)
        said = [*patients, *delivery.said]
        checking.warn_of_lookalikes(delivery, self.history, looks.read(project, self.history.days))
        if self.now.day != day:
            had = {*self.history.images["image"], *self.history.withdrawn}
            lying = len(self.lying)
            if self.targets or self.desk or self.lying.keys() - had:
                delivery.opened = self.now.next_parent
                parent, would = delivery.opened, options.dry_run
                said = [*opened(project, day, parent, lying=lying, would=would), *said]
            elif lying:
                folder = project.name(project.images(day))
                already = (
                    f"{plural(lying, 'image')} lay in {folder}, but earlier days have them too"
                )
                said = [already, *said]
        delivery.said = said
        self._list(is_of_day=self.now.day == day and not options.dry_run)
        self._check_outcome()

    def _corrections(self) -> Desk | None:
        """Take images of another label out of the refused; their corrections, if asked for."""
        delivery, options = self.delivery, self.options
        places = {one.place for one in delivery.changed}
        delivery.refused = [one for one in delivery.refused if one.place not in places]
        if not options.relabel or not delivery.changed:
            return None
        desk = Desk(self.project, self.day)
        reason = f"given in {escaped(options.labels.name)}" if options.labels else "given again"
        for path, label in {one.known: one.label for one in delivery.changed}.items():
            desk.check_class(label)
            for target in desk.targets([self.project.root / path]):
                desk.correct(RELABEL, target, label, reason)
        desk.check()
        return desk

    def _targets(self) -> list[tuple[Found, Path]]:
        """Where each image goes: its own name (NFC), with the head of its id where that is taken.

        An image without a group, or whose group another name would change, is refused.
        """
        folder, delivery = self.project.images(self.day), self.delivery
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
                own_group, group = (
                    item.group or splits.group_of(self.project.name(path), self.group, item.ids)
                    for path in (own, target)
                )
            except IntakeError:
                delivery.refuse(item.place, f"has {splits.NO_GROUP}", item.image)
                continue
            if own_group != group:
                said = "has a name that is taken today, and another would change its group"
                delivery.refuse(item.place, said, item.image)
                continue
            taken.add(folded(target))
            targets.append((item, target))
        delivery.images = [item for item, _ in targets]
        return targets

    def _list(self, *, is_of_day: bool) -> None:
        """Write down what is said of files, so that what is printed may be short.

        What is refused of an open day is kept in data/rejected/<day>.csv, all else in .dvc/tmp;
        `listed` says where.
        """
        kinds = ("known", "changed", "refused", "warned")
        said = {kind: getattr(self.delivery, kind) for kind in kinds}
        if is_of_day:
            self.delivery.listed["refused"] = self._record_refused()
            del said["refused"]
        self.delivery.listed |= dict.fromkeys(said, deliveries.write_down(self.project, said))

    def _record_refused(self) -> str:
        """Bring data/rejected/<day>.csv up to date; return its name."""
        path, root = self.project.rejected(self.day), self.project.root
        given = safe_cell(escaped(os.path.relpath(self.source, root)))
        before = tables.read(path, Rejected).rows() if path.exists() else []
        rows = {row for row in before if row[0] != given}
        rows |= {
            (given, safe_cell(one.place), one.image, escaped(one.said))
            for one in self.delivery.refused
        }
        if rows != set(before):
            tables.write(path, Rejected, sorted(rows))
        return self.project.name(path)

    def _check_outcome(self) -> None:
        delivery, options = self.delivery, self.options
        refused = delivery.refused + delivery.changed * (options.strict and not options.relabel)
        is_all = not (delivery.images or delivery.known or delivery.changed or options.dry_run)
        if refused and (options.strict or is_all):
            raise RefusedError(
                f"{plural(len(refused), 'problem')} in {self.source}; nothing was added:",
                problems=first_few([str(one) for one in refused], delivery.listed["refused"]),
                hint=_hint(refused, is_folder=self.source.is_dir()),
            )

    def carry_out(self, stage: Path) -> None:
        """Open the day if need be, and write all of it; the images last."""
        project, day, delivery, desk = self.project, self.day, self.delivery, self.desk
        if desk:
            desk.close()
        if delivery.opened:
            if not (desk and desk.opened):
                make_open(project, self.now, day)
            self._list(is_of_day=True)
        before = self.now.params.data.group
        if self.group != before and (delivery.opened or self.now.day == day):
            params_file.edit(project.params, {"data.group": self.group})
            delivery.is_regrouped = True
            delivery.said += deliveries.regrouped(before, self.group, self.now.sealed)
        if self.options.classes:
            write_csv(project.classes, ("theirs", "ours"), sorted(self.classes.items()))
        if delivery.groups:
            splits.add_groups(project, day, delivery.groups)
        _take_in(self.targets, stage)
        for item in delivery.images if self.options.move else ():
            try:
                item.path.unlink()
            except OSError as error:
                said = f"was added, but stays where it is, too ({error.strerror})"
                delivery.warn(item.place, said)


def known(project: Project, now: Standing, day: str) -> History:
    """Return the history as a day's corrections leave it."""
    if now.day != day:
        return manifest.history(project, now.next_parent)
    history = manifest.history(project, now.params.parent)
    return corrections.applied(history, corrections.lines(project, day))


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


def _hint(refused: list[Remark], *, is_folder: bool) -> str:
    """What to do about the refused files; where the depth is wrong, that."""
    reasons = {remark.said for remark in refused}
    if len(reasons) == 1:
        (reason,) = reasons
        if reason.startswith("is a folder"):
            return "give each of the folders inside by itself: one level deeper"
        if reason.startswith("lies in no class folder"):
            if is_folder:
                return "pass the parent folder, which contains the class folders"
            return "pack a folder that contains class folders, or give the classes by --labels FILE"
    return "fix or remove these files, then run the command again"


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
