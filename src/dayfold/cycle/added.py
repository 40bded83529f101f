"""What `add` prints."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from dayfold.cycle.adding import Options
from dayfold.cycle.opening import opened
from dayfold.ledger.intake.delivery import Delivery, Remark, tally
from dayfold.project.console import first_few, plural
from dayfold.project.files import escaped
from dayfold.project.layout import Project


def said_of_day(project: Project, day: str, delivery: Delivery, options: Options) -> Iterator[str]:
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


def next_step(delivery: Delivery, options: Options) -> str:
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
