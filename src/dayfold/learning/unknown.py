"""How far an image is from what was learnt.

An image is near where the model is decided, and where its features lie in the direction of a class:

    distance = 1 - (1 - H(p) / log K) * max(0, max over classes c of cos(f - m, m_c - m))

with the calibrated probabilities p of the K classes, their entropy H, the image's features f (the d
numbers that the head is given, 512 or 2048), the mean m of the features of training images, and m_c
of those of a class. Each half alone fails somewhere: features where a model has hardly learnt its
classes, confidence where it is sure of everything (docs/unknown.md has the figures).
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

IMAGES = 512  # of training, at most, that the means are made of: as many of each class as there are
LEAST = 1e-12  # of a probability, within its logarithm


@dataclass(frozen=True)
class Known:
    """What a model has learnt of its classes, and how far images of known classes are from it.

    `center` float32 [d] is the mean of the features, `means` float32 [live classes, d] the
    direction of each class from there, of length 1, or 0 for a class without images. `distances`
    float32 [n], sorted, are those of the validation images.
    """

    center: torch.Tensor
    means: torch.Tensor
    distances: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor, targets: torch.Tensor, classes: int) -> "Known":
        """Make it of the features of training images, [n, d], and their classes, [n]."""
        center = features.double().mean(dim=0)
        sums = torch.zeros(classes, features.shape[1], dtype=torch.float64)
        means = functional.normalize(sums.index_add(0, targets, features.double() - center), dim=1)
        return cls(center.float(), means.float(), torch.zeros(0))

    def distance(self, features: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
        """Return how far images are, 0..1, by features [n, d] and probabilities [n, classes]."""
        likeness = functional.normalize(features - self.center, dim=1) @ self.means.T
        # Retired classes have the probability 0, and no mean.
        entropy = -(probabilities * probabilities.clamp_min(LEAST).log()).sum(dim=1)
        classes = torch.ones_like(self.means[:, 0]).sum()  # no len(): this is traced for ONNX
        decided = 1 - entropy / classes.clamp_min(2).log()
        return 1 - decided * likeness.amax(dim=1).clamp_min(0)

    def limit(self, share: float) -> float | None:
        """Return the distance that `share`, 0..1, of images of known classes do not pass.

        The ceil((n + 1) share)-th smallest of the n validation images: a further one, drawn as they
        were, is within it with that probability at least (split conformal prediction: Vovk et al.
        2005). None where n is too small for it.
        """
        place = math.ceil((len(self.distances) + 1) * share)
        return float(self.distances[place - 1]) if 0 < place <= len(self.distances) else None


def sample(images: Sequence[str], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which images the means are made of: positions, int64 [at most IMAGES], in order.

    As many of each class as there are, each class's by a hash of the image.
    """
    keys = draws.uniforms("means", ids=images)
    table = pl.DataFrame({"key": keys, "target": targets}).with_row_index("at")
    turn = pl.col("key").rank("ordinal").over("target")
    chosen = table.sort(turn, "key").head(IMAGES)["at"].sort()
    return chosen.cast(pl.Int64).to_numpy(writable=True)
