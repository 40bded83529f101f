"""A CSV of labels (path,label[,group]) → the files to check, row by row."""

import csv
import io
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dayfold.errors import IntakeError
from dayfold.ledger.intake.delivery import Delivery, Found
from dayfold.ledger.intake.walking import composed, is_clutter, name_problem
from dayfold.project.files import escaped

COLUMNS = ("path", "label", "group")
_MOST = 2**28  # bytes: a row of a hundred for more than two million images


def read(file: Path, folder: Path, delivery: Delivery) -> list[Found]:
    """Return the files that the rows name, in their order; refuse each row that does not fit.

    `path` is relative to `folder`, `group` (patient, study) may be left out. Raises IntakeError
    where the file as a whole is no such table.
    """
    rows = _rows(file)
    found: list[Found] = []
    first: dict[Path, int] = {}
    for number, cells in rows:
        name, label, group = (composed(cell.strip()) for cell in cells)
        place, path = f"{escaped(cells[0])} (line {number})", _inside(folder, cells[0].strip())
        problem = name_problem(label, "class") or name_problem(group, "group")
        if isinstance(path, str):
            delivery.refuse(place, path)
        elif problem:
            what = f"the label {escaped(label)!r}" if name_problem(label, "class") else "the group"
            delivery.refuse(place, f"{what} {problem}")
        elif path in first:
            delivery.refuse(place, f"stands on line {first[path]} already")
        else:
            first[path] = number
            found.append(Found(path, escaped(name), label, group))
    unnamed = sum(path not in first and not path.samefile(file) for path in _all_files(folder))
    if unnamed:
        delivery.warn(".", f"holds {unnamed} files that {file.name} does not name; they are left")
    return found


def _rows(file: Path) -> list[tuple[int, tuple[str, str, str]]]:
    """The rows with their lines; a missing third column is empty."""
    mend = "columns path,label or path,label,group, comma-separated, UTF-8"
    if file.exists() and not file.is_file():  # a pipe may have nobody at its other end
        raise IntakeError(f"{file} is not a file.", mend="--labels FILE")
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST + 1)
    except OSError as error:
        raise IntakeError(
            f"{file} cannot be read: {error.strerror}.", mend="--labels FILE"
        ) from None
    try:
        text = data.decode("utf-8-sig")
        table = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(table.line_num, row) for row in table if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise IntakeError(f"{file} cannot be read as CSV: {error}.", mend=mend) from None
    if len(data) > _MOST:
        raise IntakeError(f"{file} is larger than {_MOST // 2**20} MiB.", mend="give it in parts")
    header = tuple(cell.strip() for cell in rows[0][1]) if rows else ()
    if header not in (COLUMNS[:2], COLUMNS):
        shown = escaped(",".join(header)[:200])
        raise IntakeError(f"{file} has the columns '{shown}'.", mend=mend)
    problems = [
        f"line {number} has {len(row)} columns, not {len(header)}"
        for number, row in rows[1:]
        if len(row) != len(header)
    ]
    if problems:
        raise IntakeError(f"{file} has rows that do not fit:", problems=problems, mend=mend)
    return [(number, (row[0], row[1], row[2] if row[2:] else "")) for number, row in rows[1:]]


def _inside(folder: Path, name: str) -> Path | str:
    """The file of that name in the folder, or why there is none."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts:
        return "is no path inside the folder"
    if problem := name_problem(name, "file"):
        return problem
    if is_clutter(parts[-1]):
        return "is hidden, or of what desktops leave behind; such files are never taken"
    # A Mac stores é as two letters and a spreadsheet as one.
    for form in (name, composed(name), unicodedata.normalize("NFD", name)):
        path = folder
        for part in PurePosixPath(form).parts:
            path = path / part
            try:
                mode = path.lstat().st_mode
            except OSError:
                break
            if stat.S_ISLNK(mode):
                return "is a link or behind one; links are not followed"
        else:
            return path if stat.S_ISREG(mode) else "is not a file"
    return "is not there" + ("; write / between folders" if "\\" in name else "")


def _all_files(folder: Path) -> Iterator[Path]:
    """Every regular file at any depth, but no clutter and nothing behind a link."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_clutter(name)]
        for name in files:
            path = Path(here) / name
            if not is_clutter(name) and not path.is_symlink() and path.is_file():
                yield path
