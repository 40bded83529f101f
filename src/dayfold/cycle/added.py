"""What `add` prints: of the day, its files and patients."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from dayfold.cycle.opening import opened
from dayfold.ledger import splits
from dayfold.ledger.intake.delivery import Delivered, Delivery, Remark, tally
from dayfold.project.console import first_few, plural
from dayfold.project.files import escaped
from dayfold.project.layout import Project

if TYPE_CHECKING:
    from dayfold.cycle.adding import Options

SHOWN = 3  # paths with what the expression finds in them
NO_MATCH = "no match"
WORDS = "patient|subject|subj|study|case|pat|pt|p"
# What stands before the id, and its first part; P013_2.png, case-12/2.png, scan_pat7.png.
_ID = re.compile(rf"([/_. -])((?:{WORDS})[_-]?)\d+(?![A-Za-z0-9])", re.IGNORECASE)


def said_of_day(
    project: Project, day: str, delivery: Delivery, options: "Options"
) -> Iterator[str]:
    """Yield what is to be said of patients, and where `add` opened the day, or would, or not."""
    if delivery.opened:
        would = options.dry_run
        yield from opened(project, day, delivery.opened, lying=delivery.lying, would=would)
    elif delivery.lying:
        folder = project.name(project.images(day))
        yield f"{plural(delivery.lying, 'image')} lay in {folder}, but earlier days have them too"
    yield from delivery.patients
    if delivery.columns:
        yield f"columns of {delivery.columns}"


def table(day: str, delivery: Delivery, options: "Options") -> Table:
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
    other = f"{would}relabelled" if options.relabel else "another label"
    for name, kind in (
        ("already known", "known"),
        *[(other, "changed")] * bool(delivery.changed),
        (f"{would}refused", "refused"),
        ("warned", "warned"),
    ):
        remarks = getattr(delivery, kind)
        lines = Text("\n".join(_first(remarks, delivery.listed[kind])))
        shown.add_row(name, str(len(remarks)), lines)
    if delivery.ignored:
        shown.add_row("ignored", str(delivery.ignored), "hidden and system files")
    return shown


def unusual(delivery: Delivery) -> Iterator[str]:
    """Yield a line a file that is refused or warned of, and where all of them stand."""
    for kind, name in (("refused",) * 2, ("another label", "changed"), ("warned",) * 2):
        lines = _first(getattr(delivery, name), delivery.listed[name])
        yield from (f"  {kind}: {line}" for line in lines)


def next_step(delivery: Delivery, options: "Options") -> str:
    """Return what to do next."""
    if options.dry_run:
        return "nothing was changed; without --dry-run it is done"
    corrected = delivery.changed if options.relabel else []
    new = (delivery.images, delivery.groups, delivery.opened, corrected, delivery.is_regrouped)
    step = "next: dvc repro" if any(new) else "nothing new"
    if delivery.changed and not options.relabel:
        step += "; to take the other labels as corrections: the same command with --relabel"
    return step


def _first(remarks: Sequence[Remark], where: str) -> list[str]:
    return first_few([str(remark) for remark in remarks], where)


# Of patients, before they are split: what `data.group` finds, or could find.


def patients(
    project: Project, targets: Sequence[tuple[Delivered, Path]], expression: str, *, is_by_csv: bool
) -> Iterator[str]:
    """Yield a line on what the expression finds in the first paths; without one, on what could.

    Where a CSV or a DICOM file told the group, neither is needed.
    """
    paths = [(item, project.name(path)) for item, path in targets if not item.told]
    if expression:
        groups = [(item.place, splits.group_of(path, expression, item.ids)) for item, path in paths]
        yield from _shown(groups)
        return
    unknown = [(item, path) for item, path in paths if not item.ids]
    places = [(["/" + Path(path).name for _, path in unknown], "dayfold add … --group '{}'")]
    if is_by_csv:  # the folders in its paths are in no path of the project
        folders = [f"/{Path(item.place).parent}/" for item, _ in unknown]
        places.append((folders, "give them as the column group of the CSV"))
    for names, hint in places:
        if likely := _likely(names):
            regex, ids = likely
            yield escaped(
                f"{ids.total()} of {len(names)} names hold what looks like a patient's id "
                f"({min(ids)}), and data.group is empty: images of one patient may be trained on "
                f"and tested on. Before dvc repro: {hint.format(regex)}"
            )
            return


def patients_again(
    known: Sequence[Remark], lying: Mapping[str, tuple[str, str]], expression: str
) -> Iterator[str]:
    """Yield a line on what the expression finds in the paths of known images of the open day.

    `lying` maps an image to its class and path there.
    """
    here = [(one.place, lying[one.image][1]) for one in known if one.image in lying]
    found = [(place, splits.in_path(path, expression) or NO_MATCH) for place, path in here]
    # Those without any first: snapshot refuses them, unless DICOM ids say who it is.
    yield from _shown(sorted(found, key=lambda one: one[1] != NO_MATCH) if expression else [])


def _shown(groups: Sequence[tuple[str, str]]) -> Iterator[str]:
    if groups:
        first = "; ".join(f"{place} → {group}" for place, group in groups[:SHOWN])
        yield escaped(f"patients by data.group: {first}")


def regrouped(before: str, now: str, sealed: Sequence[str]) -> Iterator[str]:
    """Yield what another `data.group` means for a project, once it is in params.yaml."""
    yield escaped(f"params.yaml: data.group is '{now}'" + f", it was '{before}'" * bool(before))
    if sealed:
        yield (
            "images of sealed days keep their groups and splits; new ones join a patient whom this "
            "or an earlier expression finds (docs/intake.md, Groups)"
        )


def _likely(names: Sequence[str]) -> tuple[str, Counter[str]] | None:
    """The expression that finds ids in most names, some of them again, and how often each."""
    heads = Counter(match.groups() for name in names if (match := _ID.search(name)))
    if not heads:
        return None
    (before, head), _ = heads.most_common(1)[0]
    expression = rf"{re.escape(before) if before == '.' else before}({head}\d+)"
    ids = Counter(match[1] for name in names if (match := re.search(expression, name)))
    is_likely = 2 * ids.total() >= len(names) and len(ids) < ids.total()
    return (expression, ids) if is_likely else None
