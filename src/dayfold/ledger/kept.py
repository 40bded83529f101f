"""What the chain of manifests came to, kept beside the project: nobody reads a million rows daily.

A folder is named by the sha256 of the manifest up to which it was read, which pins all before it,
and every file in it by its own: what is damaged is not there. It can always be made again.
"""

import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from dayfold.project.files import json_bytes, sha256_file, write_bytes
from dayfold.project.layout import Project

FORMAT = 1  # of the files; another one is not looked at
KEPT = 2  # histories: the open day's parent, and the one before it while that changes
FACTS = "facts.json"

Tables = dict[str, pl.DataFrame]


def load(project: Project, pin: str, names: Iterable[str]) -> Tables | None:
    """Return these tables as kept for a manifest's sha256, mapped into memory; None unless all."""
    folder = project.ledger_cache / pin
    try:
        facts = json.loads((folder / FACTS).read_bytes())
        if facts["format"] != FORMAT:
            return None
        for name, digest in facts["sha256"].items():
            if sha256_file(folder / name) != digest:
                return None
        kept = {name: folder / f"{name}.arrow" for name in names}
        if {path.name for path in kept.values()} - facts["sha256"].keys():
            return None
        return {name: pl.read_ipc(path) for name, path in kept.items()}
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError):
        return None


def keep(project: Project, pin: str, tables: Tables) -> None:
    """Keep tables for a manifest's sha256, and of older ones the last only."""
    folder = project.ledger_cache / pin
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_ipc(folder / f"{name}.arrow", compression="uncompressed")
    digests = {f"{name}.arrow": sha256_file(folder / f"{name}.arrow") for name in tables}
    # Last, and atomically: without it the rest is not there.
    write_bytes(folder / FACTS, json_bytes({"format": FORMAT, "sha256": digests}))
    for old in _oldest_first(project.ledger_cache)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _oldest_first(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: (path.stat().st_mtime, path.name))
