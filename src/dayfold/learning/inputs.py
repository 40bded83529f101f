"""What a day's training is given.

Without frozen layers that is the whole network, and its inputs are images. With them the inputs are
what the frozen layers make of an image. These layers stay as yesterday's model has them, so that it
is the same in every epoch and on every day: it is made once and kept beside the project (latent
replay: Pellegrini et al. 2020; SIESTA, Harun et al. 2023).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import nn

from dayfold import draws
from dayfold.learning import network, pixels
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.ledger.kept import HEAD_BYTES, Kept
from dayfold.project.files import sha256
from dayfold.project.params import Train

FORMAT = 1  # of a kept file
# How many of a network's children the frozen part has: conv1, bn1, relu, maxpool are its stem.
DEPTHS = {"stem": 4, "layer1": 5, "layer2": 6, "layer3": 7}
VARIANTS = 8  # of an image, as it is and changed at random, whose activations are kept
_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Job:
    """From which model, by which recipe and draws, on which machine a day is trained.

    `teacher` is yesterday's model, asked where `recipe.distill` is above 0, and of the classes
    `unseen`: rows of the head that no image has ever spoken for here.
    """

    start: Model
    teacher: Model | None
    recipe: Train
    seed: int
    day: str
    machine: Machine
    unseen: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Images in memory: uint8 [n, 3, size, size], class ids int64 [n], ids, weights."""

    pixels: torch.Tensor
    targets: torch.Tensor
    images: Sequence[str]
    weights: Sequence[float]

    @classmethod
    def read(
        cls, job: Job, root: Path, rows: pl.DataFrame, *, progress: Callable[[int], None]
    ) -> "Pool":
        """Read the images of rows (image, path, label, weight) in the project's folder `root`."""
        ids = {label: position for position, label in enumerate(job.start.classes)}
        images, size = rows["image"].to_list(), job.recipe.image_size_px
        return cls(
            pixels.load(root, rows["path"].to_list(), images, size, progress),
            torch.tensor([ids[label] for label in rows["label"]], dtype=torch.int64),
            images,
            rows["weight"].to_list(),
        )


@dataclass(frozen=True)
class Images:
    """The whole network is trained: it is given images, float32 [n, 3, size, size]."""

    job: Job

    def learner(self, net: nn.Module) -> nn.Module:
        """Return the part of a network that is trained: all of it."""
        return net

    def drawn(
        self, pool: Pool, chosen: NDArray[np.int64], epoch: int, *, first: int
    ) -> torch.Tensor:
        """Return a batch of images, each changed in its own way by epoch and place in it.

        `first` is the place of the batch's first image: one that is drawn twice is changed twice.
        """
        ids = [f"{pool.images[position]} {first + at}" for at, position in enumerate(chosen)]
        fields = draws.uniform_fields("augment", self.job.seed, self.job.day, epoch, ids=ids)
        options = self.job.recipe.augment.model_dump()
        return pixels.augmented(self.plain(pool, chosen), fields, **options)

    def plain(self, pool: Pool, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Return images as they are."""
        return pixels.normalised(pool.pixels[chosen].to(self.job.machine.device))


def digests(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Return the sha256 of each tensor: by these, what frozen layers made is kept."""
    return {
        name: sha256(tensor.detach().cpu().contiguous().numpy().tobytes())
        for name, tensor in state.items()
    }


class Activations:
    """The last layers are trained: they are given what the frozen ones make of an image.

    The changes of an image are drawn once, the same on every day. Its activations are kept as
    float16 [variants, channels, height, width], a file an image, in a folder named by a digest of
    all that they depend on: frozen weights, recipe, seed, fingerprint. They are made in a batch of
    their own, so that they never depend on what else a day trains on: a day that finds them gives
    the bits of one that makes them.
    """

    def __init__(self, job: Job, folder: Path, fingerprint: Mapping[str, object]) -> None:
        self._job, size = job, job.recipe.image_size_px
        self._depth = DEPTHS[job.recipe.frozen_through]
        layers = list(network.build(job.start, size).children())[: self._depth]
        self._body = nn.Sequential(*layers).to(job.machine.device).eval()
        blank = torch.zeros((1, 3, size, size), device=job.machine.device)
        self._shape = tuple(self._body(blank).shape[1:])
        facts = {
            "format": FORMAT,
            "size": size,
            "augment": job.recipe.augment.model_dump(),
            "variants": VARIANTS,
            "seed": job.seed,
            "fingerprint": dict(fingerprint),
            "frozen": digests(self._body.state_dict()),
        }
        self._kept = Kept.of(folder, facts)

    def learner(self, net: nn.Module) -> nn.Module:
        """Return the layers after the frozen ones."""
        *layers, head = list(net.children())[self._depth :]
        return nn.Sequential(*layers, nn.Flatten(), head)

    def make(self, *pools: Pool, progress: Callable[[int], None] = lambda _: None) -> int:
        """Make what is not kept yet, or not whole, of the pools' images; how many were made."""
        made = 0
        for pool in pools:
            for position, image in enumerate(pool.images):
                if self._kept.read(image) is None:
                    self._kept.write(image, self._of(image, pool.pixels[position]))
                    made += 1
                progress(1)
        return made

    def _of(self, image: str, of: torch.Tensor) -> bytes:
        batch = pixels.normalised(of.unsqueeze(0).to(self._job.machine.device))
        names = [f"{image} {number}" for number in range(1, VARIANTS)]
        fields = draws.uniform_fields("variants", self._job.seed, ids=names)
        many = batch.expand(len(names), -1, -1, -1).contiguous()
        changed = pixels.augmented(many, fields, **self._job.recipe.augment.model_dump())
        batch = torch.cat([batch, changed]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), self._job.machine.autocast():
            made = self._body(batch).float().clamp(-_LARGEST, _LARGEST).half()
        return bytes(made.cpu().contiguous().numpy().tobytes())

    def drawn(
        self, pool: Pool, chosen: NDArray[np.int64], epoch: int, *, first: int
    ) -> torch.Tensor:
        """Return activations, each of a variant that is drawn by day, epoch, place and image."""
        ids = [f"{pool.images[position]} {first + at}" for at, position in enumerate(chosen)]
        which = draws.uniforms("variant", self._job.seed, self._job.day, epoch, ids=ids) * VARIANTS
        return self._read(pool, chosen, which.astype(np.int64))

    def plain(self, pool: Pool, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Return activations of images as they are."""
        return self._read(pool, chosen, np.zeros(len(chosen), dtype=np.int64))

    def _read(
        self, pool: Pool, chosen: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> torch.Tensor:
        batch = np.empty((len(chosen), *self._shape), dtype=np.float16)
        for row, position, variant in zip(batch, chosen, variants, strict=True):
            with self._kept.path(pool.images[position]).open("rb") as file:
                file.seek(HEAD_BYTES + int(variant) * row.nbytes)
                file.readinto(memoryview(row).cast("B"))
        made = torch.from_numpy(batch).to(self._job.machine.device).float()
        return made.contiguous(memory_format=torch.channels_last)
