"""What a day of many large images takes of memory: 50,000 of 224 px, which are 7.5 GB of pixels.

    python benchmarks/memory.py [--images 51000] [--updates 20]

Writes that many small JPEG files of 224 px, no two alike, adds them to a new project of which
nearly all train, and runs the train stage. Ten times a second it looks at what the process has: its
own memory, which nothing else can use, and pages of files, which the system takes back as soon as
it needs room (Linux, /proc). To see that it does, give the script's processes 4 GiB in all:
a cgroup's memory.limit_in_bytes or memory.max.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dayfold.project import params as params_file
from dayfold.project.layout import Project

DAY = "2025-06-02"
SIDE = 224
LIMIT = 4.0  # GiB
FIELDS = ("RssAnon", "RssFile", "VmHWM")


def write_images(folder: Path, count: int) -> None:
    """Write `count` JPEG files of SIDE px, of four classes."""
    draw = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        path = folder / f"class {number % 4}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((SIDE, SIDE)).save(path, quality=80)


def make_project(root: Path, images: int, updates: int) -> Project:
    """A project whose day is planned: everything before the train stage is done."""
    write_images(root / "in", images)

    def dayfold(*words: str) -> None:
        began = time.perf_counter()
        command = Path(sys.executable).with_name("dayfold")
        subprocess.run([command, *words], cwd=root, check=True, stdout=subprocess.DEVNULL)
        print(f"{words[0]}: {time.perf_counter() - began:.0f} s", flush=True)

    dayfold("init", "project", "--weights", "random", "--image-size", str(SIDE))
    project = Project(root / "project")
    root = project.root
    split = {"data.split.train": 0.98, "data.split.validation": 0.01, "data.split.test": 0.01}
    budget = {"train.epochs": 1, "train.updates_per_epoch": updates}
    params_file.edit(project.params, {**split, **budget})
    dayfold("add", "../in", "--day", DAY, "--yes")
    for stage in ("snapshot", "weights", "replay"):
        dayfold(stage)
    return project


def peaks_of(process: subprocess.Popen[bytes]) -> dict[str, float]:
    """Wait for a process; the most that it had of each of FIELDS, in GiB."""
    found = dict.fromkeys(FIELDS, 0.0)
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = max(found[name], int(value.split()[0]) / 2**20)
        time.sleep(0.1)
    return found


def main() -> None:
    """Make the project in a temporary folder, train, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=51000)
    parser.add_argument("--updates", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), options.images, options.updates)
        began = time.perf_counter()
        command = Path(sys.executable).with_name("dayfold")
        with subprocess.Popen((command, "train"), cwd=project.root) as process:
            peaks = peaks_of(process)
        if process.returncode:
            sys.exit(f"train ended with {process.returncode}")
        print(f"train: {time.perf_counter() - began:.0f} s")
        for name, most in peaks.items():
            print(f"{name}: {most:.2f} GiB at most")
        met = peaks["RssAnon"] < LIMIT
        print(f"{'met   ' if met else 'MISSED'} its own memory < {LIMIT:g} GiB")


if __name__ == "__main__":
    main()
