"""What was computed from an image, kept here.

A file an image, named by it, in a folder named by a digest of all else that its bytes depend on.
`erase` removes what was made from an image by that name.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dayfold.project.files import canonical_json, sha256, with_digest, without_digest

HEAD_BYTES = len(with_digest(b""))  # of a file, before the bytes that are kept


@dataclass(frozen=True)
class Kept:
    """The kept files of one kind, in one folder."""

    folder: Path

    @classmethod
    def of(cls, kind: Path, facts: Mapping[str, Any]) -> Self:
        """Return those whose bytes depend on these facts and on the image, of the kind's folder."""
        kept = cls(kind / sha256(canonical_json(facts).encode())[:32])
        kept.folder.mkdir(parents=True, exist_ok=True)
        return kept

    def path(self, image: str) -> Path:
        """Return where the file of an image is, if it is."""
        return self.folder / image

    def read(self, image: str) -> bytes | None:
        """Return what is kept of an image; None where nothing is, or nothing whole."""
        path = self.path(image)
        try:
            os.utime(path)  # for `prune`
            return without_digest(path.read_bytes())
        except (OSError, ValueError):
            return None

    def write(self, image: str, data: bytes) -> None:
        """Keep these bytes. Not fsynced: what a power cut leaves is not whole, and made again."""
        own = self.path(f"{image}-{os.getpid()}")
        own.write_bytes(with_digest(data))
        own.replace(self.path(image))


def prune(folders: Iterable[Path], most: int) -> None:
    """Remove kept files beyond so many bytes in all, those first that were unused for longest."""
    folders = list(folders)
    used = [(path.stat(), path) for folder in folders for path in folder.glob("*/*")]
    for info, path in sorted(used, key=lambda one: one[0].st_mtime_ns, reverse=True):
        most -= info.st_size
        if most < 0:
            path.unlink()
    for folder in folders:
        for key in folder.glob("*"):
            with suppress(OSError):  # not empty
                key.rmdir()


FORMAT = 1  # of a kept square: another one for another rule of decoding or squaring


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


def read_square(kept: Kept, image: str, size: int) -> NDArray[np.uint8] | None:
    """Return the square of an image (its sha256); None where it is not kept."""
    data = kept.read(image)
    return None if data is None else np.frombuffer(data, np.uint8).reshape(3, size, size)


def keep_square(kept: Kept, image: str, square: NDArray[np.uint8]) -> None:
    """Keep the square of an image; a full disk stops nothing."""
    with suppress(OSError):
        kept.write(image, square.tobytes())
