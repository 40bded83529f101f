"""Worker processes that check files: one that crashes, hangs or eats memory takes down itself."""

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock
from typing import Any

import dayfold
from dayfold.errors import IntakeError
from dayfold.project.cpus import cpus

SECONDS = 60.0  # that one file may take
UNPACKING_SECONDS = 3600.0  # that an archive may take
_PIECE = 16  # files, at most, that a thread checks before it tells of them
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
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(_PROGRAM)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the parent alone, also while a worker starts.
            process_group=0,
        )
        assert self._process.stdout  # noqa: S101 - it was asked for
        self._answers = self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)
        self._rest = b""

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def process_id(self) -> int:
        return self._process.pid

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a request and return the answer; IntakeError with the reason if none comes."""
        assert self._process.stdin  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self._process.stdin.flush()
            return dict(json.loads(self._line(seconds)))
        except (BrokenPipeError, EOFError):
            code = self._process.wait()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise _CrashError(f"makes its decoder crash ({name})") from None

    def _line(self, seconds: float) -> bytes:
        while b"\n" not in self._rest:
            if not self._selector.select(seconds):
                raise IntakeError(f"takes longer than {seconds:g} s to decode")
            part = os.read(self._answers, 2**16)
            if not part:
                raise EOFError
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def end(self) -> None:
        """Kill the process, whatever it is doing."""
        self._process.kill()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                # What a broken pipe still holds is of no use to anyone.
                try:
                    pipe.close()
                except OSError:
                    continue
        self._process.wait()


@contextmanager
def _borrowed() -> Iterator[_Worker]:
    """An idle worker, or a new one; after any error it is ended and not used again."""
    worker = None
    with _lock:
        while _idle and worker is None:
            worker = _idle.pop()
            if not worker.is_alive:  # somebody killed it as it waited
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


def idle() -> list[int]:
    """The process ids of the workers that wait for the next call."""
    return [worker.process_id for worker in _idle]


@atexit.register
def end_idle() -> None:
    """End the workers that wait: for a process that goes on with something else."""
    while _idle:
        _idle.pop().end()


def answers(
    requests: Sequence[dict[str, Any]],
    *,
    progress: Callable[[int, int], None] = lambda *_: None,
    seconds: float | None = None,
) -> list[dict[str, Any]]:
    """Answer every request (worker.check), in order, one worker a CPU.

    A file that makes two workers crash, or takes one longer than `seconds` (SECONDS by default),
    is answered as `refused`. `progress` is called with (files done, files in all).
    """
    limit = SECONDS if seconds is None else seconds
    found: list[dict[str, Any]] = []
    threads = max(1, min(cpus(), len(requests) // 4))
    size = max(1, min(_PIECE, len(requests) // (4 * threads)))
    pieces = [requests[at : at + size] for at in range(0, len(requests), size)]
    ready, stopped = Event(), Event()

    def answer(piece: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        # Where Ctrl-C comes as a thread starts, the pool does not know it, and waits for it never.
        ready.wait()
        return _answers(piece, limit, stopped)

    pool = ThreadPoolExecutor(threads)
    try:
        answered = pool.map(answer, pieces)
        ready.set()
        for some in answered:
            found += some
            progress(len(found), len(requests))
    finally:
        # After Ctrl-C the files that nobody looked at yet are left alone.
        stopped.set()
        ready.set()
        pool.shutdown(cancel_futures=True)
    return found


def unpack(archive: Path, into: Path, *, encoding: str = "") -> list[tuple[str, str]]:
    """Unpack an archive (archives.unpack) in a worker; return what of it is refused, and why."""
    request = {"unpack": str(archive.absolute()), "into": str(into.absolute())}
    request["encoding"] = encoding
    with _borrowed() as worker:
        answer = worker.ask(request, UNPACKING_SECONDS)
    if "unreadable" in answer:
        mend = "give the folder of class folders"
        if answer["names"]:
            mend = "tell the encoding that reads them right: dayfold add … --zip-names cp437"
        raise IntakeError(answer["unreadable"], problems=answer["names"], mend=mend)
    if "failed" in answer:
        raise IntakeError(answer["failed"])
    return [(name, reason) for name, reason in answer["refused"]]


def _answers(
    requests: Sequence[dict[str, Any]], seconds: float, stopped: Event
) -> list[dict[str, Any]]:
    """Answer in order, by one worker as long as it lives; no more of them once it is `stopped`."""
    found: list[dict[str, Any]] = []
    died_over = -1
    while len(found) < len(requests) and not stopped.is_set():
        try:
            with _borrowed() as worker:
                for request in requests[len(found) :]:
                    if stopped.is_set():
                        break
                    found.append(worker.ask(request, seconds))
        except IntakeError as error:
            # A crash counts when it comes twice: the first may not have been the file's doing.
            again = died_over == len(found)
            died_over = len(found)
            if again or not isinstance(error, _CrashError):
                found.append({"image": "", "refused": error.what})
    return found
