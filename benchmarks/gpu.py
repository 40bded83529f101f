"""The steps of benchmarks/gpu.sh, each a process of its own: what one finds is rows of a table.

    python benchmarks/gpu.py FOLDER OUT --step day|speed|again|kill|two
        [--device cuda|cpu] [--size 224] [--images 300] [--updates 150]

Files are in place and git and DVC have no part: a day is its six stages in one process, from the
images to the figures.
"""

import argparse
import json
import os
import shutil
import signal
import time

import train
from measuring import command_line, finish

from builders import run_stages
from dayfold.project import params as params_file
from dayfold.project.cpus import cpus, model_name
from dayfold.project.files import sha256_file
from dayfold.project.layout import STAGES, Project
from dayfold.stages import replay, snapshot, weights

LEAST = 0.90  # of the bare loop's speed
ROUNDS, TIMES_UPDATES = 3, 4  # a day's updates alone take a GPU two seconds
REFUSED = "but this machine has only 1 GPUs"


def row(options: argparse.Namespace, what: str, found: str, met: bool | None = None) -> None:
    mark = {True: "met", False: "MISSED", None: ""}[met]
    with (options.out / "gpu.md").open("a", encoding="utf-8") as file:
        file.write(f"| {what} | {found} | {mark} |\n")


def planned(options: argparse.Namespace) -> Project:
    """The project, whose first day is ready to train, made by the first step that needs it."""
    project = Project(options.folder / "project")
    if not project.replay.exists():
        shutil.rmtree(project.root, ignore_errors=True)
        changes = {"train__device": options.device, "train__updates": options.updates}
        train.opened(project.root, options.size, options.images, **changes)
        run_stages(project, snapshot, weights, replay)
    return project


def whole(options: argparse.Namespace) -> str:
    """The sha256 of a training that nothing stopped, made by the first step that needs it."""
    kept = options.folder / "whole.txt"
    if not kept.exists():
        project = planned(options)
        finish(train.start_stages(project, "train"))
        kept.write_text(sha256_file(project.model))
    return kept.read_text()


def day(options: argparse.Namespace) -> None:
    """A whole day, and what it takes of memory."""
    project = planned(options)
    began = time.perf_counter()
    gpu, own = json.loads(finish(train.start_stages(project, *STAGES)).splitlines()[-1])
    seconds = time.perf_counter() - began
    (options.folder / "whole.txt").write_text(sha256_file(project.model))
    made = json.loads(project.provenance.read_bytes())
    here = made["fingerprint"]
    on = here["device"] if options.device == "cuda" else f"{cpus()} threads of {model_name()}"
    versions = f"torch {here['torch']}, {here['precision']}"
    row(options, "machine", f"{on}, {os.cpu_count()} CPUs, {versions}")
    of_all = f"{seconds:.0f} s, {made['seconds']['train']:.0f} of them training"
    row(options, f"a day of {options.images} images of {options.size} px", of_all)
    row(options, "peak memory of the day", f"{gpu:,} MiB of the GPU, {own:,} MiB of the process")


def speed(options: argparse.Namespace) -> None:
    """The train stage's images a second against the bare loop's."""
    project = planned(options)
    more = {"train.updates": options.updates * TIMES_UPDATES}
    changed = params_file.with_changes(params_file.read(project.params), more)
    bare, stage, loop = train.side_by_side(project, changed, ROUNDS)
    row(options, "bare loop", f"{bare:,.0f} images/s ({changed.train.precision}, channels last)")
    row(options, "updates and validation, of the bare loop", f"{loop:.3f}", loop >= LEAST)
    row(options, f"the whole stage of {changed.train.updates} updates, of it", f"{stage:.3f}")


def again(options: argparse.Namespace) -> None:
    """Level C: the same bits from run to run, alone and beside another training."""
    made = [whole(options)]
    projects = [Project(options.folder / name) for name in ("first", "second")]
    for project in projects:
        shutil.copytree(planned(options).root, project.root)
    for process in [train.start_stages(project, "train") for project in projects]:
        finish(process)
    made += [sha256_file(project.model) for project in projects]
    shown = ", ".join(one[:12] for one in made)
    row(options, "three trainings, two at once: the same bits", shown, len({*made}) == 1)


def kill(options: argparse.Namespace) -> None:
    """A training that was killed goes on to the same bits."""
    wanted, project = whole(options), planned(options)
    process = train.start_stages(project, "train", DAYFOLD_CHECKPOINT_SECONDS="0")
    while process.poll() is None and not list(project.checkpoints.glob("*.checkpoint")):
        time.sleep(0.01)
    process.kill()
    finish(process, -signal.SIGKILL)
    said = finish(train.start_stages(project, "train"))
    how = next(line for line in said.splitlines() if line.startswith("resumed"))
    same = sha256_file(project.model) == wanted
    row(options, "killed and resumed: the same bits", " ".join(how.split()), same)


def two(options: argparse.Namespace) -> None:
    """Two processes for one training on one GPU: refused with a line, or both agree."""
    alone, project = whole(options), planned(options)
    params_file.edit(project.params, {"train.processes": 2})
    process = train.start_stages(project, "train")
    said, _ = process.communicate()
    params_file.edit(project.params, {"train.processes": 1})
    is_refused = process.returncode != 0 and REFUSED in said
    is_right = process.returncode == 0 and sha256_file(project.model) != alone
    found = "refused" if is_refused else "both agree" if is_right else said.strip()[-300:]
    row(options, "two processes of one training", found, is_refused or is_right)


if __name__ == "__main__":
    steps = {step.__name__: step for step in (day, speed, again, kill, two)}
    day_of = {"device": ("cuda", "cpu"), "size": 224, "images": 300, "updates": 150}
    given = command_line(__doc__, "folder", "out", step=tuple(steps), **day_of)
    steps[given.step](given)
