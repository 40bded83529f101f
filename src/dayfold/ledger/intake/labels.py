"""A CSV of labels → the files that it names; each row that does not fit is refused."""

import csv
import io
import os
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from dayfold.errors import IntakeError
from dayfold.ledger.intake.delivery import Delivery, Found
from dayfold.ledger.intake.finding import composed, is_clutter, name_problem
from dayfold.project.files import escaped

COLUMNS = ("path", "label", "group")  # of a CSV of labels
_LABELS_BYTES = 2**28  # of such a CSV: a row of a hundred for more than two million images


def read(file: Path, folder: Path, delivery: Delivery) -> list[Found]:
    """Return the files that the rows name, in their order; refuse each row that does not fit.

    `path` is relative to `folder`, `group` (patient, study) may be left out.
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
    hint = "columns path,label or path,label,group, comma-separated, UTF-8"
    try:
        info = file.stat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LABELS_BYTES:
            most = f"{_LABELS_BYTES // 2**20} MiB or less"
            raise IntakeError(f"{file} is not a file of {most}.", hint="--labels FILE")
        text = file.read_bytes().decode("utf-8-sig")
        table = csv.reader(io.StringIO(text, newline=""), strict=True)
        rows = [(table.line_num, row) for row in table if row]
    except OSError as error:
        raise IntakeError(
            f"{file} cannot be read: {error.strerror}.", hint="--labels FILE"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise IntakeError(f"{file} cannot be read as CSV: {error}.", hint=hint) from None
    header = tuple(cell.strip() for cell in rows[0][1]) if rows else ()
    if header not in (COLUMNS[:2], COLUMNS):
        shown = escaped(",".join(header)[:200])
        raise IntakeError(f"{file} has the columns '{shown}'.", hint=hint)
    problems = [
        f"line {number} has {len(row)} columns, not {len(header)}"
        for number, row in rows[1:]
        if len(row) != len(header)
    ]
    if problems:
        raise IntakeError(f"{file} has rows that do not fit:", problems=problems, hint=hint)
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
        path = folder / form
        if any(map(os.path.islink, (path, *path.parents[: len(parts) - 1]))):
            return "is a link or behind one; links are not followed"
        if os.access(path, os.F_OK):
            return path if path.is_file() else "is not a file"
    return "is not there" + ("; write / between folders" if "\\" in name else "")


def _all_files(folder: Path) -> Iterator[Path]:
    """Every regular file at any depth, but no clutter and nothing behind a link."""
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_clutter(name)]
        for name in files:
            path = Path(here) / name
            if not is_clutter(name) and not path.is_symlink() and path.is_file():
                yield path
