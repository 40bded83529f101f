"""A warning when training is slow."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import psutil

from dayfold.project import vcs
from dayfold.project.cpus import cpus, idle
from dayfold.project.layout import Project

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


def usual_speed(project: Project, day: str, facts: Mapping[str, Any]) -> tuple[float, str]:
    """Return the images a second of a sealed day's training, and that day.

    0 and "" where its recipe or machine was another one; `facts` has today's `recipe` and
    `fingerprint`, as in provenance.json.
    """
    name = project.name(project.provenance)
    then = json.loads(vcs.at_tags(project.root, [day], lambda _: [name])[day].get(name, b"{}"))
    for part, keys in DEPENDS.items():
        if any(then.get(part, {}).get(key) != facts[part][key] for key in keys):
            return 0.0, ""
    return then["draws"]["all"] / max(then["seconds"]["train"], 0.1), day


class SpeedMonitor:
    """Compare a training's speed with that of its first seconds, and with another day's.

    `usual` is the other `day`'s speed in images a second, or 0.
    """

    def __init__(self, usual: float = 0.0, day: str = "") -> None:
        self._usual, self._of = usual, f"on {day}"
        self._updates, self._images, self._began = -WARM_UP, 0, time.monotonic()
        self._is_first, self._said = True, False

    def update(self, images: int) -> str:
        """Count an update of so many images; return the warning, once, or ""."""
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
        self._updates, self._images, self._began = 0, 0, time.monotonic()


def others(seconds: float) -> str:
    """Watch all processes for so long, and say which others use the CPU."""
    list(psutil.process_iter(["cpu_percent"]))  # the first call starts the measurement
    unused, used = idle(seconds), Counter[str]()
    for process in psutil.process_iter(["name", "cpu_percent"]):
        if process.pid != os.getpid():
            used[process.info["name"]] += process.info["cpu_percent"] or 0
    most = used.most_common(3)
    names = [f"{name} ({percent / 100:.1f})" for name, percent in most if percent >= 10]
    if names:
        spins = os.environ.get("OMP_WAIT_POLICY") != "PASSIVE"
        hint = ". Stopped and started again, it goes on with threads that give way" * spins
        return f"of {cpus()} CPUs, others use: {', '.join(names)}{hint}"
    if unused < 0.5:
        return "others use the CPUs, but their processes do not show here"
    return "no other process uses the CPUs: they may run hot, or throttled by a quota"
