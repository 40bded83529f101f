"""What DVC pins, by path."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from dayfold.errors import DayfoldError, LedgerError
from dayfold.project import vcs
from dayfold.project.layout import Project

_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
Entries = dict[str, dict[str, Any]]


def entries(data: bytes, source: str) -> Entries:
    """Return what a `.dvc` file or dvc.lock says of each path.

    Raises LedgerError, naming `source`, if it is broken.
    """
    try:
        found = yaml.load(data, Loader=yaml.CSafeLoader)
        parts = found["stages"].values() if "stages" in found else [found]
        outs = [out for part in parts for out in part["outs"]]
        if all(_MD5.fullmatch(out["md5"]) for out in outs):
            return {str(out["path"]): dict(out) for out in outs}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError):
        pass
    again = ", then dvc repro" * (source == "dvc.lock")
    what = f"{source} is not complete, so DVC cannot use it."
    raise LedgerError(what, hint=f"git checkout HEAD -- {source}{again}")


def outputs(lock: bytes) -> dict[str, str]:
    """Return path → MD5 of every output that a dvc.lock pins."""
    return {path: entry["md5"] for path, entry in entries(lock, "dvc.lock").items()}


def sealed_outputs(root: Path, day: str) -> dict[str, str]:
    return outputs(vcs.blob(root, f"{vcs.TAG}{day}:dvc.lock"))


def read(project: Project, path: Path) -> Entries:
    """Return what a .dvc file says of each path now; nothing if it cannot be read."""
    try:
        return entries(path.read_bytes(), project.name(path))
    except (DayfoldError, OSError):
        return {}


def tracking(project: Project, day: str) -> Path:
    """Return the .dvc file that tracks the day's images now: its own, or its month's."""
    own = project.tracked(day)
    return own if own.exists() else project.tracked_month(day)


def of_images(project: Project, day: str) -> dict[str, Any] | None:
    """Return what pins the day's images now; None if nothing does, or it cannot be read."""
    return read(project, tracking(project, day)).get(day)


def tracked(names: Iterable[str]) -> list[str]:
    """Return what DVC tracks these files by: a day's image folder, data/parent, or the file."""
    parts = [name.split("/") for name in names]
    return sorted({"/".join(one[: 3 if one[:2] == ["data", "images"] else 2]) for one in parts})
