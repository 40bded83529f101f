"""What an `add` came to, for a person: one table, or a few lines in a nightly log."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from dayfold.cycle.adding import Options
from dayfold.ledger.intake.delivery import Delivery, Remark
from dayfold.ledger.intake.walking import tally
from dayfold.project.files import escaped
from dayfold.project.layout import Project

SHOWN = 10  # lines of a kind; all that is refused stands in data/rejected/


def table(project: Project, day: str, delivery: Delivery, options: Options) -> Table:
    """Return what was added, known, refused, warned of and ignored: how many files, and which."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column(day)
    shown.add_column("files", justify="right")
    shown.add_column("", overflow="fold")
    classes = sorted(tally(delivery.images).items())
    said = ", ".join(f"{escaped(label)} {count}" for label, count in classes)
    listed = "" if options.dry_run else _listed(project, day)
    shown.add_row("added", str(len(delivery.images)), Text(said))
    for kind, remarks, where in (
        ("already known", delivery.known, ""),
        ("refused", delivery.refused, listed),
        ("warned", delivery.warned, ""),
    ):
        lines = Text("\n".join(_first(remarks, where)))
        shown.add_row(kind, str(len(remarks)), lines)
    if delivery.ignored:
        shown.add_row("ignored", str(delivery.ignored), "hidden files and what desktops leave")
    return shown


def unusual(project: Project, day: str, delivery: Delivery) -> Iterator[str]:
    """Yield a line a file that is refused or warned of, and where all that is refused stands."""
    for kind, remarks, where in (
        ("refused", delivery.refused, _listed(project, day)),
        ("warned", delivery.warned, ""),
    ):
        yield from (f"  {kind}: {line}" for line in _first(remarks, where))


def next_step(delivery: Delivery, options: Options) -> str:
    """Return what to do next."""
    if options.dry_run:
        return "nothing was changed (--dry-run)"
    return "next: dvc repro" if delivery.images else "nothing new"


def _listed(project: Project, day: str) -> str:
    return f", in {project.name(project.rejected(day))}"


def _first(remarks: Sequence[Remark], where: str) -> Iterator[str]:
    yield from map(str, remarks[:SHOWN])
    if len(remarks) > SHOWN:
        yield f"and {len(remarks) - SHOWN} more{where}"
