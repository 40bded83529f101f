"""DVC's remotes, object by object: what they keep of some bytes, and text put in its place.

The one place where DVC is used from within: its command line cannot reach a single object. Its
remote objects know the paths of every kind of storage, and fsspec reads and writes them.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dayfold.errors import ToolError
from dayfold.project import cache
from dayfold.project.cache import READ_ONLY
from dayfold.project.files import write_bytes


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
        for store in self.stores:
            with suppress(Exception):  # of whichever storage it is
                return cache.listed(store.fs.cat_file(store.oid_to_path(key)))
        raise KeyError(key)

    def replace(self, key: str, text: bytes, *, folder: str) -> int:
        """Put `text` in the place of an object, in every layout; return how many that were not it.

        A remote that has the list of the object's folder gets the text even without the object:
        DVC checks out nothing of a folder with a gap. Whatever fsspec raises is a ToolError.
        """
        try:
            return sum(self._replace(store, key, text, folder) for store in self.stores)
        except Exception as error:  # of whichever storage it is
            said = " ".join(str(error).split()) or type(error).__name__
            raise ToolError(f"remote {self.name} ({self.url}): {said[:300]}") from error

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
