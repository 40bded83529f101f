"""git and DVC, through their command lines only: neither one's Python interface is stable."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from dayfold.errors import ToolError
from dayfold.project.layout import is_day

# What DVC and git say where one of them was killed before.
KILLED = ("RWLock", ".lock': File exists", "dvc.lock'")
TAG = "day/"  # the tag of a sealed day is day/<day>


def environment() -> dict[str, str]:
    """The environment of a child: this Python's own commands come first on its path.

    So `dvc` runs the stages' `dayfold` from the same installation without an activated venv. And
    `dvc init` reports nothing to DVC's makers: what says so in a project is not there yet.
    """
    here = str(Path(sys.executable).parent)
    path = here + os.pathsep + os.environ.get("PATH", "")
    return {**os.environ, "PATH": path, "DVC_NO_ANALYTICS": "1"}


def _run(command: Sequence[str], root: Path, *, show: bool) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=environment(),
            text=True,
            stdout=None if show else subprocess.PIPE,
            stderr=None if show else subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError(f"{command[0]} is not installed.", mend=f"install {command[0]}") from None
    if done.returncode != 0:
        said = [] if show else [line for line in done.stderr.splitlines() if line.strip()]
        words = " ".join(command[2:] if command[:2] == _DVC[:2] else command)
        killed = any(trace in line for line in said for trace in KILLED)
        raise ToolError(
            f"`{words}` failed (exit code {done.returncode}).",
            problems=said[-12:],
            mend="dayfold doctor --fix, if a command was killed here" if killed else "",
        )
    return "" if show else done.stdout


_DVC = [sys.executable, "-m", "dvc"]


def dvc(root: Path, *words: str, show: bool = False) -> str:
    """Run a DVC command at the project's top; its output is returned, or shown as it comes."""
    return _run([*_DVC, *words], root, show=show)


def bringing_back(*targets: str) -> str:
    """The command with which a person has DVC's files again as they were, whatever became of them.

    Without --force DVC keeps a file that was changed. A checkout that finds an object of its cache
    damaged drops it, and with it the whole folder of the working tree: then a remote is asked.
    """
    names = " ".join(targets)
    return f"dvc checkout --force {names} || dvc pull --force {names}"


def git(root: Path, *words: str) -> str:
    """Run a git command at the project's top and return what it prints."""
    return _run(["git", *words], root, show=False)


def git_says(root: Path, *words: str) -> bool:
    """Whether a git command succeeds (exit code 0)."""
    try:
        git(root, *words)
    except ToolError:
        return False
    return True


def blobs(root: Path, names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of files in git, each named as <commit>:<path>, by one process.

    What is not there is left out, and so is what git finds damaged (`git fsck` tells of it).
    """
    found: dict[str, bytes] = {}
    left = list(names)
    while left:
        done = subprocess.run(
            ["git", "cat-file", "--batch"],
            cwd=root,
            env=environment(),
            input="".join(f"{name}\n" for name in left).encode(),
            capture_output=True,
            check=False,
        )
        said, read = done.stdout, 0
        while said and read < len(left):
            head, _, rest = said.partition(b"\n")
            name = left[read]
            words = head.rsplit(b" ", 2)
            if words[-1] == b"missing":
                said = rest
            else:
                size = int(words[-1])
                if len(rest) < size:
                    break
                found[name], said = rest[:size], rest[size + 1 :]
            read += 1
        # git gave up at the next one, which is damaged.
        left = left[read + 1 :]
    return found


def branch(root: Path) -> str:
    """The branch that is checked out; empty where none is (a detached HEAD)."""
    return git(root, "branch", "--show-current").strip()


def is_on_branch(root: Path) -> bool:
    """Whether a branch is checked out; not where there is no repository, or no git."""
    return git_says(root, "symbolic-ref", "--quiet", "HEAD")


def branches_of(root: Path, tag: str) -> list[str]:
    """The local branches that a tag's commit is on."""
    words = ("branch", "--contains", f"{tag}^{{commit}}", "--format=%(refname:short)")
    return [name for name in git(root, *words).split("\n") if name and not name.startswith("(")]


def behind(root: Path) -> int:
    """How many commits the upstream branch has that this one has not, as of the last fetch."""
    if not git_says(root, "rev-parse", "--verify", "--quiet", "@{upstream}"):
        return 0
    return int(git(root, "rev-list", "--count", "HEAD..@{upstream}"))


def sealed_days(root: Path) -> list[str]:
    """The days that have a tag, in order; day/x is a stranger's tag, and x becomes no path."""
    tags = git(root, "tag", "--list", f"{TAG}*").splitlines()
    return sorted(day for day in (tag.removeprefix(TAG) for tag in tags) if is_day(day))


def seals(root: Path) -> dict[str, str]:
    """The whole message of every sealed day's tag, by day, in order."""
    words = ("for-each-ref", "--format=%(refname:strip=3)%00%(contents)%00", f"refs/tags/{TAG}")
    fields = git(root, *words).split("\0")[:-1]
    found = zip((day.strip() for day in fields[::2]), fields[1::2], strict=True)
    return dict(sorted((day, message) for day, message in found if is_day(day)))


def sealers(root: Path) -> dict[str, str]:
    """Who sealed each day, by day: the name that its tag has."""
    words = ("for-each-ref", "--format=%(refname:strip=3)%00%(taggername)", f"refs/tags/{TAG}")
    lines = (line.split("\0") for line in git(root, *words).splitlines())
    return {day: name for day, name in lines if is_day(day)}


def outputs(lock: bytes) -> dict[str, str]:
    """The path and MD5 of every output that the bytes of a dvc.lock pin."""
    stages = yaml.load(lock, Loader=yaml.CSafeLoader)["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def sealed_outputs(root: Path, day: str) -> dict[str, str]:
    """The same of a sealed day, as its tag has them."""
    return outputs(git(root, "show", f"{TAG}{day}:dvc.lock").encode())


def stale(root: Path, *targets: str) -> list[str]:
    """The stages and .dvc files that `dvc status` finds changed; none if all is up to date."""
    return sorted(json.loads(dvc(root, "status", "--json", *targets)))
