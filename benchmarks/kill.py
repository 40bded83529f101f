"""Kill -9 what a day's commands do at random instants, and count what is lost.

    python benchmarks/kill.py [--kills 200]

A tiny project in a temporary folder lives three more days by commands: add, run (all six stages
and the seal), the start of a day, undo, seal, and a run of dated folders. Each is killed at an
instant drawn uniformly from the time that it takes: half of the time its whole process group, half
of the time DVC alone (or git, or dayfold itself, where there is no DVC at that instant). Then the
same command is given again, and killed again or let be. In the end the project must be the one that
was never killed: the same images, plans, models and figures by hash, the same tags and as many
commits. A table tells kills by command, how many manual steps there were (a command that,
given again, did not finish), and which hashes differ.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from measuring import command_line, finish, start

from builders import IDENTITY, NO_GATE, place
from dayfold.project import params as params_file
from dayfold.project import vcs
from dayfold.project.files import sha256_file
from dayfold.project.layout import Project
from dayfold.proof.verify import verify

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
    hashes: list[str] = field(default_factory=list)


def begin(folder: Path) -> Project:
    """A project with one sealed day, and a few small images of each day and class beside it."""
    for number, day in enumerate((ONE, TWO, THREE, FOUR)):
        for at, label in enumerate(("cyst", "mass", "node")[: 2 + (number > 0)]):
            first = 100 * number + 10 * at
            place(folder / "in" / day, label, range(first, first + 8))
    project, size = Project(folder / "scans"), ("--image-size", "16")
    words = ("dayfold", "init", "scans", "--weights", "random", *size)
    finish(start(*words, root=folder, **IDENTITY))
    params_file.edit(project.params, SMALL)
    finish(given(project, ("dayfold", "run", f"../in/{ONE}", "--day", ONE)))
    return project


def given(project: Project, words: Sequence[str]) -> "Popen[str]":
    return start(*words, root=project.root, own_group=True, **IDENTITY)


def is_killed(process: "Popen[str]", seconds: float, *, group: bool) -> bool:
    """Kill -9 a command after some seconds; whether it was still at work.

    That is its whole group, or DVC alone, or git, or else the command itself.
    """
    time.sleep(seconds)
    try:
        if process.poll() is None and group:
            os.killpg(process.pid, signal.SIGKILL)
        elif process.poll() is None:
            victims = {"dayfold": psutil.Process(process.pid)}
            for child in victims["dayfold"].children(recursive=True):
                for word in child.cmdline()[:3]:
                    victims.setdefault(Path(word).name, child)
            (victims.get("dvc") or victims.get("git") or victims["dayfold"]).kill()
        else:
            return False
    except psutil.NoSuchProcess:
        return False
    finally:
        process.communicate()
    return True


def again(project: Project, words: Sequence[str], lost: Lost) -> None:
    """Give the same command again until it finishes; a step by hand is counted."""
    for _ in range(TRIES):
        process = given(project, words)
        said, _ = process.communicate()
        if not process.returncode or any(text in said for text in DONE):
            return
        if not any(text in said for text in BUSY):
            break
        time.sleep(WAIT_SECONDS)
    lost.steps.append(f"{' '.join(words)}: {said.strip()[-400:]}")
    given(project, ("dayfold", "check", "--fix")).communicate()
    given(project, words).communicate()


def drop(project: Project, words: Sequence[str]) -> None:
    """Drop the third day's images by hand, after the command that opens it."""
    if words[2:] == ("--day", THREE):
        source = project.root.parent / "in" / THREE
        shutil.copytree(source, project.images(THREE), dirs_exist_ok=True)


def state(project: Project) -> dict[str, str]:
    """What a history comes to: every file by its hash, but for those that hold times."""
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
    damage = verify(project, read_data=True).damage
    return found | {
        "commits": vcs.git(project.root, "rev-list", "--count", "HEAD").strip(),
        "changed": vcs.git(project.root, "status", "--porcelain"),
        "damage": "; ".join(f"{one.day} {one.what}" for one in damage),
    }


def run(base: Project, *, kills: int, seed: int = 0, commands: int = len(SCRIPT)) -> Lost:
    """Kill the first `commands` of the script until there were so many kills; what was lost."""
    chance, lost, script = np.random.default_rng(seed), Lost(), SCRIPT[:commands]
    begun, folder = base.root.parent, base.root.parent.parent / "trial"
    project = Project(folder / "scans")
    shutil.copytree(begun, folder, symlinks=True)
    times = []
    for words in script:
        began = time.monotonic()
        finish(given(project, words))
        times.append(time.monotonic() - began)
        drop(project, words)
    wanted = state(project)
    while (made := lost.kills.total()) < kills:
        places = [at for at in KILLED_AT if at < commands][: kills - made]
        shutil.rmtree(folder)
        shutil.copytree(begun, folder, symlinks=True)
        for at, words in enumerate(script):
            for _ in range(places.count(at)):
                seconds, group = float(chance.uniform(0, times[at])), bool(chance.integers(2))
                if is_killed(given(project, words), seconds, group=group):
                    lost.kills[words[1]] += 1
            again(project, words, lost)
            drop(project, words)
        found = state(project)
        for name in sorted(wanted.keys() | found.keys()):
            if found.get(name) != wanted.get(name):
                lost.hashes.append(f"{name}: {found.get(name)}, not {wanted.get(name)}")
        print(f"{lost.kills.total()} of {kills} kills, {len(lost.steps)} manual steps", flush=True)
    return lost


def main() -> None:
    kills = command_line(__doc__, kills=200).kills
    with TemporaryDirectory() as folder:
        lost = run(begin(Path(folder, "base")), kills=kills)
    for name, count in sorted(lost.kills.items()):
        print(f"{name:10}{count:5} kills")
    print(f"{len(lost.steps)} manual steps; {len(lost.hashes)} hashes differ")
    for line in (*lost.steps, *lost.hashes):
        print(f"  {line}")


if __name__ == "__main__":
    main()
