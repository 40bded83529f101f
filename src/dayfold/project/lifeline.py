"""A process that ends with its parent."""

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from dayfold.errors import CycleError

DVC_STAGE = "DVC_STAGE"  # set by DVC in the environment of the commands that it runs
LOOK_EVERY_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1  # of prctl(2)


def tie() -> None:
    """End this process by SIGKILL as soon as the process that started it has ended.

    That is the nearest Python above: DVC for a stage, the trainer for one of its processes. DVC
    starts a stage through the user's shell. bash and zsh replace themselves by the stage, but dash
    stays between them and outlives DVC. So a thread checks whether DVC is still above.
    """
    if sys.platform == "linux":
        # The kernel watches the direct parent, whatever this process is doing.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    starter = _starter()
    if starter is None:
        what = "The process that started this one has ended, so nothing was done."
        raise CycleError(what, hint="start it again")
    threading.Thread(target=_watch, args=(starter,), daemon=True).start()


def _starter() -> psutil.Process | None:
    with suppress(psutil.Error):  # one of them ended meanwhile
        for process in psutil.Process().parents():
            # The executable, as the process's name may be that of a script, and torchrun changes
            # it.
            if Path(process.exe()).name.lower().startswith(("python", "dvc")):
                return process
    return None


def _watch(starter: psutil.Process) -> None:
    with suppress(psutil.Error):
        while starter in psutil.Process().parents():
            time.sleep(LOOK_EVERY_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
