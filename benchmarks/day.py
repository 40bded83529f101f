"""Where an evening's time and memory go: a day of 200 images as the tenth of a project.

    python benchmarks/day.py [--days 10] [--images 200]

Makes the project with the real commands, then looks on at `dayfold run` of its last day: every
Python process tells when it started, what it spent on imports and what it took in memory, git
tells of itself (its trace2). Prints two tables: the seconds by cause, which add up to the whole,
and each stage's seconds, CPU seconds and peak memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from dayfold.project import params as params_file
from dayfold.project.layout import Project

GOAL_SECONDS = 12.0  # of everything around training and predicting
LEARNING = ("train", "evaluate")
STAGES = ("snapshot", "weights", "replay", *LEARNING, "curve")
# Python runs a module of this name first of all, in every process that finds it.
WITNESS = "sitecustomize.py"
TESTIMONY = """
import atexit, builtins, json, os, resource, sys, time

began, depth, imports = time.time(), 0, 0.0
found = builtins.__import__


def timed(*words, **options):
    global depth, imports
    depth += 1
    start = time.perf_counter()
    try:
        return found(*words, **options)
    finally:
        depth -= 1
        if not depth:
            imports += time.perf_counter() - start


def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    ticks = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19])
    alive = float(open("/proc/uptime").read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    facts = {
        "process": os.getpid(),
        "parent": os.getppid(),
        "words": sys.orig_argv[1:],
        "wall": alive,
        "start": alive - (time.time() - began),
        "imports": imports,
        "cpu": used.ru_utime + used.ru_stime,
        "peak": used.ru_maxrss,
    }
    with open(os.path.join(os.environ["TESTIMONIES"], str(os.getpid())), "w") as file:
        json.dump(facts, file)


builtins.__import__ = timed
atexit.register(tell)
"""


@dataclass(frozen=True)
class Process:
    """A Python process that ended: seconds, and kibibytes at the peak."""

    process: int
    parent: int
    words: list[str]
    wall: float
    start: float
    imports: float
    cpu: float
    peak: int

    @property
    def name(self) -> str:
        """`dvc`, or what `dayfold` was asked to do."""
        if self.words[:2] == ["-m", "dvc"]:
            return "dvc"
        return self.words[1] if Path(self.words[0]).name == "dayfold" else self.words[0]


def write_day(folder: Path, first: int, count: int) -> None:
    """Write `count` digits as PNG files, from the `first` on; each time around moved by a pixel."""
    digits = load_digits()
    for number in range(first, first + count):
        turn, position = divmod(number, len(digits.target))
        pixels = np.roll(digits.images[position] * (255 / 16), turn, axis=1).astype(np.uint8)
        path = folder / str(digits.target[position]) / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((32, 32)).save(path)


def run(folder: Path, *words: str, **environment: str) -> float:
    """Run a dayfold command, and show what it says only if it fails; its seconds."""
    began = time.perf_counter()
    done = subprocess.run(
        [Path(sys.executable).with_name("dayfold"), *words],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout)
    return time.perf_counter() - began


def watched(folder: Path, notes: Path, *words: str) -> tuple[float, list[Process], float]:
    """Run a command: its seconds, its Python processes, the seconds of git, how many gits."""
    for name in ("python", "git", "site"):
        (notes / name).mkdir(parents=True)
    (notes / "site" / WITNESS).write_text(TESTIMONY)
    paths = (str(notes / "site"), os.environ.get("PYTHONPATH", ""))
    seconds = run(
        folder,
        *words,
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
        TESTIMONIES=str(notes / "python"),
        GIT_TRACE2_EVENT=str(notes / "git"),
    )
    told = [Process(**json.loads(path.read_text())) for path in (notes / "python").iterdir()]
    events = [json.loads(line) for path in (notes / "git").iterdir() for line in path.open()]
    # A git that another git started is in that one's time.
    return (
        seconds,
        told,
        sum(
            event["t_abs"]
            for event in events
            if event["event"] == "atexit" and "/" not in event["sid"]
        ),
    )


def by_cause(told: Iterable[Process], git: float) -> dict[str, float]:
    """Return the seconds of each cause; they add up to those of the first process."""
    told = list(told)
    children: Mapping[int, float] = defaultdict(float)
    for one in told:
        children[one.parent] += one.wall  # type: ignore[index]
    causes: dict[str, float] = defaultdict(float)
    for one in told:
        who = one.name if one.name in (*STAGES, "dvc") else "dayfold run"
        kind = "torch" if who in LEARNING else "DVC" if who == "dvc" else "dayfold"
        causes["Python's start"] += one.start
        causes[f"imports: {kind}"] += one.imports
        own = one.wall - one.start - one.imports - children[one.process]
        causes[f"work: {'DVC' if who == 'dvc' else who}"] += own
    causes["git"] = git
    causes["work: dayfold run"] -= git
    return dict(causes)


def main() -> None:
    """Make the project in a temporary folder, watch its last day, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--days", type=int, default=10)
    parser.add_argument("--images", type=int, default=200)
    options = parser.parse_args()
    days = [(date(2025, 6, 2) + timedelta(days=n)).isoformat() for n in range(options.days)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, day in enumerate(days):
            write_day(folder / "in" / day, number * options.images, options.images)
        run(folder, "init", "scans", "--weights", "random", "--image-size", "32")
        project = Project(folder / "scans")
        few = {"train.epochs": 1, "train.updates_per_epoch": 20}
        ungated = {f"gate.{limit}": None for limit in params_file.Gate.model_fields}
        params_file.edit(project.params, {**few, **ungated})
        for day in days[:-1]:
            run(project.root, "run", f"../in/{day}", "--day", day)
        seconds, told, git = watched(
            project.root, folder / "notes", "run", f"../in/{days[-1]}", "--day", days[-1]
        )
    causes = by_cause(told, git)
    count = sum(one.name == "dvc" for one in told)
    print(f"day {options.days} of {options.images} images, {count} DVC processes")
    print("| cause | seconds |\n| --- | --- |")
    for cause, value in sorted(causes.items(), key=lambda item: -item[1]):
        print(f"| {cause} | {value:.2f} |")
    print(f"| together | {sum(causes.values()):.2f} |\n| by the clock | {seconds:.2f} |")
    around = sum(causes.values()) - sum(causes[f"work: {stage}"] for stage in LEARNING)
    met = "met   " if around < GOAL_SECONDS else "MISSED"
    print(f"{met} around training and predicting: {around:.1f} s (< {GOAL_SECONDS:g} s)")
    print("\n| stage | seconds | of them imports | CPU seconds | peak MB |")
    print("| --- | --- | --- | --- | --- |")
    for one in sorted(told, key=lambda one: (*STAGES, one.name).index(one.name)):
        cells = [f"{value:.2f}" for value in (one.wall, one.imports, one.cpu)]
        print(f"| {one.name} | {' | '.join(cells)} | {one.peak / 1024:.0f} |")


if __name__ == "__main__":
    main()
