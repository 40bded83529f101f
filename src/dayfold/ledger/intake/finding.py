"""A folder or archive → the files to check.

No link is followed. No file is opened, except archives, in a child process.
"""

import functools
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from dayfold.errors import ToolError
from dayfold.ledger.decode import IMAGE_ENDINGS
from dayfold.ledger.intake import workers
from dayfold.ledger.intake.delivery import Delivery, FoundFile, tally
from dayfold.ledger.names import composed, is_clutter, misread, name_problem
from dayfold.project import storage
from dayfold.project.files import escaped
from dayfold.project.layout import Project

SHAPE = "(expected <class>/<image>)"
LINK = "is a link; links are not followed"


def unpacked(source: Path, delivery: Delivery, scratch: Path, *, has_labels: bool) -> Path:
    """Return the source if it is a folder, else the folder in `scratch` that it is unpacked to.

    Without a label file, the folder of class folders in an archive is returned.
    """
    if source.is_dir():
        return source
    folder = scratch / "unpacked"
    folder.mkdir()
    for name, reason in workers.unpack(source, folder):
        delivery.refuse(escaped(name), reason)
    return folder if has_labels else _below_the_top(folder)


def _below_the_top(folder: Path) -> Path:
    # If it has files that may be images, it is a class folder and stays.
    entries = [entry for entry in folder.iterdir() if not is_clutter(entry.name)]
    if len(entries) != 1 or not entries[0].is_dir():
        return folder
    inner = [entry for entry in entries[0].iterdir() if not is_clutter(entry.name)]
    loose = {entry.suffix.lower() for entry in inner if not entry.is_dir()}
    is_class = not loose.isdisjoint({*IMAGE_ENDINGS, ""}) or len(loose) == len(inner)
    return folder if is_class else entries[0]


def walk_day(project: Project, day: str, delivery: Delivery) -> list[FoundFile]:
    """Return the files of a day's folder as `walk` does; none if there is no such folder.

    Their places begin at the project's top. A link of DVC's into its cache (cache.type symlink)
    stands for its target.
    """
    folder = project.images(day)
    if not folder.is_dir():
        return []
    # DVC is asked for its cache at the first link, which most projects do not have.
    objects = functools.cache(lambda: storage.cache_folder(project.root).resolve())

    def real(link: Path) -> Path | str:
        try:
            return storage.linked(link, objects()) or LINK
        except ToolError:
            return LINK  # not in a DVC project
        except OSError:
            return "is a link to a file that DVC's cache has lost: dvc pull"

    return walk(folder, delivery, within=f"{project.name(folder)}/", real=real)


def walk(
    folder: Path,
    delivery: Delivery,
    *,
    within: str = "",
    real: Callable[[Path], Path | str] = lambda _: LINK,
) -> list[FoundFile]:
    """Return the files of `folder`/<class>/, by class and name; refuse or count all other entries.

    `within` is the prefix of their places. `real` returns the target of an accepted link, or the
    reason why a link is refused.
    """
    found: list[FoundFile] = []
    entries = list(_entries(folder, within or ".", delivery))
    labels = [composed(entry.name) for entry, mode in entries if stat.S_ISDIR(mode)]
    for entry, mode in entries:
        place = within + escaped(entry.name)
        label = composed(entry.name)
        if stat.S_ISLNK(mode):
            delivery.refuse(place, LINK)
        elif not stat.S_ISDIR(mode):
            delivery.refuse(place, f"lies in no class folder {SHAPE}")
        elif problem := misread(label) or name_problem(label, "class"):
            delivery.refuse(place, problem)
        elif labels.count(label) > 1:
            delivery.refuse(place, f"is one of two folders of {label!r}, in two Unicode forms")
        else:
            before = len(found) + len(delivery.refused)
            found += _files(entry, place, label, delivery, real)
            if len(found) + len(delivery.refused) == before:
                delivery.warn(place, "is a class folder without an image")
    return found


def _files(
    folder: Path, place: str, label: str, delivery: Delivery, real: Callable[[Path], Path | str]
) -> Iterator[FoundFile]:
    for file, mode in _entries(folder, place, delivery):
        shown = f"{place}/{escaped(file.name)}"
        if problem := misread(file.name) or name_problem(file.name, "file"):
            delivery.refuse(shown, problem)
        elif stat.S_ISLNK(mode):
            target = real(file)
            if isinstance(target, str):
                delivery.refuse(shown, target)
            else:
                yield FoundFile(file, shown, label, real=target)
        elif stat.S_ISDIR(mode):
            delivery.refuse(shown, f"is a folder {SHAPE}")
        elif not stat.S_ISREG(mode):
            delivery.refuse(shown, f"is not a file {SHAPE}")
        else:
            yield FoundFile(file, shown, label)


def _entries(folder: Path, place: str, delivery: Delivery) -> Iterator[tuple[Path, int]]:
    """Yield each entry and its own mode (a link's, not its target's); count clutter."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        delivery.refuse(place, f"cannot be read ({error.strerror})")
        return
    for entry in entries:
        if is_clutter(entry.name):
            delivery.ignored += 1
            continue
        try:
            yield entry, entry.lstat().st_mode
        except OSError as error:
            delivery.refuse(f"{place}/{escaped(entry.name)}", f"cannot be read ({error.strerror})")


def count_by_class(project: Project, day: str) -> dict[str, int]:
    return tally(walk_day(project, day, Delivery()))
