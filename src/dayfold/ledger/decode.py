"""Bytes → a checked 8-bit RGB image."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dayfold.errors import IntakeError
from dayfold.project.files import escaped, sha256

if TYPE_CHECKING:
    from pydicom import Dataset

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
ENDINGS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "DICOM": (".dcm", ".dicom", ".ima", ""),  # scanners write names without an ending
}
IMAGE_ENDINGS = frozenset(ending for endings in ENDINGS.values() for ending in endings) - {""}

MAX_PIXELS = 89_478_485  # Pillow's own limit: a quarter of a gigabyte at 3 bytes each

ERASED = "was erased: a line of text is in its place"
_PLACEHOLDER = re.compile(rb"dayfold: image [0-9a-f]{64} was erased; data/corrections/ says when\n")

_PNG_END = b"IEND\xae\x42\x60\x82"  # the last chunk's name and its checksum
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L")
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF

_GREY = ("MONOCHROME1", "MONOCHROME2")
_INSTALL = "pip install 'dayfold[dicom]'"
# Pillow notices truncated files of these; gdcm does not always.
_BY_PILLOW = (
    "1.2.840.10008.1.2.4.50",  # JPEG baseline, 8 bits
    "1.2.840.10008.1.2.4.90",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
)
# The brightest 12-bit value in a 16-bit range: microscopes and scanners write such files.
_DARK = 255 >> 4
HEAD_BYTES = 132  # the length of a DICOM file's preamble and magic number


@dataclass(frozen=True)
class Decoded:
    """An 8-bit RGB image and other facts in its file.

    `form` is one of FORMATS or "DICOM". `has_frames` says whether there are more frames than the
    one used. `group` is the hashed patient or study of a DICOM file. `remarks` are warnings.
    """

    image: Image.Image
    form: str
    has_frames: bool = False
    group: str = ""
    remarks: tuple[str, ...] = ()


def placeholder(image: str) -> bytes:
    """Return the line of text that replaces an erased image, by the image's sha256.

    DVC checks out no file of a day's folder if one object is missing, and it trusts a read-only
    object. So this text replaces the object; the image's id makes each one different.
    """
    return f"dayfold: image {image} was erased; data/corrections/ says when\n".encode()


def is_placeholder(path: Path, image: str) -> bool:
    text = placeholder(image)
    return path.stat().st_size == len(text) and path.read_bytes() == text


@contextmanager
def no_warnings() -> Iterator[None]:
    """Suppress the decoders' warnings; use it in the thread that starts the others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def decode(data: bytes) -> Image.Image:
    """Decode an image file's bytes to RGB, as `examine` does."""
    return examine(data).image


def examine(data: bytes) -> Decoded:
    """Decode an image file's bytes to RGB; IntakeError with the reason where it cannot be used.

    The rules are in docs/intake.md: EXIF orientation is applied, alpha is composited on black,
    16-bit grey is scaled to 8 bits (Pillow's conversion clips it to white), palettes and CMYK are
    converted, ICC profiles are ignored, and the first of several frames is used. The whole image is
    decoded to find damage (`Image.verify` passes truncated JPEGs), except above MAX_PIXELS.
    """
    if not data:
        raise IntakeError("is empty (0 bytes)")
    if _PLACEHOLDER.fullmatch(data):
        raise IntakeError(ERASED)
    with _refusals():
        if is_dicom(data):
            return _read_dicom(data)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # The other pictures of an MPO (many phones' JPEG) are a depth map or a smaller preview.
        is_jpeg = image.format in ("JPEG", "MPO")
        has_frames = bool(getattr(image, "is_animated", False)) and not is_jpeg
        form = "JPEG" if is_jpeg else str(image.format)
        if form == "PNG" and _PNG_END not in data:  # Pillow does not check it
            raise IntakeError("is damaged (its end is missing)")
        seen = rgb(image)
        is_deep = image.mode in _SIXTEEN_BIT
        return Decoded(seen, form, has_frames, remarks=_of_range(seen, is_deep=is_deep))


def begins_as_image(path: Path) -> bool:
    """Return whether a file begins like FORMATS or DICOM, even if it is damaged."""
    with path.open("rb") as file:
        begins_as_dicom = is_dicom(file.read(HEAD_BYTES))
        file.seek(0)
        # Other errors mean a damaged or too large image, and are reported when it is decoded.
        with suppress(Exception):
            try:
                Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:
                return begins_as_dicom
    return True


def squared(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return an RGB image as uint8 [3, size, size], padded with black: a scan's edge may matter."""
    return np.array(ImageOps.pad(image, (size, size))).transpose(2, 0, 1)


def rgb(image: Image.Image) -> Image.Image:
    """Convert an image that Pillow opened to RGB, by the rules and with the errors of `examine`."""
    with _refusals():
        _check_pixels(image.width, image.height)
        image.load()
        # Before exif_transpose, whose result has no tags.
        tags = getattr(image, "tag_v2", {})
        return _to_rgb(ImageOps.exif_transpose(image), tags)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except IntakeError:
        raise
    except UnidentifiedImageError:
        raise IntakeError(f"is not an image ({', '.join(FORMATS)}, DICOM)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise IntakeError("is too large to be decoded safely") from None
    except MemoryError:
        raise IntakeError("needs more memory than an image may") from None
    # The decoders raise almost any exception on damaged bytes.
    except Exception as error:
        said = escaped(" ".join(str(error).split())) or type(error).__name__
        raise IntakeError(f"is damaged ({said[:200]})") from None


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise IntakeError(
            f"is too large to be decoded safely: {width} x {height} px are more than "
            f"{MAX_PIXELS} in all"
        )


def _to_rgb(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        # 32 bits are enough for 65535 * 255, and half the memory of 64.
        values = np.asarray(image).astype(np.uint32)
        peak = 2 ** tags.get(_BITS, (16,))[0] - 1
        grey = values * np.uint32(255) // np.uint32(peak)
        if tags.get(_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts 8-bit images only
            grey = np.uint32(255) - grey
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 0
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "I"):
        raise ValueError(f"pixels of mode {image.mode} have no range to scale by")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        black = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layers).convert("RGB")
    return image.convert("RGB")


def _of_range(image: Image.Image, *, is_deep: bool) -> tuple[str, ...]:
    is_dark = is_deep and int(np.asarray(image).max()) <= _DARK
    return ("is nearly black: its values use less than a 16th of their range",) * is_dark


def is_dicom(data: bytes) -> bool:
    """Return whether bytes are a DICOM file: 128 bytes of anything, then DICM (PS3.10, 7.1)."""
    return data[128:HEAD_BYTES] == b"DICM"


def _read_dicom(data: bytes) -> Decoded:
    """Read a DICOM file's first frame as a viewer shows it.

    Grey values go through the modality LUT or rescaling and then through the first VOI LUT or
    window (PS3.3, C.11.1 and C.11.2); without one they are scaled by the full range of the stored
    bits. MONOCHROME1 is inverted, palettes and YBR become RGB. Overlays, padding values, the aspect
    of pixels and burned-in text are left alone.
    """
    try:
        import pydicom
        from pydicom.pixels.utils import pixel_array
    except ImportError:
        raise IntakeError(f"is DICOM, which needs: {_INSTALL}") from None
    scan = pydicom.dcmread(io.BytesIO(data))
    if "PixelData" not in scan:
        raise ValueError("DICOM without PixelData: no picture")
    _check_pixels(int(scan.Columns), int(scan.Rows))
    plugin = "pillow" if scan.file_meta.TransferSyntaxUID in _BY_PILLOW else ""
    frame = pixel_array(scan, index=0, decoding_plugin=plugin)
    convert = _grey if scan.PhotometricInterpretation in _GREY else _colour
    image = Image.fromarray(convert(frame, scan))
    remarks = [*_of_range(image, is_deep=convert is _grey and int(scan.BitsStored) > 8)]
    if str(scan.get("BurnedInAnnotation", "")).upper() == "YES":
        remarks.append("says that identifiers are burned into its pixels; they are not removed")
    group = group_of(scan)
    if not group:
        remarks.append("names neither patient nor study; it is its own group")
    has_frames = int(scan.get("NumberOfFrames") or 1) > 1
    return Decoded(image, "DICOM", has_frames, group, tuple(remarks))


def group_of(scan: "Dataset") -> str:
    """Return a hash of the patient and the id's issuer, else of the study, else ""."""
    names = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
    patient, issuer, study = (str(scan.get(name) or "").strip() for name in names)
    # The patient comes first, as all studies of a patient must be in one split.
    kind, ids = ("patient", f"{patient}\0{issuer}") if patient else ("study", study)
    return f"{kind}-{sha256(ids.encode(errors='backslashreplace'))[:16]}" if ids else ""


def _grey(frame: NDArray[Any], scan: "Dataset") -> NDArray[np.uint8]:
    """Convert grey of any depth, [rows, columns], to uint8 [rows, columns, 3]."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

    low, high = _range(scan)
    seen = apply_voi_lut(apply_modality_lut(frame, scan), scan)
    if scan.get("VOILUTSequence"):
        low, high = 0.0, 2.0 ** int(scan.VOILUTSequence[0].LUTDescriptor[2]) - 1
    part = (seen.astype(np.float64) - low) / (high - low)
    if scan.PhotometricInterpretation == "MONOCHROME1":
        part = 1 - part
    return np.repeat(_to_8_bits(part)[..., None], 3, axis=2)


def _range(scan: "Dataset") -> tuple[float, float]:
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
    """Convert RGB or a palette of any depth to uint8 [rows, columns, 3]."""
    from pydicom.pixels.processing import apply_color_lut

    bits = int(scan.BitsStored)
    if scan.PhotometricInterpretation == "PALETTE COLOR":
        frame = apply_color_lut(frame, scan)[..., :3]
        bits = frame.dtype.itemsize * 8
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"colours of shape {frame.shape}")
    return _to_8_bits(frame / (2.0**bits - 1))


def _to_8_bits(part: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Convert parts of full white, clipped to 0..1, to uint8, rounded down as in other formats."""
    if not np.isfinite(part).all():
        raise ValueError("grey values that are no numbers")
    # Add 1e-9, so that 0.2 * 255 is 51 in spite of rounding.
    grey: NDArray[np.uint8] = np.floor(np.clip(part, 0, 1) * 255 + 1e-9).astype(np.uint8)
    return grey
