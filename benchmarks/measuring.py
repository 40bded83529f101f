"""What the scripts share: their command line, the builders of tests/, what a command takes."""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from dayfold.project import vcs

sys.path.append(str(Path(__file__).parents[1] / "tests"))

# Starts a command from a small process: no peak is below that of the process that it came from.
WITNESS = """
import json, os, sys, time

began = time.perf_counter()
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, used = os.wait4(process, 0)
print(json.dumps([time.perf_counter() - began, used.ru_maxrss / 1024]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


class Spent(NamedTuple):
    """What a command and all that it started took; `peak` is the largest process's, in MiB."""

    seconds: float
    peak: float


def command_line(doc: str, *folders: str, **defaults: object) -> argparse.Namespace:
    """Return a script's options, of the kind of their defaults.

    False is a flag, a list takes one value or more; of a tuple one is chosen, the first by default.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    for name in folders:
        parser.add_argument(name, type=Path)
    for name, default in defaults.items():
        option = f"--{name}"
        if default is False:
            parser.add_argument(option, action="store_true")
        elif isinstance(default, tuple):
            parser.add_argument(option, choices=default, default=default[0])
        elif isinstance(default, list):
            kind = type(default[0]) if default else str
            parser.add_argument(option, nargs="+", type=kind, default=default)
        else:
            parser.add_argument(option, type=type(default), default=default)
    return parser.parse_args()


def start(
    *words: object, root: Path, own_group: bool = False, **more: str
) -> "subprocess.Popen[str]":
    """Start a command, in a process group of its own or not, with `more` in its environment."""
    return subprocess.Popen(
        [*map(str, words)],
        cwd=root,
        env={**vcs.environment(), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=own_group,
    )


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """Wait for a command; what it said. SystemExit where it did not end with this code."""
    said, _ = process.communicate()
    if process.returncode != code:
        raise SystemExit(f"{shlex.join(process.args)}: exit code {process.returncode}\n{said}")
    return said


def measure(root: Path, *words: str) -> tuple[Spent, str]:
    """Run a command that must succeed; what it took, and what it said."""
    said = finish(start(sys.executable, "-c", WITNESS, *words, root=root))
    *lines, spent = said.splitlines()
    return Spent(*json.loads(spent)), "\n".join(lines)
