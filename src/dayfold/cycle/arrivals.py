"""What an `add` came to, for a person: one table, or a few lines in a nightly log."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from dayfold.cycle.adding import Options
from dayfold.ledger.intake import walking
from dayfold.ledger.intake.delivery import Delivery, Remark
from dayfold.ledger.intake.walking import tally
from dayfold.project.console import first_few
from dayfold.project.files import escaped
from dayfold.project.layout import Project


def opening(project: Project, day: str, delivery: Delivery, options: Options) -> Iterator[str]:
    """Yield what is to be said where `add` opened the day, or would, or left it unopened."""
    if delivery.opened:
        would = options.dry_run
        yield from opened(project, day, delivery.opened, lying=delivery.lying, would=would)
    elif delivery.lying:
        folder = project.name(project.images(day))
        yield f"{_images(delivery.lying)} in {folder}, but earlier days have them too"


def opened(
    project: Project, day: str, parent: str, *, lying: int | None = None, would: bool = False
) -> Iterator[str]:
    """Yield what is to be said of a day that a command opened; nothing without its parent.

    `lying` is how many images were in its folder before, counted here if nothing was added since.
    """
    if not parent:
        return
    yield f"{'would open' if would else 'opened'} {day} (parent {parent})"
    lying = sum(walking.count(project, day).values()) if lying is None else lying
    if lying:
        yield f"{_images(lying)} in {project.name(project.images(day))} already: part of {day} now"


def _images(count: int) -> str:
    return "1 image lay" if count == 1 else f"{count} images lay"


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
