"""The steps of benchmarks/gpu.sh, each a process of its own: what one finds is rows in a folder.

    python benchmarks/gpu.py STEP FOLDER [--device cuda] [--size 224] [--images 300] [--updates 150]

STEP is day, speed, again, kill, two or table. Files are in place and git and DVC have no part: a
day is its six stages in one process, from the images to the figures.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from dayfold.project import params as params_file
from dayfold.project.cpus import cpus, model_name
from dayfold.project.files import sha256_file
from dayfold.project.layout import Project

STAGES = ("snapshot", "weights", "replay", "train", "evaluate", "curve")
LEAST = 0.90  # of the bare loop's speed
ROUNDS, TIMES_UPDATES = 3, 4  # a day's updates alone take a GPU two seconds
REFUSED = "but this machine has only 1 GPUs"


class Step:
    """One step's options, its project, and the rows that it adds to those in the folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, options.folder
        self.project = Project(options.folder / "project")
        self.kept = options.folder / "whole.txt"

    def row(self, what: str, found: str, met: bool | None = None) -> None:
        """Add a row, and print it."""
        with (self.folder / "rows.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "found": found, "met": met}) + "\n")
        print(f"{what}: {found}", flush=True)

    def planned(self) -> Project:
        """The project, whose first day is ready to train, made by the first step that needs it."""
        own = self.options
        if not self.project.replay.exists():
            import train as training  # benchmarks/train.py; torch, which most steps spare

            shutil.rmtree(self.project.root, ignore_errors=True)
            changes = {
                "train__device": own.device,
                "train__updates": own.updates,
                "train__precision": "bf16" if own.device == "cuda" else "auto",
            }
            training.planned(self.project.root, own.size, own.images, **changes)
        return self.project

    def start(
        self, *stages: str, project: Project | None = None, **more: str
    ) -> "subprocess.Popen[str]":
        """Start stages in a process of their own, with `more` in its environment."""
        code = (
            "import json, resource, sys; from pathlib import Path; import train;"
            "spent = train.run_stages(train.Project(Path(sys.argv[1])), tuple(sys.argv[2:]));"
            "import torch; gpu = torch.cuda.max_memory_allocated() / 2**20;"
            "own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
            "print(json.dumps([spent, gpu, own]))"
        )
        words = [sys.executable, "-c", code, str((project or self.project).root), *stages]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            words,
            env={**os.environ, "PYTHONPATH": path, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def whole(self) -> str:
        """The sha256 of a training that nothing stopped: the day's, or else one made now."""
        if not self.kept.exists():
            finished(self.start("train", project=self.planned()))
            self.kept.write_text(sha256_file(self.project.model))
        return self.kept.read_text()


def finished(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """Wait for a process; what it said. SystemExit where it did not end with this code."""
    said, _ = process.communicate()
    if process.returncode != code:
        raise SystemExit(f"exit code {process.returncode}:\n{said}")
    return said


def day(step: Step) -> None:
    """A whole day, what it takes of memory, and the line of the README."""
    step.planned()
    began = time.perf_counter()
    spent, gpu, own = json.loads(finished(step.start(*STAGES)).splitlines()[-1])
    seconds = time.perf_counter() - began
    step.kept.write_text(sha256_file(step.project.model))
    made = json.loads(step.project.provenance.read_bytes())
    here, train = made["fingerprint"], made["seconds"]["train"]
    on = here["device"] if step.options.device == "cuda" else f"{cpus()} threads of {model_name()}"
    versions = ", ".join(f"{one} {here[one]}" for one in ("python", "torch", "cuda") if one in here)
    step.row("machine", f"{on}, {os.cpu_count()} CPUs, {versions}")
    parts = ", ".join(f"{name} {value:.1f}" for name, value in spent.items())
    own_day = f"{step.options.images} images of {step.options.size} px"
    step.row(f"a day of {own_day}, end to end", f"{seconds:.1f} s ({parts})")
    step.row("peak memory of the day", f"{gpu:,.0f} MiB of the GPU, {own:,.0f} MiB of the process")
    step.row(
        "for the README",
        f"An evening of {step.options.size} px takes {train:.0f} s of training on {on} "
        f"({here['precision']}, {made['draws']['all']:,} images drawn).",
    )


def speed(step: Step) -> None:
    """The train stage's images a second against the bare loop's."""
    import train as training

    params = params_file.read(step.planned().params)
    more = {"train.updates": params.train.updates * TIMES_UPDATES}
    changed = params_file.with_changes(params, more)
    bare, whole, loop = training.side_by_side(step.project, changed, ROUNDS)
    step.row("bare loop", f"{bare:,.0f} images/s ({params.train.precision}, channels last)")
    step.row("updates and validation, of the bare loop", f"{loop:.3f}", loop >= LEAST)
    step.row(f"the whole stage of {changed.train.updates} updates, of it", f"{whole:.3f}")


def again(step: Step) -> None:
    """Level C: the same bits from run to run, alone and beside another training."""
    whole, made = step.whole(), []
    projects = [Project(step.folder / name) for name in ("first", "second")]
    for project in projects:
        shutil.copytree(step.project.root, project.root)
    for project, process in [(one, step.start("train", project=one)) for one in projects]:
        finished(process)
        made.append(sha256_file(project.model))
    shown = ", ".join(one[:12] for one in (whole, *made))
    step.row("three trainings, two at once: the same bits", shown, {whole} == {*made})


def kill(step: Step) -> None:
    """A training that was killed goes on to the same bits."""
    whole = step.whole()
    process = step.start("train", DAYFOLD_CHECKPOINT_SECONDS="0")
    while process.poll() is None and not list(step.project.checkpoints.glob("*.checkpoint")):
        time.sleep(0.01)
    if process.poll() is None:
        process.kill()
    finished(process, -signal.SIGKILL)
    said = finished(step.start("train"))
    how = next(line for line in said.splitlines() if line.startswith("resumed"))
    same = sha256_file(step.project.model) == whole
    step.row("killed and resumed: the same bits", " ".join(how.split()), same)


def two(step: Step) -> None:
    """Two processes for one training on one GPU: refused with a line, or both agree."""
    whole = step.whole()
    params_file.edit(step.project.params, {"train.processes": 2})
    said, _ = (process := step.start("train")).communicate()
    params_file.edit(step.project.params, {"train.processes": 1})
    is_refused = process.returncode != 0 and REFUSED in said
    is_right = process.returncode == 0 and sha256_file(step.project.model) != whole
    found = "refused" if is_refused else "both agree" if is_right else said.strip()[-300:]
    step.row("two processes of one training", found, is_refused or is_right)


def table(step: Step) -> None:
    """All rows as a table and as JSON."""
    rows = [json.loads(line) for line in (step.folder / "rows.jsonl").read_text().splitlines()]
    marks = {True: "met", False: "MISSED", None: ""}
    lines = [f"| {row['what']} | {row['found']} | {marks[row['met']]} |" for row in rows]
    text = "\n".join(["| what | found | |", "| --- | --- | --- |", *lines]) + "\n"
    (step.options.out / "gpu.md").write_text(text, encoding="utf-8")
    (step.options.out / "gpu.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(text)


def main(words: Sequence[str]) -> None:
    """Take one step."""
    steps = {step.__name__: step for step in (day, speed, again, kill, two, table)}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("step", choices=steps)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--updates", type=int, default=150)
    options = parser.parse_args(words)
    steps[options.step](Step(options))


if __name__ == "__main__":
    main(sys.argv[1:])
