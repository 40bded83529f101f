"""DICOM → 8-bit RGB, and patient as a hash."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dayfold.errors import IntakeError
from dayfold.project.files import sha256

if TYPE_CHECKING:
    from pydicom import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")
INSTALL = "pip install 'dayfold[dicom]'"
# Lossy ones and JPEG 2000: Pillow notices where they are cut short, gdcm does not always.
_BY_PILLOW = (
    "1.2.840.10008.1.2.4.50",  # JPEG baseline, 8 bits
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)


HEAD_BYTES = 132  # by which a DICOM file is known


def is_dicom(data: bytes) -> bool:
    """Whether bytes are a DICOM file: 128 bytes of anything, then DICM (PS3.10, 7.1)."""
    return data[128:HEAD_BYTES] == b"DICM"


def read(
    data: bytes, *, check_pixels: Callable[[int, int], None]
) -> tuple[NDArray[np.uint8], bool, str, tuple[str, ...]]:
    """Read a DICOM file's first frame as a viewer shows it: uint8 [rows, columns, 3].

    And whether it has more frames, its patient or study as a hash, and what a person must know.

    Grey values go through the modality LUT or rescaling and then through the first VOI LUT or
    window (PS3.3, C.11.1 and C.11.2), or, without one, are scaled by the whole range that the
    stored bits span; MONOCHROME1 is turned round, palettes and YBR become RGB. Overlays, padding
    values and the pixels' aspect are left alone, and so is what is burned into the pixels.
    `check_pixels` is called with width and height before anything is decoded.
    """
    try:
        import pydicom
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise IntakeError(f"is DICOM, which is read after: {INSTALL}") from None
    scan = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in scan:
        raise ValueError("DICOM without PixelData: no picture")
    check_pixels(int(scan.Columns), int(scan.Rows))
    plugin = "pillow" if scan.file_meta.TransferSyntaxUID in _BY_PILLOW else ""
    frame = pixel_array(scan, index=0, decoding_plugin=plugin)
    shown = _grey(frame, scan) if scan.PhotometricInterpretation in GREY else _colour(frame, scan)
    remarks = []
    if str(scan.get("BurnedInAnnotation", "")).upper() == "YES":
        remarks.append("says that identifiers are burned into its pixels; they are left there")
    group = group_of(scan)
    if not group:
        remarks.append("names neither patient nor study; it is a group of its own")
    return shown, int(scan.get("NumberOfFrames") or 1) > 1, group, tuple(remarks)


def group_of(scan: "Dataset") -> str:
    """The patient, or without one the study, as a hash; nothing where neither is named.

    The patient first, with who gave the id: a patient's studies must stay on one side.
    """
    names = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
    patient, issuer, study = (str(scan.get(name) or "").strip() for name in names)
    kind, told = ("patient", f"{patient}\0{issuer}") if patient else ("study", study)
    return f"{kind}-{sha256(told.encode(errors='backslashreplace'))[:16]}" if told else ""


def _grey(frame: NDArray[Any], scan: "Dataset") -> NDArray[np.uint8]:
    """Grey of any depth, [rows, columns] → uint8 [rows, columns, 3]."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    rescaled = apply_modality_lut(frame, scan)
    low, high = _range(scan)
    seen = apply_voi_lut(rescaled, scan)
    if scan.get("VOILUTSequence"):
        low, high = 0.0, 2.0 ** int(scan.VOILUTSequence[0].LUTDescriptor[2]) - 1
    part = (seen.astype(np.float64) - low) / (high - low)
    if scan.PhotometricInterpretation == "MONOCHROME1":
        part = 1 - part
    grey = _to_8_bits(part)
    return np.repeat(grey[..., None], 3, axis=2)


def _range(scan: "Dataset") -> tuple[float, float]:
    """The least and greatest value that the stored bits can mean, after the modality LUT."""
    if scan.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(scan.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    low, high = 0.0, 2.0 ** int(scan.BitsStored) - 1
    if int(scan.PixelRepresentation):
        low, high = -(high + 1) / 2, (high - 1) / 2
    if "RescaleSlope" in scan and "RescaleIntercept" in scan:
        slope, intercept = float(scan.RescaleSlope), float(scan.RescaleIntercept)
        low, high = low * slope + intercept, high * slope + intercept
    return low, high


def _colour(frame: NDArray[Any], scan: "Dataset") -> NDArray[np.uint8]:
    """RGB or a palette of any depth → uint8 [rows, columns, 3]."""
    from pydicom.pixels.processing import apply_color_lut

    bits = int(scan.BitsStored)
    if scan.PhotometricInterpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, scan)[..., :3]
        bits = frame.dtype.itemsize * 8
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"colours of shape {frame.shape}")
    if frame.dtype == np.uint8 and bits == 8:
        return frame.astype(np.uint8)
    return _to_8_bits(frame / (2.0**bits - 1))


def _to_8_bits(part: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Parts of full white, any beyond 0..1 cut off → uint8, rounded down as in other formats."""
    if not np.isfinite(part).all():
        raise ValueError("grey values that are no numbers")
    # A hair above: 0.2 * 255 must be 51, whatever the floats say.
    grey: NDArray[np.uint8] = np.floor(np.clip(part, 0, 1) * 255 + 1e-9).astype(np.uint8)
    return grey
