"""What is killed by -9 takes its stage with it, and the same command again finishes the day."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import warm
from builders import RealProject, benchmark, place
from dayfold.learning import checkpoint
from dayfold.project import params, vcs

SHELL = "/bin/sh"  # which may stay between DVC and a stage; bash becomes the stage
DAY = "2025-06-02"
Meanwhile = Callable[[int], object]
# What a stage is to its starter: it says which process it is, and then that it lives.
STAGE = """
import os, sys, time
from dayfold.project import lifeline
lifeline.tie()
print(os.getpid(), flush=True)
for _ in range(400):
    print("alive", flush=True)
    time.sleep(0.05)
"""
STARTER = "import subprocess, sys; subprocess.run(sys.argv[1:])"


def is_alive(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def see_it_die(process: int) -> None:
    began = time.monotonic()
    while is_alive(process):
        assert time.monotonic() - began < 5  # a busy machine's: at most 0.4 s were measured
        time.sleep(0.02)


@pytest.mark.cold
def test_dvc_takes_no_script_of_a_project_for_a_module(tmp_path):
    (tmp_path / "calendar.py").write_text("raise SystemExit('not this one')")
    assert vcs.dvc(tmp_path, "--version").startswith("3.")


@pytest.mark.parametrize(
    "between", [(), ("/bin/sh", "-c", '"$@"; true', "sh")], ids=["at once", "through a shell"]
)
def test_a_process_ends_with_the_one_that_started_it(between):
    command = [sys.executable, "-c", STARTER, *between, sys.executable, "-c", STAGE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        stage = int(starter.stdout.readline())
        assert starter.stdout.readline() == "alive\n"
        assert is_alive(stage)
        starter.kill()
        see_it_die(stage)


@pytest.mark.skipif(
    psutil.Process(1).name().startswith("python"), reason="orphans are given to a Python here"
)
def test_a_process_whose_starter_is_gone_does_nothing():
    # The shell in the background is orphaned before it starts the stage.
    script = '(sleep 0.5; "$@" 2>&1) &'
    command = ["/bin/sh", "-c", script, "sh", sys.executable, "-c", STAGE]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "CycleError: The process that started this one has ended" in said
    assert "alive" not in said


def stop_dvc_at(root: Path, until: str, meanwhile: Meanwhile) -> None:
    """Kill -9 DVC alone in the middle of a training, call `meanwhile`, and see the stage die."""
    # Cold: DVC and its stages are processes as a user's are.
    environment = {**vcs.environment(), warm.COLD: "1", "SHELL": SHELL}
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro"],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as dvc:
        for line in dvc.stdout:
            if line.startswith(until):
                break
        below = psutil.Process(dvc.pid).children(recursive=True)
        # The shell, if it is there, has it all in one word: "dayfold train".
        (stage,) = (one for one in below if "train" in one.cmdline())
        stage.suspend()
        meanwhile(stage.pid)
        stage.resume()
        dvc.send_signal(signal.SIGKILL)
        for one in below:
            see_it_die(one.pid)
        before = listing(root)
        time.sleep(1)
        assert listing(root) == before, "something is still being written"


def listing(root: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            state = Path(folder, name).stat()
            found[f"{folder}/{name}"] = (state.st_mtime_ns, state.st_size)
    return found


@pytest.mark.slow
def test_dvc_killed_in_the_middle_of_training_costs_no_update_that_was_kept(
    tmp_path, shell, monkeypatch
):
    shell(tmp_path, "dayfold", "init", "p", "--weights", "random", "--image-size", "16")
    project = RealProject(tmp_path / "p")
    recipe = {"updates": 12, "batch_size": 4, "threads": 1}
    params.edit(project.params, {f"train.{key}": value for key, value in recipe.items()})
    monkeypatch.setenv(checkpoint.INTERVAL, "0")  # after every update
    source = tmp_path / "images"
    for label, first in (("cyst", 0), ("lesion", 100)):
        place(source, label, range(first, first + 12))
    project.dayfold("add", str(source), "--day", DAY)
    project.dvc("repro", "replay")

    def see_a_second_trainer_refuse(stage: int) -> None:
        said = project.dayfold("train", code=1)
        assert f"Another process is training in this project (process {stage})" in said
        assert "is busy, it is being blocked by" in project.dvc("repro", code=255)

    # An update is kept for certain when the next one is told.
    stop_dvc_at(project.root, "update 7/12", see_a_second_trainer_refuse)
    # A kill in the middle of writing leaves a part beside it, which the next training removes.
    assert len(list(project.checkpoints.glob("*.checkpoint"))) == 1
    said = project.dvc("repro", "train")
    # To the same bits: test_checkpoint.
    going_on = re.search(r"going on from update (\d+), where training was stopped", said)
    assert 6 <= int(going_on[1]) < 12
    assert list(project.checkpoints.iterdir()) == []


# A sample, of one trial; hundreds of kills are in benchmarks/kill.py.
@pytest.mark.slow
def test_commands_that_are_killed_and_given_again_come_to_the_same_day(tmp_path, monkeypatch):
    kill = benchmark("kill")
    base = kill.begin(tmp_path / "base")
    monkeypatch.setenv(warm.COLD, "1")
    again = kill.again

    def again_warm(*words):
        with monkeypatch.context() as patched:
            patched.delenv(warm.COLD)
            again(*words)

    # What is killed are processes as a user's are; for time, what is given again starts warm.
    monkeypatch.setattr(kill, "again", again_warm)
    lost = kill.run(base, kills=3, seed=1, commands=2)
    assert sum(lost.kills.values()) == 3
    assert lost.steps == []
    assert lost.hashes == []
