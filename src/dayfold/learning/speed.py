"""Speed: the faster precision, measured, and a warning when training is slow."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import torch

from dayfold.learning import device, fitting, network
from dayfold.learning.device import Machine
from dayfold.learning.inputs import Images, Job, Pool
from dayfold.learning.network import Model
from dayfold.learning.parallel import ALONE
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.cpus import cpus, idle, model_name
from dayfold.project.layout import Project
from dayfold.project.params import Origin, Params, Train

SPEEDUP = 1.15  # that bf16 must reach over fp32 to be worth fewer digits
MEASURED_SECONDS = 1.5  # for both precisions in turn, after the first update of each
LEAST_PAIRS = 2  # measured at least
CLASSES = ("a", "b")

WINDOW_SECONDS = 5.0  # over which a speed is measured
WINDOW_UPDATES = 3  # at least
WATCHED_SECONDS = 0.5  # how long other processes are watched
SLOW = 0.5  # part of the usual speed
WARM_UP = 2  # updates that are not measured, as kernels are chosen and memory is allocated
# The speed depends on these: days that differ in one of them are not compared.
DEPENDS = {
    "recipe": ("image_size_px", "precision", "frozen_through", "distill"),
    "fingerprint": ("cpu", "device", "threads", "processes"),
}


class BareTraining:
    """A day's updates on one batch in memory, to time the network alone."""

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

        Beside other work the wall time of two updates in a row differs by up to twenty times, their
        CPU time by 1.2 times.
        """
        clock = time.process_time if self._on_cpu else time.perf_counter
        began = clock()
        self._training.step(self._batch, self._rows, self._rate)
        return clock() - began


def choose_precision(recipe: Train, origin: Origin) -> tuple[str, str]:
    """Return the faster precision at the recipe's image size, and why it was chosen.

    It is bf16 where bf16 is SPEEDUP times as fast as fp32 in three of four pairs of updates. A
    device that does not multiply in bf16 is not measured.
    """
    found = device.resolve(device=recipe.device, precision="auto", threads=recipe.threads)
    where = torch.cuda.get_device_name() if found.device == "cuda" else (model_name() or "this CPU")
    if found.precision == "fp32":
        return "fp32", f"{where} does not multiply in bf16"
    model = network.grown(network.random_origin(0, origin.network), CLASSES, 0)
    fp32, bf16 = (
        BareTraining(model, recipe, replace(found, precision=name)) for name in ("fp32", "bf16")
    )
    for bare in (fp32, bf16):
        bare.update()
    ratios: list[float] = []
    began = time.monotonic()
    while time.monotonic() - began < MEASURED_SECONDS or len(ratios) < LEAST_PAIRS:
        ratios.append(fp32.update() / bf16.update())
    speedup = sorted(ratios)[len(ratios) // 4]
    chosen = "bf16" if speedup >= SPEEDUP else "fp32"
    return chosen, f"bf16 is {speedup:.2f} times as fast at {recipe.image_size_px} px on {where}"


def pin_precision(project: Project, params: Params) -> str:
    """Set train.precision in params.yaml to the faster one here; return it and the reason."""
    precision, why = choose_precision(params.train, params.origin)
    comments = {"train.precision": f"auto, fp32, bf16; here: {why}"}
    params_file.edit(project.params, {"train.precision": precision}, comments=comments)
    return f"{precision} ({why})"


def usual_speed(project: Project, day: str, facts: Mapping[str, Any]) -> tuple[float, str]:
    """Return the images a second of a sealed day's training, and that day.

    Returns 0 and "" if its recipe or machine was different; `facts` has today's `recipe` and
    `fingerprint`, as in provenance.json.
    """
    name = project.name(project.provenance)
    then = json.loads(vcs.at_tags(project.root, [day], lambda _: [name])[day].get(name, b"{}"))
    for part, keys in DEPENDS.items():
        if any(then.get(part, {}).get(key) != facts[part][key] for key in keys):
            return 0.0, ""
    return then["draws"]["all"] / max(then["seconds"]["train"], 0.1), day


class SpeedMonitor:
    """Compares a training's speed with that of its first seconds, and with another day's.

    `usual` is the other `day`'s speed in images a second, or 0.
    """

    def __init__(self, usual: float = 0.0, day: str = "") -> None:
        self._usual, self._of = usual, f"on {day}"
        self._updates, self._images, self._began = -WARM_UP, 0, time.monotonic()
        self._is_first, self._said = True, False

    def update(self, images: int) -> str:
        """Count an update of `images` images; return the warning, once, or ""."""
        self._updates += 1
        self._images += images
        seconds = time.monotonic() - self._began
        if self._updates == 0:
            self._begin()
        if seconds < WINDOW_SECONDS or self._updates < WINDOW_UPDATES or self._said:
            return ""
        speed = self._images / seconds
        if self._is_first and speed > self._usual:
            self._usual, self._of = speed, "at its start"
        self._is_first = False
        self._begin()
        if speed >= SLOW * self._usual:
            return ""
        self._said = True
        return (
            f"slow: {speed:.3g} images a second, {self._usual:.3g} {self._of}; "
            f"{busy_processes(WATCHED_SECONDS)}"
        )

    def _begin(self) -> None:
        self._updates, self._images, self._began = 0, 0, time.monotonic()


def busy_processes(seconds: float) -> str:
    """Watch all processes for some seconds; return a text on which others use the CPU."""
    list(psutil.process_iter(["cpu_percent"]))  # the first call starts the measurement
    unused, used = idle(seconds), Counter[str]()
    for process in psutil.process_iter(["name", "cpu_percent"]):
        if process.pid != os.getpid():
            used[process.info["name"]] += process.info["cpu_percent"] or 0
    most = [(name, percent / 100) for name, percent in used.most_common(3) if percent >= 10]
    names = ", ".join(f"{name} ({count:.1f})" for name, count in most) or "none visible here"
    spins = most and os.environ.get("OMP_WAIT_POLICY") != "PASSIVE"
    hint = ". After a restart its waiting threads will not spin" * bool(spins)
    return f"of {cpus()} CPUs, others use: {names}; idle are {unused:.1f}{hint}"
