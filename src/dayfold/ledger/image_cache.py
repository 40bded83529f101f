"""Cached squares, activations and features of images.

Each image has a file, named by its sha256, in a folder named by a digest of all else that the bytes
depend on. Erasing an image finds its files by that name.
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

HEAD_BYTES = len(with_digest(b""))  # the digest that a file begins with


@dataclass(frozen=True)
class ImageCache:
    """The cached files of one kind, in one folder."""

    folder: Path

    @classmethod
    def of(cls, kind: Path, facts: Mapping[str, Any]) -> Self:
        """Return the cache in `kind`'s folder for data that depends on the image and on `facts`."""
        cache = cls(kind / sha256(canonical_json(facts).encode())[:32])
        cache.folder.mkdir(parents=True, exist_ok=True)
        return cache

    def path(self, image: str) -> Path:
        return self.folder / image

    def read(self, image: str) -> bytes | None:
        """Return the cached bytes of an image; None if there are none, or if they are damaged."""
        path = self.path(image)
        try:
            os.utime(path)  # for `prune`
            return without_digest(path.read_bytes())
        except (OSError, ValueError):
            return None

    def write(self, image: str, data: bytes) -> None:
        """Cache these bytes, without fsync: a file damaged by a power cut is computed again."""
        temporary = self.path(f"{image}-{os.getpid()}")
        temporary.write_bytes(with_digest(data))
        temporary.replace(self.path(image))


def prune(folders: Iterable[Path], max_bytes: int) -> None:
    """Remove the least recently used files beyond `max_bytes` in all."""
    folders = list(folders)
    used = [(path.stat(), path) for folder in folders for path in folder.glob("*/*")]
    for info, path in sorted(used, key=lambda one: one[0].st_mtime_ns, reverse=True):
        max_bytes -= info.st_size
        if max_bytes < 0:
            path.unlink()
    for folder in folders:
        for key in folder.glob("*"):
            with suppress(OSError):  # not empty
                key.rmdir()


FORMAT = 1  # of a cached square; raise it when decoding or squaring changes


def square_cache(folder: Path, size: int) -> ImageCache:
    """Return the cache of squares of one size, for the installed versions of the decoders."""
    from importlib.metadata import PackageNotFoundError, version

    from PIL import features

    libraries = {name: features.version(name) for name in ("jpg", "zlib", "libtiff", "webp")}
    packages = {name: version(name) for name in ("pillow", "numpy")}
    with suppress(PackageNotFoundError):  # an extra
        packages["pydicom"] = version("pydicom")
    return ImageCache.of(folder, {"format": FORMAT, "size": size, **packages, **libraries})


def read_square(cache: ImageCache, image: str, size: int) -> NDArray[np.uint8] | None:
    """Return the square of an image (its sha256); None where it is not cached."""
    data = cache.read(image)
    return None if data is None else np.frombuffer(data, np.uint8).reshape(3, size, size)


def write_square(cache: ImageCache, image: str, square: NDArray[np.uint8]) -> None:
    """Cache the square of an image; do nothing on a full disk."""
    with suppress(OSError):
        cache.write(image, square.tobytes())
