"""Bytes → a checked 8-bit RGB image, by one rule a format; damaged files are refused."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dayfold.errors import IntakeError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")

MAX_PIXELS = 89_478_485  # a quarter of a gigabyte at 3 bytes each: Pillow's own limit

_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L")
_BITS, _PHOTOMETRIC = 258, 262  # tags of TIFF


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep Pillow's warnings from the terminal. For the thread that starts the decoding ones."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def decode(data: bytes) -> Image.Image:
    """Decode an image file's bytes to RGB.

    EXIF orientation is applied, alpha composited on black, 16-bit grey scaled to 8 bits (Pillow's
    own conversion clips it to white), palettes and CMYK converted; of several frames the first
    counts. Raises IntakeError with the reason where the file is no image of FORMATS, is truncated
    or damaged (found by decoding all of it: `Image.verify` passes truncated JPEGs), or is so large
    that Pillow takes it for a decompression bomb.
    """
    if not data:
        raise IntakeError("is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        # Pillow only warns of the smaller ones, and warnings cannot be caught in threads.
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
        # Before it is turned: a turned image has lost them.
        tags = getattr(image, "tag_v2", {})
        return _to_rgb(ImageOps.exif_transpose(image), tags)
    except UnidentifiedImageError:
        raise IntakeError(f"is not an image ({', '.join(FORMATS)})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise IntakeError("is too large to be decoded safely") from None
    # Pillow's decoders raise about anything on damaged bytes.
    except Exception as error:
        raise IntakeError(f"is damaged ({error})") from None


def _to_rgb(image: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image).astype(np.int64)
        peak = 2 ** tags.get(_BITS, (16,))[0] - 1
        grey = values * 255 // peak
        if tags.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow turns 8 bits round only
            grey = 255 - grey
        grey[values == image.info.get("transparency", -1)] = 0
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "I"):
        raise ValueError(f"pixels of mode {image.mode} have no range to scale by")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        black = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layers).convert("RGB")
    return image.convert("RGB")
