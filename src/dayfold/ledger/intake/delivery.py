"""What became of each file of a delivery."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from dayfold.ledger import tables
from dayfold.ledger.tables import Told
from dayfold.project.console import MOST_LINES, first_few
from dayfold.project.files import escaped
from dayfold.project.layout import Project


class Found(NamedTuple):
    """A file of a delivery: its path, its name in messages, its class, the group in a CSV.

    `real` is the path of its bytes if it is DVC's link to the cache. After the check `image` is its
    sha256, `look` its difference hash (looks.py), `ids` the group by a DICOM file's ids.
    """

    path: Path
    place: str
    label: str
    group: str = ""
    real: Path | None = None
    image: str = ""
    look: str = ""
    ids: str = ""


class Remark(NamedTuple):
    """A remark on a file, and the file's sha256 if it could be read.

    For a known image that is given with another `label`, `known` is the path that it has.
    """

    place: str
    said: str
    image: str = ""
    known: str = ""
    label: str = ""

    def __str__(self) -> str:
        return escaped(f"{self.place} {self.said}")


@dataclass
class Delivery:
    """The outcome for each file: images to add, known ones, refused ones, warnings, ignored ones.

    `changed` are known images given with another label: with `relabels` they become corrections.
    `groups` maps images to new groups that a CSV names. `listed` maps a kind of remarks to the file
    that has all of them. `opened` is the day's parent if the day was opened for this delivery.
    `said` are lines on the day, patients and columns. `is_regrouped` says whether `data.group` was
    changed. With `is_dry` nothing was written. `guess` are the columns of a label file that a
    person must agree to, and the option that would name them.
    """

    images: list[Found] = field(default_factory=list)
    known: list[Remark] = field(default_factory=list)
    refused: list[Remark] = field(default_factory=list)
    changed: list[Remark] = field(default_factory=list)
    warned: list[Remark] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    is_regrouped: bool = False
    is_dry: bool = False
    relabels: bool = False
    ignored: int = 0
    opened: str = ""
    guess: tuple[str, str] | None = None

    def refuse(self, place: str, reason: str, image: str = "") -> None:
        self.refused.append(Remark(place, reason, image))

    def warn(self, place: str, what: str) -> None:
        self.warned.append(Remark(place, what))

    def table(self, day: str) -> Table:
        """Return the numbers of added, known, refused, warned and ignored files, with examples."""
        result = Table(box=None, pad_edge=False)
        result.add_column(day)
        result.add_column("files", justify="right")
        result.add_column("", overflow="fold")
        would = "would be " * self.is_dry
        classes = sorted(tally(self.images).items())
        counts = ", ".join(f"{escaped(label)} {count}" for label, count in classes)
        result.add_row(f"{would}added", str(len(self.images)), Text(counts))
        if self.groups:
            result.add_row(f"{would}grouped", str(len(self.groups)), "patients or studies recorded")
        other = f"{would}relabelled" if self.relabels else "another label"
        for name, kind in (
            ("already known", "known"),
            *[(other, "changed")] * bool(self.changed),
            (f"{would}refused", "refused"),
            ("warned", "warned"),
        ):
            result.add_row(name, str(len(getattr(self, kind))), Text("\n".join(self._first(kind))))
        if self.ignored:
            result.add_row("ignored", str(self.ignored), "hidden and system files")
        return result

    def unusual(self) -> Iterator[str]:
        """Yield lines on the first refused and warned files, and the file that has all of them."""
        for word, kind in (("refused",) * 2, ("another label", "changed"), ("warned",) * 2):
            yield from (f"  {word}: {line}" for line in self._first(kind))

    def _first(self, kind: str) -> list[str]:
        return first_few([str(remark) for remark in getattr(self, kind)], self.listed[kind])

    def next_step(self) -> str:
        """Return what to do next."""
        if self.is_dry:
            return "nothing was changed; without --dry-run it is done"
        corrected = self.changed if self.relabels else []
        new = (self.images, self.groups, self.opened, corrected, self.is_regrouped)
        step = "next: dvc repro" if any(new) else "nothing new"
        if self.changed and not self.relabels:
            step += "; to take the other labels as corrections: the same command with --relabel"
        return step


def safe_cell(place: str) -> str:
    """Return a path that no spreadsheet takes for a formula, and that leads to the same file."""
    return f"./{place}" if place.startswith(("=", "+", "-", "@")) else place


def write_down(project: Project, kinds: Mapping[str, Sequence[Remark]]) -> str:
    """Write all remarks if a kind has more of them than are printed; return the file's name."""
    if any(len(remarks) > MOST_LINES for remarks in kinds.values()):
        rows = [
            (kind, safe_cell(one.place), one.image, escaped(one.said))
            for kind, remarks in kinds.items()
            for one in remarks
        ]
        tables.write(project.remarks, Told, rows)
    return project.name(project.remarks)


def tally(found: Iterable[Found]) -> dict[str, int]:
    return dict(Counter(one.label for one in found))
