"""Frozen layers, and a ridge regression as head.

With good starting weights this beats most fine-tuning on a stream (RanPAC: McDonnell et al. 2023;
RanDumb: Prabhu et al. 2024). An image goes through the network only once: its features are cached
beside the project.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dayfold.learning import calibration, network, novelty
from dayfold.learning.fitting import Fitted
from dayfold.learning.inputs import Job, Pool, digests
from dayfold.learning.novelty import NoveltyDetector
from dayfold.ledger.image_cache import ImageCache
from dayfold.ledger.tables import TrainingStep

PENALTIES = [10.0**power for power in range(-8, 3)]  # times the mean eigenvalue of the features
DEFAULT_PENALTY = 1e-2  # without validation images to choose one


def fit(
    job: Job,
    pool: Pool,
    validation: Pool,
    folder: Path,
    fingerprint: Mapping[str, object],
    progress: Callable[[int], None],
) -> tuple[Fitted, TrainingStep]:
    """Fit a head to the pool's images and weights; each image counts as drawn once.

    Features are cached in `folder`. The returned step has the cross-entropy over the pool.
    """
    classes, cache = len(job.start.classes), _FeatureCache(job, folder, fingerprint)
    trained = cache.features(pool, progress)
    held_out = cache.features(validation, progress) if validation.images else trained[:0]
    weights = torch.tensor(pool.weights)
    head = ridge(trained, pool.targets, classes, weights, held_out, validation.targets)
    # A ridge predicts about 0..1, which as logits would never be confident, so they are scaled.
    on, targets = (held_out, validation.targets) if len(held_out) else (trained, pool.targets)
    predicted = (on.double() @ head[0].T + head[1]).numpy()
    scale = calibration.fit_temperature((predicted, targets.numpy()))
    weight, bias = ((part / scale).float() for part in head)
    pool_logits, logits = (functional.linear(part, weight, bias) for part in (trained, held_out))
    loss = float(functional.cross_entropy(pool_logits, pool.targets))
    state = {**job.start.state, **dict(zip(network.HEAD, (weight, bias), strict=True))}
    chosen = novelty.sample(pool.images, pool.targets.numpy())
    detector = NoveltyDetector.fit(trained[chosen], pool.targets[chosen], classes)
    drawn = np.ones(len(pool.images), dtype=np.int64)
    return Fitted(state, drawn, detector, held_out, logits), TrainingStep(1, 1, loss, 0.0)


def ridge(
    features: torch.Tensor,
    targets: torch.Tensor,
    classes: int,
    weights: torch.Tensor,
    held_out: torch.Tensor,
    held_out_targets: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the head with the least weighted ridge loss: float64 [classes, d] and [classes].

    It maps `features` float [n, d] to 1 for their class in `targets` int64 [n] and to 0 for all
    others; the bias has no penalty. The one of PENALTIES is chosen that has the least squared error
    on the held-out features, which are of other patients.
    """
    part = (weights.double() / weights.sum())[:, None]
    x, y = features.double(), functional.one_hot(targets, classes).double()
    mean_x, mean_y = (part * x).sum(dim=0), (part * y).sum(dim=0)
    x, y = x - mean_x, y - mean_y
    values, vectors = torch.linalg.eigh(x.T @ (part * x))
    rotated, scale = vectors.T @ (x.T @ (part * y)), values.mean().clamp_min(1e-12)
    expected, fits = functional.one_hot(held_out_targets, classes).double() - mean_y, []
    for penalty in PENALTIES if len(held_out) else [DEFAULT_PENALTY]:
        weight = vectors @ (rotated / (values.clamp_min(0) + penalty * scale)[:, None])
        error = ((held_out.double() - mean_x) @ weight - expected).square().sum().item()
        fits.append((error, -penalty, weight))
    weight = min(fits, key=lambda fit: fit[:2])[2]
    return weight.T, mean_y - mean_x @ weight


class _FeatureCache:
    """Features of images, float32 [d] a file, cached by all that they depend on."""

    def __init__(self, job: Job, folder: Path, fingerprint: Mapping[str, object]) -> None:
        size, self._machine = job.recipe.image_size_px, job.machine
        self._net = network.WithFeatures(network.build(job.start, size)).to(job.machine.device)
        body = {name: one for name, one in job.start.state.items() if name not in network.HEAD}
        facts = {"features": 1, "size": size, "fingerprint": dict(fingerprint)}
        facts["frozen"] = digests(body)
        self._cache = ImageCache.of(folder, facts)

    def features(self, pool: Pool, progress: Callable[[int], None]) -> torch.Tensor:
        """Return the features of a pool's images, float32 [n, d]; compute those not cached."""
        found = []
        for row, image in enumerate(pool.images):
            data = self._cache.read(image)
            if data is None:
                # In its own batch, so its bits do not depend on the day's other images.
                outputs = network.outputs(self._net, pool.pixels[row : row + 1], self._machine)
                data = self._net.split(outputs)[0].numpy().tobytes()
                self._cache.write(image, data)
            found.append(torch.frombuffer(bytearray(data), dtype=torch.float32))
            progress(1)
        return torch.stack(found)
