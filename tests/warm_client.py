"""The programs of warm.py: have its server run a command, and end as it ends; or run it cold."""

# Not `os`, `signal`, `socket`: to import those takes longer than all the rest.
import _signal
import _socket
import marshal
import posix as os
import sys

PROGRAMS = ("dayfold", "dvc")
WORKER = (
    "/dayfold/ledger/intake/workers.py"  # of the sources that are tested: python has them alone
)
COLD = "DAYFOLD_TESTS_COLD"
# The commands that need torch, which makes a fork three times as large.
LEARNING = ("audit", "backtest", "evaluate", "export", "init", "predict", "train")
SIGNALS = (1, 2, 3, 15)  # hang-up, interrupt, quit, terminate: passed on to the command


def main() -> None:
    """Be the program that this file is named as, with the arguments given to it."""
    folder, _, name = sys.argv[0].rpartition("/")
    words = sys.argv[1:]
    if name == "python" and words[:2] == ["-Pm", "dayfold.project.dvc_process"]:
        name, words = "dvc_process", words[2:]
    if name == "python" and words[:1] == ["-m"] and set(words[1:2]) & set(PROGRAMS):
        name, words = words[1], words[2:]
    if name == "python" and words and words[-1].endswith(WORKER):
        name, words = "worker", []
    if name in (*PROGRAMS, "worker", "dvc_process") and COLD.encode() not in os.environ:
        run_warm(folder, name, words)
    program = f"{sys.executable.rpartition('/')[0]}/{sys.argv[0].rpartition('/')[2]}"
    os.execv(program, [program, *sys.argv[1:]])


def run_warm(folder: str, name: str, words: list[str]) -> None:
    """Have the server run a command, and end as it ends; return where it cannot."""
    try:
        for number in (0, 1, 2):
            os.fstat(number)  # else the socket takes the number of a closed stream
    except OSError:
        return
    server = _socket.socket(_socket.AF_UNIX)
    learns = name == "dayfold" and words[:1] != [] and words[0] in LEARNING
    server.connect(f"{folder}/{'learning' if learns else 'other'}")
    umask = os.umask(0)
    os.umask(umask)
    request = marshal.dumps((name, words, os.environ, umask))
    length = len(request).to_bytes(8, "big")
    try:
        files = (0, 1, 2, os.open(".", os.O_RDONLY))
        packed = b"".join(number.to_bytes(4, sys.byteorder) for number in files)
        server.sendmsg([length], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
    except OSError:  # one of them is closed, or the folder is gone
        return
    server.sendall(request)
    for number in SIGNALS:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, lambda number, _: server.send(bytes([number])))
    answer = server.recv(64)
    if answer == b"cold":
        for number in SIGNALS:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                _signal.signal(number, _signal.SIG_DFL)
        return
    status = int(answer)
    if os.WIFSIGNALED(status):
        _signal.signal(os.WTERMSIG(status), _signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
