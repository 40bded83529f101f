"""Which precision trains faster here, measured."""

import time
from dataclasses import replace

import numpy as np
import torch

from dayfold.learning import device, fitting, network
from dayfold.learning.device import Machine
from dayfold.learning.inputs import Images, Job, Pool
from dayfold.learning.network import Model
from dayfold.learning.parallel import ALONE
from dayfold.project import params as params_file
from dayfold.project.cpus import model_name
from dayfold.project.layout import Project
from dayfold.project.params import Origin, Params, Train

SPEEDUP = 1.15  # that bf16 must have over fp32: less is not worth fewer digits
MEASURED_SECONDS = 1.5  # of both precisions in turn, after the first update of each
LEAST_PAIRS = 2  # however long they take
CLASSES = ("a", "b")


class Bare:
    """A day's updates on one batch in memory: only the network's own time is left."""

    def __init__(self, model: Model, recipe: Train, machine: Machine) -> None:
        count, size = recipe.batch_size, recipe.image_size_px
        plain = recipe.model_copy(update={"ema_length": 0.0, "distill": 0.0})
        job = Job(model, None, plain, 0, "", machine)
        images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
        pool = Pool(images, torch.arange(count) % len(model.classes), [], [])
        self._rows, self._rate = np.arange(count), recipe.learning_rate
        self._batch = Images(job).eval_batch(pool, self._rows)
        self._on_cpu = machine.device == "cpu"
        self._training = fitting.Training(job, pool, Images(job), ALONE)

    def update(self) -> float:
        """Make an update; return its seconds, on a CPU the CPU time of its threads.

        Beside other work the wall time of two updates in a row differs up to twenty times, their
        CPU time 1.2 times.
        """
        clock = time.process_time if self._on_cpu else time.perf_counter
        began = clock()
        self._training.step(self._batch, self._rows, self._rate)
        return clock() - began


def choose(recipe: Train, origin: Origin) -> tuple[str, str]:
    """Return the faster precision at the recipe's image size, and why it was chosen.

    It is bf16 where bf16 is SPEEDUP times as fast as fp32 in three of four pairs of updates. A
    device that does not multiply in bf16 is not measured.
    """
    found = device.resolve(device=recipe.device, precision="auto", threads=recipe.threads)
    where = torch.cuda.get_device_name() if found.device == "cuda" else (model_name() or "this CPU")
    if found.precision == "fp32":
        return "fp32", f"{where} does not multiply in bf16"
    model = network.grown(network.random_origin(0, origin.network), CLASSES, 0)
    fp32, bf16 = (Bare(model, recipe, replace(found, precision=name)) for name in ("fp32", "bf16"))
    for bare in (fp32, bf16):
        bare.update()
    ratios: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < MEASURED_SECONDS or len(ratios) < LEAST_PAIRS:
        ratios.append(fp32.update() / bf16.update())
    speedup = sorted(ratios)[len(ratios) // 4]
    chosen = "bf16" if speedup >= SPEEDUP else "fp32"
    return chosen, f"bf16 is {speedup:.2f} times as fast at {recipe.image_size_px} px on {where}"


def pin(project: Project, params: Params) -> str:
    """Set train.precision in params.yaml to the faster one here; return it with the reason."""
    precision, why = choose(params.train, params.origin)
    comments = {"train.precision": f"auto, fp32, bf16; here: {why}"}
    params_file.edit(project.params, {"train.precision": precision}, comments=comments)
    return f"{precision} ({why})"
