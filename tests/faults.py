"""A disk that fails at its n-th write, fsync or rename."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from unittest.mock import patch


class Disk:
    """Counts what is asked of the disk, and fails at the n-th."""

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
