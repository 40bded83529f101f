"""What the network alone can do: updates over one batch in memory, and which precision pays."""

import time
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dayfold.learning import device, fitting, network, pixels
from dayfold.learning.adamw import AdamW
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.learning.slices import Slices, slices_of
from dayfold.project import params as params_file
from dayfold.project.cpus import model_name
from dayfold.project.layout import Project
from dayfold.project.params import Params, Train

PAYS = 1.15  # times as fast as fp32: less is not worth fewer digits
MEASURED_SECONDS = 1.0  # of each precision, after the first updates
CLASSES = ("a", "b")


class Bare:
    """A day's updates without its images: what is left is the network."""

    def __init__(self, model: Model, recipe: Train, machine: Machine) -> None:
        self._machine, self._recipe = machine, recipe
        net = network.build(model, recipe.image_size_px).to(machine.device).train()
        images = torch.randint(0, 256, (recipe.batch_size, 3, *[recipe.image_size_px] * 2))
        self._batch = pixels.normalised(images.to(torch.uint8).to(machine.device))
        self._targets = torch.arange(recipe.batch_size).to(machine.device) % len(model.classes)
        self._optimizer = AdamW(net.parameters())
        count = slices_of(machine, recipe.batch_size)
        self._slices = Slices(net, self._loss, count, machine.threads)

    def updates(self, count: int) -> float:
        """Make `count` updates; return the images a second."""
        began, chosen = time.perf_counter(), np.arange(self._recipe.batch_size)
        for _ in range(count):
            self._optimizer.zero_grad()
            loss = self._slices.backward(self._batch, chosen)
            self._optimizer.step(self._recipe.learning_rate)
            loss.item()  # as training reports it
        return count * self._recipe.batch_size / (time.perf_counter() - began)

    def _loss(
        self, net: torch.nn.Module, batch: torch.Tensor, chosen: NDArray[np.int64]
    ) -> torch.Tensor:
        with self._machine.autocast():
            logits = net(batch)
        return functional.cross_entropy(
            logits.float(), self._targets[chosen], label_smoothing=fitting.LABEL_SMOOTHING
        )


def what_pays(recipe: Train) -> tuple[str, str]:
    """Return the precision that trains faster here at the recipe's size, and what that rests on.

    bf16 where it is PAYS times as fast as fp32, by a measurement of some seconds; a device that
    does not multiply in bf16 is not measured.
    """
    found = device.resolve(device=recipe.device, precision="auto", threads=recipe.threads)
    where = torch.cuda.get_device_name() if found.device == "cuda" else (model_name() or "this CPU")
    if found.precision == "fp32":
        return "fp32", f"{where} does not multiply in bf16"
    model = network.grown(network.random_origin(0), CLASSES, 0)
    speeds = {}
    for precision in ("fp32", "bf16"):
        bare = Bare(model, recipe, replace(found, precision=precision))
        bare.updates(2)
        speed, began = 0.0, time.monotonic()
        while time.monotonic() - began < MEASURED_SECONDS:
            speed = max(speed, bare.updates(1))
        speeds[precision] = speed
    chosen = "bf16" if speeds["bf16"] >= PAYS * speeds["fp32"] else "fp32"
    figures = ", ".join(f"{name} {speed:.3g}" for name, speed in speeds.items())
    return chosen, f"{figures} images/s at {recipe.image_size_px} px on {where}"


def pin(project: Project, params: Params) -> str:
    """Set train.precision in params.yaml to what pays here; return it with its reason."""
    precision, why = what_pays(params.train)
    comments = {"train.precision": f"auto, fp32, bf16; here: {why}"}
    params_file.edit(project.params, {"train.precision": precision}, comments=comments)
    return f"{precision} ({why})"
