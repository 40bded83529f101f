"""Rules for names of classes and files."""

import sys
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from dayfold.project.files import PART

# Unicode categories that are not allowed: control characters, line separators, invalid UTF-8.
_CONTROL = {"Cc", "Cs", "Zl", "Zp"}
# Besides hidden files; ignored and counted. A DICOMDIR is a disc's table of contents.
_CLUTTER = {"thumbs.db", "desktop.ini", "dicomdir", "__macosx"}
KEEP, WITHDRAW = "keep", "withdraw"  # decisions in an audit, so not allowed as class names
MOST_BYTES = 255  # of a file or folder name, on every common file system


def is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER or name.endswith(PART)


def misread(name: str) -> str:
    """Return why a name cannot be read, as a locale may turn its letters into others; else ""."""
    encoding = sys.getfilesystemencoding()
    if name.isascii() or encoding == "utf-8":
        return ""
    return f"has a name that this locale ({encoding}) misreads: export PYTHONUTF8=1"


def name_problem(name: str, kind: str) -> str:
    """Return why a class or a file cannot have a name; "" if it can."""
    is_class = kind == "class"
    is_odd = any(unicodedata.category(letter) in _CONTROL for letter in name)
    if is_odd or (is_class and not name.isprintable()):
        return f"has unprintable letters in its {kind} name"
    if is_class and (not name or name != name.strip() or "/" in name or name[0] == "."):
        return "is no class name (empty, with /, a dot first or a space at an end)"
    if is_class and name in (KEEP, WITHDRAW):
        return f"is no class name: it is a decision in audits; use {name}_ for example"
    if is_class and len(name.encode()) > MOST_BYTES:
        return f"is too long for a class name (more than {MOST_BYTES} bytes)"
    return ""


def composed(name: str) -> str:
    """Return a name in composed Unicode (NFC), which all class names have."""
    return unicodedata.normalize("NFC", name)


def substitute(name: str, image: str) -> str:
    """Return a file name with the start of the image's id, for use if the name is taken."""
    path = Path(name)
    stem = path.stem.encode()[:200].decode(errors="ignore")
    ending = path.suffix.encode()[:40].decode(errors="ignore")
    return f"{stem}-{image[:8]}{ending}"


def folded(path: Path) -> tuple[str, str]:
    """Return a file's class and name as seen by a file system that ignores case and NFC/NFD."""
    return composed(path.parent.name), composed(path.name).casefold()


def clashes(classes: Iterable[str]) -> list[str]:
    """Return a line for each set of class names that differ only by case or Unicode form."""
    return sorted({f"classes {said}" for said in clashing(classes).values()})


def clashing(classes: Iterable[str]) -> dict[str, str]:
    """Return class name → remark, for names that are one folder on some machines, two on others."""
    same: dict[str, list[str]] = {}
    for name in sorted(set(classes)):
        same.setdefault(composed(name).casefold(), []).append(name)
    return {
        name: f"{' and '.join(map(repr, names))} differ by case or Unicode form only"
        for names in same.values()
        if len(names) > 1
        for name in names
    }
