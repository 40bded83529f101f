"""A folder or archive → the files to check; rules for names.

No link is followed, and no file is opened, except an archive by a worker.
"""

import functools
import stat
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dayfold.errors import ToolError
from dayfold.ledger.decode import IMAGE_ENDINGS
from dayfold.ledger.intake import workers
from dayfold.ledger.intake.delivery import Delivery, Found, tally
from dayfold.project import storage
from dayfold.project.files import PART, escaped
from dayfold.project.layout import Project

# Unicode categories that no name may have: control characters, line separators, invalid UTF-8.
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}
_CLUTTER = {"thumbs.db", "desktop.ini", "__macosx"}  # besides hidden files; ignored and counted
KEEP, WITHDRAW = "keep", "withdraw"  # decisions of an audit; so no class may have these names
SHAPE = "(expected <class>/<image>)"
LINK = "is a link; links are not followed"
MOST_BYTES = 255  # of a file's or folder's name, on every common file system


def unpacked(source: Path, delivery: Delivery, scratch: Path, *, has_labels: bool) -> Path:
    """Return the source if it is a folder, else the folder in `scratch` that it is unpacked to.

    Of an archive without a label file it is the folder of class folders.
    """
    if source.is_dir():
        return source
    folder = scratch / "unpacked"
    folder.mkdir()
    for name, reason in workers.unpack(source, folder):
        delivery.refuse(escaped(name), reason)
    return folder if has_labels else _below_the_top(folder)


def _below_the_top(folder: Path) -> Path:
    """Return the one folder in an archive if it was packed by that name, else `folder`."""
    # It is a class folder, and stays, if files in it may be images.
    entries = [entry for entry in folder.iterdir() if not is_clutter(entry.name)]
    if len(entries) != 1 or not entries[0].is_dir():
        return folder
    inner = [entry for entry in entries[0].iterdir() if not is_clutter(entry.name)]
    loose = {entry.suffix.lower() for entry in inner if not entry.is_dir()}
    is_class = not loose.isdisjoint({*IMAGE_ENDINGS, ""}) or len(loose) == len(inner)
    return folder if is_class else entries[0]


def walk_day(project: Project, day: str, delivery: Delivery) -> list[Found]:
    """Return the files of a day's folder as `walk` does; none if there is no such folder.

    Their places begin at the project's top. A link of DVC's into its cache (cache.type symlink)
    stands for the file that it leads to.
    """
    folder = project.images(day)
    if not folder.is_dir():
        return []
    # DVC is asked for its cache at the first link, so in most projects never.
    objects = functools.cache(lambda: storage.cache_folder(project.root).resolve())

    def real(link: Path) -> Path | str:
        try:
            return storage.linked(link, objects()) or LINK
        except ToolError:
            return LINK  # no project of DVC's
        except OSError:
            return "is a link to what DVC's cache has lost: dvc pull"

    return walk(folder, delivery, within=f"{project.name(folder)}/", real=real)


def walk(
    folder: Path,
    delivery: Delivery,
    *,
    within: str = "",
    real: Callable[[Path], Path | str] = lambda _: LINK,
) -> list[Found]:
    """Return the files of `folder`/<class>/, by class and name; refuse or count all other entries.

    `within` is the prefix of their places. `real` returns the file that a link stands for, or the
    reason why it is refused.
    """
    found: list[Found] = []
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
            delivery.refuse(place, f"is not the only folder of {label!r}: two Unicode forms of it")
        else:
            before = len(found) + len(delivery.refused)
            found += _files(entry, place, label, delivery, real)
            if len(found) + len(delivery.refused) == before:
                delivery.warn(place, "is a class folder without an image")
    return found


def _files(
    folder: Path, place: str, label: str, delivery: Delivery, real: Callable[[Path], Path | str]
) -> Iterator[Found]:
    for file, mode in _entries(folder, place, delivery):
        shown = f"{place}/{escaped(file.name)}"
        if problem := misread(file.name) or name_problem(file.name, "file"):
            delivery.refuse(shown, problem)
        elif stat.S_ISLNK(mode):
            target = real(file)
            if isinstance(target, str):
                delivery.refuse(shown, target)
            else:
                yield Found(file, shown, label, real=target)
        elif stat.S_ISDIR(mode):
            delivery.refuse(shown, f"is a folder {SHAPE}")
        elif not stat.S_ISREG(mode):
            delivery.refuse(shown, f"is not a file {SHAPE}")
        else:
            yield Found(file, shown, label)


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


def is_clutter(name: str) -> bool:
    """Whether a name is that of a hidden or system file, or of an interrupted copy."""
    return name.startswith(".") or name.lower() in _CLUTTER or name.endswith(PART)


def misread(name: str) -> str:
    """Why the name of a file or folder cannot be told; nothing where it can.

    In the locale of an old server it is read as other letters than on other machines.
    """
    encoding = sys.getfilesystemencoding()
    if name.isascii() or encoding == "utf-8":
        return ""
    return f"has a name that this locale ({encoding}) misreads: export PYTHONUTF8=1"


def name_problem(name: str, kind: str) -> str:
    """Say why a class or a file cannot have a name; "" if it can."""
    if any(unicodedata.category(letter) in _CONTROL for letter in name):
        return f"has unprintable letters in its {kind} name"
    if kind == "class" and not name.isprintable():
        return "has unprintable letters in its class name"
    if kind == "class" and (not name or name != name.strip() or "/" in name or name[0] == "."):
        return "is no class name (empty, with /, a dot first or a space at an end)"
    if kind == "class" and name in (KEEP, WITHDRAW):
        return f"is no class name: in an audit's table it is a decision; call it {name}_ say"
    if kind == "class" and len(name.encode()) > MOST_BYTES:
        return f"is too long for a class name (more than {MOST_BYTES} bytes)"
    return ""


def composed(name: str) -> str:
    """Return a name in its composed Unicode form (NFC), which all classes have."""
    return unicodedata.normalize("NFC", name)


def substitute(name: str, image: str) -> str:
    """Return a file's name with the start of its image's id, for a name that is taken."""
    path = Path(name)
    stem = path.stem.encode()[:200].decode(errors="ignore")
    ending = path.suffix.encode()[:40].decode(errors="ignore")
    return f"{stem}-{image[:8]}{ending}"


def folded(path: Path) -> tuple[str, str]:
    """Return a file's class and name as a file system sees them that ignores case and NFC/NFD."""
    return composed(path.parent.name), composed(path.name).casefold()


def count(project: Project, day: str) -> dict[str, int]:
    """Count the files of each class folder of a day, unchecked."""
    return tally(walk_day(project, day, Delivery()))


def clashes(classes: Iterable[str]) -> list[str]:
    """Return a line for each set of class names that differ by case or Unicode form only."""
    return sorted({f"classes {said}" for said in clashing(classes).values()})


def clashing(classes: Iterable[str]) -> dict[str, str]:
    """Return each class name that differs from another by case or Unicode form only, and a remark.

    Such names are one folder on some machines and two on others.
    """
    same: dict[str, list[str]] = {}
    for name in sorted(set(classes)):
        same.setdefault(composed(name).casefold(), []).append(name)
    return {
        name: f"{' and '.join(map(repr, names))} differ by case or Unicode form only"
        for names in same.values()
        if len(names) > 1
        for name in names
    }
