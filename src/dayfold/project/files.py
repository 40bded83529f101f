"""Atomic writes, hashes, CSV and JSON."""

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dayfold.errors import CycleError, LedgerError

if TYPE_CHECKING:
    import polars as pl

PART = ".dayfold-part"  # the ending of a file that is being written
FULL = (errno.ENOSPC, errno.EDQUOT)  # the errors of a full disk and of a reached quota


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits: an image's id, a file's pin."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(data: bytes) -> str:
    """Return the MD5 of bytes, by which DVC names objects."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def md5_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def write_bytes(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write a file atomically: temporary file, fsync, rename, fsync of the folder.

    The file has the access rights `mode` from the start, by default the usual ones.
    """
    # root would replace devices, pipes and /dev/stdout by a file.
    is_open_file = path.is_symlink() and str(path.readlink()).startswith("/proc/")
    if is_open_file or (path.exists() and not path.is_file() and not path.is_dir()):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that a kill leaves nothing that looks like an image; short, and unique for each
    # name.
    part = path.with_name(f".{sha256(path.name.encode())[:32]}{PART}")
    try:
        # unlink and O_EXCL, so a link of DVC's to its cache is never written through.
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        # Free the space on a full disk, and name the file that was meant.
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def escaped(text: str) -> str:
    r"""Return text on one line, with everything unprintable as `\n`, `\x1b`, `\udcff`."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # The error has no name of the folder.
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        os.close(descriptor)


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    r"""Return CSV as UTF-8 with `\n`, one header, minimal quotes; None is empty, floats by repr."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    write_bytes(path, csv_bytes(header, rows))


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # beginnings of cells that a spreadsheet would compute


def for_spreadsheet(text: str) -> str:
    """Return a cell that a spreadsheet does not compute: an apostrophe before a formula.

    This is only for tables for people; the ledger's own are read back to the byte.
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_spreadsheet(text: str) -> str:
    return text[1:] if text.startswith(tuple(f"'{sign}" for sign in _FORMULA)) else text


def separator(text: str) -> str:
    """Return what separates the columns of a CSV, by its header: a comma, semicolon or tab."""
    return max(",;\t", key=text.partition("\n")[0].count)


def who_changed(source: str) -> str:
    return f"git log -- {source} shows who changed it; git checkout -- {source} undoes it"


def parse_csv(
    data: bytes, schema: "dict[str, pl.DataType]", source: str, rows: int | None = None
) -> "pl.DataFrame":
    """Read CSV bytes, or their first `rows`; the header must be exactly the schema's names."""
    # Slow to import: intake's workers, which do not need it, start in half the time.
    import polars as pl

    data = data.removeprefix(b"\xef\xbb\xbf")  # the byte order mark of spreadsheets
    header = io.BytesIO(data).readline().decode(errors="replace").rstrip("\r\n")
    if header != ",".join(schema):
        what = f"{source} has the columns {header!r}, not {','.join(schema)!r}."
        raise LedgerError(what, hint=who_changed(source))
    try:
        return pl.read_csv(data, schema=schema, empty_string_is_null=False, n_rows=rows)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"{source} cannot be read as CSV: {str(error).splitlines()[0]}",
            hint=f"git checkout -- {source}",
        ) from error


def stamp(path: Path) -> str:
    """Return a text that changes when a file is written: its name, size and change time in ns."""
    info = path.stat()
    return f"{path.name} {info.st_size} {info.st_mtime_ns}"


def with_digest(data: bytes) -> bytes:
    """Return data after a line with its sha256, which reveals damage."""
    return b"\n".join([sha256(data).encode(), data])


def without_digest(data: bytes) -> bytes:
    """Return the data that `with_digest` was given; raise ValueError if it is damaged."""
    digest, _, rest = data.partition(b"\n")
    if sha256(rest).encode() != digest:
        raise ValueError("is damaged")
    return rest


def json_bytes(value: Any) -> bytes:
    """Return JSON for people: two spaces, keys in the order given, a newline at the end."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def canonical_json(value: Any) -> str:
    """Return JSON in its one canonical form: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return a tree of keys as one flat dict of dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        is_tree = isinstance(value, dict)
        found |= dotted(value, f"{before}{key}.") if is_tree else {before + key: value}
    return found


@contextmanager
def only_one(lock: Path, doing: str) -> Iterator[None]:
    """Hold an exclusive lock (flock) while `doing`; it is released when the process ends."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CycleError(
                f"Another process is {doing} in this project (process {file.read().strip()}).",
                hint="wait for it, or stop it",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def is_free(lock: Path) -> bool:
    """Return whether nobody holds a lock (flock); the lock's file may stay without a holder."""
    try:
        with suppress(FileNotFoundError), lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
