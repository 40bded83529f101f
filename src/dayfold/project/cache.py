"""DVC's cache on the disk."""

import functools
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dayfold.errors import LedgerError
from dayfold.project import vcs
from dayfold.project.files import md5

READ_ONLY = 0o444  # DVC trusts an object with exactly these rights; another it hashes, or deletes
FOLDER = ".dir"  # the ending of the MD5 of a folder: its object lists the files in it


@functools.cache
def folder(root: Path) -> Path:
    """Return the folder of the project's cache; DVC knows whether it is elsewhere."""
    return Path(vcs.dvc(root, "cache", "dir").strip())


def linked(link: Path, objects: Path) -> Path | None:
    """Return the file of the cache that a link of DVC's leads to (cache.type symlink).

    `objects` is the cache's folder itself, behind no link. None where the link leads elsewhere.
    """
    real = Path(os.path.realpath(link))  # `resolve` raises RuntimeError on a loop
    if not real.is_relative_to(objects):
        return None
    return real if stat.S_ISREG(real.stat().st_mode) else None


def object_path(cache: Path, key: str) -> Path:
    """Return where the cache keeps the bytes of this MD5."""
    return cache / "files" / "md5" / key[:2] / key[2:]


def entries(text: bytes, source: str) -> dict[str, dict[str, Any]]:
    """Return all that a `.dvc` file says of each path; LedgerError, naming `source`, if broken."""
    try:
        outs = yaml.load(text, Loader=yaml.CSafeLoader)["outs"]
        if all(isinstance(out["md5"], str) for out in outs):
            return {str(out["path"]): dict(out) for out in outs}
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        pass
    raise LedgerError(
        f"{source} is not whole: DVC cannot know what it stands for.",
        hint=f"git checkout HEAD -- {source}",
    )


def listed(data: bytes) -> dict[str, str]:
    """Return what the bytes of a folder's object list; ValueError or TypeError if they do not."""
    return {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(data)}


def folder_md5(files: Mapping[str, str]) -> str:
    """Return the MD5 by which DVC names a folder of these files: path within it → MD5."""
    entries = [{"md5": found, "relpath": name} for name, found in sorted(files.items())]
    return md5(json.dumps(entries, sort_keys=True).encode()) + FOLDER
