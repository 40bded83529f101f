"""Names in archives: read as what they are, or asked for; never guessed."""

import tarfile
import unicodedata
import zipfile

import pytest

from builders import DAYS, add, contents, png, taken
from dayfold.cycle import unattended
from dayfold.errors import IntakeError

NAME = "Gänse/größe.png"


class Raw(zipfile.ZipInfo):
    """A member whose name is these very bytes, without the flag of UTF-8."""

    def __init__(self, raw):
        super().__init__(raw.decode("cp437"))
        self.raw = raw

    def _encodeFilenameFlags(self):
        return self.raw, self.flag_bits & ~0x800


def zipped(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for number, raw in enumerate(names):
            archive.writestr(Raw(raw), png(number))
    return path


def tarred(path, names, **options):
    with tarfile.open(path, "w", **options) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = len(png(number))
            path.with_suffix(".png").write_bytes(png(number))
            with path.with_suffix(".png").open("rb") as file:
                archive.addfile(info, file)
    return path


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_zip_of_macos_has_utf_8_names_without_saying_so(receiving, tmp_path, form):
    name = unicodedata.normalize(form, NAME).encode()
    path = zipped(tmp_path / "scans.zip", [name, b"__MACOSX/" + name.replace(b"/", b"/._")])
    delivery = add(receiving, path)
    assert taken(receiving) == {NAME: png(0)}
    assert (delivery.refused, delivery.ignored) == ([], 1)


@pytest.mark.parametrize("encoding", ["cp437", "cp1252", "cp932", "gbk"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_name_in_another_encoding_is_asked_for_and_then_read(receiving, tmp_path, make, encoding):
    name = {"cp932": "胃/表示.png", "gbk": "胃/图像.png"}.get(encoding, NAME)
    raw = [name.encode(encoding), b"cat/1.png"]
    if make is tarred:
        raw = [one.decode(errors="surrogateescape") for one in raw]
    path = make(tmp_path / "scans", raw)
    with pytest.raises(IntakeError, match="are not UTF-8") as caught:
        add(receiving, path)
    assert any(name in line for line in caught.value.problems if line.startswith(encoding))
    assert "--zip-names" in caught.value.mend
    assert taken(receiving) == {}
    add(receiving, path, zip_names=encoding)
    assert taken(receiving) == {name: png(0), "cat/1.png": png(1)}


def test_a_nightly_run_does_not_guess_either(receiving, tmp_path):
    path = zipped(tmp_path / "scans.zip", [NAME.encode("cp437")])
    with pytest.raises(IntakeError, match=r"Names in .* are not UTF-8"):
        unattended.run(receiving, path, day=DAYS[0], say=print)
    assert contents(receiving.images(DAYS[0])) == {}


def test_an_encoding_that_does_not_fit_or_is_none_is_refused(receiving, tmp_path):
    path = zipped(tmp_path / "scans.zip", ["Gänse/1.png".encode("cp1252")])
    with pytest.raises(IntakeError, match=r"Names in .* are not ASCII"):
        add(receiving, path, zip_names="ascii")
    for name in ("klingon", "utf-16", "base64"):
        with pytest.raises(IntakeError, match="no encoding of names"):
            add(receiving, path, zip_names=name)


def test_utf_8_that_a_tar_says_it_is_stays_that_whatever_encoding_is_told(receiving, tmp_path):
    path = tarred(tmp_path / "scans.tar", [NAME], format=tarfile.PAX_FORMAT)
    add(receiving, path, zip_names="cp932")
    assert taken(receiving) == {NAME: png(0)}
