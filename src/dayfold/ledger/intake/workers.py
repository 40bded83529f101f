"""The child processes that decode, and their pool.

A file may crash its decoder, hang it or fill the memory. So it is read in a child process, which
takes one request a line on standard input and answers each with a line, both JSON. A child must
start fast, so this file imports nothing heavier than Pillow and NumPy.
"""

import atexit
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from select import POLLIN, poll
from threading import Event, Lock
from typing import Any

import numpy as np
from PIL import Image

import dayfold
from dayfold.errors import IntakeError
from dayfold.ledger.decode import ENDINGS, IMAGE_ENDINGS, MAX_PIXELS, examine, squared
from dayfold.ledger.image_cache import ImageCache, write_square
from dayfold.ledger.intake import archives
from dayfold.project.cpus import cpus
from dayfold.project.files import escaped, sha256, write_bytes

MAX_BYTES = 2**29  # size of a file: half a gigabyte
MIN_SIDE_PX = 8  # shortest side of an image
SECONDS = 60.0  # time limit for one file
UNPACKING_SECONDS = 3600.0  # time limit for an archive
_PIXEL_BYTES = 40  # at most, for a pixel while it is decoded and converted
_OTHER_BYTES = 2**28  # for the decoder itself
_PLAIN = 8  # grey levels: an image with less contrast has no look
_AT_ONCE = 1024  # files queued for the threads
_PROGRAM = Path(__file__)

# The child.


def check(
    path: str, *, stage: str = "", real: str = "", squares: str = "", size: int = 0
) -> dict[str, Any]:
    """Read a file once: hash it, decode it, compute its look, and copy it into `stage` if given.

    `real` is the path of its bytes if they are elsewhere; its square of `size` is cached in the
    folder `squares`. The answer has the file's `image` (sha256) if it could be read, and either
    `refused`, the reason, or `look`, `ids` (the group of a DICOM file) and `warnings`. `failed` is
    the reason why the copy could not be written.
    """
    answer: dict[str, Any] = {"image": ""}
    try:
        data = _read(Path(real or path))
        answer["image"] = sha256(data)
        found = examine(data)
        image = found.image
        if min(image.size) < MIN_SIDE_PX:
            raise IntakeError(
                f"is too small: {image.width} x {image.height} px, a side must have {MIN_SIDE_PX}"
            )
        warned = ["has several frames; the first one is taken"] * found.has_frames
        ending = Path(path).suffix.lower()
        if ending in IMAGE_ENDINGS and ending not in ENDINGS[found.form]:
            warned.append(f"is {found.form} in spite of its ending {ending}; taken as {found.form}")
        if squares:
            write_square(ImageCache(Path(squares)), answer["image"], squared(image, size))
        answer |= {"look": look(image), "ids": found.group, "warnings": [*warned, *found.remarks]}
    except IntakeError as error:
        return {**answer, "refused": error.what}
    except OSError as error:
        return {**answer, "refused": f"cannot be read ({error.strerror or error})"}
    if stage:
        try:
            staged = Path(stage) / answer["image"]
            # Another worker may be writing the same bytes.
            own = staged.with_name(f"{staged.name}-{os.getpid()}")
            write_bytes(own, data)
            own.replace(staged)
        except OSError as error:
            return {**answer, "failed": f"{stage}: {error.strerror or error}"}
    return answer


def look(image: Image.Image) -> str:
    """Return a difference hash as 32 hexadecimal digits, or "" for a plain image.

    The bits say whether each cell of a 9 x 9 grid is darker than its right and its lower neighbour
    (dHash, N. Krawetz, "Kind of like that", 2013; two directions halve the mistakes). Scaling,
    recompression, brightness and contrast change few bits.
    """
    small = image.convert("L").resize((9, 9), Image.Resampling.BOX)
    cells = np.asarray(small, dtype=np.int16)
    if np.ptp(cells) < _PLAIN:
        return ""
    here, right, below = cells[:-1, :-1], cells[:-1, 1:], cells[1:, :-1]
    return np.packbits([right > here, below > here]).tobytes().hex()


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IntakeError("is not a file (expected <class>/<image>)")
        # One byte more, to notice a file that grows.
        data = file.read(MAX_BYTES + 1) if status.st_size <= MAX_BYTES else None
    if data is None or len(data) > MAX_BYTES:
        raise IntakeError(f"is larger than {MAX_BYTES // 2**20} MiB")
    return data


def _unpack(archive: str, into: str) -> dict[str, Any]:
    try:
        return {"refused": archives.unpack(Path(archive), Path(into))}
    except OSError as error:
        raise IntakeError(f"{archive} cannot be unpacked: {error.strerror or error}.") from None
    except MemoryError:
        raise IntakeError(f"{archive} needs more memory than an archive may.") from None


def _parquet(path: str) -> dict[str, Any]:
    """Read a Parquet file; this runs in a child, as polars may crash on a damaged one."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    import polars as pl  # slow to import, and no image needs it

    try:
        texts = (pl.String, pl.Categorical, pl.Enum)
        schema = pl.read_parquet_schema(path).items()
        names = [name for name, kind in schema if kind in texts or kind.is_integer()]
        return {"names": names, "rows": pl.read_parquet(path, columns=names).rows()}
    except (pl.exceptions.PolarsError, ValueError, OSError) as error:
        said = escaped(str(error).partition("\n")[0][:200])
        what = f"{path} cannot be read as Parquet: {said}."
        raise IntakeError(what, hint="write it again") from None


def _limit_memory(base: int, pixels: int) -> None:
    most = base + pixels * _PIXEL_BYTES + 2 * MAX_BYTES + _OTHER_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with suppress(ValueError, OSError):  # macOS refuses; the limit of pixels holds there too
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _own_size() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def main() -> None:
    """Answer requests until standard input ends, which it does when the parent dies."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    # Decoders' libraries must print neither between the answers nor to the terminal.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    Image.init()
    base = _own_size()
    calls: dict[str, Callable[..., dict[str, Any]]]
    calls = {"check": check, "unpack": _unpack, "parquet": _parquet}
    for line in sys.stdin:
        request = json.loads(line)
        call = calls[request.pop("call", "check")]
        _limit_memory(base, MAX_PIXELS if call is check else 0)
        try:
            answer = call(**request)
        except IntakeError as error:
            answer = {"what": error.what, "problems": error.problems, "hint": error.hint}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


# The parent.

# Idle workers are kept for the next call: starting a process takes longer than decoding.
_idle: list["_Worker"] = []
_lock = Lock()


class _CrashError(IntakeError):
    """The worker died while it read a file, because of the file or a kill."""


class _Worker:
    def __init__(self) -> None:
        # -P and the package's own folder: nothing is imported from the user's current folder.
        home = str(Path(dayfold.__file__).parents[1])
        path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", str(_PROGRAM)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is for the parent alone, even while a worker starts.
            process_group=0,
        )
        self._rest = b""

    def ask(self, seconds: float, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the answer; IntakeError with the reason if none comes."""
        assert self.process.stdin  # noqa: S101 - it was asked for
        try:
            self.process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            self.process.stdin.flush()
            answer = dict(json.loads(self._line(seconds)))
        except (BrokenPipeError, EOFError):
            code = self.process.wait()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise _CrashError(f"makes its decoder crash ({name})") from None
        if "what" in answer:
            raise IntakeError(**answer)
        return answer

    def _line(self, seconds: float) -> bytes:
        assert self.process.stdout  # noqa: S101 - it was asked for
        output, ready = self.process.stdout.fileno(), poll()
        ready.register(output, POLLIN)
        while b"\n" not in self._rest:
            if not ready.poll(1000 * seconds):
                raise IntakeError(f"takes longer than {seconds:g} s to decode")
            part = os.read(output, 2**16)
            if not part:
                raise EOFError
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()  # close its pipes, even broken ones, and wait for it


def _ask(seconds: float, **request: Any) -> dict[str, Any]:
    worker = None
    with _lock:
        while _idle and worker is None:
            worker = _idle.pop()
            if worker.process.poll() is not None:  # it was killed while it waited
                worker.end()
                worker = None
    worker = worker or _Worker()
    try:
        answer = worker.ask(seconds, request)
    except BaseException:
        worker.end()
        raise
    with _lock:
        _idle.append(worker)
    return answer


@atexit.register
def end_idle() -> None:
    """End the idle workers, when a process goes on with something else."""
    while _idle:
        _idle.pop().end()


def answers(
    requests: Sequence[dict[str, Any]], *, progress: Callable[[int, int], None] = lambda *_: None
) -> list[dict[str, Any]]:
    """Return the answer to each request for `check`, in order, with one worker a CPU.

    A file that crashes two workers, or takes longer than SECONDS, is answered as `refused`.
    `progress` is called with (files done, files in all).
    """
    found: list[dict[str, Any]] = []
    ready, stopped = Event(), Event()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        # If Ctrl-C comes while a thread starts, the pool does not know the thread and never waits
        # for it.
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
        # After Ctrl-C no further file is read.
        stopped.set()
        ready.set()
        pool.shutdown(cancel_futures=True)
    return found


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request; try again after a crash, which may have been a kill."""
    try:
        with suppress(_CrashError):
            return _ask(SECONDS, **request)
        return _ask(SECONDS, **request)
    except IntakeError as error:
        return {"image": "", "refused": error.what}


def unpack(archive: Path, into: Path) -> list[tuple[str, str]]:
    paths = {"archive": str(archive.absolute()), "into": str(into.absolute())}
    refused = _ask(UNPACKING_SECONDS, call="unpack", **paths)["refused"]
    return [(name, reason) for name, reason in refused]


def parquet(file: Path) -> tuple[list[str], list[list[Any]]]:
    worker = _Worker()  # not of the pool: polars takes memory that images need
    try:
        answer = worker.ask(SECONDS, {"call": "parquet", "path": str(file.absolute())})
    except IntakeError as error:
        what = error.what if error.hint else f"{file} {error.what}."
        raise IntakeError(what, hint="write it again") from None
    finally:
        worker.end()
    return answer["names"], answer["rows"]


if __name__ == "__main__":
    main()
