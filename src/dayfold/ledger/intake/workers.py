"""Worker processes, which may crash or hang."""

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from threading import Event, Lock
from typing import Any

import dayfold
from dayfold.errors import IntakeError
from dayfold.project.cpus import cpus

SECONDS = 60.0  # that one file may take
UNPACKING_SECONDS = 3600.0  # that an archive may take
_AT_ONCE = 1024  # files that wait for the threads
_PROGRAM = Path(__file__).with_name("worker.py")

# Idle workers, for the next call: a process starts slower than it decodes.
_idle: list["_Worker"] = []
_lock = Lock()


class _CrashError(IntakeError):
    """The worker died over a file: of it, or of somebody's kill."""


class _Worker:
    """A child process that answers one request at a time."""

    def __init__(self) -> None:
        # -P and the package's own folder: nothing is imported from where the user stands.
        home = str(Path(dayfold.__file__).parents[1])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(_PROGRAM)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the parent alone, also while a worker starts.
            process_group=0,
        )
        self._rest = b""

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and return the answer; IntakeError with the reason if none comes."""
        assert self.process.stdin  # noqa: S101 - it was asked for
        try:
            self.process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self.process.stdin.flush()
            return dict(json.loads(self._line(seconds)))
        except (BrokenPipeError, EOFError):
            code = self.process.wait()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise _CrashError(f"makes its decoder crash ({name})") from None

    def _line(self, seconds: float) -> bytes:
        assert self.process.stdout  # noqa: S101 - it was asked for
        output = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            if not wait([output], seconds):
                raise IntakeError(f"takes longer than {seconds:g} s to decode")
            part = os.read(output, 2**16)
            if not part:
                raise EOFError
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        self.process.kill()
        self.process.communicate()  # closes its pipes, broken ones too, and waits for it


@contextmanager
def _borrowed() -> Iterator[_Worker]:
    """An idle worker, or a new one; after any error it is ended and not used again."""
    worker = None
    with _lock:
        while _idle and worker is None:
            worker = _idle.pop()
            if worker.process.poll() is not None:  # somebody killed it as it waited
                worker.end()
                worker = None
    worker = worker or _Worker()
    try:
        yield worker
    except BaseException:
        worker.end()
        raise
    with _lock:
        _idle.append(worker)


@atexit.register
def end_idle() -> None:
    """End the workers that wait: for a process that goes on with something else."""
    while _idle:
        _idle.pop().end()


def answers(
    requests: Sequence[dict[str, Any]], *, progress: Callable[[int, int], None] = lambda *_: None
) -> list[dict[str, Any]]:
    """Answer every request (worker.check), in order, one worker a CPU.

    A file that makes two workers crash, or takes one longer than SECONDS, is answered as `refused`.
    `progress` is called with (files done, files in all).
    """
    found: list[dict[str, Any]] = []
    ready, stopped = Event(), Event()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        # Where Ctrl-C comes as a thread starts, the pool does not know it, and waits for it never.
        ready.wait()
        return {} if stopped.is_set() else _answer(request)

    pool = ThreadPoolExecutor(max(1, min(cpus(), len(requests) // 4)))
    try:
        for start in range(0, len(requests), _AT_ONCE):
            answered = pool.map(answer, requests[start : start + _AT_ONCE])
            ready.set()
            for one in answered:
                found.append(one)
                progress(len(found), len(requests))
    finally:
        # After Ctrl-C the files that nobody looked at yet are left alone.
        stopped.set()
        ready.set()
        pool.shutdown(cancel_futures=True)
    return found


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request; a crash counts when it comes twice: the first may be somebody's kill."""
    try:
        try:
            with _borrowed() as worker:
                return worker.ask(request, SECONDS)
        except _CrashError:
            with _borrowed() as worker:
                return worker.ask(request, SECONDS)
    except IntakeError as error:
        return {"image": "", "refused": error.what}


def unpack(archive: Path, into: Path) -> list[tuple[str, str]]:
    """Unpack an archive (archives.unpack) in a worker; return what of it is refused, and why."""
    request = {"unpack": str(archive.absolute()), "into": str(into.absolute())}
    with _borrowed() as worker:
        answer = worker.ask(request, UNPACKING_SECONDS)
    if "what" in answer:
        raise IntakeError(**answer)
    return [(name, reason) for name, reason in answer["refused"]]


def parquet(file: Path) -> tuple[list[str], list[list[Any]]]:
    """Return the names of a Parquet file's columns and its rows (worker.parquet)."""
    worker = _Worker()  # its own: what reads Parquet takes memory that images are to have
    try:
        answer = worker.ask({"parquet": str(file.absolute())}, SECONDS)
    except IntakeError as error:
        raise IntakeError(f"{file} {error.what}.", hint="write it again") from None
    finally:
        worker.end()
    if "what" in answer:
        raise IntakeError(**answer)
    return answer["names"], answer["rows"]
