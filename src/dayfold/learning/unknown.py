"""How far an image is from all that a model has learnt: what no class explains is far from each.

The features of an image are the 512 numbers that the head is given. A class is the mean of the
directions of its images' features, and the distance of an image is 1 - cos to the nearest class
(nearest class mean: Mensink et al., "Distance-based image classification", 2013). docs/unknown.md
has what other distances came to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dayfold import draws

IMAGES = 512  # of training, at most, that the means are made of: as many of each class as there are


@dataclass(frozen=True)
class Known:
    """What a model has learnt of its classes, and how far images of known classes are from it.

    `means` float32 [live classes, 512], of length 1, or 0 for a class without images; `distances`
    float32 [n], sorted: those of the validation images.
    """

    means: torch.Tensor
    distances: torch.Tensor

    @classmethod
    def of(
        cls,
        features: torch.Tensor,
        targets: torch.Tensor,
        classes: int,
        validation: torch.Tensor,
    ) -> "Known":
        """Make it of training images' features [n, 512] and classes [n], and of validation's."""
        units = functional.normalize(features.double(), dim=1)
        sums = torch.zeros(classes, features.shape[1], dtype=torch.float64)
        means = functional.normalize(sums.index_add(0, targets, units), dim=1).float()
        return cls(means, distance(validation, means).sort().values)

    def limit(self, share: float) -> float | None:
        """Return the distance that `share`, 0..1, of images of known classes do not pass.

        The ceil((n + 1) share)-th smallest of the n validation images: a further one, drawn as they
        were, is within it with that probability at least (split conformal prediction: Vovk et al.
        2005). None where n is too small for it.
        """
        place = math.ceil((len(self.distances) + 1) * share)
        return float(self.distances[place - 1]) if 0 < place <= len(self.distances) else None


def distance(features: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    """Return 1 - cos to the nearest mean: features [n, 512] → float32 [n]."""
    return 1 - (functional.normalize(features.float(), dim=1) @ means.T).amax(dim=1)


def sample(images: Sequence[str], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return which images the means are made of: positions, int64 [at most IMAGES], in order.

    As many of each class as there are, each class's by a hash of the image.
    """
    keys = draws.uniforms("means", ids=images)
    turns = np.empty(len(keys), dtype=np.int64)
    for label in np.unique(targets):
        mine = np.flatnonzero(targets == label)
        turns[mine[draws.in_order(keys[mine], [images[int(at)] for at in mine])]] = np.arange(
            len(mine)
        )
    return np.sort(np.lexsort((keys, turns))[:IMAGES])
