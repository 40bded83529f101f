"""A disk that fails at its n-th write, fsync or rename: in this process, or in intake's workers."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

# Python runs a module of this name first of all, in every process that finds it.
IN_WORKERS = "sitecustomize.py"
_FAILS_AT, _ERROR, _STEPS = "DISK_FAILS_AT", "DISK_ERROR", "DISK_STEPS"


class Disk:
    """Counts what is asked of the disk, and fails at the n-th: `with` it, or `install` it."""

    def __init__(self) -> None:
        self.count, self.fails_at, self.error = 0, 0, errno.EIO
        self._patches = ExitStack()

    def __enter__(self) -> "Disk":
        replaced = {
            "fdopen": self._failing_file(os.fdopen),
            "fsync": self._failing(os.fsync),
            "replace": self._failing(os.replace),
        }
        for name, called in replaced.items():
            self._patches.enter_context(patch.object(os, name, called))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    def step(self) -> None:
        self.count += 1
        if self.count == self.fails_at:
            raise OSError(self.error, os.strerror(self.error))

    def _failing(self, real: Callable[..., object]) -> Callable[..., object]:
        def called(*words: object, **options: object) -> object:
            self.step()
            return real(*words, **options)

        return called

    def _failing_file(self, real: Callable[..., object]) -> Callable[..., object]:
        def opened(descriptor: int, mode: str = "r", *words: object, **options: object) -> object:
            file = real(descriptor, mode, *words, **options)
            if mode != "wb":  # text is what a worker answers, and no file
                return file
            try:
                self.step()
            except OSError:
                file.write(b"half")  # so much was still free
                file.close()
                raise
            return file

        return opened


class WorkersDisk:
    """The environment by which a worker that starts gets a `Disk`, and a file that counts."""

    def __init__(self, folder: Path) -> None:
        self._steps = folder / "steps"
        (folder / IN_WORKERS).write_text("import faults\n\nfaults.in_worker()\n")
        paths = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        self._paths = os.pathsep.join(filter(None, paths))

    def environment(self, fails_at: int, error: int) -> dict[str, str]:
        self._steps.write_bytes(b"")
        return {
            "PYTHONPATH": self._paths,
            _FAILS_AT: str(fails_at),
            _ERROR: str(error),
            _STEPS: str(self._steps),
        }

    @property
    def count(self) -> int:
        return self._steps.stat().st_size


class _Shared(Disk):
    """A disk whose steps a file counts, a byte each, for the process that looks on."""

    def step(self) -> None:
        with Path(os.environ[_STEPS]).open("ab") as steps:
            steps.write(b".")
        super().step()


def in_worker() -> None:
    """Be what the worker's environment says."""
    disk = _Shared()
    disk.fails_at, disk.error = int(os.environ[_FAILS_AT]), int(os.environ[_ERROR])
    disk.__enter__()
