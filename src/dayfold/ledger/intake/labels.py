"""A label file → files with classes."""

import os
import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from dayfold.errors import IntakeError
from dayfold.ledger.intake import formats
from dayfold.ledger.intake.delivery import Delivery, FoundFile
from dayfold.ledger.names import composed, is_clutter, name_problem
from dayfold.project.console import first_few, plural
from dayfold.project.files import escaped

# Names of these columns. Headers in _PLAIN need no confirmation; the last is an ImageFolder's.
_OTHERS = {
    "path": ("path", "image", "filename", "file_name"),
    "label": ("label", "class", "choice", "category"),
    "group": ("group", "patient", "patient_id", "study", "study_id"),
}
_PLAIN = ({"path", "label"}, {"path", "label", "group"}, {"file_name", "label"})
MISSING = "is not there"
_PREFIX = re.compile("[0-9a-f]{8}-")  # Label Studio puts it before the name of an upload


class _Row(NamedTuple):
    """The label of a path, or None if nobody has given one; `problem` says why it is unusable."""

    path: str
    label: str | None
    group: str
    where: str
    problem: str

    @property
    def place(self) -> str:
        return f"{escaped(self.path)} ({self.where})"


def read(
    file: Path,
    folder: Path,
    delivery: Delivery,
    *,
    columns: str = "",
    classes: Mapping[str, str] | None = None,
) -> list[FoundFile]:
    """Return the files that a label file names, in its order; refuse each row that does not fit.

    Paths are relative to `folder`. `columns` ("path=image,label=choice") names the columns;
    otherwise they are guessed, and a guess is noted as the delivery's `guess`. `classes` maps their
    class names to ours. Several rows of an image, as from several annotators, must agree.
    """
    table = formats.read(file)
    columns_of, guess = _columns(table, columns, file)
    if guess:
        shown = escaped(f"{file.name}: {guess.replace(',', ', ')}")
        delivery.notes.append(f"columns of {shown}")
        delivery.guess = (shown, f"--columns {shlex.quote(guess)}")
    home, named, missing = folder.resolve().parts, dict[Path, list[_Row]](), set[str]()
    blank: list[str] = []
    for line in table.rows:
        row = _row(line, columns_of, classes or {}, partial=table.partial)
        path = _located(folder, home, row.path)
        if isinstance(path, Path):
            named.setdefault(path, []).append(row)
        elif row.label is None and not row.problem:
            blank.append(escaped(row.path))
        elif row.path not in missing:  # once, even if several annotators name it
            missing.add(row.path)
            delivery.refuse(row.place, row.problem or path)
    found = []
    for path, rows in named.items():
        wrong = next((row for row in rows if row.problem), None)
        answers = {row[:3]: row for row in rows if row.label is not None}
        place = escaped(composed(path.relative_to(folder).as_posix()))
        if wrong:
            delivery.refuse(wrong.place, wrong.problem)
        elif len(answers) > 1:
            delivery.refuse(place, _dispute(answers.values()))
        elif answers:
            ((_, label, group),) = answers
            found.append(FoundFile(path, place, str(label), group))
        else:
            blank.append(place)
    unnamed = sum(path not in named and not path.samefile(file) for path in _all_files(folder))
    if unnamed:
        what = f"does not name {plural(unnamed, 'file')}; only named files are taken"
        delivery.warn(file.name, what)
    if blank:
        shown = ", ".join(first_few(blank))
        what = f"has {plural(len(blank), 'image')} without a label ({shown}); left for later"
        delivery.warn(file.name, what)
    return found


def read_classes(file: Path) -> dict[str, str]:
    """Return a map of their class names to ours, from a table with the columns theirs and ours."""
    table, ours, problems = formats.read(file), dict[str, str](), list[str]()
    if {*table.names} != {"theirs", "ours"}:
        shown = escaped(",".join(table.names)[:200])
        raise IntakeError(f"{file} has the columns '{shown}'.", hint="columns theirs,ours")
    for where, cells, _ in table.rows:
        names = (_text(cells.get(name)) for name in ("theirs", "ours"))
        one, name = (composed((text or "").strip()) for text in names)
        if wrong := name_problem(name, "class"):
            problems.append(f"{where}: {escaped(name)!r} {wrong}")
        elif ours.setdefault(one, name) != name:
            problems.append(f"{where}: {escaped(one)!r} is {ours[one]!r} already")
    if problems:
        raise IntakeError(f"{file} does not fit:", problems=problems, hint="columns theirs,ours")
    return ours


def _columns(table: formats.Table, columns: str, file: Path) -> tuple[dict[str, str], str]:
    certain, wrong = dict(table.columns), list[str]()
    for part in filter(None, columns.split(",")):
        meaning, _, name = (word.strip() for word in part.partition("="))
        if meaning in _OTHERS and name in table.names:
            certain[meaning] = name
        else:
            wrong.append(f"{part!r} is not path=, label= or group= and the name of a column")
    guessed: dict[str, str] = {}
    for meaning, others in _OTHERS.items():
        fit = [name for name in table.names if _bare(name) in map(_bare, others)]
        if meaning in certain or (columns and meaning == "group"):
            continue
        if len(fit) > 1:
            wrong.append(escaped(f"{' and '.join(fit)} could each be the {meaning}"))
        guessed |= dict.fromkeys([meaning] * len(fit), "".join(fit[:1]))
    found = certain | guessed
    if wrong or not {"path", "label"} <= found.keys():
        shown = escaped(",".join(table.names)[:200])
        hint = "say which is which: --columns path=…,label=…,group=… (separated by commas in a CSV)"
        if not table.rows:
            hint = f"known: {formats.KNOWN}"
        raise IntakeError(f"{file} has the columns '{shown}'.", problems=wrong, hint=hint)
    is_guess = guessed and {*table.names} not in _PLAIN
    return found, ",".join(f"{meaning}={name}" for meaning, name in found.items()) * bool(is_guess)


def _bare(name: str) -> str:
    """Return a column's name without case, spaces and signs: "Patient ID" equals "patient_id"."""
    return re.sub(r"[\W_]", "", name).casefold()


def _row(
    line: formats.Row, columns_of: Mapping[str, str], classes: Mapping[str, str], *, partial: bool
) -> _Row:
    cells = {meaning: line.cells.get(name) for meaning, name in columns_of.items()}
    cell, path, group = cells["label"], _text(cells["path"]), _text(cells.get("group"))
    if isinstance(cell, dict):  # JSON-MIN with several choices
        cell = cell.get("choices")
    given = list(map(_text, cell)) if isinstance(cell, list) else [_text(cell)]
    names = list(dict.fromkeys(composed((name or "").strip()) for name in given))
    name, problem = "".join(names[:1]), ""
    label = classes.get(name, name)
    is_blank = partial and not label
    if None in given:
        problem = "has a label that is neither text nor a whole number"
    elif len(names) > 1:
        shown = ", ".join(repr(escaped(name)) for name in first_few(names))
        problem = f"has {len(names)} labels ({shown}); an image can have one"
    elif path is None or group is None:
        problem = "has a path or group that is neither text nor a whole number"
    elif not is_blank and (wrong := name_problem(label, "class")):
        problem = f"the label {escaped(label)!r} {wrong}"
    elif wrong := name_problem(group, "group"):
        problem = f"the group {wrong}"
    path, group = (path or "").strip(), composed((group or "").strip())
    return _Row(path, None if is_blank else label, group, line.where, line.problem or problem)


def _text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell or ""
    return str(cell) if isinstance(cell, int) and not isinstance(cell, bool) else None


def _dispute(rows: Iterable[_Row]) -> str:
    for name, what in (("label", "given as"), ("group", "given in groups"), ("path", "meant by")):
        values = {getattr(row, name): row.where for row in rows}
        if len(values) > 1:
            each = [f"{escaped(value)!r} ({where})" for value, where in values.items()]
            return f"is {what} {' and '.join(first_few(each))}"
    return ""


def _located(folder: Path, home: Sequence[str], given: str) -> Path | str:
    """Return the file in the folder that a label file names, or the reason why there is none.

    A path may begin above the folder, with the names of the folders that it is in (`home`). A URL
    of Label Studio (https://labelstud.io/guide/tasks, https://labelstud.io/guide/storage) stands
    for the path in it; the name of an upload is also tried without its prefix. A path of Windows is
    read as one.
    """
    name, last = given, ""
    is_url = given.startswith("/data/") or "://" in given
    if is_url:
        try:
            url = urlsplit(given)
        except ValueError:
            return "is no path inside the folder"
        name = unquote(url.path).lstrip("/")
        if name.endswith("data/local-files/"):
            name = unquote(url.query.removeprefix("d=")).lstrip("/")
        elif name.startswith("data/upload/"):
            name = last = PurePosixPath(name).name
    is_windows = "\\" in name and "/" not in name
    path = PureWindowsPath(name) if is_windows else PurePosixPath(name)
    parts = path.parts[bool(path.anchor) :]
    depths = [n for n in range(len(parts) - 1, 0, -1) if tuple(home[-n:]) == parts[:n]]
    depths += [0] * (is_windows and not path.anchor)
    names = [name, *("/".join(parts[n:]) for n in depths)]
    names += [_PREFIX.sub("", last)] * bool(_PREFIX.match(last))
    found = [_inside(folder, one) for one in names]
    there = [one for one in found if isinstance(one, Path)]
    if len(there) > 1 and is_url and not last:  # for a plain path the first one is meant
        both = " or ".join(repr(escaped(one.relative_to(folder).as_posix())) for one in there)
        return f"may be {both}"
    if not there and found[0] == MISSING:
        return MISSING + _like(folder, name)
    return there[0] if there else found[0]


def _like(folder: Path, name: str) -> str:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    for first in range(len(parts)):
        one = "/".join(parts[first:])
        if isinstance(_inside(folder, one), Path):
            return f"; {escaped(one)} is: write paths from the folder on"
    return ""


def _inside(folder: Path, name: str) -> Path | str:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts:
        return "is no path inside the folder"
    if problem := name_problem(name, "file"):
        return problem
    if is_clutter(parts[-1]) and not name.startswith(".\\"):
        return "is a hidden or system file; such files are never taken"
    # A Mac may store é as two letters (NFD), a spreadsheet as one letter (NFC).
    for form in (name, composed(name), unicodedata.normalize("NFD", name)):
        path = folder / form
        if any(map(os.path.islink, (path, *path.parents[: len(parts) - 1]))):
            return "is a link or below one; links are not followed"
        if os.access(path, os.F_OK):
            return path if path.is_file() else "is not a file"
    return MISSING


def _all_files(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_clutter(name)]
        for name in files:
            path = Path(here) / name
            if not is_clutter(name) and not path.is_symlink() and path.is_file():
                yield path
