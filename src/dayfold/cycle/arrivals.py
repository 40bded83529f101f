"""What an `add` came to, for a person: one table, or a few lines in a nightly log."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from dayfold.cycle.adding import Options
from dayfold.ledger.intake.delivery import Delivery, Remark
from dayfold.ledger.intake.walking import tally
from dayfold.project.console import first_few
from dayfold.project.files import escaped
from dayfold.project.layout import Project


def opening(project: Project, day: str, delivery: Delivery, options: Options) -> Iterator[str]:
    """Yield what is to be said where the day was opened, or would be."""
    if delivery.opened:
        yield opened(day, delivery.opened, would=options.dry_run)
    if delivery.lying:
        lay = f"{delivery.lying} images lay in {project.name(project.images(day))} already"
        of_day = f"they are of {day} now" if delivery.opened else "earlier days have them too"
        yield f"{lay}: {of_day}"


def opened(day: str, parent: str, *, would: bool = False) -> str:
    """Return the line that tells of a day that a command opened; of none, nothing."""
    if not parent:
        return ""
    return f"{'would open' if would else 'opened'} {day} (parent {parent})"


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
