"""All layers stay as they are, and the head is a ridge regression.

Where the start is good this beats most fine-tuning on a stream (RanPAC: McDonnell et al. 2023;
RanDumb: Prabhu et al. 2024), and an image goes through the network once in its life: what the head
is given of it is kept beside the project.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from dayfold.learning import calibration, network, unknown
from dayfold.learning.fitting import Fitted
from dayfold.learning.inputs import Job, Pool, digests
from dayfold.learning.unknown import Known
from dayfold.ledger.kept import Kept
from dayfold.ledger.tables import TrainingStep

PENALTIES = [10.0**power for power in range(-8, 3)]  # times the mean eigenvalue of the features
USUAL = 1e-2  # of these, where no validation image is there to choose by


def fit(
    job: Job,
    pool: Pool,
    validation: Pool,
    folder: Path,
    fingerprint: Mapping[str, object],
    progress: Callable[[int], None],
) -> tuple[Fitted, TrainingStep]:
    """Make a head of the pool's images and weights; each image is drawn once.

    What the head is given of an image is kept in `folder`. The step tells of the pool's
    cross-entropy.
    """
    classes, features = len(job.start.classes), _Features(job, folder, fingerprint)
    shown = features.of(pool, progress)
    held = features.of(validation, progress) if validation.images else shown[:0]
    weights = torch.tensor(pool.weights)
    head = ridge(shown, pool.targets, classes, weights, held, validation.targets)
    # A ridge's answers lie in 0..1: as logits they would be sure of nothing.
    by, wanted = (held, validation.targets) if len(held) else (shown, pool.targets)
    scale = calibration.temperature(((by.double() @ head[0].T + head[1]).numpy(), wanted.numpy()))
    weight, bias = ((part / scale).float() for part in head)
    made, asked = (functional.linear(part, weight, bias) for part in (shown, held))
    loss = float(functional.cross_entropy(made, pool.targets))
    state = {**job.start.state, **dict(zip(network.HEAD, (weight, bias), strict=True))}
    chosen = unknown.sample(pool.images, pool.targets.numpy())
    known = Known.of(shown[chosen], pool.targets[chosen], classes)
    drawn = np.ones(len(pool.images), dtype=np.int64)
    return Fitted(state, drawn, known, held, asked), TrainingStep(1, 1, loss, 0.0)


def ridge(
    features: torch.Tensor,
    targets: torch.Tensor,
    classes: int,
    weights: torch.Tensor,
    held: torch.Tensor,
    wanted: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the head of the least weighted ridge loss: float64 [classes, d] and [classes].

    It maps `features` float [n, d] to 1 for their class in `targets` int64 [n] and to 0 for all
    others; the bias has no penalty. The penalty is that of PENALTIES with the least squared error
    on the images `held`, of the classes `wanted`: they are of other patients than the n.
    """
    part = (weights.double() / weights.sum())[:, None]
    x, y = features.double(), functional.one_hot(targets, classes).double()
    middle, share = (part * x).sum(dim=0), (part * y).sum(dim=0)
    x, y = x - middle, y - share
    values, vectors = torch.linalg.eigh(x.T @ (part * x))
    turned, scale = vectors.T @ (x.T @ (part * y)), values.mean().clamp_min(1e-12)
    aim, found = functional.one_hot(wanted, classes).double() - share, []
    for penalty in PENALTIES if len(held) else [USUAL]:
        weight = vectors @ (turned / (values.clamp_min(0) + penalty * scale)[:, None])
        error = ((held.double() - middle) @ weight - aim).square().sum().item()
        found.append((error, -penalty, weight))
    weight = min(found, key=lambda one: one[:2])[2]
    return weight.T, share - middle @ weight


class _Features:
    """What the head is given of images, float32 [d] a file, by all that it depends on."""

    def __init__(self, job: Job, folder: Path, fingerprint: Mapping[str, object]) -> None:
        size, self._machine = job.recipe.image_size_px, job.machine
        self._net = network.WithFeatures(network.build(job.start, size)).to(job.machine.device)
        body = {name: one for name, one in job.start.state.items() if name not in network.HEAD}
        facts = {"features": 1, "size": size, "fingerprint": dict(fingerprint)}
        facts["frozen"] = digests(body)
        self._kept = Kept.of(folder, facts)

    def of(self, pool: Pool, progress: Callable[[int], None]) -> torch.Tensor:
        """Return them of a pool's images, float32 [n, d]."""
        return torch.stack([self._read(pool, at, progress) for at in range(len(pool.images))])

    def _read(self, pool: Pool, at: int, progress: Callable[[int], None]) -> torch.Tensor:
        image = pool.images[at]
        data = self._kept.read(image)
        if data is None:
            # In a batch of its own: its bits do not depend on what else a day trains on.
            made = network.outputs(self._net, pool.pixels[at : at + 1], self._machine)
            data = self._net.parted(made)[0].numpy().tobytes()
            self._kept.write(image, data)
        progress(1)
        return torch.frombuffer(bytearray(data), dtype=torch.float32)
