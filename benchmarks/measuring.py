"""What the scripts share: their command line, the builders of tests/, what a command takes."""

import argparse
import json
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


def run(root: Path, *words: str, says: str = "") -> Spent:
    """Run a command that must succeed and say this; return what it took."""
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, *words],
        cwd=root,
        env=vcs.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode or says not in done.stdout:
        raise SystemExit(f"{' '.join(words)}:\n{done.stdout}")
    return Spent(*json.loads(done.stdout.splitlines()[-1]))
