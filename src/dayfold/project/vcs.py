"""git and DVC, through their command lines."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten

from dayfold.errors import CycleError, ToolError
from dayfold.project.console import BRIEF, first_few
from dayfold.project.dvc_process import DVC, DvcProcess
from dayfold.project.layout import is_day

# Parts of error messages of DVC and git → what helps; the first match is shown.
_KILLED = "dayfold check --fix, if a command was killed here"
_UNSIGNED = "give git the key; or git config commit.gpgSign false; git config tag.gpgSign false"
_FOLDERS = [f"DVC_{name}" for name in ("SITE_CACHE_DIR", "GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR")]
HINTS = {
    "invalid schema version": "another version of DVC wrote it: pip install --upgrade dvc",
    "unexpected error - [Errno": "can DVC read and write the folder? It may be the value of "
    f"{' or '.join(_FOLDERS)}",
    **dict.fromkeys(("RWLock", ".lock': File exists", "dvc.lock'"), _KILLED),
    # With gpg.format ssh the message has neither "gpg" nor "sign".
    **dict.fromkeys(("to sign", "user.signingkey", "Couldn't load public key"), _UNSIGNED),
    "config file error": "edit .dvc/config and .dvc/config.local, or git checkout -- .dvc/config",
    # git's index is split, or (from git 2.40 on) without its checksum; DVC cannot read it.
    "Checksum mismatch": "git config core.splitIndex false && git config index.skipHash false && "
    "git update-index --no-split-index --force-write-index",
    "sparse-checkout definition": "git sparse-checkout disable",
}
# DVC's message if another DVC holds its locks; the lines after it name the processes.
BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
# Checks out or fetches the files that a clone lacks, or says why they are missing.
TO_FETCH = "dvc checkout || dvc pull || dayfold check"
TAG = "day/"  # the tag of a sealed day is day/<day>

# Of git's environment variables only these reach a child: who commits, how a server is reached,
# where the configuration is. All others point git at another repository or change what it prints. A
# hook, for one, exports GIT_DIR and GIT_INDEX_FILE of the repository that called it.
_KEPT = (
    *("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_SSH", "GIT_ASKPASS", "GIT_TERMINAL_PROMPT"),
    *("GIT_SSL_", "GIT_HTTP_", "GIT_PROXY_", "GIT_ALLOW_PROTOCOL", "GIT_EXEC_PATH"),
    *("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"),
    *("GIT_CONFIG_COUNT", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"),
)
# DVC cannot read a split index, or one without its checksum.
READABLE_INDEX = {"core.splitIndex": "false", "index.skipHash": "false"}
# User settings that would change what is read or committed here.
_PINNED = {
    **READABLE_INDEX,
    "color.ui": "never",
    "column.ui": "never",
    "core.quotePath": "false",
    "diff.orderFile": os.devnull,
    "diff.relative": "false",
    "diff.renames": "false",
    "log.showSignature": "false",
}
_GIT = ["git", *(word for key, value in _PINNED.items() for word in ("-c", f"{key}={value}"))]
_STARTED: dict[Path, DvcProcess] = {}  # started by `dvc_ready`, by project


def is_foreign(name: str) -> bool:
    """Return whether an environment variable is git's and may point to another repository."""
    return name.startswith("GIT_") and not name.startswith(_KEPT)


def environment() -> dict[str, str]:
    """Return the environment of a child: its PATH begins with this Python's folder."""
    here = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not is_foreign(name)}
    kept.pop("PYTHONWARNINGS", None)  # "error" would stop DVC at its libraries' warnings
    return {
        **kept,
        "PATH": here + os.pathsep + os.environ.get("PATH", os.defpath),
        "DVC_NO_ANALYTICS": "1",
        "LANGUAGE": "en",  # HINTS looks for English words
        "GIT_OPTIONAL_LOCKS": "0",  # a killed `git status` then leaves no lock
    }


def _failed(tool: str, words: Sequence[str], code: int, errors: Iterable[str]) -> ToolError:
    command = " ".join([tool, *words])
    said = [line for line in errors if line.strip()]
    if any(map(_is_busy, said)):
        return _busy(command, said)
    ways = [way for trace, way in HINTS.items() if any(trace in line for line in said)]
    return ToolError(
        f"`{shorten(command, 100, placeholder=' …')}` failed (exit code {code}).",
        problems=said[-12:],
        hint=ways[0] if ways else "",
    )


def _is_busy(line: str) -> bool:
    return any(words in line for words in BUSY)


def _busy(command: str, said: Iterable[str]) -> ToolError:
    processes = re.findall(r"\(PID (\d+)\)", "\n".join(said))
    who = f"process {', '.join(processes)}" if processes else "another process"
    return ToolError(
        f"`{command}` did not begin: DVC is at work in this project ({who}).",
        hint="wait for it, or stop it, and run the command again; if it has ended: "
        "dayfold check --fix",
    )


@contextmanager
def dvc_ready(root: Path) -> Iterator[DvcProcess]:
    """Start DVC for a project; commands within the block need no start of their own."""
    if root in _STARTED:
        yield _STARTED[root]
        return
    _STARTED[root] = DvcProcess(root, environment())
    try:
        yield _STARTED[root]
    finally:
        _STARTED.pop(root).end()


def dvc(root: Path, *words: str) -> str:
    """Run a DVC command at the project's top and return what it prints.

    --quiet is never used, as it hides errors too.
    """
    out, err = list[str](), list[str]()
    with dvc_ready(root) as process:
        code = process.run(words, out.append, err.append)
    if code:
        raise _failed("dvc", words, code, err)
    return "\n".join(out)


def repro(root: Path, each: Callable[[str], None] | None = None) -> None:
    """Run `dvc repro`; with `each`, stages are brief and `each` is called with every line."""
    busy = list[str]()

    def pass_on(line: str) -> None:
        if busy or _is_busy(line):
            busy.append(line)
        else:
            print(line, file=sys.stderr, flush=True)

    if each:
        with dvc_ready(root) as process:
            code = process.run(["repro"], each, pass_on, {BRIEF: "1"})
    else:  # run directly, as its progress bars need the terminal
        code = subprocess.run([*DVC, "repro"], cwd=root, env=environment(), check=False).returncode
    if code and busy:
        raise _busy("dvc repro", busy)
    if code:
        what = f"`dvc repro` failed (exit code {code})."
        raise ToolError(what, hint="see the error above; dayfold status says more")


def restore_command(*targets: str) -> str:
    """Return the command that restores DVC's files, whatever happened to them.

    Without --force DVC keeps a file that was changed. If a checkout finds a damaged object in the
    cache, it deletes the object and the whole folder of the working tree. Then a remote is needed.
    """
    names = " ".join(targets)
    return f"dvc checkout --force {names} || dvc pull --force {names}"


def git(
    root: Path, *words: str, more: Mapping[str, str] | None = None, given: str | None = None
) -> str:
    try:
        done = subprocess.run(
            [*_GIT, *words],
            cwd=root,
            env={**environment(), **(more or {})},
            input=given,
            encoding="utf-8",  # paths, in any locale
            errors="surrogateescape",
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError("git is not installed.", hint="install git") from None
    if done.returncode:
        raise _failed("git", words, done.returncode, done.stderr.splitlines())
    return done.stdout


def git_succeeds(root: Path, *words: str) -> bool:
    try:
        git(root, *words)
    except ToolError:
        return False
    return True


def split(said: str) -> list[str]:
    """Return the fields that a git command with `-z` prints."""
    return said.split("\0")[:-1]


def changed(root: Path, *words: str) -> list[str]:
    return split(git(root, "diff", "--name-only", "-z", *words))


def blobs(root: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the bytes of files in git, each named <commit>:<path>, read by one process.

    Missing and damaged files are left out (`git fsck` reports damage).
    """
    found: dict[str, bytes] = {}
    left, words = list(names), [*_GIT, "cat-file", "--batch"]
    while left:
        given = "".join(f"{name}\n" for name in left).encode()
        done = subprocess.run(
            words, cwd=root, env=environment(), input=given, capture_output=True, check=False
        )
        said = io.BytesIO(done.stdout)
        while left and (head := said.readline()):
            size = head.split()[-1]
            if size != b"missing":
                data = said.read(int(size))
                if len(data) < int(size):
                    break
                found[left[0]] = data
                said.readline()
            del left[0]
        del left[:1]  # git stopped at this one, which is damaged
    return found


def blob(root: Path, name: str, without: bytes | None = None) -> bytes:
    """Return the bytes of one file in git, named <commit>:<path>.

    If it is missing, returns `without` or, if that is None, raises ToolError.
    """
    found = blobs(root, [name]).get(name, without)
    if found is None:
        raise ToolError(f"git has no readable {name}.", hint="git fsck")
    return found


def at_tags(
    root: Path, days: Collection[str], paths: Callable[[str], Iterable[str]]
) -> dict[str, dict[str, bytes]]:
    """Return day → path → bytes of the `paths` of each day at its tag, as far as git has them."""
    names = {f"{TAG}{day}:{path}": (day, path) for day in days for path in paths(day)}
    found: dict[str, dict[str, bytes]] = {day: {} for day in days}
    for name, data in blobs(root, list(names)).items():
        day, path = names[name]
        found[day][path] = data
    return found


def branch(root: Path) -> str:
    """Return the branch that is checked out; "" if there is none (a detached HEAD)."""
    return git(root, "branch", "--show-current").strip()


def branches_of(root: Path, commit: str, *, remote: bool = False) -> list[str]:
    """Return the local branches that a commit is on, or those of remotes as last fetched."""
    where = "refs/remotes" if remote else "refs/heads"
    # refname:short is longer if a tag and a branch have the same name.
    words = ("for-each-ref", f"--contains={commit}", "--format=%(refname:strip=2)", where)
    return git(root, *words).split()


def is_shallow(root: Path) -> bool:
    return git(root, "rev-parse", "--is-shallow-repository").strip() == "true"


def behind(root: Path) -> int:
    """Return how many commits the upstream branch is ahead, as of the last fetch."""
    return int(git(root, "rev-list", "--count", "HEAD..@{upstream}")) if has_upstream(root) else 0


def has_upstream(root: Path) -> bool:
    return git_succeeds(root, "rev-parse", "--verify", "--quiet", "@{upstream}")


def tagged_days(root: Path, *which: str) -> list[str]:
    said = git(root, "for-each-ref", "--format=%(refname:strip=3)", *which, f"refs/tags/{TAG}")
    return sorted(filter(is_day, said.split("\n")))


def times_of_seals(root: Path) -> dict[str, int]:
    """Return day → when it was tagged, in seconds since 1970."""
    form = "--format=%(refname:strip=3) %(creatordate:unix)"
    said = git(root, "for-each-ref", form, f"refs/tags/{TAG}")
    found = (line.rpartition(" ") for line in said.splitlines())
    return {day: int(at) for day, _, at in found if is_day(day)}


def sealed_days(root: Path) -> list[str]:
    """Return the days that are sealed here, in order: those whose tag HEAD contains.

    Tags of other branches do not count, nor tags whose commit a rebase or an amend left behind.
    """
    return tagged_days(root, "--merged=HEAD") if _has_commit(root) else []


def committed_days(root: Path) -> list[str]:
    """Return the days whose manifest is in the last commit, in order, tagged or not."""
    if not _has_commit(root):
        return []
    words = ("ls-tree", "-z", "--name-only", "HEAD", "data/manifests/")
    return sorted(filter(is_day, (Path(name).stem for name in split(git(root, *words)))))


def _has_commit(root: Path) -> bool:
    return git_succeeds(root, "rev-parse", "--verify", "--quiet", "HEAD")


def seals(root: Path) -> dict[str, str]:
    """Return sealed day → the whole message of its tag, in order."""
    sealed = set(sealed_days(root))
    form = "--format=%(refname:strip=3)%00%(contents)%00"
    fields = split(git(root, "for-each-ref", form, f"refs/tags/{TAG}"))
    found = zip((day.strip() for day in fields[::2]), fields[1::2], strict=True)
    return {day: message for day, message in found if day in sealed}


# Operations of git: the file by which git knows that one has begun, and its command.
_UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
}


def check_nothing_under_way(root: Path, *, conflicts_only: bool = False) -> None:
    """Raise CycleError in the middle of a merge, a rebase or the like.

    With `conflicts_only`, raise only if files have conflict markers.
    """
    said = git(root, "ls-files", "--unmerged", "-z")
    conflicts = sorted({entry.partition("\t")[2] for entry in split(said)})
    if conflicts_only and not conflicts:
        return
    places = [word for name in _UNDER_WAY for word in ("--git-path", name)]
    begun = zip(_UNDER_WAY.values(), git(root, "rev-parse", *places).splitlines(), strict=True)
    what = next((name for name, path in begun if (root / path).exists()), "")
    if not conflicts and not what:
        return
    back = f"git {what} --abort" if what else f"git checkout HEAD -- {' '.join(conflicts)}"
    go_on = f"git {what} --continue" if what else "git add FILES"
    merging = "docs/operations.md, How to merge dvc.lock, then " * bool(conflicts)
    raise CycleError(
        f"A {what or 'git stash pop or the like'} is under way in this project"
        + (f", and {len(conflicts)} of its files are in conflict:" if conflicts else "."),
        problems=first_few(conflicts, "git status"),
        hint=f"to take it back: {back}; to go on: {merging}{go_on}",
    )


def check_is_top(root: Path) -> None:
    if (root / ".git").exists():
        return
    if not git_succeeds(root, "rev-parse"):
        raise CycleError(f"{root} is no git repository.", hint="git init, or clone the project")
    top = git(root, "rev-parse", "--show-toplevel").strip()
    folder = Path(git(root, "rev-parse", "--show-prefix").strip())
    cut = "dayfold-project"  # not every folder's name can name a branch
    raise CycleError(
        f"This project is the folder {folder} of the git repository {top}. A project has a "
        "repository of its own, as tags are for whole commits.",
        hint=f"cd {shlex.quote(top)} && git subtree split --prefix {shlex.quote(str(folder))} "
        f"--branch {cut} && git clone --branch {cut} . {shlex.quote(f'../{folder.name}')}",
    )


def stale(root: Path, *targets: str) -> list[str]:
    return sorted(json.loads(dvc(root, "status", "--json", *targets)))
