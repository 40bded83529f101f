"""Bytes → a checked 8-bit RGB image."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dayfold.errors import IntakeError
from dayfold.ledger import dicom
from dayfold.project.files import escaped

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

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte at 3 bytes each: Pillow's own limit

ERASED = "was erased: a line of text is in its place"
_PLACEHOLDER = re.compile(rb"dayfold: image [0-9a-f]{64} was erased; data/corrections/ says when\n")

_PNG_END = b"IEND\xae\x42\x60\x82"  # the last chunk's name and its checksum
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L")
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


@dataclass(frozen=True)
class Decoded:
    """An image, 8-bit RGB, and what its file says besides.

    `form` is one of FORMATS or "DICOM"; `has_frames` whether there are more than the one that was
    taken; `group` the patient or study of a DICOM file, hashed; `remarks` what a person must know.
    """

    image: Image.Image
    form: str
    has_frames: bool = False
    group: str = ""
    remarks: tuple[str, ...] = ()


def placeholder(image: str) -> bytes:
    """Return the line of text that lies in the place of an erased image, by the image's sha256.

    DVC checks out nothing of a day's folder whose object is missing, and trusts one that is
    read-only: so a text takes the object's place. It is told from any other by the image's id.
    """
    return f"dayfold: image {image} was erased; data/corrections/ says when\n".encode()


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep the decoders' warnings from the terminal. For the thread that starts the others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def decode(data: bytes) -> Image.Image:
    """Decode an image file's bytes to RGB, as `examine` does."""
    return examine(data).image


def examine(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file's bytes to RGB, and say what the file is (docs/intake.md).

    EXIF orientation is applied, alpha composited on black, 16-bit grey scaled to 8 bits (Pillow's
    own conversion clips it to white), palettes and CMYK converted, ICC profiles left alone; of
    several frames the first counts. Damage is found by decoding all of it (`Image.verify` passes
    truncated JPEGs), more than `max_pixels` by the header.
    """
    if not data:
        raise IntakeError("is empty (0 bytes)")
    if _PLACEHOLDER.fullmatch(data):
        raise IntakeError(ERASED)
    with _refusals():
        if dicom.is_dicom(data):
            check = partial(_check_pixels, most=max_pixels)
            pixels, has_frames, group, remarks = dicom.read(data, check_pixels=check)
            return Decoded(Image.fromarray(pixels), "DICOM", has_frames, group, remarks)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # The other pictures of an MPO (many phones' JPEG) are a depth map or a smaller preview.
        is_jpeg = image.format in ("JPEG", "MPO")
        has_frames = bool(getattr(image, "is_animated", False)) and not is_jpeg
        form = "JPEG" if is_jpeg else str(image.format)
        if form == "PNG" and _PNG_END not in data:  # Pillow does not ask for it
            raise IntakeError("is damaged (its end is missing)")
        return Decoded(rgb(image, max_pixels=max_pixels), form, has_frames)


def begins_as_image(path: Path) -> bool:
    """Whether a file begins as one of FORMATS or DICOM does, damaged or not; OSError if unread."""
    with path.open("rb") as file:
        is_dicom = dicom.is_dicom(file.read(dicom.HEAD_BYTES))
        file.seek(0)
        # Any other error is of an image that is damaged or too large: told when it is decoded.
        with suppress(Exception):
            try:
                Image.open(file, formats=FORMATS)
            except UnidentifiedImageError:
                return is_dicom
    return True


def rgb(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Turn an image that Pillow opened into RGB, by the rules and with the errors of `examine`."""
    with _refusals():
        _check_pixels(image.width, image.height, most=max_pixels)
        image.load()
        # Before it is turned: a turned image has lost them.
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
        raise IntakeError("needs more memory than an image may (data.max_pixels)") from None
    # The decoders raise about anything on damaged bytes.
    except Exception as error:
        said = escaped(" ".join(str(error).split())) or type(error).__name__
        raise IntakeError(f"is damaged ({said[:200]})") from None


def _check_pixels(width: int, height: int, *, most: int) -> None:
    if width * height > most:
        raise IntakeError(
            f"is too large to be decoded safely: {width} x {height} px are more than "
            f"{most} in all (data.max_pixels)"
        )


def _to_rgb(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        # 32 bits are enough for 65535 * 255, and half the memory of 64.
        values = np.asarray(image).astype(np.uint32)
        peak = 2 ** tags.get(_BITS, (16,))[0] - 1
        grey = values * np.uint32(255) // np.uint32(peak)
        if tags.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow turns 8 bits round only
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
