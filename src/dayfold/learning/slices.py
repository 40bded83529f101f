"""A batch in slices, where kernels wait by spinning.

That is bf16 on a CPU: the threads of oneDNN's kernels meet at barriers that no setting reaches, and
beside another training two of them got a sixth as far as alone (224 px, Intel AMX: 4 images a
second of 27). Slices that meet once an update got 23, and 26 alone. In fp32 the threads give way
(learning/__init__.py), and slices are slower: 190 images of 32 px a second instead of 242.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dayfold.learning.device import Machine
from dayfold.learning.processes import Team

LEAST_IMAGES = 16  # of a slice: batch norm goes by them

Loss = Callable[[nn.Module, torch.Tensor, NDArray[np.int64]], torch.Tensor]


def slices_of(machine: Machine, images: int) -> int:
    """Return in how many slices a batch of so many images is computed; bits depend on it."""
    if (machine.device, machine.precision) != ("cpu", "bf16"):
        return 1
    return max(1, min(machine.threads, images // LEAST_IMAGES))


class Slices:
    """Forward and backward passes of a network in training, of so many slices at a time."""

    def __init__(self, learner: nn.Module, loss: Loss, count: int, threads: int) -> None:
        self._loss = loss
        # Copies have batch norms of their own, and the parameters in common.
        common = {id(parameter): parameter for parameter in learner.parameters()}
        self._learners = [learner]
        self._learners += [copy.deepcopy(learner, dict(common)) for _ in range(count - 1)]
        self._pool = ThreadPoolExecutor(
            count, initializer=torch.set_num_threads, initargs=(max(1, threads // count),)
        )

    def backward(self, batch: torch.Tensor, chosen: NDArray[np.int64]) -> torch.Tensor:
        """Give every parameter its gradient; return the loss of the whole batch, float32 [].

        `chosen` int64 [n] are passed on to the loss. Each slice is normalised by its own
        statistics, and the running ones are averaged, as between processes (Team.combine).
        """
        count, images = len(self._learners), len(chosen)
        if count == 1:
            loss = self._loss(self._learners[0], batch, chosen)
            torch.autograd.backward(loss)
            return loss
        cuts = [Team(number, count).slice(images) for number in range(count)]
        parts = [(cut.stop - cut.start) / images for cut in cuts]
        statistics = [
            [buffer for buffer in learner.buffers() if buffer.is_floating_point()]
            for learner in self._learners
        ]
        for copies in statistics[1:]:
            torch._foreach_copy_(copies, statistics[0])
        batches, rows = ([whole[cut] for cut in cuts] for whole in (batch, chosen))
        made = list(self._pool.map(self._of, self._learners, batches, rows))
        with torch.no_grad():
            # In the order of the slices, whichever was done first.
            gradients = _mean([gradients for _, gradients in made], parts)
            torch._foreach_copy_(statistics[0], _mean(statistics, parts))
        for parameter, gradient in zip(self._learners[0].parameters(), gradients, strict=True):
            parameter.grad = gradient
        return torch.stack([loss * part for (loss, _), part in zip(made, parts, strict=True)]).sum()

    def _of(
        self, learner: nn.Module, batch: torch.Tensor, chosen: NDArray[np.int64]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        loss = self._loss(learner, batch, chosen)
        return loss.detach(), torch.autograd.grad(loss, list(learner.parameters()))


def _mean(tensors: Sequence[Sequence[torch.Tensor]], parts: Sequence[float]) -> list[torch.Tensor]:
    """The mean, tensor by tensor; `parts` sum to 1."""
    total = torch._foreach_mul(list(tensors[0]), parts[0])
    for more, part in zip(tensors[1:], parts[1:], strict=True):
        torch._foreach_add_(total, list(more), alpha=part)
    return list(total)
