"""A zip or tar → a folder."""

import os
import tarfile
import zipfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO

from dayfold.errors import IntakeError
from dayfold.project.files import escaped

MAX_FILE = 2**29  # bytes of one file: half a gigabyte
MAX_TOTAL = 2**36  # bytes of all: 64 GB
MAX_FILES = 1_000_000
_PIECE = 2**20
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the first bytes of a zip, and of an empty one
_WINDOWS = 0  # a zip's code for MS-DOS, which Windows uses too


def unpack(archive: Path, into: Path) -> list[tuple[str, str]]:
    """Write an archive's regular files into `into`; return (name, reason) of refused ones.

    Names are read as UTF-8, which macOS writes into a zip without its flag; encodings are never
    guessed. Refused are links, devices, encrypted and damaged files, names that lead out of the
    folder or come twice, and files of more than MAX_FILE bytes.
    """
    refused: list[tuple[str, str]] = []
    # The first bytes decide: zipfile looks at the end, and would take a tar that ends with a zip
    # for one.
    with archive.open("rb") as file:
        is_zip = file.read(4) in _ZIP
    members = _zipped(archive) if is_zip else _tarred(archive)
    files = total = 0
    with closing(members):
        for name, size, problem, source in members:
            files, total = files + 1, total + max(size, 0)
            if files > MAX_FILES or total > MAX_TOTAL:
                raise IntakeError(
                    f"{archive} holds more than {MAX_FILES} files or {MAX_TOTAL // 2**30} GiB."
                )
            path = PurePosixPath(name)
            is_outside = not path.parts or path.is_absolute() or ".." in path.parts
            if is_outside or "\\" in name or "\0" in name:
                problem = problem or "is no path inside the archive"
            elif size > MAX_FILE:
                problem = problem or f"is larger than {MAX_FILE // 2**20} MiB"
            if problem := problem or _write(source, into / path):
                refused.append((name, problem))
    return refused


# Name, size, why it is refused, the file.
_Member = tuple[str, int, str, IO[bytes] | None]


def _zipped(path: Path) -> Generator[_Member]:
    try:
        with zipfile.ZipFile(path, metadata_encoding="utf-8") as archive:
            for info in archive.infolist():
                name = info.orig_filename
                if info.create_system == _WINDOWS and "/" not in name:
                    # PowerShell 5 writes backslashes; unzip converts them too.
                    name = name.replace("\\", "/")
                if name.endswith("/"):
                    continue
                kind = info.external_attr >> 28  # of the Unix mode: 10 is a link
                if info.flag_bits & 1:
                    yield name, 0, "is encrypted", None
                elif kind not in (0, 8):
                    yield name, 0, "is not a regular file", None
                else:
                    try:
                        with archive.open(info) as source:
                            yield name, info.file_size, "", source
                    except Exception as error:
                        yield name, 0, _damage(error), None
    except UnicodeDecodeError as error:
        raise _not_utf_8(path, error.object) from None
    except Exception as error:
        raise IntakeError(f"{path} cannot be read as a zip archive: it {_damage(error)}.") from None


def _tarred(path: Path) -> Generator[_Member]:
    try:
        # Read as a stream, so a compressed archive is read once, in the order of its files. Names
        # are read as UTF-8 in any locale; other bytes become surrogates.
        opened = tarfile.open(path, "r|*", encoding="utf-8")  # noqa: SIM115 - closed below
    except Exception:
        what = f"{path} is neither a folder nor a zip or tar archive."
        raise IntakeError(what, hint="give the folder of class folders") from None
    try:
        with opened as archive:
            for info in archive:
                if info.isdir():
                    continue
                info.name.encode()  # fails for surrogates, which are bytes of another encoding
                if not info.isreg() or info.issparse():
                    yield info.name, 0, "is not a regular file", None
                else:
                    yield info.name, info.size, "", archive.extractfile(info)
    except UnicodeEncodeError as error:
        raise _not_utf_8(path, error.object.encode("utf-8", "surrogateescape")) from None
    except Exception as error:
        raise IntakeError(f"{path} cannot be read as a tar archive: it {_damage(error)}.") from None


def _not_utf_8(archive: Path, name: bytes) -> IntakeError:
    return IntakeError(
        f"Names in {archive} are not UTF-8, and the encoding is unknown.",
        problems=[escaped(repr(name)[2:-1])],
        hint="unpack it with the program that made it and give the folder, or pack it again "
        "with UTF-8 names: 7z a -mcu=on scans.zip scans",
    )


def _damage(error: Exception) -> str:
    if isinstance(error, MemoryError):
        raise error
    said = escaped(" ".join(str(error).split())) or type(error).__name__
    return f"is damaged ({said[:200]})"


def _write(source: IO[bytes] | None, target: Path) -> str:
    assert source is not None  # noqa: S101 - only a refused member has none
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return "comes twice in the archive"
    except OSError as error:
        return f"cannot be written ({error.strerror})"
    with os.fdopen(descriptor, "wb") as file:
        while True:
            try:
                piece = source.read(_PIECE)
            except Exception as error:
                target.unlink()
                return _damage(error)
            if not piece:
                return ""
            file.write(piece)
