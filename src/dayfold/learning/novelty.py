"""Novelty detection: distance from the training images.

The distance is small where the model is confident and the features point towards a class:

    distance = 1 - (1 - H(p) / log K) * max(0, max over classes c of cos(f - m, m_c - m))

with the calibrated probabilities p of the K classes, their entropy H, the image's features f (the
input of the head, 512 or 2048 numbers), the mean m of the features of all training images, and the
mean m_c of those of a class. Each half fails alone: the features where a model has hardly learnt
its classes, the confidence where it is sure of everything (docs/unknown.md has the figures).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dayfold import draws

IMAGES = 512  # training images at most, for the means
LEAST = 1e-12  # the smallest probability whose logarithm is taken


@dataclass(frozen=True)
class NoveltyDetector:
    """The mean features of the classes, and the distances of the validation images from them.

    `center` float32 [d] is the mean of the features, `means` float32 [live classes, d] the
    direction of each class from there, of length 1, or 0 for a class without images. `distances`
    float32 [n] are those of the validation images, sorted.
    """

    center: torch.Tensor
    means: torch.Tensor
    distances: torch.Tensor

    @classmethod
    def fit(cls, features: torch.Tensor, targets: torch.Tensor, classes: int) -> "NoveltyDetector":
        """Fit it to the features of training images, [n, d], and their class ids, [n]."""
        center = features.double().mean(dim=0)
        sums = torch.zeros(classes, features.shape[1], dtype=torch.float64)
        means = functional.normalize(sums.index_add(0, targets, features.double() - center), dim=1)
        return cls(center.float(), means.float(), torch.zeros(0))

    def distance(self, features: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the distances, 0..1, by features [n, d] and probabilities [n, classes]."""
        likeness = functional.normalize(features - self.center, dim=1) @ self.means.T
        # Retired classes have the probability 0, and no mean.
        entropy = -(probabilities * probabilities.clamp_min(LEAST).log()).sum(dim=1)
        classes = torch.ones_like(self.means[:, 0]).sum()  # no len(): this is traced for ONNX
        decided = 1 - entropy / classes.clamp_min(2).log()
        return 1 - decided * likeness.amax(dim=1).clamp_min(0)

    def limit(self, share: float) -> float | None:
        """Return the distance that a `share`, 0..1, of images of known classes stays within.

        It is the ceil((n + 1) share)-th smallest distance of the n validation images. A further
        image of the same distribution is within it with at least that probability (split conformal
        prediction: Vovk et al. 2005). None where n is too small.
        """
        place = math.ceil((len(self.distances) + 1) * share)
        return float(self.distances[place - 1]) if 0 < place <= len(self.distances) else None


def sample(images: Sequence[str], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose the images that the means are fitted on: sorted positions, int64 [at most IMAGES].

    Each class gives equally many, if it has them, chosen by a hash of the image.
    """
    keys = draws.uniforms("means", ids=images)
    table = pl.DataFrame({"key": keys, "target": targets}).with_row_index("at")
    turn = pl.col("key").rank("ordinal").over("target")
    chosen = table.sort(turn, "key").head(IMAGES)["at"].sort()
    return chosen.cast(pl.Int64).to_numpy(writable=True)
