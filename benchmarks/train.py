"""How near a day's training comes to what the network alone could do, and what it takes of memory.

    python benchmarks/train.py [--size 224] [--images 600] [--rounds 3]
    python benchmarks/train.py --memory [--images 51000]
    python benchmarks/train.py --beside [--size 32] [--rounds 5]

Writes that many scans of 512 px as PNG and JPEG files into the day of a new project, and times the
train stage, from the files to the model, in turn with a bare loop of the same updates over one
batch in memory. Then frozen depth: the train stage by `train.frozen_through`, on the day that makes
the activations and on one that finds them.

With --memory: files of 224 px, of which nearly all train; 50,000 are 7.5 GB of pixels. Ten times a
second it looks at a stage's own memory. Pages of files the system takes back as soon as it needs
room: to see that it does, give the script's processes 4 GiB in all (a cgroup's memory.max).

With --beside: the bare loop alone, beside busy processes and beside another training, each in a
process of its own, as a stage is. From run to run two trainings fall into a fast or a slow state,
so the worst of the rounds is printed too.
"""

import contextlib
import io
import json
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from statistics import harmonic_mean, mean, median
from subprocess import Popen
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from measuring import command_line, finish, start
from PIL import Image

from builders import DAYS, ROOT, make_project, open_day, run_stages
from dayfold import create
from dayfold.learning import device, network
from dayfold.learning.inputs import DEPTHS
from dayfold.learning.speed import BareTraining, pin_precision
from dayfold.project import params as params_file
from dayfold.project.cpus import cpus
from dayfold.project.layout import ORIGIN, Project
from dayfold.project.params import Params, Train
from dayfold.stages import replay, snapshot, train, weights

RULE = "|" + " --- |" * 5
PASSES = 6  # over the day's images
BESIDE_SECONDS, STARTING_SECONDS = 5, 8  # of a loop; until another process trains


def write_scans(
    folder: Path, count: int, *, side: int = 512, endings: Sequence[str] = (".png", ".jpg")
) -> None:
    """Write `count` different scans (smooth, with noise) into four classes."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side
    for number in range(count):
        waves = 90 + 60 * np.sin((6 + number % 4) * x + number) * np.cos(5 * y + number / 7)
        grey = np.clip(waves[..., None] + draw.normal(0, 3, (side, side, 3)), 0, 255)
        ending = endings[number // 4 % len(endings)]
        path = folder / f"class-{number % 4}" / f"{number:05}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(np.uint8)).save(path, quality=90, compress_level=6)


def opened(root: Path, size: int, images: int, *, side: int = 512, **changes: object) -> Project:
    """A project without git and DVC, with its first day's images in place."""
    usual = {"origin__weights": "random", "train__image_size_px": size, "train__threads": cpus()}
    project = make_project(root, **usual, **changes)
    params = params_file.read(project.params)
    create.make_origin(project, params)
    pin_precision(project, params)
    open_day(project, DAYS[0])
    write_scans(project.images(DAYS[0]), images, side=side)
    return project


def run_here() -> None:
    """Run the stages of the command line; print the most memory, in MiB: the GPU's, the process's.

    For processes of their own, as stages are: `python -c "import train; train.run_here()" …`.
    """
    stages = (import_module(f"dayfold.stages.{name}") for name in sys.argv[2:])
    run_stages(Project(Path(sys.argv[1])), *stages)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps([torch.cuda.max_memory_allocated() >> 20, own]))


def start_stages(project: Project, *names: str, **more: str) -> "Popen[str]":
    """Start stages in a process of their own, with `more` in its environment."""
    code = "import train; train.run_here()"
    words = (sys.executable, "-c", code, project.root, *names)
    return start(*words, root=Path(__file__).parent, **more)


def timed_training(project: Project, params: Params) -> tuple[float, float, float]:
    """The images a second of the train stage and of its updates; the seconds of all after these."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        train.run(project, params)
    seconds = time.perf_counter() - began
    spent = json.loads(project.provenance.read_bytes())["seconds"]
    images = params.train.updates * params.train.batch_size
    rest = seconds - spent["decode"] - spent["train"]
    return images / seconds, images / max(spent["train"], 0.1), rest


def speed(bare: BareTraining, recipe: Train, updates: int) -> float:
    """Make `updates` of the bare loop; the images a second."""
    began = time.perf_counter()
    for _ in range(updates):
        bare.update()
    return updates * recipe.batch_size / (time.perf_counter() - began)


def side_by_side(project: Project, params: Params, rounds: int) -> tuple[float, float, float]:
    """Print a table of rounds; the medians of its first, third and fourth column."""
    recipe, updates = params.train, params.train.updates
    timed_training(project, params)  # the first one loads what the others find loaded
    machine = device.resolve(
        device=recipe.device, precision=recipe.precision, threads=recipe.threads
    )
    bare = BareTraining(network.load(project.model), recipe, machine)
    speed(bare, recipe, 5)
    print("| bare loop, img/s | train stage, img/s | ratio | of its updates | after them, s |")
    print(RULE)
    found = []
    for _ in range(rounds):
        # Half of the bare updates before and half after: a machine that slows down slows both.
        first = speed(bare, recipe, max(1, updates // 2))
        stage, loop, rest = timed_training(project, params)
        alone = harmonic_mean([first, speed(bare, recipe, max(1, updates // 2))])
        found.append((alone, stage / alone, loop / alone))
        print(f"| {alone:.1f} | {stage:.1f} | {stage / alone:.3f} | {loop / alone:.3f} |", end="")
        print(f" {rest:.1f} |", flush=True)
    alone, ratio, loop = map(median, zip(*found, strict=True))
    return alone, ratio, loop


def frozen_depth(project: Project, params: Params) -> None:
    """Print the train stage's speed by frozen depth: activations made, and found."""
    # A random origin is never frozen: the model that was just trained is the origin now.
    model = network.load(project.model)
    network.save(project.parent_model, model.state, {**model.metadata, "day": ORIGIN})
    print("| frozen through | made, img/s | found, img/s | against none | MB an image |")
    print(RULE)
    whole = 0.0
    for depth in ("none", *DEPTHS):
        own = params_file.with_changes(params, {"train.frozen_through": depth})
        made, found = (timed_training(project, own)[0] for _ in range(2))
        whole = whole or found
        sizes = [path.stat().st_size for path in project.activations.glob("*/*")]
        kept = mean(sizes) / 1e6 if sizes else 0.0
        print(f"| {depth} | {made:.1f} | {found:.1f} | {found / whole:.2f} | {kept:.1f} |")
        shutil.rmtree(project.activations, ignore_errors=True)


def bare_loop(size: int, seconds: int) -> None:
    """Make updates for so long, as a new process would; print the images a second."""
    recipe = params_file.read(ROOT / "params.yaml").train
    recipe = recipe.model_copy(update={"image_size_px": size, "threads": cpus()})
    machine = device.resolve(device="cpu", precision="auto", threads=recipe.threads)
    bare = BareTraining(network.grown(network.random_origin(0), "ab", 0), recipe, machine)
    speed(bare, recipe, 2)
    speeds, began = [], time.monotonic()
    while time.monotonic() - began < seconds:
        speeds.append(speed(bare, recipe, 1))
    print(harmonic_mean(speeds))


def beside(size: int, rounds: int) -> None:
    """Print the images a second by what else is at work."""

    def started(code: str) -> "Popen[str]":
        return start(sys.executable, "-c", code, root=Path(__file__).parent)

    loop = f"import train; train.bare_loop({size}, %s)"
    found: dict[str, list[float]] = {"alone": [], "busy": [], "training": []}
    for _ in range(rounds):
        for load, speeds in found.items():
            others = []
            if load == "busy":
                others = [started("while True: pass") for _ in range(cpus())]
            elif load == "training":
                others = [started(loop % 600)]
                time.sleep(STARTING_SECONDS)
            speeds.append(float(finish(started(loop % BESIDE_SECONDS))))
            for other in others:
                other.kill()
                other.communicate()
    for load, speeds in found.items():
        print(f"{size} px, {load}: {median(speeds):.4g}, at worst {min(speeds):.4g}")


def memory(root: Path, size: int, images: int) -> None:
    """Print how long each stage takes, and how much memory of its own it has at most (Linux)."""
    few = {f"data__split__{split}": 0.01 for split in ("validation", "test")}
    project = opened(root, size, images, side=size, train__updates=20, **few)
    for stage in ("snapshot", "weights", "replay", "train"):
        process, most, began = start_stages(project, stage), 0, time.perf_counter()
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                now = psutil.Process(process.pid).memory_info()
                most = max(most, now.rss - now.shared)
            time.sleep(0.1)
        finish(process)
        print(f"{stage}: {time.perf_counter() - began:.0f} s, {most / 2**30:.2f} GiB", flush=True)


def main() -> None:
    options = command_line(__doc__, size=224, images=0, rounds=3, memory=False, beside=False)
    with TemporaryDirectory() as name:
        if options.beside:
            beside(options.size, options.rounds)
        elif options.memory:
            memory(Path(name), options.size, options.images or 51000)
        else:
            images = options.images or 600
            updates = PASSES * round(images * 0.7 / 32)
            project = opened(Path(name), options.size, images, train__updates=updates)
            run_stages(project, snapshot, weights, replay)
            params = params_file.read(project.params)
            side_by_side(project, params, options.rounds)
            frozen_depth(project, params)


if __name__ == "__main__":
    main()
