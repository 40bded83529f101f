"""What DVC stores, in its cache and remotes.

Only this file uses DVC from Python, as its command line cannot reach a single object. DVC's remote
objects know the paths of every kind of storage, and fsspec reads and writes them.
"""

import functools
import json
import os
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from dayfold.errors import ToolError
from dayfold.project import vcs
from dayfold.project.cpus import cpus
from dayfold.project.files import md5, md5_file, write_bytes

READ_ONLY = 0o444  # DVC trusts objects with exactly these rights; others it hashes or deletes
FOLDER = ".dir"  # ends the MD5 of a folder, whose object lists its files


@functools.cache
def cache_folder(root: Path) -> Path:
    return Path(vcs.dvc(root, "cache", "dir").strip())


def cache_of_main(root: Path) -> Path | None:
    """Return the cache of the main worktree if this is another worktree with its own cache.

    In a worktree that `git worktree add` made, DVC uses a new, empty cache.
    """
    first, _, _ = vcs.git(root, "worktree", "list", "--porcelain").partition("\n")
    main = Path(first.removeprefix("worktree "))
    if main == root.resolve() or not (main / ".dvc").is_dir():
        return None
    found = cache_folder(main)
    return None if found == cache_folder(root) else found


def sharing(root: Path, cache: Path) -> str:
    """Return the command that copies this project's cache into another one and uses that."""
    own = f"cp -an {shlex.quote(str(cache_folder(root) / 'files'))} {shlex.quote(str(cache))} && "
    to_share = f"dvc cache dir --local {shlex.quote(str(cache))} && dvc checkout"
    return own * any(objects(root)) + to_share


def linked(link: Path, objects: Path) -> Path | None:
    """Return the file of the cache that a link of DVC's leads to (cache.type symlink).

    `objects` is the cache's folder, with links resolved. None if the link leads elsewhere.
    """
    real = Path(os.path.realpath(link))  # `resolve` raises RuntimeError on a loop
    return real if real.is_relative_to(objects) and stat.S_ISREG(real.stat().st_mode) else None


def object_path(root: Path, key: str) -> Path:
    return within(cache_folder(root), key)


def within(cache: Path, key: str) -> Path:
    return cache / "files" / "md5" / key[:2] / key[2:]


def has(root: Path, keys: Iterable[str]) -> bool:
    # DVC takes a second to say where its cache is, so the usual place is tried first.
    usual = root / ".dvc" / "cache"
    return all(within(usual, key).exists() or object_path(root, key).exists() for key in keys)


def objects(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the MD5 and the path of each object of the project's cache."""
    for path in sorted(cache_folder(root).glob("files/md5/[0-9a-f][0-9a-f]/*")):
        key = path.parent.name + path.name
        if path.is_file() and len(key.removesuffix(FOLDER)) == len(NOWHERE):
            yield key, path


def listed(data: bytes) -> dict[str, str]:
    """Return path → MD5 from a folder's object; raise ValueError or TypeError if it is damaged."""
    return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(data)}


def folder_md5(files: Mapping[str, str]) -> str:
    """Return the MD5 by which DVC names a folder of these files: path within it → MD5."""
    entries = [{"md5": found, "relpath": name} for name, found in sorted(files.items())]
    return md5(json.dumps(entries, sort_keys=True).encode()) + FOLDER


def has_md5(path: Path, key: str) -> bool:
    """Return whether a file, or a folder with its files, has this MD5 of DVC's."""
    if not path.is_dir():
        return path.is_file() and md5_file(path) == key
    files = [file for file in path.rglob("*") if file.is_file()]
    names = (file.relative_to(path).as_posix() for file in files)
    with ThreadPoolExecutor(cpus()) as pool:
        return folder_md5(dict(zip(names, pool.map(md5_file, files), strict=True))) == key


PATIENCE_S = 30  # how long a remote may take to answer
NOWHERE = "0" * 32  # an MD5 that no object has


class Remote(NamedTuple):
    """A remote of this project, by its name and URL; `store` is DVC's object for its contents.

    If it `verifies`, DVC hashes what comes from it. `problem` says why the remote cannot be used
    object by object, or "".
    """

    name: str
    url: str
    store: Any = None
    verifies: bool = False
    problem: str = ""

    def data(self, key: str) -> bytes | None:
        """Return the bytes of an object, None if there is none; raise ToolError as `replace`."""
        with self._reached():
            return self._read(self.store.oid_to_path(key))

    def lacking(self, keys: Iterable[str]) -> set[str]:
        """Return which objects the remote does not have; raise ToolError as `replace`."""
        wanted = set(keys)
        with self._reached():
            self._read(self.store.oid_to_path(NOWHERE))  # raises if it cannot be reached
            return wanted - set(self.store.oids_exist(sorted(wanted)))

    def replace(self, key: str, text: bytes, *, folder: str) -> int:
        """Replace an object by `text`; return 1 if the remote had other bytes, else 0.

        A remote that has the list of the object's folder gets the text even without the object, as
        DVC checks out nothing of a folder with a gap. Errors of fsspec become ToolError.
        """
        with self._reached():
            fs, path = self.store.fs, self.store.oid_to_path(key)
            if fs.protocol == "local" and not Path(self.store.path).exists():
                raise OSError("the folder is not there (is its disk mounted?)")
            found = self._read(path)
            if found is None and self._read(self.store.oid_to_path(folder)) is None:
                return 0
            if fs.protocol == "local":
                # As in the cache: in a local remote DVC trusts read-only objects and deletes wrong
                # ones.
                write_bytes(Path(path), text, mode=READ_ONLY)
            elif found != text:
                fs.pipe_file(path, text)
            if fs.cat_file(path) != text:
                raise OSError(f"{path} was written and still has other bytes")
            return int(found not in (None, text))

    def _read(self, path: str) -> bytes | None:
        # fsspec's `exists` is not used: it is false for an unreachable server too.
        try:
            return bytes(self.store.fs.cat_file(path))
        except FileNotFoundError:
            return None

    @contextmanager
    def _reached(self) -> Iterator[None]:
        if self.problem:
            raise ToolError(f"remote {self.name} ({self.url}) {self.problem}")
        try:
            yield
        except Exception as error:  # each storage has its own errors
            said = " ".join(str(error).split()) or type(error).__name__
            raise ToolError(f"remote {self.name} ({self.url}): {said[:300]}") from error


def remotes(root: Path) -> list[Remote]:
    """Return every remote in DVC's configuration, including those of this machine only."""
    # Slow to import, and few commands need it.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    found = []
    try:
        with Repo(str(root)) as repo:
            for name, options in repo.config["remote"].items():
                store, problem = None, ""
                try:
                    cloud = repo.cloud.get_remote(name)
                    store = cloud.odb
                    if cloud.worktree or cloud.fs.version_aware:
                        problem = "keeps files by name (worktree or version_aware), not by hash"
                except DvcException as error:  # for example, its package is missing
                    problem = " ".join(str(error).split())
                verifies = bool(options.get("verify"))
                found.append(Remote(name, str(options["url"]), store, verifies, problem))
    except DvcException as error:
        raise ToolError(f"DVC's remotes cannot be read: {error}") from error
    return found


def _config(root: Path) -> Any:
    # This uses no network.
    from dvc.config import Config
    from dvc.exceptions import DvcException

    try:
        return Config(str(root / ".dvc"), validate=False)
    except DvcException as error:
        raise ToolError(f"DVC's remotes cannot be read: {error}") from error


def remote_urls(root: Path) -> dict[str, str]:
    return {name: str(one.get("url", "")) for name, one in _config(root)["remote"].items()}


def default_remote(root: Path) -> str:
    """Return the name of the default remote; "" if there is none, or if it does not exist."""
    config = _config(root)
    name = str(config["core"].get("remote", ""))
    return name if name in config["remote"] else ""


def folder_of_url(url: str) -> str:
    """Return the folder that a file:// URL means, or "".

    DVC reads such a URL as the relative path file:/…, so a push would copy into the project.
    """
    return unquote(urlsplit(url).path) if url.startswith("file://") else ""


def remote_is_newer(root: Path, days: Sequence[str]) -> bool:
    """Return whether the default remote is unknown at the tag of the first of these sealed days.

    DVC reads a tag's remotes from the tag's .dvc/config, so `dvc push --all-tags` and `dvc fetch
    --all-tags` skip days that were sealed before the remote was set up (DVC 3.67). The machine's
    own configuration holds at every tag.
    """
    config, remote = _config(root), default_remote(root)
    own = config.load_one("local")
    is_held = own.get("core", {}).get("remote") == remote and remote in own.get("remote", {})
    if not days or not remote or is_held:
        return False
    if not (tagged := [day for day in vcs.tagged_days(root) if day in {*days}]):
        return False  # a clone without tags
    text = vcs.blob(root, f"{vcs.TAG}{tagged[0]}:.dvc/config", b"").decode()
    return f'remote "{remote}"' not in text or f"remote = {remote}\n" not in text


def configure_locally(root: Path) -> None:
    """Copy the default remote into the machine's own configuration, which holds at every tag.

    Also drops DVC's record of earlier pushes and fetches, by which it would say that all is up to
    date.
    """
    from dvc.repo import Repo

    name = default_remote(root)
    with Repo(str(root)) as repo:
        options = repo.config.load_one("repo")["remote"].get(name, {})
        with repo.config.edit("local") as local:
            local["remote"][name] = {**options, **local["remote"].get(name, {})}
            local["core"]["remote"] = name
        repo.drop_data_index()


def push_command(root: Path, *, all_tags: bool = False) -> str:
    """Return the command that pushes sealed days, with git's part only if git has a remote."""
    git_too = " && git push --follow-tags" * bool(vcs.git(root, "remote").strip())
    return f"dvc push{' --all-tags' * all_tags}{git_too}"


def fetch(root: Path, key: str) -> Path:
    """Return the path of an object in DVC's cache; fetch it from a remote if it is missing.

    `dvc get` is not used: it finds no remote at a day that was sealed before there was one. Raises
    ToolError with a reason for each remote if none has it.
    """
    path = object_path(root, key)
    if path.exists():
        return path
    problems = []
    for remote in remotes(root):
        try:
            data = remote.data(key)
        except ToolError as error:
            problems.append(error.what)
            continue
        if data is not None and md5(data) == key.removesuffix(FOLDER):
            write_bytes(path, data, mode=READ_ONLY)
            return path
        state = "does not have it" if data is None else "has other bytes"
        problems.append(f"remote {remote.name} ({remote.url}) {state}")
    raise ToolError(
        f"DVC's cache lacks the object {key}, and no remote has it:",
        problems=problems or ["no remote is set up"],
        hint="dayfold check says what to do",
    )


def fetch_folder(root: Path, key: str, target: Path) -> None:
    """Write the files of a folder of DVC's into `target`; raise ToolError as `fetch`."""
    target.mkdir(parents=True)
    for name, found in listed(fetch(root, key).read_bytes()).items():
        shutil.copyfile(fetch(root, found), target / name)


def missing_in_remote(root: Path, keys: Iterable[str]) -> tuple[frozenset[str], str]:
    """Return which of these objects the default remote lacks, or why it did not answer.

    This runs in a thread for at most PATIENCE_S, as not every storage client gives up.
    """
    wanted, name = sorted(set(keys)), default_remote(root)
    if not wanted or not name:
        return frozenset(), ""
    answers = []

    def look() -> None:
        try:
            [found] = [one for one in remotes(root) if one.name == name]
            answers.append((frozenset(found.lacking(wanted)), ""))
        except ToolError as error:
            answers.append((frozenset(), error.what))

    asking = Thread(target=look, daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return answers[0] if answers else (frozenset(), f"no answer in {PATIENCE_S} s")
