"""What the frozen part of the network makes of images, kept for all days: latent replay.

With `train.frozen_through` the first layers stay as yesterday's model has them. What they make of
an image is then the same in every epoch and on every day, so it is made once and kept beside the
project (Pellegrini et al. 2020; SIESTA, Harun et al. 2023).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dayfold import draws
from dayfold.learning import network, pixels
from dayfold.learning.inputs import Job, Pool
from dayfold.project.files import sha256
from dayfold.project.kept import HEAD_BYTES, Kept

FORMAT = 1  # of a kept file
# How many of ResNet18's children the frozen part has: conv1, bn1, relu, maxpool are its stem.
DEPTHS = {"stem": 4, "layer1": 5, "layer2": 6, "layer3": 7}
VARIANTS = 8  # of an image, as it is and changed at random, whose activations are kept
_LARGEST = torch.finfo(torch.float16).max


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
            "frozen": {
                name: sha256(tensor.detach().cpu().contiguous().numpy().tobytes())
                for name, tensor in self._body.state_dict().items()
            },
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
        if names:
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
