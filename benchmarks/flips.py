"""Flip single bits in the stored files of a project, and count how many `dayfold check` finds.

    python benchmarks/flips.py PROJECT [--flips 300]

PROJECT, whose last day is sealed, is copied first. Every kind of stored file gets its share; each
flip is looked for as by `dayfold check --read-data` and taken back: of git's files each alone, as
without one the rest can hardly be read, of the other kinds one of each together. Not stored, so not
flipped: what a person edits (params.yaml, dvc.yaml), the record of DVC's earlier runs
(.dvc/cache/runs, from which it takes nothing without looking the object up), and git's own settings
and indexes.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measuring import command_line

from dayfold.errors import DayfoldError
from dayfold.project.layout import Project
from dayfold.proof.verify import verify

KINDS = {
    "images": ("data/images/*/*/*",),
    "outputs": ("data/model.safetensors", "data/*.csv"),
    "parent": ("data/parent/*",),
    "cached objects": (".dvc/cache/files/md5/*/*", ".dvc/cache/[0-9a-f][0-9a-f]/*"),
    "manifests": ("data/manifests/*.csv",),
    "corrections": ("data/corrections/*.csv",),
    "evaluations": ("data/evaluations/*.csv", "data/gates/*.csv", "data/looks/*.csv"),
    "figures": ("metrics.json", "data/provenance.json", "data/plots/*.csv"),
    "pins": ("dvc.lock", "data/parent.dvc", "data/images/*.dvc"),
    "git objects": (".git/objects/[0-9a-f][0-9a-f]/*", ".git/objects/pack/*.pack"),
    "git tags": (".git/refs/tags/day/*",),
}


def stored(root: Path) -> dict[str, list[Path]]:
    """The stored files of a project that hold at least a byte, by kind."""
    found = {}
    for kind, patterns in KINDS.items():
        paths = sorted(path for pattern in patterns for path in root.glob(pattern))
        if full := [path for path in paths if path.is_file() and path.stat().st_size]:
            found[kind] = full
    return found


def flipped(data: bytes, chance: np.random.Generator) -> bytes:
    after = bytearray(data)
    after[chance.integers(len(after))] ^= 1 << int(chance.integers(8))
    return bytes(after)


def put(path: Path, data: bytes, was: os.stat_result) -> None:
    """Write bytes into the very file (a link of DVC's stays one), as a failing disk would."""
    path.chmod(was.st_mode | 0o200)
    with path.open("r+b") as file:
        file.write(data)
    path.chmod(was.st_mode)
    os.utime(path, ns=(was.st_mtime_ns, was.st_mtime_ns))


def trial(
    project: Project, paths: Sequence[Path], chance: np.random.Generator
) -> tuple[bool, list[bool]]:
    """Flip a bit of each file: whether verify finds anything, and whether it names each file."""
    before = [(path, path.read_bytes(), path.stat()) for path in paths]
    for path, data, was in before:
        put(path, flipped(data, chance), was)
    try:
        said = [f"{one.what} {one.fix}" for one in verify(project, read_data=True).damage]
    except DayfoldError as error:  # git cannot even list its tags
        said = [str(error)]
    finally:
        for one in before:
            put(*one)
    return bool(said), [
        any(word in line for line in said for word in words(path)) for path in paths
    ]


def words(path: Path) -> tuple[str, ...]:
    """What a file is called by: its name, and an object of git or DVC by a part of its hash."""
    return (f"/{path.parent.name}/{path.name}", path.name[:8] if len(path.name) > 20 else path.name)


def run(root: Path, count: int) -> list[bool]:
    """Flip so many bits, or a few more; whether each was found."""
    project, chance, files = Project(root), np.random.default_rng(0), stored(root)
    found: list[bool] = []
    while len(found) < count:
        paths = {kind: own[chance.integers(len(own))] for kind, own in files.items()}
        alone = [[paths.pop(kind)] for kind in list(paths) if kind.startswith("git")]
        # No file twice at once, under the names of two links.
        together = [*{path.stat().st_ino: path for path in paths.values()}.values()]
        for batch in (together, *alone):
            is_damaged, named = trial(project, batch, chance)
            for path, is_named in zip(batch, named, strict=True):
                # Of several that were flipped together, only what is named was surely found.
                found.append(is_named or (is_damaged and len(batch) == 1))
                if not found[-1]:
                    print(f"not found: {path.relative_to(root)}", flush=True)
    return found


def main() -> None:
    options = command_line(__doc__, "project", flips=300)
    with TemporaryDirectory(dir=options.project.resolve().parent) as folder:
        copy = shutil.copytree(options.project, Path(folder) / "copy", symlinks=True)
        if verify(Project(copy), read_data=True).damage:
            raise SystemExit(f"{options.project} is damaged already: dayfold check --read-data")
        found = run(copy, options.flips)
    print(f"{sum(found)} of {len(found)} flipped bits were found")


if __name__ == "__main__":
    main()
