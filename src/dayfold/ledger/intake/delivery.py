"""What a delivery comes to: each file is added, known, refused or ignored; some are warned of."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from dayfold.project.files import escaped


class Found(NamedTuple):
    """A file to check: where it is, what a person calls it, its class, and its group if told."""

    path: Path
    place: str
    label: str
    group: str = ""


class Delivered(NamedTuple):
    """A checked image: `image` is the sha256 of its bytes, `look` how it looks (lookalikes.py).

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
    """One thing to say of one file, and the sha256 of its bytes where they could be read."""

    place: str
    said: str
    image: str = ""

    def __str__(self) -> str:
        return escaped(f"{self.place} {self.said}")


@dataclass
class Delivery:
    """What was given: good images, what is known, what is refused, warnings, what is ignored.

    `groups` are those that a CSV of labels names, by image, of what is new or of today.
    """

    images: list[Delivered] = field(default_factory=list)
    known: list[Remark] = field(default_factory=list)
    refused: list[Remark] = field(default_factory=list)
    warned: list[Remark] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    ignored: int = 0

    def refuse(self, place: str, reason: str, image: str = "") -> None:
        """Note a file that cannot be taken, and why."""
        self.refused.append(Remark(place, reason, image))

    def warn(self, place: str, what: str) -> None:
        """Note what a person must know of a file that is taken."""
        self.warned.append(Remark(place, what))
