"""Commands that start warm: `dayfold` and `dvc`, forked from a server that has imported it all.

Most of what a test waits for is what its commands import: torch, DVC. So the first process of a
test run starts a server that imports it once, and puts three programs before all others:
`dayfold`, `dvc`, and `python` (sys.executable too, by which dayfold starts DVC). Each is
warm_client.py, which starts in milliseconds. It hands its arguments, environment, current folder,
umask and standard streams to the server, which forks; the child is the command. It runs the `main`
that the installed program runs, with nothing replaced, and ends as a process of its own. The client
passes signals on to it and ends as it ended; a client that is killed takes it along. DVC starts the
stages by the same programs.

A command starts cold, as the installed program:

- with DAYFOLD_TESTS_COLD in its environment, which the marker `cold` sets: for tests of processes
  (who started whom, what a kill or Ctrl-C does), of imports, of mounts;
- with another value than the server's of what is read once as a process starts (AT_START);
- without an open standard stream or current folder;
- as `python` with anything but `-m dvc`, `-m dayfold` and the worker that reads images, and on all
  systems but Linux.

A fork has none of its parent's threads, so the server never computes with torch or polars. It is
two processes: one of them has torch too, and is for the commands that learn or predict.
"""

import atexit
import ctypes
import gc
import importlib
import marshal
import os
import pkgutil
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import psutil

from warm_client import COLD, PROGRAMS

HOME = "DAYFOLD_TESTS_WARM"  # the folder of the programs; xdist's workers inherit it
# With so many bytes of memory free, all temporary files lie there: a quarter of the run is fsyncs
# and the like on a disk, and a run takes 3 GB at most.
ROOM = 10 * 2**30
# What Python, libc, torch and polars read once, as they start.
AT_START = (b"PYTHON", b"LC_", b"LANG", b"LD_", b"OMP_", b"MKL_", b"POLARS_", b"TZ")
# Without torch: packages, and what their functions import when they are called.
PACKAGES = (
    *("dvc", "scmrepo", "dayfold.cli", "dayfold.project", "dayfold.ledger", "dayfold.figures"),
    *("dayfold.cycle", "dayfold.history", "dayfold.proof"),
)
LATER = (
    *("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "dulwich.worktree", "networkx", "pyparsing"),
    *("dayfold.stages.snapshot", "dayfold.stages.weights", "dayfold.stages.replay"),
    *("dayfold.stages.curve", "pydantic.type_adapter", "rich.columns", "rich.markdown"),
    *("rich.traceback", "ruamel.yaml", "tabulate", "typer.rich_utils", "vl_convert", "wcwidth"),
)
MAINS = {
    "dayfold": "dayfold.__main__",
    "dvc": "dvc.cli",
    "dvc_process": "dayfold.project.dvc_process",
    "worker": "dayfold.ledger.intake.workers",
}
LEARNING_PACKAGES = ("dayfold",)
LEARNING_LATER = ("cleanlab.filter",)


def start() -> None:
    """Start the server, if this is the run's first process, and use its programs from here on."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # trainings run beside each other
    if sys.platform != "linux" or COLD in os.environ:
        return
    if HOME not in os.environ:
        memory = Path("/dev/shm")  # noqa: S108 - folders in it are made as safely as in /tmp
        room = memory.is_dir() and shutil.disk_usage(memory).free
        if min(room, psutil.virtual_memory().available) > ROOM:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))
        home = Path(tempfile.mkdtemp(prefix="warm", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
        text = Path(__file__).with_name("warm_client.py").read_text(encoding="utf-8")
        for name in ("python", *PROGRAMS):
            (home / name).write_text(f"#!{sys.executable} -IS\n{text}", encoding="utf-8")
            (home / name).chmod(0o755)
        with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as learning:
            for listener, name in ((other, "other"), (learning, "learning")):
                listener.bind(str(home / name))
                listener.listen(128)
            files = [other.fileno(), learning.fileno()]
            # The last word is room for the name of what a child runs.
            server = subprocess.Popen(
                [sys.executable, __file__, str(home), *map(str, files), "-" * 2000],
                stdin=subprocess.PIPE,  # the server ends when this process does
                pass_fds=files,
                start_new_session=True,
            )
        atexit.register(_end, server, home)
        places = (str(home), str(Path(sys.executable).parent), os.environ["PATH"])
        os.environ |= {HOME: str(home), "PATH": os.pathsep.join(places)}
        # What DVC keeps of a project elsewhere, else for ever.
        os.environ["DVC_SITE_CACHE_DIR"] = str(home / "dvc-cache")
    sys.executable = f"{os.environ[HOME]}/python"


def _end(server: "subprocess.Popen[bytes]", home: Path) -> None:
    server.communicate()
    shutil.rmtree(home)


class Request(NamedTuple):
    """What a client sends: a command, and the standard streams and the folder to run it with."""

    name: str
    words: list[str]
    environment: dict[bytes, bytes]
    umask: int
    files: list[int]

    @classmethod
    def of(cls, client: socket.socket) -> "Request":
        head, files, _, _ = socket.recv_fds(client, 8, 4)
        whole = client.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
        return cls(*marshal.loads(whole), files)  # noqa: S302 - our own client's


def at_start(environment: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {
        key: value
        for key, value in environment.items()
        if key.startswith(AT_START) and key != b"LANGUAGE"  # gettext reads it at each call
    }


class Server:
    """Forks for every request, and tells the client how the child ended."""

    def __init__(self, listener: socket.socket, began: dict[bytes, bytes]) -> None:
        self._listener, self._at_start = listener, began
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._selector.register(0, selectors.EVENT_READ, self._end)
        self._running: dict[int, socket.socket] = {}  # each child's client

    def serve(self) -> Request:
        """Return in a child only, which is to become the command."""
        while True:
            for key, _ in self._selector.select():
                if request := key.data():
                    return request

    def _accept(self) -> Request | None:
        client, _ = self._listener.accept()
        try:
            request = Request.of(client)
        except (OSError, EOFError, ValueError):  # it was killed as it asked
            client.close()
            return None
        # A worker is told other paths and threads, of what it has imported already.
        if request.name != "worker" and at_start(request.environment) != self._at_start:
            client.sendall(b"cold")
            client.close()
        elif child := os.fork():
            self._running[child] = client
            self._selector.register(client, selectors.EVENT_READ, partial(self._hear, child))
            ended = os.pidfd_open(child)
            self._selector.register(ended, selectors.EVENT_READ, partial(self._wait, child, ended))
        else:
            for key in list(self._selector.get_map().values()):
                os.close(key.fd)
            os.close(client.detach())
            return request
        for file in request.files:
            os.close(file)
        return None

    def _hear(self, child: int) -> None:
        """Pass the client's signals on; where it is gone, the command goes too."""
        client = self._running.get(child)
        if client is None:
            return  # it ended at the same instant
        said = b""
        with suppress(ConnectionError):
            said = client.recv(64)
        for number in said or [signal.SIGKILL]:
            with suppress(OSError):  # no signal, or the child has ended
                os.kill(child, number)
        if not said:
            self._selector.unregister(client)

    def _wait(self, child: int, ended: int) -> None:
        _, status = os.waitpid(child, 0)
        client = self._running.pop(child)
        for file in (ended, client):
            with suppress(KeyError):
                self._selector.unregister(file)
        with client, suppress(OSError):
            client.sendall(str(status).encode())
        os.close(ended)

    def _end(self) -> NoReturn:
        for child in self._running:
            os.kill(child, signal.SIGKILL)
        os._exit(0)


def import_all(packages: Sequence[str], later: Sequence[str]) -> None:
    """Import packages whole, and modules. What comes of it no command's collector walks."""
    gc.disable()
    for name in packages:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__"):
                with suppress(ImportError):  # of a storage that is not installed
                    importlib.import_module(module.name)
    for name in later:
        importlib.import_module(name)
    gc.enable()
    gc.freeze()


def become(request: Request) -> None:
    """Be the process that the client's caller asked for."""
    for file, number in zip(request.files, (0, 1, 2), strict=False):
        os.dup2(file, number)
    os.fchdir(request.files[3])
    for file in request.files:
        os.close(file)
    os.setpgid(0, 0)
    os.umask(request.umask)
    os.environ.clear()
    os.environb.update(request.environment)
    tempfile.tempdir = None
    program = str(Path(sys.executable).with_name(request.name))
    sys.argv = [program, *request.words]
    sys.path[0] = str(Path(program).parent)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
    name_process(["python", *sys.argv])


def name_process(words: list[str]) -> None:
    """Show these words as the process's command line, over those that the server began with."""
    fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    shown = b"\0".join(map(os.fsencode, words))[: end - begin - 1]
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)


def run(program: str) -> NoReturn:
    """Run the installed program of this name to its end, as Python would.

    But for taking all modules apart, which shows nowhere and takes a second.
    """
    main = importlib.import_module(MAINS[program]).main
    try:
        code = main()
    except SystemExit as end:
        code = end.code
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # as it is closed: Python says so itself
        sys.stdout.flush()
        sys.stderr.flush()
        if code is None or isinstance(code, int):
            os._exit((code or 0) & 0xFF)
    sys.exit(code)


def main() -> None:
    """Serve; in a child, be the command. What no command has asked for yet is not imported."""
    began = at_start(os.environb)
    sys.executable = f"{sys.argv[1]}/python"
    other, learning = (int(word) for word in sys.argv[2:4])
    select.select([other, learning, 0], [], [])
    import_all(PACKAGES, LATER)
    listener = other
    if os.fork() == 0:
        listener = learning
        select.select([learning, 0], [], [])
        import_all(LEARNING_PACKAGES, LEARNING_LATER)
    os.close(other if listener == learning else learning)
    # In a child its files are closed, so it is kept: collected, it would close those numbers again.
    server = Server(socket.socket(fileno=listener), began)
    request = server.serve()
    become(request)
    run(request.name)


if __name__ == "__main__":
    main()
else:
    start()
