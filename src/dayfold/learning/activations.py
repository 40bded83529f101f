"""What the frozen part of the network makes of images, kept for all days: latent replay.

With `train.frozen_through` the first layers stay as yesterday's model has them. What they make of
an image is then the same in every epoch and on every day, so it is made once and kept beside the
project (Pellegrini et al. 2020; SIESTA, Harun et al. 2023).
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dayfold import draws
from dayfold.learning import network, pixels
from dayfold.learning.device import Machine
from dayfold.learning.inputs import Pool
from dayfold.learning.network import Model
from dayfold.project.files import canonical_json, sha256, with_digest, without_digest
from dayfold.project.params import Train

FORMAT = 1  # of a kept file
# How many of ResNet18's children the frozen part has: conv1, bn1, relu, maxpool are its stem.
DEPTHS = {"stem": 4, "layer1": 5, "layer2": 6, "layer3": 7}
KEPT_BYTES = 8 * 2**30  # of activations: what was not used for longest goes first
_DIGEST_BYTES = len(with_digest(b""))
_LARGEST = torch.finfo(torch.float16).max


class Activations:
    """The last layers are trained: they are given what the frozen ones make of an image.

    Of `frozen_variants` variants of it: the image as it is, and changed by draws that are the same
    on every day. They are kept as float16 [variants, channels, height, width], a file an image, in
    a folder named by a digest of all that they depend on: frozen weights, recipe, seed,
    fingerprint. An image's are made in a batch of its own, so that they never depend on what else
    a day trains on: a day that finds them gives the bits of one that makes them.
    """

    def __init__(
        self,
        start: Model,
        folder: Path,
        fingerprint: Mapping[str, object],
        *,
        recipe: Train,
        seed: int,
        day: str,
        machine: Machine,
    ) -> None:
        net = network.build(start, recipe.image_size_px)
        self._depth, self._variants = DEPTHS[recipe.frozen_through], recipe.frozen_variants
        self._recipe, self._seed, self._day, self._machine = recipe, seed, day, machine
        self._body = nn.Sequential(*list(net.children())[: self._depth]).to(machine.device).eval()
        side = (1, 3, recipe.image_size_px, recipe.image_size_px)
        self._shape = tuple(self._body(torch.zeros(side, device=machine.device)).shape[1:])
        facts = {
            "format": FORMAT,
            "size": recipe.image_size_px,
            "augment": recipe.augment.model_dump(),
            "variants": self._variants,
            "seed": seed,
            "fingerprint": dict(fingerprint),
            "frozen": {
                name: sha256(tensor.detach().cpu().contiguous().numpy().tobytes())
                for name, tensor in self._body.state_dict().items()
            },
        }
        self._folder = folder / sha256(canonical_json(facts).encode())[:32]

    def learner(self, net: nn.Module) -> nn.Module:
        """Return the layers after the frozen ones."""
        *layers, head = list(net.children())[self._depth :]
        return nn.Sequential(*layers, nn.Flatten(), head)

    def make(self, *pools: Pool, progress: Callable[[int], None] = lambda _: None) -> int:
        """Make what is not kept yet, or not whole, of the pools' images; how many were made."""
        self._folder.mkdir(parents=True, exist_ok=True)
        made = 0
        for pool in pools:
            for position, image in enumerate(pool.images):
                path = self._folder / image
                if not self._is_whole(path):
                    data = self._of(image, pool.pixels[position])
                    # Not fsynced: what a power cut leaves is not whole, and made again.
                    own = path.with_name(f"{image}-{os.getpid()}")
                    own.write_bytes(with_digest(data))
                    own.replace(path)
                    made += 1
                progress(1)
        return made

    def _is_whole(self, path: Path) -> bool:
        try:
            os.utime(path)
            without_digest(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return True

    def _of(self, image: str, of: torch.Tensor) -> bytes:
        batch = pixels.normalised(of.unsqueeze(0).to(self._machine.device))
        names = [f"{image} {number}" for number in range(1, self._variants)]
        if names:
            fields = draws.uniform_fields("variants", self._seed, ids=names)
            many = batch.expand(len(names), -1, -1, -1).contiguous()
            changed = pixels.augmented(many, fields, **self._recipe.augment.model_dump())
            batch = torch.cat([batch, changed]).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), self._machine.autocast():
            made = self._body(batch).float().clamp(-_LARGEST, _LARGEST).half()
        return bytes(made.cpu().contiguous().numpy().tobytes())

    def drawn(
        self, pool: Pool, chosen: NDArray[np.int64], epoch: int, *, first: int
    ) -> torch.Tensor:
        """Return activations, each of a variant that is drawn by day, epoch, place and image."""
        ids = [f"{pool.images[position]} {first + at}" for at, position in enumerate(chosen)]
        which = draws.uniforms("variant", self._seed, self._day, epoch, ids=ids) * self._variants
        return self._read(pool, chosen, which.astype(np.int64))

    def plain(self, pool: Pool, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Return activations of images as they are."""
        return self._read(pool, chosen, np.zeros(len(chosen), dtype=np.int64))

    def _read(
        self, pool: Pool, chosen: NDArray[np.int64], variants: NDArray[np.int64]
    ) -> torch.Tensor:
        batch = np.empty((len(chosen), *self._shape), dtype=np.float16)
        for row, position, variant in zip(batch, chosen, variants, strict=True):
            with (self._folder / pool.images[position]).open("rb") as file:
                file.seek(_DIGEST_BYTES + int(variant) * row.nbytes)
                file.readinto(memoryview(row).cast("B"))
        made = torch.from_numpy(batch).to(self._machine.device).float()
        return made.contiguous(memory_format=torch.channels_last)


def prune(folder: Path, most: int = KEPT_BYTES) -> None:
    """Remove kept activations beyond so many bytes, those first that were not used for longest."""
    used = [(path.stat(), path) for path in folder.glob("*/*")]
    for info, path in sorted(used, key=lambda one: one[0].st_mtime_ns, reverse=True):
        most -= info.st_size
        if most < 0:
            path.unlink()
    for key in folder.glob("*"):
        with suppress(OSError):  # not empty
            key.rmdir()
