"""What a day's training is: its job, its images, and what the trained part of the network is given.

Without frozen layers that part is the whole network and is given images (here); with them it is
given what the frozen layers make of images (activations.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dayfold.learning import pixels
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.project.params import Train


@dataclass(frozen=True)
class Job:
    """From which model, by which recipe and draws, on which machine a day is trained.

    `teacher` is yesterday's model, asked where `recipe.distill` is above 0.
    """

    start: Model
    teacher: Model | None
    recipe: Train
    seed: int
    day: str
    machine: Machine


@dataclass(frozen=True)
class Pool:
    """Images in memory: uint8 [n, 3, size, size], class ids int64 [n], ids, weights."""

    pixels: torch.Tensor
    targets: torch.Tensor
    images: Sequence[str]
    weights: Sequence[float]


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
        """Return a batch of images, each changed in its own way by epoch and place.

        `first` is the place in the epoch of the batch's first image.
        """
        names = [pool.images[position] for position in chosen]
        fields = pixels.changes(names, self.job.seed, self.job.day, epoch, first=first)
        return pixels.augmented(
            self.plain(pool, chosen), fields, **self.job.recipe.augment.model_dump()
        )

    def plain(self, pool: Pool, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Return images as they are."""
        return pixels.normalised(pool.pixels[chosen].to(self.job.machine.device))
