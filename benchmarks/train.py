"""How near a day's training comes to what the network alone could do, and what makes it fast.

    python benchmarks/train.py [--size 224] [--images 600] [--epochs 6] [--rounds 3]

Cuts that many pieces of 512 x 512 px out of scikit-learn's two photographs, writes them as JPEG
and PNG files, adds them to a new project, and times the train stage: from the files to the model.
Beside it, in turn, so that what else the machine does falls on both: a bare loop of the same
updates over one batch that is already in memory. Then frozen depth: the train stage by
`train.frozen_through`, on the day that makes the activations and on one that finds them. Then the
arithmetic: the bare loop by precision and memory format, and what torch.compile takes to start and
gains.
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
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from dayfold.learning import device, fitting, network, pixels
from dayfold.learning.activations import DEPTHS
from dayfold.learning.device import Machine
from dayfold.learning.network import Model
from dayfold.project import params as params_file
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project
from dayfold.project.params import Params
from dayfold.stages import train

DAY = "2025-06-02"
SIDE = 512
GOALS = {224: 0.95, 32: 0.90}
UPDATES = 20  # of a bare loop in the table of arithmetic


def write_photographs(folder: Path, count: int) -> None:
    """Write `count` pieces of two photographs, of four classes, every other one a PNG."""
    draw = np.random.default_rng(0)
    photographs = [Image.fromarray(one).resize((1280, 854)) for one in load_sample_images().images]
    for number in range(count):
        photograph = photographs[number % 2]
        left, top = (int(draw.integers(0, most - SIDE)) for most in photograph.size)
        half = "left" if left < (1280 - SIDE) // 2 else "right"
        piece = photograph.crop((left, top, left + SIDE, top + SIDE))
        ending = (".jpg", ".png")[number // 2 % 2]
        path = folder / f"{('temple', 'flower')[number % 2]} {half}" / f"{number:05}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        piece.save(path, quality=90)


def make_project(root: Path, images: int, size: int, epochs: int) -> tuple[Project, Params]:
    """A project whose day is planned: everything before the train stage is done."""

    def dayfold(*words: str) -> None:
        command = Path(sys.executable).with_name("dayfold")
        subprocess.run([command, *words], cwd=root, check=True, stdout=subprocess.DEVNULL)

    write_photographs(root / "in", images)
    with contextlib.chdir(root):
        dayfold("init", "project", "--weights", "random", "--image-size", str(size))
    project = Project(root / "project")
    root = project.root
    updates = round(images * 0.7 / 32)
    params_file.edit(project.params, {"train.epochs": epochs, "train.updates_per_epoch": updates})
    for words in (
        ("add", "../in", "--day", DAY, "--yes"),
        ("snapshot",),
        ("weights",),
        ("replay",),
    ):
        dayfold(*words)
    return project, params_file.read(project.params)


class Bare:
    """Updates over one batch in memory: what is left is the network."""

    def __init__(self, model: Model, params: Params, machine: Machine, **how: bool) -> None:
        recipe = params.train
        self.machine, self._batch_size = machine, recipe.batch_size
        self._net = network.build(model, recipe.image_size_px).to(machine.device)
        images = torch.randint(0, 256, (recipe.batch_size, 3, *[recipe.image_size_px] * 2))
        self._batch = pixels.normalised(images.to(torch.uint8).to(machine.device))
        if not how.get("channels_last", True):
            self._net = self._net.to(memory_format=torch.contiguous_format)
            self._batch = self._batch.contiguous()
        self._targets = torch.arange(recipe.batch_size, device=machine.device) % len(model.classes)
        self._optimizer = fitting.adamw(self._net, recipe)
        self._smoothing = recipe.label_smoothing
        self._net.train()
        self._run = torch.compile(self._net) if how.get("compiled") else self._net

    def updates(self, count: int) -> float:
        """Make `count` updates; the images a second."""
        began = time.perf_counter()
        for _ in range(count):
            with self.machine.autocast():
                logits = self._run(self._batch)
            loss = torch.nn.functional.cross_entropy(
                logits.float(), self._targets, label_smoothing=self._smoothing
            )
            self._optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self._optimizer.step()
            loss.item()  # as training reports it
        return count * self._batch_size / (time.perf_counter() - began)


def timed_training(project: Project, params: Params) -> tuple[float, str]:
    """The images a second of the train stage, all of it; and where its seconds went."""
    recipe = params.train
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        train.run(project, params)
    seconds = time.perf_counter() - began
    images = recipe.epochs * recipe.updates_per_epoch * recipe.batch_size
    spent = json.loads(project.provenance.read_bytes())["seconds"]
    rest = seconds - spent["decode"] - spent["train"]
    return images / seconds, f"{spent['decode']:.1f} | {spent['train']:.1f} | {rest:.1f}"


def side_by_side(project: Project, params: Params, rounds: int) -> float:
    """Print a table of rounds; the median of their ratios."""
    recipe = params.train
    machine = device.resolve(
        device=recipe.device, precision=recipe.precision, threads=recipe.threads
    )
    updates = recipe.epochs * recipe.updates_per_epoch
    timed_training(project, params)  # the first one loads what the others find loaded
    bare = Bare(network.load(project.model), params, machine)
    bare.updates(5)
    print(
        "| round | bare loop, img/s | train stage, img/s | ratio | decoding, s | updates and "
        "validation, s | rest, s |\n|" + " --- |" * 7
    )
    ratios = []
    for number in range(1, rounds + 1):
        # Half of the bare updates before and half after: a machine that slows down slows both.
        first = bare.updates(updates // 2)
        stage, spent = timed_training(project, params)
        alone = statistics.harmonic_mean([first, bare.updates(updates // 2)])
        ratios.append(stage / alone)
        print(f"| {number} | {alone:.1f} | {stage:.1f} | {ratios[-1]:.3f} | {spent} |", flush=True)
    return statistics.median(ratios)


def frozen_depth(project: Project, params: Params) -> None:
    """Print the train stage's speed by frozen depth: activations made, and found."""
    # A random origin is never frozen: the model that was just trained is yesterday's now.
    write_bytes(project.parent_model, project.model.read_bytes())
    print("| frozen through | made, img/s | found, img/s | against none | kept, MB an image |")
    print("|" + " --- |" * 5)
    whole = 0.0
    for depth in ("none", *DEPTHS):
        own = params_file.changed(params, {"train.frozen_through": depth})
        first, then = (timed_training(project, own)[0] for _ in range(2))
        whole = whole or then
        sizes = [path.stat().st_size for path in project.activations.glob("*/*")]
        kept = f"{statistics.mean(sizes) / 1e6:.2f}" if sizes else "-"
        print(f"| {depth} | {first:.1f} | {then:.1f} | {then / whole:.2f} | {kept} |", flush=True)
        shutil.rmtree(project.activations, ignore_errors=True)


def arithmetic(project: Project, params: Params) -> None:
    """Print the bare loop's speed by precision and memory format, each in turn, thrice."""
    model, chosen = network.load(project.model), params.train
    machine = device.resolve(device=chosen.device, precision="fp32", threads=chosen.threads)
    ways: dict[str, Callable[[], Bare]] = {
        "fp32, NCHW": lambda: Bare(model, params, machine, channels_last=False),
        "fp32, channels last": lambda: Bare(model, params, machine),
        "bf16, NCHW": lambda: Bare(model, params, bf16, channels_last=False),
        "bf16, channels last": lambda: Bare(model, params, bf16),
        "bf16, channels last, compiled": lambda: Bare(model, params, bf16, compiled=True),
    }
    bf16 = replace(machine, precision="bf16")
    loops, starts = {}, {}
    for name, make in ways.items():
        began = time.perf_counter()
        loops[name] = make()
        loops[name].updates(2)
        starts[name] = time.perf_counter() - began
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, loop in loops.items():
            speeds[name].append(loop.updates(UPDATES))
    plain = statistics.median(speeds["fp32, NCHW"])
    print("| arithmetic | img/s | against plain | start, s |\n| --- | --- | --- | --- |")
    for name, found in speeds.items():
        speed = statistics.median(found)
        print(f"| {name} | {speed:.1f} | {speed / plain:.2f} | {starts[name]:.1f} |")


def main() -> None:
    """Make the project in a temporary folder, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project, params = make_project(Path(folder), options.images, options.size, options.epochs)
        recipe = params.train
        print(
            f"{options.images} files, {recipe.epochs} epochs of {recipe.updates_per_epoch} updates "
            f"of {recipe.batch_size} at {recipe.image_size_px} px, {recipe.threads} threads, "
            f"{os.cpu_count()} CPUs",
            flush=True,
        )
        ratio = side_by_side(project, params, options.rounds)
        goal = GOALS.get(options.size)
        if goal:
            print(f"{'met   ' if ratio >= goal else 'MISSED'} ratio: {ratio:.3f} (>= {goal})")
        frozen_depth(project, params)
        arithmetic(project, params)


if __name__ == "__main__":
    main()
