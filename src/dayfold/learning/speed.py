"""How fast the network trains, and when it is slower."""

import json
import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
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
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Origin, Params, Train

PAYS = 1.15  # times as fast as fp32: less is not worth fewer digits
MEASURED_SECONDS = 1.0  # of each precision, after the first updates
CLASSES = ("a", "b")


class Bare:
    """A day's updates over one batch in memory: what is left is the network."""

    def __init__(self, model: Model, recipe: Train, machine: Machine) -> None:
        count, size = recipe.batch_size, recipe.image_size_px
        plain = recipe.model_copy(update={"ema_length": 0.0, "distill": 0.0})
        job = Job(model, None, plain, 0, "", machine)
        images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
        pool = Pool(images, torch.arange(count) % len(model.classes), [], [])
        self._rows, self._rate = np.arange(count), recipe.learning_rate
        self._batch = Images(job).plain(pool, self._rows)
        self._training = fitting.Training(job, pool, Images(job), ALONE)

    def updates(self, count: int) -> float:
        """Make `count` updates; return the images a second."""
        began = time.perf_counter()
        for _ in range(count):
            self._training.step(self._batch, self._rows, self._rate)
        return count * len(self._rows) / (time.perf_counter() - began)


def what_pays(recipe: Train, origin: Origin) -> tuple[str, str]:
    """Return the precision that trains the network faster here at the recipe's size, and why.

    bf16 where it is PAYS times as fast as fp32, by a measurement of some seconds; a device that
    does not multiply in bf16 is not measured.
    """
    found = device.resolve(device=recipe.device, precision="auto", threads=recipe.threads)
    where = torch.cuda.get_device_name() if found.device == "cuda" else (model_name() or "this CPU")
    if found.precision == "fp32":
        return "fp32", f"{where} does not multiply in bf16"
    model = network.grown(network.random_origin(0, origin.network), CLASSES, 0)
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
    precision, why = what_pays(params.train, params.origin)
    comments = {"train.precision": f"auto, fp32, bf16; here: {why}"}
    params_file.edit(project.params, {"train.precision": precision}, comments=comments)
    return f"{precision} ({why})"


WINDOW_SECONDS = 5.0  # over which a speed is measured
WINDOW_UPDATES = 3  # at least
WATCHED_SECONDS = 0.5  # for what else is at work
SLOW = 0.5  # of the usual speed
WARM_UP = 2  # updates that are not measured: kernels are chosen, memory is first asked for
# What a speed depends on: days that differ in it are not compared.
DEPENDS = {
    "recipe": ("image_size_px", "precision", "frozen_through", "distill"),
    "fingerprint": ("cpu", "device", "threads", "processes"),
}


def usual_speed(project: Project, day: str, facts: Mapping[str, Any]) -> tuple[float, str]:
    """Return the images a second of a sealed day's training, and the day; 0 if it was another kind.

    `facts` are what provenance.json says of today's training: recipe and fingerprint.
    """
    if day == ORIGIN:
        return 0.0, ""
    name = f"{vcs.TAG}{day}:{project.name(project.provenance)}"
    data = vcs.blobs(project.root, [name]).get(name)
    then = json.loads(data) if data else {}
    for part, keys in DEPENDS.items():
        if any(then.get(part, {}).get(key) != facts[part][key] for key in keys):
            return 0.0, ""
    return then["draws"]["all"] / max(then["seconds"]["train"], 0.1), day


class Pace:
    """Compares the speed of a training with its own first seconds, and with another day's.

    `usual` are that day's images a second, 0 where there is none to compare with; `day` its name.
    """

    def __init__(self, usual: float = 0.0, day: str = "") -> None:
        self._usual, self._of = usual, f"on {day}"
        self._updates, self._images, self._began = -WARM_UP, 0, time.monotonic()
        self._is_first, self._said = True, False

    def after(self, images: int) -> str:
        """Count an update of so many images; return what is to be said of it, once, or nothing."""
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
            f"{others(WATCHED_SECONDS)}"
        )

    def _begin(self) -> None:
        """Begin a window."""
        self._updates, self._images, self._began = 0, 0, time.monotonic()


def others(seconds: float) -> str:
    """Watch the processes for so long, and say which use the CPU besides this one."""
    before = _used_seconds()
    unused = idle(seconds)
    used: dict[str, float] = defaultdict(float)
    for key, after in _used_seconds().items():
        used[key[1]] += (after - before.get(key, 0.0)) / seconds
    most = sorted(used.items(), key=itemgetter(1), reverse=True)[:3]
    names = [f"{name} ({share:.1f})" for name, share in most if share >= 0.1]
    if names:
        spins = os.environ.get("OMP_WAIT_POLICY") != "PASSIVE"
        hint = ". Stopped and started again, it goes on with threads that give way" * spins
        return f"of {cpus()} CPUs, others use: {', '.join(names)}{hint}"
    if unused < 0.5:
        return "others use the CPUs, but their processes do not show here"
    return "no other process uses the CPUs: they may run hot, or throttled by a quota"


def _used_seconds() -> dict[tuple[int, str], float]:
    """The CPU seconds of every other process, by its id and name."""
    found = {}
    for process in psutil.process_iter(["name", "cpu_times"]):
        times = process.info["cpu_times"]
        if times and process.pid != os.getpid():
            found[process.pid, process.info["name"]] = times.user + times.system
    return found
