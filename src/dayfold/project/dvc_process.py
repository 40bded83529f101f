"""DVC in a process of its own, for several commands.

Starting DVC takes half a second, and a day needs it three times. So one process runs all its
commands, and it starts while dayfold does other work.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

from dayfold.project import lifeline

# -P keeps Python from importing a script at the project's top, such as calendar.py, instead of the
# module of that name.
DVC = [sys.executable, "-Pm", __name__]  # followed by a command's words, if it is the only one
OnLine = Callable[[str], object]  # called with each printed line
_END = "\0"  # precedes a command's exit code at the end of its output
_PATIENCE_SECONDS = 10.0  # for a command that Ctrl-C interrupted


class DvcProcess:
    """A DVC process at the top of a project; `end` stops it."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            DVC,
            cwd=root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",  # paths, in any locale
            errors="surrogateescape",
        )
        self._errors: Thread | None = None  # reads the errors of the running command

    def run(
        self, words: Sequence[str], out: OnLine, err: OnLine, more: Mapping[str, str] | None = None
    ) -> int:
        """Run a command, with `more` in its environment, and return its exit code."""
        process = self._process
        with suppress(BrokenPipeError):  # if it was killed, its exit code says so
            print(json.dumps([words, more or {}]), file=process.stdin, flush=True)
        self._errors = Thread(target=_forward, args=(process.stderr or (), err), daemon=True)
        self._errors.start()
        code = _forward(process.stdout or (), out)
        self._errors.join()
        self._errors = None
        return process.wait() if code is None else code

    def end(self) -> None:
        """End the process: at once if it is idle, else as soon as Ctrl-C has ended its command."""
        with self._process as process:
            if self._errors and process.stdin:
                process.stdin.close()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_PATIENCE_SECONDS)
            process.kill()
            if self._errors:
                self._errors.join()


def _forward(stream: Iterable[str], handle: OnLine) -> int | None:
    for line in stream:
        text, end, code = line.partition(_END)
        if text or not end:
            handle(text.rstrip("\n"))
        if end:
            return int(code)
    return None


def main() -> None:
    """Run one command, or those on standard input, one a line.

    It ends with the dayfold that started it, and so do its stages: a `dvc repro` must not outlive
    `dayfold run`.
    """
    lifeline.tie()
    from dvc.cli import main as dvc

    if words := sys.argv[1:]:
        sys.exit(dvc(words))
    for name in ("dvc.cli.parser", "dvc.repo.add", "networkx", "scmrepo.git"):
        import_module(name)  # imported now: DVC would do it while running a command
    commands = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # for the stages
    with suppress(KeyboardInterrupt):
        for line in commands:
            words, more = json.loads(line)
            os.environ.update(more)
            try:
                code = dvc(words)
            except SystemExit as end:  # from --version
                code = end.code
            for name in more:
                del os.environ[name]
            for stream in (sys.stdout, sys.stderr):
                print(f"{_END}{code or 0}", file=stream, flush=True)


if __name__ == "__main__":
    main()
