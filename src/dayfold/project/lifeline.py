"""A process that ends with the one that started it, even by kill -9: no orphan goes on writing."""

import ctypes
import os
import signal
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import psutil

from dayfold.errors import CycleError

DVC_STAGE = "DVC_STAGE"  # set by DVC in the environment of the commands that it runs
LOOK_EVERY_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def tie() -> None:
    """End this process by SIGKILL as soon as the process that started it is gone.

    That is the nearest Python above: DVC for a stage, the trainer for one of its processes. DVC
    starts a stage through the user's shell. bash and zsh become the stage; dash stays between, and
    lives on when DVC is killed: so the whole line up to DVC is watched.
    """
    line = _line()
    if sys.platform == "linux":
        # The kernel sees to the parent itself, at once and whatever this process is doing.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if not _holds(line):
        raise CycleError(
            "What started this process is gone, so nothing was done.", hint="start it again"
        )
    threading.Thread(target=_watch, args=(line,), daemon=True).start()


def main() -> None:
    """Run DVC's command line in this process, which ends with the dayfold that started it.

    As `python -m dayfold.project.lifeline dvc …`: a `dvc repro` must not outlive `dayfold run`.
    """
    tie()
    from dvc.cli import main as dvc

    sys.exit(dvc(sys.argv[2:]))


def _line() -> list[psutil.Process]:
    """This process and those above it, up to the nearest Python; none where there is none."""
    try:
        above = psutil.Process().parents()
        for number, process in enumerate(above, start=1):
            # What runs in it: its own name may be that of a script, and torchrun changes it.
            program = Path(process.exe()).name.lower()
            if program.startswith(("python", "dvc")):
                return [psutil.Process(), *above[:number]]
    except psutil.Error:
        pass  # one of them ended as it was looked at
    return []


def _holds(line: list[psutil.Process]) -> bool:
    """Whether each process of a line is still the child of the next."""
    try:
        return bool(line) and all(child.ppid() == parent.pid for child, parent in pairwise(line))
    except psutil.Error:
        return False


def _watch(line: list[psutil.Process]) -> None:
    while _holds(line):
        time.sleep(LOOK_EVERY_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
