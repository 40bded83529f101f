"""Erased images as `dayfold verify` meets them: a line of text where, and only where, one was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dayfold.ledger import corrections
from dayfold.ledger.corrections import Correction
from dayfold.ledger.placeholder import erased_image
from dayfold.project.layout import Project
from dayfold.proof.chain import Finding
from dayfold.proof.record import Sealed

_LONGEST = 200  # bytes; the text of a placeholder is shorter


@dataclass(frozen=True)
class Erased:
    """The images that are recorded as erased, with day and line, and the image of every path."""

    events: Mapping[str, tuple[str, Correction]]
    images: Mapping[str, str]

    def judged(self, path: Path, name: str, day: str, *, is_whole: bool) -> list[Finding] | None:
        """Judge a file that was read as an image's, called `name`; None if it is like any other.

        Nothing is found where the text of an erased image is in its place. A text without an event
        is damage, and so are bytes that are here although they were erased.
        """
        image = self.images.get(name, "")
        if is_whole:
            if image not in self.events:
                return None
            what = f"{name} was erased on {self.events[image][0]}, and its bytes are here: {path}"
            return [Finding(day, what, "dayfold withdraw --erase")]
        if not image or not path.is_file() or path.stat().st_size > _LONGEST:
            return None
        if erased_image(path.read_bytes()) != image:
            return None
        if image in self.events:
            return []
        what = f"{name}: text in its place says that it was erased, and no event does ({path})"
        mend = f"git pull, if that was in another clone; or: dayfold withdraw {name} --erase"
        return [Finding(day, what, mend)]


def erased(project: Project, line: Sequence[Sealed]) -> Erased:
    """Read what of the images of a line of days is recorded as erased."""
    images: dict[str, str] = {}
    for sealed in line:
        images |= dict(sealed.rows().filter(action="add").select("path", "image").iter_rows())
    return Erased(corrections.gone(project, corrections.ERASE), images)
