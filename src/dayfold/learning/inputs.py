"""The inputs of training: images, or frozen layers' activations.

Frozen layers stay as yesterday's model has them, and only the layers after them are trained. So the
activations of an image are the same in every epoch and on every day: they are computed once and
cached (latent replay: Pellegrini et al. 2020; SIESTA, Harun et al. 2023).
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
from dayfold.ledger.image_cache import HEAD_BYTES, ImageCache
from dayfold.project.files import sha256
from dayfold.project.params import Train

FORMAT = 1  # of a cached file
# The number of frozen children of a network: conv1, bn1, relu and maxpool are its stem.
DEPTHS = {"stem": 4, "layer1": 5, "layer2": 6, "layer3": 7}
VARIANTS = 8  # cached for each image: the image itself and seven augmented ones
_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Job:
    """How a day is trained: the model it starts from, recipe, seed, day and machine.

    `teacher` is yesterday's model, for distillation. `unseen` are rows of the head for classes that
    never had an image here: their logits are kept near the teacher's.
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
    """Images, float32 [n, 3, size, size], as the inputs: the whole network is trained."""

    job: Job

    def trained_part(self, net: nn.Module) -> nn.Module:
        return net

    def train_batch(
        self, pool: Pool, chosen: NDArray[np.int64], epoch: int, *, first: int
    ) -> torch.Tensor:
        """Return a batch of augmented images.

        `first` is the first image's place in the epoch. The augmentation is drawn by epoch and
        place, so an image that is drawn twice is changed in two ways.
        """
        ids = [f"{pool.images[position]} {first + at}" for at, position in enumerate(chosen)]
        fields = draws.uniform_fields("augment", self.job.seed, self.job.day, epoch, ids=ids)
        options = self.job.recipe.augment.model_dump()
        return pixels.augmented(self.eval_batch(pool, chosen), fields, **options)

    def eval_batch(self, pool: Pool, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Return images without augmentation."""
        return pixels.normalised(pool.pixels[chosen].to(self.job.machine.device))


def digests(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    return {
        name: sha256(tensor.detach().cpu().contiguous().numpy().tobytes())
        for name, tensor in state.items()
    }


class Activations:
    """Activations of the frozen layers as the inputs: the layers after them are trained.

    The augmentations of an image are drawn once and are the same on every day. Its activations are
    cached as float16 [variants, channels, height, width], a file an image, in a folder named by a
    digest of all that they depend on: frozen weights, recipe, seed, fingerprint. Each image is
    computed in a batch of its own, so cached and new activations have the same bits.
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
        self._cache = ImageCache.of(folder, facts)

    def trained_part(self, net: nn.Module) -> nn.Module:
        *layers, head = list(net.children())[self._depth :]
        return nn.Sequential(*layers, nn.Flatten(), head)

    def compute(self, *pools: Pool, progress: Callable[[int], None] = lambda _: None) -> int:
        """Cache the activations of the pools' images; return how many were not cached before."""
        new = 0
        for pool in pools:
            for position, image in enumerate(pool.images):
                if self._cache.read(image) is None:
                    self._cache.write(image, self._variants(image, pool.pixels[position]))
                    new += 1
                progress(1)
        return new

    def _variants(self, image: str, square: torch.Tensor) -> bytes:
        batch = pixels.normalised(square.unsqueeze(0).to(self._job.machine.device))
        names = [f"{image} {number}" for number in range(1, VARIANTS)]
        fields = draws.uniform_fields("variants", self._job.seed, ids=names)
        many = batch.expand(len(names), -1, -1, -1).contiguous()
        changed = pixels.augmented(many, fields, **self._job.recipe.augment.model_dump())
        batch = torch.cat([batch, changed]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), self._job.machine.autocast():
            activations = self._body(batch).float().clamp(-_LARGEST, _LARGEST).half()
        return bytes(activations.cpu().contiguous().numpy().tobytes())

    def train_batch(
        self, pool: Pool, chosen: NDArray[np.int64], epoch: int, *, first: int
    ) -> torch.Tensor:
        """Return activations, each of a variant drawn by day, epoch, place and image."""
        ids = [f"{pool.images[position]} {first + at}" for at, position in enumerate(chosen)]
        which = draws.uniforms("variant", self._job.seed, self._job.day, epoch, ids=ids) * VARIANTS
        return self._read(pool, chosen, which.astype(np.int64))

    def eval_batch(self, pool: Pool, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Return activations of images without augmentation."""
        return self._read(pool, chosen, np.zeros(len(chosen), dtype=np.int64))

    def _read(
        self, pool: Pool, chosen: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> torch.Tensor:
        batch = np.empty((len(chosen), *self._shape), dtype=np.float16)
        for row, position, variant in zip(batch, chosen, variants, strict=True):
            with self._cache.path(pool.images[position]).open("rb") as file:
                file.seek(HEAD_BYTES + int(variant) * row.nbytes)
                file.readinto(memoryview(row).cast("B"))
        activations = torch.from_numpy(batch).to(self._job.machine.device).float()
        return activations.contiguous(memory_format=torch.channels_last)
