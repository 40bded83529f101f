"""DICOM files become what a viewer shows: made files whose right answer is known."""

import io
import sys

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageOps
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from builders import encoded
from dayfold.errors import IntakeError
from dayfold.ledger.decode import decode, examine
from dayfold.project.files import sha256


def scan(pixels, photometric="MONOCHROME2", bits=8, **tags):
    """A DICOM file of these pixels: [rows, columns], [rows, columns, 3] or frames of either."""
    pixels = np.asarray(pixels)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.1"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.PhotometricInterpretation = photometric
    made.SamplesPerPixel = 3 if pixels.shape[-1] == 3 and pixels.ndim > 2 else 1
    if made.SamplesPerPixel == 3:
        made.PlanarConfiguration = 0
    shape = pixels.shape[:-1] if made.SamplesPerPixel == 3 else pixels.shape
    made.Rows, made.Columns = shape[-2:]
    if len(shape) == 3:
        made.NumberOfFrames = shape[0]
    made.BitsAllocated = pixels.dtype.itemsize * 8
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    for name, value in tags.items():
        setattr(made, name, value)
    return written(made)


def written(made):
    file = io.BytesIO()
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def greys(data):
    found = np.asarray(decode(data))
    assert (found == found[..., :1]).all()
    return found[..., 0].tolist()


@pytest.mark.parametrize(
    ("pixels", "photometric", "bits", "seen"),
    [
        (np.array([[0, 7], [200, 255]], np.uint8), "MONOCHROME2", 8, [[0, 7], [200, 255]]),
        (np.array([[0, 7, 255]], np.uint8), "MONOCHROME1", 8, [[255, 248, 0]]),
        # By the range that the bits span: 4095 is white, 819 a fifth of it.
        (np.array([[0, 819, 4095]], np.uint16), "MONOCHROME2", 12, [[0, 51, 255]]),
        # Signed values from the least that there can be.
        (np.array([[-32768, 32767, 0]], np.int16), "MONOCHROME2", 16, [[0, 255, 127]]),
    ],
)
def test_grey_is_scaled_by_the_range_that_its_bits_span(pixels, photometric, bits, seen):
    assert greys(scan(pixels, photometric, bits)) == seen


def test_the_first_window_says_what_is_black_and_what_is_white_after_rescaling():
    # Centre 100, width 11 (PS3.3 C.11.2.1.2.1): black up to 94.5, white above 104.5, a tenth each.
    values = np.array([[0, 94, 97, 104, 105, 4000]], np.uint16)
    # 97 is (97 - 99.5) / 10 + 0.5 = 0.25 of white; 104 is 0.95.
    seen = [[0, 0, 63, 242, 255, 255]]
    assert greys(scan(values, bits=12, WindowCenter=100, WindowWidth=11)) == seen
    values = np.array([[99, 101]], np.uint16)
    several = {"WindowCenter": [100, 3000], "WindowWidth": [1, 1]}
    # Twice the value less 100: 100 becomes 100, and the window turns black to white there.
    rescaled = {"WindowCenter": 100, "WindowWidth": 1, "RescaleSlope": 2, "RescaleIntercept": -100}
    for tags in (several, rescaled):
        assert greys(scan(values, bits=12, **tags)) == [[0, 255]]


def test_a_table_of_values_of_interest_is_looked_up():
    table = Dataset()
    table.LUTDescriptor = [4, 10, 8]  # four entries for 10, 11, 12, 13 of 8 bits
    table.LUTData = [5, 50, 150, 250]
    table["LUTData"].VR = "US"
    data = scan(np.array([[0, 11, 12, 99]], np.uint8), VOILUTSequence=[table])
    assert greys(data) == [[5, 50, 150, 250]]


COLOURS = [[[255, 0, 0], [1, 2, 3]]]
PALETTE = {
    f"{name}PaletteColorLookupTable{part}": value
    for name, entries in (("Red", [1, 255]), ("Green", [2, 0]), ("Blue", [3, 0]))
    for part, value in (("Descriptor", [2, 0, 8]), ("Data", bytes(entries)))
}


@pytest.mark.parametrize(
    ("pixels", "photometric", "tags"),
    [(COLOURS, "RGB", {}), ([[1, 0]], "PALETTE COLOR", PALETTE)],
)
def test_rgb_keeps_its_colours_and_a_palette_becomes_its_own(pixels, photometric, tags):
    data = scan(np.array(pixels, np.uint8), photometric, **tags)
    assert np.asarray(decode(data)).tolist() == COLOURS


def test_ybr_becomes_rgb():
    # Full-range YCbCr of pure red and of a grey (ITU-T T.871).
    data = scan(np.array([[[76, 85, 255], [90, 128, 128]]], np.uint8), "YBR_FULL")
    (red, grey), *_ = np.asarray(decode(data)).tolist()
    assert red == pytest.approx([254, 0, 0], abs=2)
    assert grey == [90, 90, 90]


def test_of_several_frames_the_first_is_taken_and_it_is_said_in_colour_and_run_lengths_too():
    data = scan(np.array([[[10, 20]], [[30, 40]]], np.uint8))
    assert greys(data) == [[10, 20]]
    assert examine(data).has_frames
    assert not examine(scan(np.array([[10, 20]], np.uint8))).has_frames
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[0, :, :8] = (200, 100, 50)
    made = pydicom.dcmread(io.BytesIO(scan(frames, "RGB")))
    made.compress(RLELossless)
    found = examine(written(made))
    assert np.array_equal(np.asarray(found.image), frames[0])
    assert found.has_frames


def test_a_jpeg_inside_is_decoded_and_a_damaged_one_refused():
    picture = encoded(Image.new("L", (32, 32), 77), "JPEG", quality=95)
    made = pydicom.dcmread(io.BytesIO(scan(np.zeros((32, 32), np.uint8))))
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.PixelData = encapsulate([picture])
    made["PixelData"].is_undefined_length = True
    assert greys(written(made)) == [[77] * 32] * 32
    made.PixelData = encapsulate([picture[:-30]])
    made["PixelData"].is_undefined_length = True
    with pytest.raises(IntakeError, match="is damaged"):
        decode(written(made))


@pytest.mark.parametrize("left", [140, 300, -40, -2])
def test_a_file_that_is_cut_short_is_refused(left):
    data = scan(np.arange(4096, dtype=np.uint16).reshape(64, 64), bits=12)
    with pytest.raises(IntakeError, match="is damaged"):
        decode(data[:left])


def test_training_sees_what_intake_saw(tmp_path):
    pixels = pytest.importorskip("dayfold.learning.pixels")
    deep = np.linspace(0, 65535, 20 * 30).reshape(20, 30).astype(np.uint16)
    grey = (deep // 16).astype(np.uint16)
    files = {
        "window.dcm": scan(grey, bits=12, WindowCenter=2000, WindowWidth=900),
        "inverted.dcm": scan(grey, "MONOCHROME1", bits=12),
        "deep.png": encoded(Image.fromarray(deep)),
        "alpha.png": encoded(Image.new("RGBA", (30, 20), (200, 100, 50, 51))),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    seen = pixels.load(tmp_path, list(files), [sha256(data) for data in files.values()], 32)
    for given, data in zip(seen, files.values(), strict=True):
        expected = np.asarray(ImageOps.pad(decode(data), (32, 32)))
        assert np.array_equal(given.permute(1, 2, 0).numpy(), expected)


def test_without_a_picture_or_pydicom_or_if_huge_it_is_refused_before_it_is_decoded(monkeypatch):
    made = pydicom.dcmread(io.BytesIO(scan(np.zeros((8, 8), np.uint8))))
    made.Rows = made.Columns = 60_000
    with pytest.raises(IntakeError, match="too large to be decoded safely: 60000 x 60000"):
        decode(written(made))
    del made.PixelData
    data = written(made)
    with pytest.raises(IntakeError, match="no picture"):
        decode(data)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(IntakeError, match=r"is DICOM, .*: pip install 'dayfold\[dicom\]'"):
        decode(data)


def test_the_group_is_the_patient_whatever_the_study_and_gives_no_name_away():
    def group(**tags):
        return examine(scan(np.zeros((8, 8), np.uint8), **tags)).group

    one = group(PatientID="MRN-0042", StudyInstanceUID="1.2.3.4")
    assert one == group(PatientID="MRN-0042 ", StudyInstanceUID="1.2.3.5")
    assert one.startswith("patient-")
    assert "0042" not in one
    assert one != group(PatientID="MRN-0043")
    assert one != group(PatientID="MRN-0042", IssuerOfPatientID="another clinic")
    assert group(StudyInstanceUID="1.2.3.4").startswith("study-")


def test_what_a_person_must_know_of_a_file_is_said():
    plain = examine(scan(np.zeros((8, 8), np.uint8)))
    assert plain.group == ""
    assert plain.remarks == ("names neither patient nor study; it is its own group",)
    burned = scan(np.zeros((8, 8), np.uint8), PatientID="1", BurnedInAnnotation="YES")
    (said,) = examine(burned).remarks
    assert "identifiers are burned into its pixels" in said
    (said,) = examine(scan(np.full((8, 8), 4095, np.uint16), bits=16, PatientID="1")).remarks
    assert "is nearly black" in said
