"""An archive is a folder like any other, of its regular files only, and leads nowhere else.

Its names are read as what they are, or asked for; they are never guessed.
"""

import io
import os
import stat
import tarfile
import unicodedata
import zipfile

import pytest

from builders import DAYS, add, contents, png, taken
from dayfold.cycle import unattended
from dayfold.errors import IntakeError
from dayfold.ledger.intake import archives


@pytest.fixture
def into(tmp_path):
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


class Raw(zipfile.ZipInfo):
    """A member whose name is these very bytes, without the flag of UTF-8."""

    def __init__(self, raw):
        super().__init__(raw.decode("cp437"))
        self.raw = raw

    def _encodeFilenameFlags(self):
        return self.raw, self.flag_bits & ~0x800


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(Raw(name) if isinstance(name, bytes) else name, data)
    return path


def tarred(path, members, mode="w", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, data in members:
            text = name.decode(errors="surrogateescape") if isinstance(name, bytes) else name
            info = tarfile.TarInfo(text)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


GOOD = [("cat/1.png", png(1)), ("dog/ä 2.png", png(2))]


@pytest.mark.parametrize("mode", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_archive_gives_its_files(tmp_path, into, mode):
    path = tmp_path / "scans"
    zipped(path, GOOD) if mode == "zip" else tarred(path, GOOD, mode)
    assert archives.unpack(path, into) == []
    assert contents(into) == dict(GOOD)


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path, into):
    inner = zipped(tmp_path / "inner.zip", [("dog/2.png", png(2))]).read_bytes()
    path = tarred(tmp_path / "scans.tar", [GOOD[0], ("cat/z.zip", inner)])
    assert zipfile.is_zipfile(path)
    assert archives.unpack(path, into) == []
    assert contents(into) == {"cat/1.png": png(1), "cat/z.zip": inner}


@pytest.mark.parametrize(
    "name",
    ["../out.png", "/etc/out.png", "//etc/out.png", "cat/../../out.png", "cat\\1.png", "cat/.."],
)
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_path_that_leads_elsewhere_is_refused_and_the_others_are_taken(
    tmp_path, into, name, make
):
    path = make(tmp_path / "scans", [(name, png(3)), *GOOD])
    ((refused, reason),) = archives.unpack(path, into)
    assert reason == "is no path inside the archive"
    assert refused
    assert contents(into) == dict(GOOD)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["into", "scans"]


def test_links_devices_and_encrypted_files_are_refused(tmp_path, into):
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)
    with tarfile.open(tmp_path / "scans.tar", "w") as archive:
        for kind in kinds:
            info = tarfile.TarInfo(f"cat/{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    odd = "is not a regular file"
    expected = [(f"cat/{kind.decode()}.png", odd) for kind in kinds]
    assert archives.unpack(tmp_path / "scans.tar", into) == expected
    link = zipfile.ZipInfo("cat/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = zipped(tmp_path / "scans.zip", [(link, "/etc/passwd"), ("cat/1.png", png(1))])
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the second file's flag says encrypted
    path.write_bytes(data)
    expected = [("cat/link.png", odd), ("cat/1.png", "is encrypted")]
    assert archives.unpack(path, into) == expected
    assert contents(into) == {}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_file_that_comes_twice_is_taken_once(tmp_path, into, make):
    path = make(tmp_path / "scans", [("cat/1.png", png(1)), ("cat/1.png", png(2))])
    assert archives.unpack(path, into) == [("cat/1.png", "comes twice in the archive")]
    assert contents(into) == {"cat/1.png": png(1)}


def test_a_damaged_file_of_a_zip_is_refused_by_itself(tmp_path, into):
    path = zipped(tmp_path / "scans.zip", GOOD, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[data.index(png(1)) + 30] ^= 1
    path.write_bytes(data)
    ((name, reason),) = archives.unpack(path, into)
    assert (name, reason.partition(" (")[0]) == ("cat/1.png", "is damaged")
    assert contents(into) == dict(GOOD[1:])


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_file_that_is_too_large_is_refused_unwritten(tmp_path, into, make, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE", 1000)
    path = make(tmp_path / "scans", [("cat/zeros.png", bytes(1001)), *GOOD])
    ((name, reason),) = archives.unpack(path, into)
    assert (name, reason.partition(" than")[0]) == ("cat/zeros.png", "is larger")
    assert contents(into) == dict(GOOD)
    path = make(tmp_path / "good", GOOD)
    for limit in ("MAX_FILES", "MAX_TOTAL"):
        with monkeypatch.context() as patched:
            patched.setattr(archives, limit, 1)
            with pytest.raises(IntakeError, match="holds more than"):
                archives.unpack(path, into)


def test_a_size_that_the_header_of_a_zip_understates_is_not_exceeded(tmp_path, into):
    path = zipped(tmp_path / "bomb.zip", [("cat/1.png", bytes(10**7))])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        where = data.index(signature) + offset
        data[where : where + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    ((_, reason),) = archives.unpack(path, into)
    assert reason.startswith("is damaged")
    assert contents(into) == {}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("left", [0.3, 0.6])
def test_a_tar_that_is_cut_short_is_refused_with_all_that_is_in_it(tmp_path, into, mode, left):
    path = tarred(tmp_path / "scans", [(f"cat/{n}.png", os.urandom(3000)) for n in range(9)], mode)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    with pytest.raises(IntakeError, match="cannot be read as a tar archive"):
        archives.unpack(path, into)


NAME = "Gänse/größe.png"


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_zip_of_macos_has_utf_8_names_without_saying_so(receiving, tmp_path, form):
    name = unicodedata.normalize(form, NAME).encode()
    clutter = b"__MACOSX/" + name.replace(b"/", b"/._")
    delivery = add(receiving, zipped(tmp_path / "scans.zip", [(name, png(0)), (clutter, b"")]))
    assert taken(receiving) == {NAME: png(0)}
    assert (delivery.refused, delivery.ignored) == ([], 1)


def of_windows(name):
    info = zipfile.ZipInfo(name)
    info.create_system = 0
    return info


def test_a_zip_of_windows_has_its_own_separators(tmp_path, into):
    path = tmp_path / "scans.zip"
    names = ["empty\\", "cat\\1.png", "dog\\ä 2.png", "..\\3.png", "cow/a\\4.png"]
    refused = archives.unpack(zipped(path, [(of_windows(name), png(0)) for name in names]), into)
    assert contents(into) == {"cat/1.png": png(0), "dog/ä 2.png": png(0)}
    assert [name for name, _ in refused] == ["../3.png", "cow/a\\4.png"]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_name_in_another_encoding_is_refused_with_the_way_to_pack_it_again(
    receiving, tmp_path, make
):
    path = make(tmp_path / "scans", [("cat/größe.png".encode("cp1252"), png(0)), GOOD[0]])
    with pytest.raises(IntakeError, match=r"Names in .* are not UTF-8") as caught:
        unattended.run(receiving, [path], day=DAYS[0], verbose=False)
    assert caught.value.problems == [r"cat/gr\xf6\xdfe.png"]
    assert "7z a -mcu=on" in caught.value.hint
    assert contents(receiving.images(DAYS[0])) == {}
