"""Training beside other work: images a second alone, beside busy processes, beside a training.

    python benchmarks/busy.py [--sizes 32 64 224] [--rounds 5] [--seconds 5]

The network's updates over one batch in memory, each time in a process of its own, as a stage is:
with the way to wait that dayfold chooses as it starts, and with two others. From run to run two
trainings fall into a fast or a slow state, so the worst of the rounds is printed too.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dayfold.project.cpus import cpus

# How threads wait: as dayfold chooses, as before it chose, and giving way at once.
WAITS = {
    "dayfold's": {},
    "spin": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}
GOAL = 0.4  # of the speed alone
LOADS = ("alone", "busy", "training")
BUSY = "while True: pass"
STARTING_SECONDS = 8.0  # until another process trains


def started(*words: str, wait: str) -> "subprocess.Popen[str]":
    """This script as a process that trains, or other Python code, in its own process."""
    names = {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}
    own = {key: value for key, value in os.environ.items() if key not in names} | WAITS[wait]
    return subprocess.Popen([sys.executable, *words], env=own, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def beside(load: str, size: int, wait: str) -> Iterator[None]:
    """Keep the machine busy with something else."""
    others = []
    if load == "busy":
        others = [started("-c", BUSY, wait=wait) for _ in range(cpus())]
    elif load == "training":
        others = [started(__file__, "--train", str(size), "600", wait=wait)]
        time.sleep(STARTING_SECONDS)
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.communicate()


def train(size: int, seconds: float) -> None:
    """Make updates for so long; print the images a second."""
    from dayfold.learning import device, network, speed
    from dayfold.project import params as params_file

    recipe = params_file.read(Path(__file__).parents[1] / "params.yaml").train
    recipe = recipe.model_copy(update={"image_size_px": size, "threads": cpus()})
    machine = device.resolve(device="cpu", precision="auto", threads=recipe.threads)
    bare = speed.Bare(network.grown(network.random_origin(0), "ab", 0), recipe, machine)
    bare.updates(2)
    images, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        bare.updates(1)
        images += recipe.batch_size
    print(images / (time.monotonic() - began))


def main() -> None:
    """Print a table of all sizes, ways to wait and loads."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 224])
    parser.add_argument("--waits", nargs="+", default=list(WAITS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--train", nargs=2, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(int(options.train[0]), options.train[1])
        return
    print("| px | threads wait | " + " | ".join(f"{load}: median, worst" for load in LOADS) + " |")
    print("|" + " --- |" * (2 + len(LOADS)))
    verdicts = []
    for size in options.sizes:
        for wait in options.waits:
            found: dict[str, list[float]] = {load: [] for load in LOADS}
            for _ in range(options.rounds):
                for load in LOADS:
                    with beside(load, size, wait):
                        words = ("--train", str(size), str(options.seconds))
                        said, _ = started(__file__, *words, wait=wait).communicate()
                    found[load].append(float(said))
            cells = [f"{statistics.median(one):.4g}, {min(one):.4g}" for one in found.values()]
            print(f"| {size} | {wait} | {' | '.join(cells)} |", flush=True)
            alone = statistics.median(found["alone"])
            worst = min(min(found[load]) for load in LOADS[1:]) / alone
            if wait == "dayfold's":
                told = "met   " if worst >= GOAL else "MISSED"
                verdicts.append(f"{told} {size} px: at worst {worst:.2f} of the speed alone")
    print("\n".join(verdicts))


if __name__ == "__main__":
    main()
