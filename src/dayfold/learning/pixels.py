"""Rows of the manifest → pixels, augmented."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dayfold.errors import ImageMissingError, IntakeError
from dayfold.ledger.decode import ERASED, decode, no_warnings, placeholder, squared
from dayfold.ledger.image_cache import read_square, square_cache, write_square
from dayfold.project import pins, vcs
from dayfold.project.console import first_few
from dayfold.project.cpus import cpus
from dayfold.project.files import sha256
from dayfold.project.layout import Project

MAPPED_BYTES = 2**30  # of pixels; more than this are in a memory-mapped file
CHUNK = 2048  # images decoded at a time, so memory does not grow with the history
# The mean and standard deviation of ImageNet's RGB, on which torchvision's weights were trained.
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def load(
    root: Path,
    paths: Sequence[str],
    images: Sequence[str],
    size: int,
    progress: Callable[[int], None] = lambda _: None,
) -> torch.Tensor:
    """Read, check and decode images: uint8 [n, 3, size, size], with black bars if not square.

    Every file's bytes must have the sha256 that the manifest pins. Up to MAPPED_BYTES, the squares
    are cached for the next stage and day; more pixels are in a temporary file on the project's
    disk, which is mapped into memory.

    Raises ImageMissingError that lists all missing, changed and erased files, with the command that
    restores them; OSError if the disk is full.
    """
    project = Project(root)
    pixels = _empty((len(paths), 3, size, size), project.scratch)
    array, cache = pixels.numpy(), square_cache(project.squares, size)

    def one(position: int) -> str | None:
        path = root / paths[position]
        try:
            data = path.read_bytes()
        except OSError:
            return f"{paths[position]} is missing"
        if data == placeholder(images[position]):
            return f"{paths[position]} {ERASED}"
        if sha256(data) != images[position]:
            return f"{paths[position]} differs from the image that was added"
        square = read_square(cache, images[position], size)
        if square is None:
            try:
                square = squared(decode(data), size)
            except IntakeError as error:
                return f"{paths[position]} {error.what}"
            if pixels.nbytes <= MAPPED_BYTES:
                write_square(cache, images[position], square)
        array[position] = square
        progress(1)
        return None

    with no_warnings(), ThreadPoolExecutor(cpus()) as pool:
        problems = [problem for problem in pool.map(one, range(len(paths))) if problem]
    if problems:
        folders = pins.tracked([problem for problem in problems if not problem.endswith(ERASED)])
        raise ImageMissingError(
            f"{len(problems)} of {len(paths)} images cannot be read:",
            problems=first_few(problems),
            hint="; ".join(map(vcs.restore_command, folders[:5]))
            or "days that used an erased image cannot be made again: dayfold undo ends an "
            "experiment; dayfold check --read-data says more",
        )
    return pixels


def _empty(shape: tuple[int, ...], folder: Path) -> torch.Tensor:
    count = math.prod(shape)
    if count <= MAPPED_BYTES:
        return torch.empty(shape, dtype=torch.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            # On a full disk, a write to the map would crash the process without a message.
            os.posix_fallocate(file.fileno(), 0, count)
        else:  # macOS
            file.truncate(count)
        return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))


def load_in_chunks(
    root: Path, rows: pl.DataFrame, size: int, progress: Callable[[int], None]
) -> Iterator[torch.Tensor]:
    """Yield the images of rows (path, image) in order, CHUNK at a time, as `load` returns them."""
    for part in rows.iter_slices(CHUNK):
        yield load(root, part["path"].to_list(), part["image"].to_list(), size, progress)


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Return the network's input: uint8 [n, 3, h, w] → float32, channels last, about N(0, 1)."""
    # In place: at 224 px a new tensor for each step costs more than the arithmetic.
    scaled = pixels.to(memory_format=torch.channels_last).float().div_(255)
    return scaled.sub_(MEAN.to(pixels.device)).div_(STD.to(pixels.device))


def augmented(
    batch: torch.Tensor,
    fields: NDArray[np.float64],
    *,
    flip: float,
    rotate_degrees: float,
    shift: float,
    scale: float,
    brightness: float,
    contrast: float,
) -> torch.Tensor:
    """Augment a normalised batch, float32 [n, 3, h, w], by draws `fields`, float64 [n, 8].

    Column 0 decides the flip (probability), 1 the rotation (± degrees), 2 and 3 the shift (± part
    of the side), 4 the scale (± part), 5 the brightness (± part of full range, added), 6 the
    contrast (± part, about the image's mean); 7 is unused. Pixels outside repeat the edge.
    """
    spread = torch.from_numpy(fields * 2 - 1).float().to(batch.device)
    if flip or rotate_degrees or shift or scale:
        angle = spread[:, 1] * math.radians(rotate_degrees)
        zoom = 1 / (1 + spread[:, 4] * scale)
        side = torch.where(torch.from_numpy(fields[:, 0]).to(batch.device) < flip, -1.0, 1.0)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        rows = (
            cos * side,
            -sin,
            2 * shift * spread[:, 2],
            sin * side,
            cos,
            2 * shift * spread[:, 3],
        )
        theta = torch.stack(rows, dim=1).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(batch.shape), align_corners=False)
        batch = functional.grid_sample(batch, grid, padding_mode="border", align_corners=False)
    if contrast or brightness:
        factor = (1 + spread[:, 6] * contrast).view(-1, 1, 1, 1)
        middle = batch.mean(dim=(1, 2, 3), keepdim=True)
        added = (spread[:, 5] * brightness).view(-1, 1, 1, 1) / STD.to(batch.device)
        batch = (batch - middle).mul_(factor).add_(middle).add_(added)
    return batch.contiguous(memory_format=torch.channels_last)
