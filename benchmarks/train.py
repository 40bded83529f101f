"""How near a day's training comes to what the network alone could do, and what it takes of memory.

    python benchmarks/train.py [--size 224] [--images 600] [--rounds 3]
    python benchmarks/train.py --memory [--images 51000]
    python benchmarks/train.py --beside [--size 32] [--rounds 5]

Writes that many scans of 512 px as PNG and JPEG files into the day of a new project, and times the
train stage: from the files to the model. Beside it, in turn, so that what else the machine does
falls on both: a bare loop of the same updates over one batch that is already in memory. Then frozen
depth: the train stage by `train.frozen_through`, on the day that makes the activations and on one
that finds them.

With --memory: JPEG files of 224 px, of which nearly all train; 50,000 are 7.5 GB of pixels. Ten
times a second it looks at what the train stage has: its own memory, which nothing else can use, and
pages of files, which the system takes back as soon as it needs room (Linux, /proc). To see that it
does, give the script's processes 4 GiB in all: a cgroup's memory.max.

With --beside: the bare loop alone, beside busy processes and beside another training, each in a
process of its own, as a stage is; GOMP_SPINCOUNT or OMP_WAIT_POLICY in the environment are other
ways to wait than dayfold's. From run to run two trainings fall into a fast or a slow state, so the
worst of the rounds counts.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from dayfold import create
from dayfold.learning import device, network
from dayfold.learning.inputs import DEPTHS
from dayfold.learning.speed import BareTraining, pin_precision
from dayfold.project import params as params_file
from dayfold.project.cpus import cpus
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params, Train
from dayfold.stages import train

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from builders import DAYS, make_project, open_day

GOALS = {224: 0.95, 32: 0.90}
PASSES = 6  # over the day's images
LIMIT = 4.0  # GiB
FIELDS = ("RssAnon", "RssFile", "VmHWM")
LOADS = ("alone", "busy", "training")
BESIDE_SECONDS, STARTING_SECONDS = 5, 8  # of a loop; until another process trains
LEAST_BESIDE = 0.4  # of the speed alone


def write_scans(
    folder: Path, count: int, *, side: int = 512, endings: tuple[str, ...] = (".png", ".jpg")
) -> int:
    """Write `count` different scans (smooth, with noise) into four classes; return their bytes."""
    draw, total = np.random.default_rng(0), 0
    y, x = np.mgrid[:side, :side] / side
    for number in range(count):
        waves = 90 + 60 * np.sin((6 + number % 4) * x + number) * np.cos(5 * y + number / 7)
        grey = np.clip(waves[..., None] + draw.normal(0, 3, (side, side, 3)), 0, 255)
        ending = endings[number // 4 % len(endings)]
        path = folder / f"class-{number % 4}" / f"{number:05}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(np.uint8)).save(path, quality=90, compress_level=6)
        total += path.stat().st_size
    return total


def planned(
    root: Path, size: int, images: int, *, side: int = 512, **changes: object
) -> tuple[Project, Params]:
    """A project without git and DVC, its first day's images in place and the train stage next."""
    whole = {"origin__weights": "random", "train__image_size_px": size, "train__threads": cpus()}
    project = make_project(root, **(whole | changes))
    params = params_file.read(project.params)
    create.make_origin(project, params)
    if "train__precision" not in changes:
        pin_precision(project, params)
    open_day(project, DAYS[0])
    write_scans(project.images(DAYS[0]), images, side=side)
    with contextlib.redirect_stdout(io.StringIO()):
        run_stages(project, ("snapshot", "weights", "replay"))
    return project, params_file.read(project.params)


def run_stages(project: Project, names: tuple[str, ...]) -> dict[str, float]:
    """Run stages as `dvc repro` does, in one process; the seconds of each, with its imports."""
    seconds = {}
    for name in names:
        began = time.perf_counter()
        import_module(f"dayfold.stages.{name}").run(project, params_file.read(project.params))
        seconds[name] = round(time.perf_counter() - began, 2)
    return seconds


def timed_training(project: Project, params: Params) -> tuple[float, dict[str, float]]:
    """The images a second of the train stage, all of it; and where its seconds went."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        train.run(project, params)
    seconds = time.perf_counter() - began
    spent = json.loads(project.provenance.read_bytes())["seconds"]
    images = params.train.updates * params.train.batch_size
    return images / seconds, {**spent, "rest": seconds - spent["decode"] - spent["train"]}


def speed(bare: BareTraining, recipe: Train, updates: int) -> float:
    """Make `updates` of the bare loop; the images a second."""
    began = time.perf_counter()
    for _ in range(updates):
        bare.update()
    return updates * recipe.batch_size / (time.perf_counter() - began)


def side_by_side(project: Project, params: Params, rounds: int) -> tuple[float, float, float]:
    """Print a table of rounds; their medians.

    These are the bare loop's images a second, and what part of it the whole stage makes, and what
    part its updates with the validation alone.
    """
    recipe, updates = params.train, params.train.updates
    timed_training(project, params)  # the first one loads what the others find loaded
    machine = device.resolve(
        device=recipe.device, precision=recipe.precision, threads=recipe.threads
    )
    bare = BareTraining(network.load(project.model), recipe, machine)
    speed(bare, recipe, 5)
    print(
        "| round | bare loop, img/s | train stage, img/s | ratio | decoding, s | updates and "
        "validation, s | rest, s |\n|" + " --- |" * 7
    )
    found = []
    for number in range(1, rounds + 1):
        # Half of the bare updates before and half after: a machine that slows down slows both.
        first = speed(bare, recipe, max(1, updates // 2))
        stage, spent = timed_training(project, params)
        then = speed(bare, recipe, max(1, updates // 2))
        alone = statistics.harmonic_mean([first, then])
        loop = updates * recipe.batch_size / max(spent["train"], 0.1) / alone
        found.append((alone, stage / alone, loop))
        shown = " | ".join(f"{spent[part]:.1f}" for part in ("decode", "train", "rest"))
        print(f"| {number} | {alone:.1f} | {stage:.1f} | {stage / alone:.3f} | {shown} |")
    alone, ratio, loop = map(statistics.median, zip(*found, strict=True))
    return alone, ratio, loop


def frozen_depth(project: Project, params: Params) -> None:
    """Print the train stage's speed by frozen depth: activations made, and found."""
    # A random origin is never frozen: the model that was just trained is the origin now.
    model = network.load(project.model)
    network.save(project.parent_model, model.state, {**model.metadata, "day": ORIGIN})
    print("| frozen through | made, img/s | found, img/s | against none | kept, MB an image |")
    print("|" + " --- |" * 5)
    whole = 0.0
    for depth in ("none", *DEPTHS):
        own = params_file.with_changes(params, {"train.frozen_through": depth})
        first, then = (timed_training(project, own)[0] for _ in range(2))
        whole = whole or then
        sizes = [path.stat().st_size for path in project.activations.glob("*/*")]
        kept = f"{statistics.mean(sizes) / 1e6:.2f}" if sizes else "-"
        print(f"| {depth} | {first:.1f} | {then:.1f} | {then / whole:.2f} | {kept} |", flush=True)
        shutil.rmtree(project.activations, ignore_errors=True)


def memory(project: Project) -> bool:
    """Print the most that the train stage had of each of FIELDS; whether it kept to LIMIT."""
    peaks = dict.fromkeys(FIELDS, 0.0)
    with subprocess.Popen((sys.executable, __file__, "--stages", project.root)) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            for line in status.read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) / 2**20)
            time.sleep(0.1)
    for name, most in peaks.items():
        print(f"{name}: {most:.2f} GiB at most")
    return not process.returncode and peaks["RssAnon"] < LIMIT


def bare_loop(size: int, seconds: int) -> None:
    """Make updates for so long, as a new process would; print the images a second."""
    recipe = params_file.read(Path(__file__).parents[1] / "params.yaml").train
    recipe = recipe.model_copy(update={"image_size_px": size, "threads": cpus()})
    machine = device.resolve(device="cpu", precision="auto", threads=recipe.threads)
    bare = BareTraining(network.grown(network.random_origin(0), "ab", 0), recipe, machine)
    speed(bare, recipe, 2)
    speeds, began = [], time.monotonic()
    while time.monotonic() - began < seconds:
        speeds.append(speed(bare, recipe, 1))
    print(statistics.harmonic_mean(speeds))


def beside(size: int, rounds: int) -> bool:
    """Print the images a second by what else is at work; whether the worst is LEAST_BESIDE."""

    def started(*words: object) -> "subprocess.Popen[str]":
        command = [sys.executable, *map(str, words)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    found: dict[str, list[float]] = {load: [] for load in LOADS}
    for _ in range(rounds):
        for load in LOADS:
            others = [started("-c", "while True: pass") for _ in range(cpus() * (load == "busy"))]
            if load == "training":
                others = [started(__file__, "--size", size, "--loop", 600)]
                time.sleep(STARTING_SECONDS)
            said, _ = started(__file__, "--size", size, "--loop", BESIDE_SECONDS).communicate()
            found[load].append(float(said))
            for other in others:
                other.kill()
                other.communicate()
    for load, speeds in found.items():
        print(f"{size} px, {load}: {statistics.median(speeds):.4g}, at worst {min(speeds):.4g}")
    worst = min(min(found[load]) for load in LOADS[1:])
    return worst >= LEAST_BESIDE * statistics.median(found["alone"])


def main() -> None:
    """Make the project in a temporary folder, and print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--beside", action="store_true")
    parser.add_argument("--loop", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--stages", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.loop:
        bare_loop(options.size, options.loop)
        return
    if options.beside:
        met = beside(options.size, options.rounds)
        print(f"{'met   ' if met else 'MISSED'} >= {LEAST_BESIDE} of the speed alone")
        return
    if options.stages:
        run_stages(Project(options.stages), ("train",))
        return
    images, size = options.images or (51000 if options.memory else 600), options.size
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "project"
        if options.memory:
            few = {f"data__split__{split}": 0.01 for split in ("validation", "test")}
            project, _ = planned(root, size, images, side=size, train__updates=20, **few)
            met = memory(project)
            print(f"{'met   ' if met else 'MISSED'} its own memory < {LIMIT:g} GiB")
            return
        updates = PASSES * round(images * 0.7 / 32)
        project, params = planned(root, size, images, train__updates=updates)
        print(
            f"{images} files, {updates} updates of {params.train.batch_size} at {size} px, "
            f"{params.train.threads} threads, {os.cpu_count()} CPUs",
            flush=True,
        )
        _, ratio, _ = side_by_side(project, params, options.rounds)
        if goal := GOALS.get(size):
            print(f"{'met   ' if ratio >= goal else 'MISSED'} ratio: {ratio:.3f} (>= {goal})")
        frozen_depth(project, params)


if __name__ == "__main__":
    main()
