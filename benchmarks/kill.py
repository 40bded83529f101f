"""Kill -9 what a day's commands do at random instants, and count what is lost.

    python benchmarks/kill.py --kills 200

A tiny project in a temporary folder lives three more days by commands: add, run (all six stages
and the seal), the start of a day, undo, seal, and a run of dated folders. Each is killed at an
instant drawn uniformly from the time that it takes: half of the time its whole process group, half
of the time DVC alone (or git, or dayfold itself, where there is no DVC at that instant). Then the
same command is given again, and killed again or let be. In the end the project must be the one that
was never killed: the same images, plans, models, figures and pins by hash, the same tags and as
many commits. A table tells kills by command, and how many images, days, commits, manual steps and
hashes were lost: a manual step is a command that, given again, did not finish.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from dayfold.project import params as params_file
from dayfold.project import pins, vcs
from dayfold.project.files import canonical_json, sha256, sha256_file
from dayfold.project.layout import Project
from dayfold.proof.verify import verify

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from builders import IDENTITY, NO_GATE, place

ONE, TWO, THREE, FOUR = (f"2025-06-0{number}" for number in (2, 3, 4, 5))
SMALL = {
    "train.updates": 2,
    "train.batch_size": 8,
    "train.threads": 1,
    "replay.size": 8,
    **NO_GATE,
}
# As a user gives them; the images of the third day are dropped by hand in between.
SCRIPT = (
    ("dayfold", "add", f"../in/{TWO}", "--day", TWO),
    ("dayfold", "run", f"../in/{TWO}", "--day", TWO),
    ("dayfold", "add", "--day", THREE),
    ("dayfold", "run", f"../in/{THREE}", "--day", THREE),
    ("dayfold", "undo", "--seal", "--yes"),
    ("dayfold", "seal"),
    ("dayfold", "run", "../in"),
)
# What is said while something outlives the command that was killed; the last by DVC.
BUSY = ("at work in this project", "Another process", "is being blocked by")
DONE = ("is sealed already", "is already open", "has no seal")  # given again, it had been done
KILLED_AT = (1, 3, 5, 6, 0, 1, 3, 6, 2)  # commands in turn: most kills where most is at stake
TRIES, WAIT_SECONDS = 20, 3.0


@dataclass
class Lost:
    """What was counted: kills by command, and what did not come back."""

    kills: Counter[str] = field(default_factory=Counter)
    steps: list[str] = field(default_factory=list)
    images: int = 0
    days: int = 0
    commits: int = 0
    hashes: list[str] = field(default_factory=list)


def write_images(folder: Path) -> None:
    """A few small images a day and class."""
    for number, day in enumerate((ONE, TWO, THREE, FOUR)):
        for at, label in enumerate(("cyst", "mass", "node")[: 2 + (number > 0)]):
            first = 100 * number + 10 * at
            place(folder / day, label, range(first, first + 8))


def begin(folder: Path) -> Project:
    """A project with one sealed day, and the images of all days beside it."""
    write_images(folder / "in")
    words = ("init", "scans", "--weights", "random", "--image-size", "16")
    finish(folder, ("dayfold", *words))
    project = Project(folder / "scans")
    params_file.edit(project.params, SMALL)
    finish(project.root, ("dayfold", "run", f"../in/{ONE}", "--day", ONE))
    return project


def start(root: Path, words: Sequence[str]) -> "subprocess.Popen[str]":
    """Start a command in a process group of its own."""
    return subprocess.Popen(
        words,
        cwd=root,
        env={**vcs.environment(), **IDENTITY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(root: Path, words: Sequence[str]) -> tuple[int, str]:
    """Run a command to its end; its exit code and what it said."""
    process = start(root, words)
    said, _ = process.communicate()
    return process.returncode, said


def kill(process: "subprocess.Popen[str]", *, group: bool) -> None:
    """Kill -9 the whole group, or DVC alone, or git, or else the command itself."""
    if group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        victims: dict[str, psutil.Process] = {"dayfold": psutil.Process(process.pid)}
        for child in victims["dayfold"].children(recursive=True):
            for word in child.cmdline()[:3]:
                victims.setdefault(Path(word).name, child)
        (victims.get("dvc") or victims.get("git") or victims["dayfold"]).kill()


def killed(root: Path, words: Sequence[str], seconds: float, *, group: bool) -> bool:
    """Start a command and kill it after some seconds; whether it was still at work."""
    process = start(root, words)
    time.sleep(seconds)
    try:
        if process.poll() is None:
            kill(process, group=group)
            return True
    except psutil.NoSuchProcess:
        pass
    finally:
        process.communicate()
    return False


def again(root: Path, words: Sequence[str], lost: Lost) -> None:
    """Give the same command again until it finishes; a step by hand is counted."""
    for _ in range(TRIES):
        code, said = finish(root, words)
        if not code or any(text in said for text in DONE):
            return
        if not any(text in said for text in BUSY):
            break
        time.sleep(WAIT_SECONDS)
    lost.steps.append(f"{' '.join(words)}: {said.strip()[-400:]}")
    print(f"manual step: {lost.steps[-1]}", flush=True)
    finish(root, ("dayfold", "check", "--fix"))
    finish(root, words)


def drop(project: Project) -> None:
    """Drop the third day's images by hand."""
    source = project.root.parent / "in" / THREE
    shutil.copytree(source, project.images(THREE), dirs_exist_ok=True)


def state(project: Project) -> dict[str, str]:
    """What a history comes to: every file by its hash, and the pins, without times."""
    timed = {
        project.name(path)
        for path in (project.provenance, project.dvc_lock, project.report("index"))
    }
    found = {
        project.name(path): sha256_file(path)
        for path in sorted(project.data.rglob("*"))
        if path.is_file() and project.name(path) not in timed
    }
    for day in vcs.sealed_days(project.root):
        for line in vcs.git(project.root, "ls-tree", "-r", vcs.TAG + day).splitlines():
            object_, _, path = line.partition("\t")
            found[f"{day}: {path}"] = "" if path in timed else object_
        lock = vcs.git(project.root, "show", f"{vcs.TAG}{day}:dvc.lock")
        outs = pins.outputs(lock.encode())
        pinned = {path: key for path, key in outs.items() if path not in timed}
        found[f"{day}: pins"] = sha256(canonical_json(pinned).encode())
    damage = verify(project, read_data=True).damage
    return found | {
        "commits": vcs.git(project.root, "rev-list", "--count", "HEAD").strip(),
        "changed": vcs.git(project.root, "status", "--porcelain"),
        "damage": "; ".join(f"{one.day} {one.what}" for one in damage),
    }


def trial(
    base: Project,
    folder: Path,
    times: Sequence[float],
    places: Sequence[int],
    chance: np.random.Generator,
    lost: Lost,
    commands: int,
) -> dict[str, str]:
    """Live the days once, killing the commands at these places; the state that it comes to."""
    shutil.copytree(base.root.parent, folder, symlinks=True)
    project = Project(folder / "scans")
    for at, words in enumerate(SCRIPT[:commands]):
        for _ in range(places.count(at)):
            seconds, group = float(chance.uniform(0, times[at])), bool(chance.integers(2))
            if killed(project.root, words, seconds, group=group):
                lost.kills[words[1]] += 1
        again(project.root, words, lost)
        if words[2:] == ("--day", THREE):
            drop(project)
    found = state(project)
    shutil.rmtree(folder)
    return found


def compare(wanted: dict[str, str], found: dict[str, str], lost: Lost) -> None:
    """Count what the killed project lacks of the one that was never killed, or has otherwise."""
    for name, value in wanted.items():
        if found.get(name) == value:
            continue
        lost.images += name.startswith("data/images/") and name not in found
        lost.days += name.endswith(": pins") and name not in found
        lost.commits += name == "commits"
        lost.hashes.append(f"{name}: {found.get(name, 'missing')}")
    lost.hashes += [f"{name}: not in the other" for name in found if name not in wanted]


def run(base: Project, *, kills: int, seed: int, commands: int = len(SCRIPT)) -> Lost:
    """Kill the first `commands` of the script until there were so many kills; what was lost."""
    chance, lost = np.random.default_rng(seed), Lost()
    begun, folder = base.root.parent, base.root.parent.parent
    shutil.copytree(begun, folder / "whole", symlinks=True)
    whole, times = Project(folder / "whole" / "scans"), []
    for words in SCRIPT[:commands]:
        began = time.monotonic()
        code, said = finish(whole.root, words)
        if code:
            raise SystemExit(f"{' '.join(words)} failed without any kill:\n{said}")
        times.append(time.monotonic() - began)
        if words[2:] == ("--day", THREE):
            drop(whole)
    wanted = state(whole)
    shutil.rmtree(folder / "whole")
    while (made := lost.kills.total()) < kills:
        places = [at for at in KILLED_AT if at < commands][: kills - made]
        found = trial(base, folder / "trial", times, places, chance, lost, commands)
        compare(wanted, found, lost)
        print(
            f"{lost.kills.total()} of {kills} kills, {len(lost.steps)} manual steps, "
            f"{len(lost.hashes)} differences",
            flush=True,
        )
    return lost


def main(given_words: Sequence[str]) -> int:
    """Run and print the table; 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    given = parser.parse_args(given_words)
    with TemporaryDirectory(dir=given.folder) as folder:
        lost = run(begin(Path(folder, "base")), kills=given.kills, seed=given.seed)
    for name, count in sorted(lost.kills.items()):
        print(f"{name:10}{count:5} kills")
    print(
        f"lost: {lost.images} images, {lost.days} days, {lost.commits} commits; "
        f"{len(lost.steps)} manual steps; {len(lost.hashes)} hashes differ"
    )
    for line in (*lost.steps, *lost.hashes):
        print(f"  {line}")
    return int(bool(lost.steps or lost.hashes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
