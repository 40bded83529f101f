"""An archive is a folder like any other, of its regular files only, and leads nowhere else."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from builders import png
from dayfold.errors import IntakeError
from dayfold.ledger.intake import archives


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def tarred(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


GOOD = [("cat/1.png", png(1)), ("dog/ä 2.png", png(2))]


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_archive_gives_its_files(tmp_path, into, mode):
    path = tmp_path / "scans"
    zipped(path, GOOD) if mode == "zip" else tarred(path, GOOD, mode)
    assert archives.unpack(path, into) == []
    assert tree(into) == dict(GOOD)


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path, into):
    inner = zipped(tmp_path / "inner.zip", [("dog/2.png", png(2))]).read_bytes()
    path = tarred(tmp_path / "scans.tar", [GOOD[0], ("cat/z.zip", inner)])
    assert zipfile.is_zipfile(path)
    assert archives.unpack(path, into) == []
    assert tree(into) == {"cat/1.png": png(1), "cat/z.zip": inner}


@pytest.mark.parametrize(
    "name", ["../out.png", "/etc/out.png", "cat/../../out.png", "cat\\1.png", "cat/.."]
)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_path_that_leads_elsewhere_is_refused_and_the_others_are_taken(
    tmp_path, into, name, make
):
    path = make(tmp_path / "scans", [(name, png(3)), *GOOD])
    ((refused, reason),) = archives.unpack(path, into)
    assert reason == "is no path inside the archive"
    assert refused
    assert tree(into) == dict(GOOD)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["into", "scans"]


def test_links_and_devices_of_a_tar_are_refused(tmp_path, into):
    path = tmp_path / "scans.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("cat/soft.png", tarfile.SYMTYPE),
            ("cat/hard.png", tarfile.LNKTYPE),
            ("cat/pipe.png", tarfile.FIFOTYPE),
            ("cat/device.png", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert archives.unpack(path, into) == [
        (f"cat/{name}.png", "is not a regular file") for name in ("soft", "hard", "pipe", "device")
    ]
    assert tree(into) == {}


def test_links_and_encrypted_files_of_a_zip_are_refused(tmp_path, into):
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "scans.zip", [(link, "/etc/passwd"), ("cat/1.png", png(1))])
    data = bytearray(path.read_bytes())
    where = data.rindex(b"PK\x01\x02")  # the second file's entry: its flag says encrypted
    data[where + 8] |= 1
    path.write_bytes(data)
    assert archives.unpack(path, into) == [
        ("cat/link.png", "is not a regular file"),
        ("cat/1.png", "is encrypted"),
    ]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_file_that_comes_twice_is_taken_once(tmp_path, into, make):
    path = make(tmp_path / "scans", [("cat/1.png", png(1)), ("cat/1.png", png(2))])
    assert archives.unpack(path, into) == [("cat/1.png", "comes twice in the archive")]
    assert tree(into) == {"cat/1.png": png(1)}


def test_a_damaged_file_of_a_zip_is_refused_by_itself(tmp_path, into):
    path = zipped(tmp_path / "scans.zip", GOOD, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(png(1)) + 30] ^= 1
    path.write_bytes(data)
    ((name, reason),) = archives.unpack(path, into)
    assert (name, reason.partition(" (")[0]) == ("cat/1.png", "is damaged")
    assert tree(into) == dict(GOOD[1:])


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_file_that_is_too_large_is_refused_unwritten(tmp_path, into, make, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE", 1000)
    path = make(tmp_path / "scans", [("cat/zeros.png", bytes(1001)), *GOOD])
    ((name, reason),) = archives.unpack(path, into)
    assert (name, reason.partition(" than")[0]) == ("cat/zeros.png", "is larger")
    assert tree(into) == dict(GOOD)


@pytest.mark.parametrize("limit", ["MAX_FILES", "MAX_TOTAL"])
def test_an_archive_that_is_too_large_is_refused(tmp_path, into, limit, monkeypatch):
    monkeypatch.setattr(archives, limit, 1)
    with pytest.raises(IntakeError, match="holds more than"):
        archives.unpack(zipped(tmp_path / "scans", GOOD), into)


def test_a_size_that_the_header_of_a_zip_understates_is_not_exceeded(tmp_path, into):
    path = zipped(tmp_path / "bomb.zip", [("cat/1.png", bytes(10**7))])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        where = data.index(signature) + offset
        data[where : where + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    ((_, reason),) = archives.unpack(path, into)
    assert reason.startswith("is damaged")
    assert tree(into) == {}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("left", [0.3, 0.6])
def test_a_tar_that_is_cut_short_is_refused_with_all_that_is_in_it(tmp_path, into, mode, left):
    path = tarred(tmp_path / "scans", [(f"cat/{n}.png", os.urandom(3000)) for n in range(9)], mode)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(IntakeError, match="cannot be read as a tar archive"):
        archives.unpack(path, into)
