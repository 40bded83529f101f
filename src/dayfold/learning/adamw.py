"""AdamW (Loshchilov & Hutter 2019), fused; biases and batch norms do not decay.

It calls torch's functional form and holds the state itself. `torch.optim.AdamW` gives the same bits
(a test compares both), but it imports torch._dynamo, which takes 2.8 s of CPU.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.adamw import adamw

WEIGHT_DECAY = 0.01
OPTIONS: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "amsgrad": False,
    "maximize": False,
    "fused": True,
}
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class AdamW:
    """The moments of parameters that are trained together, all of them in every update."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._moments = [
            (torch.zeros_like(one), torch.zeros_like(one), torch.zeros((), device=one.device))
            for one in self._parameters
        ]

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Make an update along the gradients; each parameter must have one."""
        for decays in (True, False):
            chosen = [
                (one, one.grad, *moments)
                for one, moments in zip(self._parameters, self._moments, strict=True)
                if (one.ndim > 1) is decays
            ]
            parameters, gradients, means, squares, steps = map(list, zip(*chosen, strict=True))
            options = {"lr": rate, "weight_decay": WEIGHT_DECAY if decays else 0.0, **OPTIONS}
            adamw(parameters, gradients, means, squares, [], steps, **options)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the moments by name; writing into these tensors changes the moments."""
        return {
            f"{number}.{kind}": tensor
            for number, moments in enumerate(self._moments)
            for kind, tensor in zip(MOMENTS, moments, strict=True)
        }
