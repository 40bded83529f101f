"""Rules for names of classes and files."""

import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from dayfold.project.files import PART

# Unicode categories that no name may have: control characters, line separators, invalid UTF-8.
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}
# Besides hidden files; ignored and counted. A DICOMDIR is a disc's table of contents.
_CLUTTER = {"thumbs.db", "desktop.ini", "dicomdir", "__macosx"}
KEEP, WITHDRAW = "keep", "withdraw"  # decisions of an audit; so no class may have these names
MOST_BYTES = 255  # of a file's or folder's name, on every common file system


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
