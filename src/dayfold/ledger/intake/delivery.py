"""What a delivery comes to."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dayfold.ledger import tables
from dayfold.ledger.tables import Told
from dayfold.project.console import MOST_LINES
from dayfold.project.files import escaped
from dayfold.project.layout import Project

MANY = 50_000  # files: a day of so many is asked about
NO_LABEL = "no_label"
FEW = 5  # new classes with a single file each, from which on they look like no classes

_LIKE_A_DAY = re.compile(r"\d{4}-?\d{2}-?\d{2}")


class Found(NamedTuple):
    """A file to check: where it is, what a person calls it, its class, and its group if told.

    `real` is where its bytes lie if it is a link of DVC's to its cache.
    """

    path: Path
    place: str
    label: str
    group: str = ""
    real: Path | None = None


class Delivered(NamedTuple):
    """A checked image: `image` is the sha256 of its bytes, `look` how it looks (looks.py).

    `told` is the group that a CSV of labels names, `ids` the one that a DICOM file's ids make.
    """

    path: Path
    place: str
    label: str
    image: str
    look: str = ""
    told: str = ""
    ids: str = ""


class Remark(NamedTuple):
    """One thing to say of one file, and the sha256 of its bytes where they could be read.

    `known` is where the image lies that another label is given for now: `label`.
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
    """What was given: good images, what is known, what is refused, warnings, what is ignored.

    `changed` are known images that are given with another label.

    `groups` are new ones that a CSV names, by image. `listed` is the file that has all lines of a
    kind (known, refused, warned). `opened` is the day's parent if the day was opened for it,
    `lying` how many images lay in the folder of a day that was not open. `patients` are lines on
    how their ids are found, and `is_regrouped` whether `data.group` is another now; `columns` says
    which ones of a label file were guessed to be what.
    """

    images: list[Delivered] = field(default_factory=list)
    known: list[Remark] = field(default_factory=list)
    refused: list[Remark] = field(default_factory=list)
    changed: list[Remark] = field(default_factory=list)
    warned: list[Remark] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    listed: dict[str, str] = field(default_factory=dict)
    patients: list[str] = field(default_factory=list)
    is_regrouped: bool = False
    columns: str = ""
    ignored: int = 0
    opened: str = ""
    lying: int = 0

    def refuse(self, place: str, reason: str, image: str = "") -> None:
        """Note a file that cannot be taken, and why."""
        self.refused.append(Remark(place, reason, image))

    def warn(self, place: str, what: str) -> None:
        """Note what a person must know of a file that is taken."""
        self.warned.append(Remark(place, what))


def safe_cell(place: str) -> str:
    """A place that no spreadsheet takes for a formula, and that still is that place."""
    return f"./{place}" if place.startswith(("=", "+", "-", "@")) else place


def write_down(project: Project, kinds: Mapping[str, Sequence[Remark]]) -> str:
    """Write all remarks, by kind, where one has more of them than are printed; return the file."""
    if any(len(remarks) > MOST_LINES for remarks in kinds.values()):
        rows = [
            (kind, safe_cell(one.place), one.image, escaped(one.said))
            for kind, remarks in kinds.items()
            for one in remarks
        ]
        tables.write(project.remarks, Told, rows)
    return project.name(project.remarks)


def tally(found: Iterable[Found | Delivered]) -> dict[str, int]:
    """Return how many files each class has."""
    return dict(Counter(one.label for one in found))


def suspicions(counts: Mapping[str, int], known: set[str]) -> list[str]:
    """Say what is odd about a delivery of so many files a class, beside the known ones."""
    said = []
    new = sorted(set(counts) - known)
    single = [label for label in new if counts[label] == 1]
    dated = [label for label in new if _LIKE_A_DAY.fullmatch(label)]
    if len(single) >= FEW and 2 * len(single) > len(counts):
        said.append(
            f"{len(single)} new classes hold one file each ({', '.join(single[:3])}, …): is this "
            "the wrong folder, one level too high or low?"
        )
    if dated:
        said.append(
            f"new classes are named like days ({', '.join(dated[:3])}): is this an archive of "
            "days, for dayfold run?"
        )
    if NO_LABEL in new:
        said.append(f"{NO_LABEL!r} is no class, but where CVAT's ImageNet export puts the untagged")
    if sum(counts.values()) >= MANY:
        said.append(f"{sum(counts.values())} files are a great many for one day")
    return said
