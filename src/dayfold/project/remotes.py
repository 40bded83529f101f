"""DVC's remotes: how they are set up, which objects they have, and text put in the place of one.

The one place where DVC is used from within: its command line cannot reach a single object. Its
remote objects know the paths of every kind of storage, and fsspec reads and writes them.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dayfold.errors import ToolError
from dayfold.project import cache, vcs
from dayfold.project.cache import READ_ONLY
from dayfold.project.files import md5, write_bytes

PATIENCE_S = 30  # how long a remote may take to say which objects it has
NOWHERE = "0" * 32  # the MD5 of no object


class Setup(NamedTuple):
    """The remotes that DVC's configuration names: all of them, and the default one ("": none).

    `is_everywhere`: the default holds at every tag, as this machine's own configuration names it.
    """

    names: tuple[str, ...]
    default: str
    is_everywhere: bool


class Answer(NamedTuple):
    """Which of some objects the default remote lacks; or the `problem` with asking it."""

    lacking: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True)
class Remote:
    """A remote of this project, by its name and URL; `stores` are DVC's layouts of it, 3's first.

    `verifies`: what comes from it is hashed. Where the remote cannot be used object by object
    `problem` says why.
    """

    name: str
    url: str
    stores: tuple[Any, ...]
    verifies: bool = False
    problem: str = ""

    def listing(self, key: str) -> dict[str, str]:
        """Return the files of a folder's object: path within it → MD5; KeyError if not to be had.

        A remote that cannot be reached is told by `replace`.
        """
        with suppress(ToolError, ValueError, TypeError):
            data = self.data(key)
            if data is not None:
                return cache.listed(data)
        raise KeyError(key)

    def data(self, key: str) -> bytes | None:
        """Return the bytes of an object, None where the remote has none; ToolError as `replace`."""
        try:
            found = (_bytes(store.fs, store.oid_to_path(key)) for store in self.stores)
            return next((one for one in found if one is not None), None)
        except Exception as error:  # of whichever storage it is
            raise self._unreachable(error) from error

    def lacking(self, keys: Iterable[str]) -> set[str]:
        """Return the objects that the remote has in no layout; ToolError as `replace`."""
        left = set(keys)
        try:
            for store in self.stores:
                if left:
                    _bytes(store.fs, store.oid_to_path(NOWHERE))  # can it be reached at all?
                    left -= set(store.oids_exist(sorted(left)))
        except Exception as error:  # of whichever storage it is
            raise self._unreachable(error) from error
        return left

    def _unreachable(self, error: Exception) -> ToolError:
        said = " ".join(str(error).split()) or type(error).__name__
        return ToolError(f"remote {self.name} ({self.url}): {said[:300]}")

    def replace(self, key: str, text: bytes, *, folder: str) -> int:
        """Put `text` in the place of an object, in every layout; return how many that were not it.

        A remote that has the list of the object's folder gets the text even without the object:
        DVC checks out nothing of a folder with a gap. Whatever fsspec raises is a ToolError.
        """
        try:
            return sum(self._replace(store, key, text, folder) for store in self.stores)
        except Exception as error:  # of whichever storage it is
            raise self._unreachable(error) from error

    @staticmethod
    def _replace(store: Any, key: str, text: bytes, folder: str) -> bool:
        fs, path = store.fs, store.oid_to_path(key)
        found = _bytes(fs, path)
        if found is None and _bytes(fs, store.oid_to_path(folder)) is None:
            return False
        is_folder = fs.protocol == "local"
        if found == text:
            if is_folder:
                Path(path).chmod(READ_ONLY)
            return False
        if is_folder:
            # As in the cache: of a folder DVC trusts read-only objects, and deletes wrong ones.
            write_bytes(Path(path), text, mode=READ_ONLY)
        else:
            fs.pipe_file(path, text)
        if fs.cat_file(path) != text:
            raise OSError(f"{path} was written and still has other bytes")
        return found is not None


def _bytes(fs: Any, path: str) -> bytes | None:
    """What a remote has there; None where nothing is.

    Asked by reading: a server that cannot be reached has a file as little, for fsspec's `exists`,
    as one that has not got it.
    """
    try:
        found: bytes = fs.cat_file(path)
    except FileNotFoundError:
        return None
    return found


def remotes(root: Path) -> list[Remote]:
    """Return every remote that DVC's configuration names here, the machine's own ones too."""
    # Here: it takes a second, and few commands need it.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return list(_remotes(repo))
    except DvcException as error:
        raise ToolError(f"DVC's remotes cannot be read: {error}") from error


def _remotes(repo: Any) -> Iterator[Remote]:
    from dvc.exceptions import DvcException

    for name, options in repo.config["remote"].items():
        url, verifies = str(options["url"]), bool(options.get("verify"))
        try:
            found = repo.cloud.get_remote(name)
            if found.worktree or found.fs.version_aware:
                said = "keeps files by name and versions (worktree or version_aware), not by hash"
                yield Remote(name, url, (), problem=said)
            else:
                yield Remote(name, url, (found.odb, found.legacy_odb), verifies)
        except DvcException as error:  # without the package for it, for one
            yield Remote(name, url, (), problem=" ".join(str(error).split()))


def setup(root: Path) -> Setup:
    """Read how remotes are set up; nothing is asked over a network."""
    from dvc.config import Config
    from dvc.exceptions import DvcException

    try:
        config = Config(str(root / ".dvc"), validate=False)
        own = [config.load_one(level) for level in ("system", "global", "local")]
    except DvcException as error:
        raise ToolError(f"DVC's remotes cannot be read: {error}") from error
    default = str(config["core"].get("remote", ""))
    is_named = any(one.get("core", {}).get("remote") == default for one in own)
    is_described = any(default in one.get("remote", {}) for one in own)
    return Setup(tuple(config["remote"]), default, is_named and is_described)


def late(root: Path, days: Sequence[str]) -> list[str]:
    """Return the sealed days whose tags do not know the default remote.

    DVC reads the remotes of a tag from the tag's own .dvc/config: `dvc push --all-tags` and `dvc
    fetch --all-tags` pass over a day that was sealed before the remote was set up (DVC 3.67).
    """
    found = setup(root)
    if not found.default or found.is_everywhere:
        return []
    name = re.escape(found.default)
    names = {f"{vcs.TAG}{day}:.dvc/config": day for day in days}
    texts = {names[one]: data.decode() for one, data in vcs.blobs(root, list(names)).items()}
    wanted = (rf'(?m)^\[\'?remote "{name}"\'?\]', rf"(?m)^\s*remote\s*=\s*{name}\s*$")
    return [day for day in days if not all(re.search(w, texts.get(day, "")) for w in wanted)]


def hold_everywhere(root: Path) -> None:
    """Note the default remote in this machine's own configuration, which holds at every tag too.

    DVC also forgets what it found to push and fetch before: it would say that all is up to date.
    """
    from dvc.repo import Repo

    name = setup(root).default
    with Repo(str(root)) as repo:
        options = repo.config.load_one("repo")["remote"].get(name, {})
        with repo.config.edit("local") as local:
            local["remote"][name] = {**options, **local["remote"].get(name, {})}
            local["core"]["remote"] = name
        repo.drop_data_index()


def pushing(root: Path, *, all_tags: bool = False) -> str:
    """The command that pushes what was sealed; git's half only where git has a remote."""
    git_too = " && git push --follow-tags" * bool(vcs.git(root, "remote").strip())
    return f"dvc push{' --all-tags' * all_tags}{git_too}"


def pulling(root: Path, keys: Iterable[str]) -> str:
    """The command that brings into the working tree what lacks these objects of the day there."""
    objects, found = cache.folder(root), setup(root)
    if all(cache.object_path(objects, key).exists() for key in keys):
        # Others of the day may be missing there.
        return "dvc checkout" + " || dvc pull" * bool(found.default)
    if found.default:
        return "dvc pull"
    if found.names:
        return f"dvc remote default {found.names[0]} && dvc pull"
    return "no remote is set up here to pull from: dayfold check says what to do"


def bring(root: Path, key: str, *, objects: Path | None = None) -> Path:
    """Return where DVC's cache has an object, fetched from a remote where it lacks it.

    Not by `dvc get`, which finds no remote at a day that was sealed before there was one. DVC is
    asked where its cache is, unless `objects` says so. Raises ToolError where no remote has it,
    with the reason of each.
    """
    path = cache.object_path(objects or cache.folder(root), key)
    if path.exists():
        return path
    problems = []
    for remote in remotes(root):
        try:
            data = remote.data(key)
        except ToolError as error:
            problems.append(error.what)
            continue
        if data is not None and md5(data) == key.removesuffix(cache.FOLDER):
            write_bytes(path, data, mode=READ_ONLY)
            return path
        state = remote.problem or ("does not have it" if data is None else "has other bytes")
        problems.append(f"remote {remote.name} ({remote.url}) {state}")
    raise ToolError(
        f"DVC's cache lacks the object {key}, and no remote has it:",
        problems=problems or ["no remote is set up"],
        mend="dayfold check says what to do",
    )


def bring_folder(root: Path, key: str, target: Path, *, objects: Path | None = None) -> None:
    """Lay out a folder of DVC's at `target`, by links into its cache; ToolError as `bring`."""
    objects = objects or cache.folder(root)
    for found in cache.listed(bring(root, key, objects=objects).read_bytes()).values():
        bring(root, found, objects=objects)
    cache.lay_out(objects, key, target)


def ask(root: Path, keys: Iterable[str]) -> Answer:
    """Ask the default remote which of these objects it lacks, for PATIENCE_S at most.

    By a process of its own: no storage's client can be relied on to give up.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return Answer()
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(root)],
            env=vcs.environment(),
            input="\n".join(wanted),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(problem=f"no answer in {PATIENCE_S} s")
    if done.returncode:
        return Answer(problem=(done.stderr.strip().splitlines() or ["it failed"])[-1])
    return Answer(frozenset(done.stdout.split()))


def _answer(root: Path, keys: Sequence[str]) -> None:
    name = setup(root).default
    [remote] = [one for one in remotes(root) if one.name == name]
    if remote.problem:
        raise ToolError(f"remote {name} ({remote.url}) {remote.problem}")
    print("\n".join(remote.lacking(keys)))


if __name__ == "__main__":
    try:
        _answer(Path(sys.argv[1]), sys.stdin.read().split())
    except ToolError as problem:
        sys.exit(problem.what)
