"""A folder of class folders → checked images: what is there, what it is, and all that is wrong."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dayfold.errors import IntakeError
from dayfold.ledger.decode import decode, no_warnings
from dayfold.ledger.manifest import History
from dayfold.project.files import PART, sha256

CONTROL = {"Cc", "Cs", "Zl", "Zp"}  # Unicode categories; Cs: bytes that are not UTF-8
SHOWN = 5  # known images that are listed one by one
CLUTTER = {"thumbs.db", "desktop.ini"}  # besides hidden files; ignored and counted


@dataclass(frozen=True)
class Delivered:
    """One checked file: `image` is the sha256 of its bytes, `label` the name of its folder."""

    path: Path
    label: str
    image: str


@dataclass
class Delivery:
    """What a folder holds: good images, problems with the others, and what was passed over."""

    images: list[Delivered] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    ignored: int = 0

    def passed_over(self) -> list[str]:
        """What was not taken and is no problem, in a few lines."""
        lines = [f"known: {line}" for line in self.known[:SHOWN]]
        if len(self.known) > SHOWN:
            lines.append(f"and {len(self.known) - SHOWN} more that are known")
        if self.ignored:
            lines.append(f"{self.ignored} hidden files ignored")
        return lines


def inspect(
    folder: Path,
    history: History,
    *,
    today: Mapping[str, tuple[str, str]] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Delivery:
    """Check every file of `folder`/<class>/ and return what can be taken, and all that cannot.

    Each file is read once, hashed, and decoded whole, in parallel. Bytes that come twice, or that
    the history or `today` (image → class, place) has under the same class, are listed as known;
    under another class they are a problem. `progress` is called with (files done, files in all).
    """
    delivery = Delivery()
    found = list(_walk(folder, delivery))
    today = dict(today or {})
    classes = {label for label, _ in found} | set(history.images["label"].unique())
    delivery.problems += clashes(classes | {label for label, _ in today.values()})
    checked: list[Delivered] = []
    with no_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, result in enumerate(pool.map(_check, found), start=1):
            if isinstance(result, str):
                delivery.problems.append(result)
            else:
                checked.append(result)
            progress(done, len(found))
    _sort_out_copies(checked, history, today, delivery)
    return delivery


def count(folder: Path) -> dict[str, int]:
    """How many files each class folder holds, unchecked."""
    found: dict[str, int] = {}
    for label, _ in _walk(folder, Delivery()):
        found[label] = found.get(label, 0) + 1
    return found


def _walk(folder: Path, delivery: Delivery) -> Iterator[tuple[str, Path]]:
    """Yield (class, file); links are refused, hidden files and clutter counted."""
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if _is_clutter(entry.name):
            delivery.ignored += 1
        elif entry.is_symlink():
            delivery.problems.append(f"{entry} is a link; links are not followed")
        elif not entry.is_dir():
            delivery.problems.append(f"{entry} lies in no class folder (expected <class>/<image>)")
        elif not entry.name.isprintable():
            delivery.problems.append(f"{entry.name!r} has unprintable characters as a class name")
        else:
            for file in sorted(entry.iterdir()):
                if _is_clutter(file.name):
                    delivery.ignored += 1
                elif any(unicodedata.category(letter) in CONTROL for letter in file.name):
                    delivery.problems.append(f"{str(file)!r} has unprintable letters in its name")
                elif file.is_symlink():
                    delivery.problems.append(f"{file} is a link; links are not followed")
                elif not file.is_file():
                    delivery.problems.append(f"{file} is not a file (expected <class>/<image>)")
                else:
                    yield entry.name, file


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in CLUTTER or name.endswith(PART)


def _check(item: tuple[str, Path]) -> Delivered | str:
    label, path = item
    try:
        data = path.read_bytes()
        decode(data)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"
    except IntakeError as error:
        return f"{path} {error.what}"
    return Delivered(path, label, sha256(data))


def clashes(classes: set[str]) -> Iterator[str]:
    """Class names that differ by case or Unicode form only: one folder here, two elsewhere."""
    same: dict[str, list[str]] = {}
    for name in sorted(classes):
        same.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    for names in same.values():
        if len(names) > 1:
            yield f"classes {' and '.join(map(repr, names))} differ by case or Unicode form only"


def _sort_out_copies(
    checked: list[Delivered],
    history: History,
    before: dict[str, tuple[str, str]],
    delivery: Delivery,
) -> None:
    given = [item.image for item in checked]
    earlier = history.images.filter(pl.col("image").is_in(given))
    before |= {row["image"]: (row["label"], row["path"]) for row in earlier.iter_rows(named=True)}
    for item in checked:
        if item.image in history.withdrawn:
            delivery.problems.append(f"{item.path} was withdrawn on an earlier day")
        elif item.image not in before:
            before[item.image] = (item.label, str(item.path))
            delivery.images.append(item)
        elif before[item.image][0] == item.label:
            delivery.known.append(f"{item.path} has the same bytes as {before[item.image][1]}")
        else:
            label, place = before[item.image]
            delivery.problems.append(
                f"{item.path} is given as {item.label!r}, but {place} has the same bytes as "
                f"{label!r}"
            )
