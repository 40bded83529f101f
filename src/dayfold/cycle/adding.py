"""Adding images: check all, take the good ones."""

import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dayfold.cycle.correcting import Draft, relabel
from dayfold.cycle.opening import check_may_change, make_open, opening_lines
from dayfold.errors import IntakeError, RefusedError, ToolError
from dayfold.history.state import ProjectState
from dayfold.ledger import grouping, looks, tables
from dayfold.ledger.intake import delivery as deliveries
from dayfold.ledger.intake import finding, labels
from dayfold.ledger.intake.delivery import Delivery, FoundFile, Remark, safe_cell, tally, write_down
from dayfold.ledger.manifest import History
from dayfold.ledger.names import MOST_BYTES, composed, folded, substitute
from dayfold.ledger.tables import Rejected
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.console import ask, first_few, plural
from dayfold.project.cpus import cpus
from dayfold.project.files import escaped, sha256_file, sync_folder, write_bytes, write_csv
from dayfold.project.layout import Project, is_day

_OF_LABELS = (".csv", ".json", ".jsonl", ".parquet", ".xml")
STAGE = "stage"  # the folder of checked bytes


@dataclass(frozen=True)
class Options:
    """The options of `dayfold add` (docs/cli.md)."""

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
    of labels. Opens `day` if it is not open and there is a new image, in `source` or already in its
    folder. Bytes wait in .dvc/tmp until all files are checked. Returns the outcome for each file.
    """
    options, now = options or Options(), ProjectState.read(project)
    check_may_change(now, day)
    group = now.params.data.group if options.group is None else options.group
    params_file.with_changes(now.params, {"data.group": group})  # raises if it is invalid
    _check_given(source, options)
    delivery = Delivery(is_dry=options.dry_run, relabels=options.relabel)
    with _scratch(project) as scratch:
        # Compare the files with those that are known.
        found = _found(project, source, scratch, delivery, options)
        history, present = now.history(), _present_images(project, day)
        earlier = {*history.images["label"].unique()}
        _check_odd(source, tally(found), earlier, delivery, options)
        (scratch / STAGE).mkdir()
        stage = None if options.dry_run else scratch / STAGE
        deliveries.inspect(found, delivery, history, today=present, stage=stage)
        _warn_of_old_names(delivery, history)
        # Decide what to do with each file.
        draft = _corrections(project, day, delivery, options)
        groups = delivery.groups.items() - grouping.read_groups(project, day).items()
        delivery.groups = dict(groups)
        targets = _targets(project, day, delivery, group)
        classes = {one.label for one in delivery.images}
        delivery.new = sorted(classes - earlier) * bool(earlier)  # on the first day all are new
        paths = [(item, project.name(path)) for item, path in targets]
        _note_patients(delivery, paths, history, group, options, present)
        deliveries.warn_of_lookalikes(delivery, history, looks.read(project, history.days))
        if not now.is_open:
            had = {*history.images["image"], *history.withdrawn}
            is_new = bool(targets or draft or present.keys() - had)
            delivery.opened = now.next_parent if is_new else ""
            delivery.notes[:0] = opening_lines(project, day, delivery.opened, would=delivery.is_dry)
        _list(project, source, day if now.is_open and stage else "", delivery)
        _check_outcome(source, delivery, options)
        if stage:  # write everything, the images last
            if draft:
                draft.save()
            if delivery.opened:
                if not (draft and draft.opened):
                    make_open(now, day)
                _list(project, source, day, delivery)
            _record(now, day, group, delivery, options)
            _take_in(targets, stage)
            if project.tracked(day).exists():
                _cache(project, day)
            for item in delivery.images if options.move else ():
                try:
                    item.path.unlink()
                except OSError as error:
                    said = f"was added, but cannot be removed from its place ({error.strerror})"
                    delivery.warn(item.place, said)
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
    top = project.scratch / "adding"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    try:
        yield top
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _found(
    project: Project, source: Path, scratch: Path, delivery: Delivery, options: Options
) -> list[FoundFile]:
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
        ask(f"{guess}. Is this right?", yes=options.yes, hint=f"the same command with {option}")
    return found


def _present_images(project: Project, day: str) -> dict[str, tuple[str, str]]:
    """Return the images in the day's folder: sha256 → (class, path)."""
    there = finding.walk_day(project, day, Delivery())
    with ThreadPoolExecutor(cpus()) as pool:
        images = pool.map(sha256_file, (one.path for one in there))
        places = ((one.label, project.name(one.path)) for one in there)
        return dict(zip(images, places, strict=True))


def _check_odd(
    source: Path, counts: Mapping[str, int], known: set[str], delivery: Delivery, options: Options
) -> None:
    odd = deliveries.suspicions(counts, known)
    if odd and not (options.dry_run or options.yes):
        raise IntakeError(
            f"{source} looks odd, so nothing was added:",
            problems=odd,
            hint="if this is what you mean: dayfold add … --yes",
        )
    for line in odd:
        delivery.warn(str(source), f"is odd: {line}")


def _warn_of_old_names(delivery: Delivery, history: History) -> None:
    now = history.images.select("image", "label")
    gone = history.corrections.join(now, left_on="before", right_on="label", how="anti")
    names = gone.select("image", "before").join(now, on="image").select("before", "label").unique()
    for label in tally(delivery.images):
        if later := sorted(names.filter(before=label)["label"]):
            was = f"has new images, and all its earlier ones were relabelled {' or '.join(later)}"
            delivery.warn(label, f"{was}; if these are too: --classes FILE, or relabel --class")


def _note_patients(
    delivery: Delivery,
    paths: Sequence[tuple[FoundFile, str]],
    history: History,
    group: str,
    options: Options,
    present: Mapping[str, tuple[str, str]],
) -> None:
    known = history.images["group"].unique().to_list()
    for names in grouping.alike(delivery.groups.values(), known if delivery.groups else ()):
        delivery.warn(names, "are taken for different patients: is one of them misspelt?")
    patients = [*grouping.patients(paths, group, is_by_csv=options.labels is not None)]
    delivery.asks_patients = bool(patients) and not group
    if options.group is not None and not paths:
        patients = [*grouping.patients_again(delivery.known, present, group)]
    delivery.notes[:0] = [*patients, *grouping.returning(paths, group, known)]


def _corrections(project: Project, day: str, delivery: Delivery, options: Options) -> Draft | None:
    if not options.relabel or not delivery.changed:
        return None
    draft = Draft(project, day)
    reason = f"given in {escaped(options.labels.name)}" if options.labels else "given again"
    for path, label in {one.known: one.label for one in delivery.changed}.items():
        relabel(draft, [project.root / path], to=label, reason=reason)
    draft.check()
    return draft


def _targets(
    project: Project, day: str, delivery: Delivery, group: str
) -> list[tuple[FoundFile, Path]]:
    """Return where each image goes: its own name (NFC), or one with part of its id if taken."""
    folder = project.images(day)
    taken = {folded(path) for path in folder.glob("*/*")}
    # Corrected images may take these names.
    taken |= {folded(folder / one.label / Path(one.known).name) for one in delivery.changed}
    targets = []
    for item in delivery.images:
        name = composed(item.path.name)
        own = target = folder / item.label / name
        # Composing can make a name longer.
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
            said = "has a name that is taken today; another name would change its group"
            delivery.refuse(item.place, said, item.image)
            continue
        taken.add(folded(target))
        targets.append((item, target))
    delivery.images = [item for item, _ in targets]
    return targets


def _list(project: Project, source: Path, open_day: str, delivery: Delivery) -> None:
    """Write all remarks on files to tables, as only the first ones are printed.

    Refused files of an open day go to data/rejected/<day>.csv, everything else to .dvc/tmp.
    """
    kinds = ("known", "changed", "refused", "warned")
    said = {kind: getattr(delivery, kind) for kind in kinds}
    if open_day:
        path = project.rejected(open_day)
        given = safe_cell(escaped(os.path.relpath(source, project.root)))
        before = tables.read(path, Rejected).rows() if path.exists() else []
        rows = {row for row in before if row[0] != given}
        for one in said.pop("refused"):
            rows.add((given, safe_cell(one.place), one.image, escaped(one.text)))
        if rows != set(before):
            tables.write(path, Rejected, sorted(rows))
        delivery.listed["refused"] = project.name(path)
    delivery.listed |= dict.fromkeys(said, write_down(project, said))


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
    given = [one.place for one in refused if one.place.lower().endswith(_OF_LABELS)]
    if len(given) == 1:
        first = "" if is_folder else "unpack it, then "
        return f"if {given[0]} has the labels: {first}dayfold add FOLDER --labels FILE"
    reasons, by_labels = {remark.text for remark in refused}, "or give the classes by --labels FILE"
    if len(reasons) == 1:
        reason = refused[0].text
        if reason.startswith("is a folder"):
            if all(is_day(remark.place.partition("/")[0]) for remark in refused):
                return "a folder of days is for dayfold run; or pass the folder of one day"
            one = refused[0].place.partition("/")[0]
            return f"add each folder inside on its own: dayfold add FOLDER/{one}"
        if grouping.NO_GROUP in reason:
            other = "give another expression by --group REGEX"
            return f"{other}, or write the ids into the names or in the column group of --labels"
        if reason.startswith("lies in no class folder"):
            if is_folder:
                return f"pass the parent folder, which contains the class folders, {by_labels}"
            return f"pack a folder that contains class folders, {by_labels}"
    return "fix or remove these files, then run the command again"


def _record(now: ProjectState, day: str, group: str, delivery: Delivery, options: Options) -> None:
    project = now.project
    before = now.params.data.group
    if group != before and (now.is_open or delivery.opened):
        params_file.edit(project.params, {"data.group": group})
        delivery.is_regrouped = True
        delivery.notes += grouping.regrouped(before, group, now.sealed)
    if options.classes:
        classes = labels.read_classes(options.classes)
        write_csv(project.classes, ("theirs", "ours"), sorted(classes.items()))
    if delivery.groups:
        grouping.add_groups(project, day, delivery.groups)


def _take_in(targets: Sequence[tuple[FoundFile, Path]], stage: Path) -> None:
    folders = {target.parent for _, target in targets}
    for folder in sorted(folders):
        folder.mkdir(parents=True, exist_ok=True)
    for item, target in targets:
        try:
            (stage / item.image).rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # data/ and .dvc/ are on different disks.
            write_bytes(target, (stage / item.image).read_bytes())
    for folder in sorted({*folders, *(folder.parent for folder in folders)}):
        sync_folder(folder)


def _cache(project: Project, day: str) -> None:
    """Copy the open day's images to DVC's cache, as a forced checkout deletes the only copy."""
    folder = project.name(project.images(day))
    try:
        vcs.dvc(project.root, "add", folder)
    except ToolError as error:
        raise ToolError(
            f"The images are in {folder}, but DVC's cache has no copy: {error.what}",
            problems=error.problems,
            hint=error.hint or "repair that, then run the command again",
        ) from None
