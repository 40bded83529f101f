"""Images as the network sees them, kept."""

from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dayfold.project.kept import Kept

FORMAT = 1  # of a kept square: another one for another rule of decoding or squaring


def squared(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return an RGB image as the network sees it: uint8 [3, size, size].

    Whole, with black bars where not square, not cropped: what is at the edge of a scan may be what
    matters.
    """
    return np.array(ImageOps.pad(image, (size, size))).transpose(2, 0, 1)


def kept_squares(folder: Path, size: int) -> Kept:
    """Return the kept squares of one size.

    What decodes them is in the name of their folder, so that none is outdated.
    """
    from importlib.metadata import PackageNotFoundError, version

    from PIL import features

    libraries = {name: features.version(name) for name in ("jpg", "zlib", "libtiff", "webp")}
    packages = {name: version(name) for name in ("pillow", "numpy")}
    with suppress(PackageNotFoundError):  # an extra
        packages["pydicom"] = version("pydicom")
    return Kept.of(folder, {"format": FORMAT, "size": size, **packages, **libraries})


def read(kept: Kept, image: str, size: int) -> NDArray[np.uint8] | None:
    """Return the square of an image (its sha256); None where it is not kept."""
    data = kept.read(image)
    return None if data is None else np.frombuffer(data, np.uint8).reshape(3, size, size)


def keep(kept: Kept, image: str, square: NDArray[np.uint8]) -> None:
    """Keep the square of an image; a full disk stops nothing."""
    with suppress(OSError):
        kept.write(image, square.tobytes())
