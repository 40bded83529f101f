"""Flip single bits in the stored files of a project, and count how many `dayfold check` finds.

    python benchmarks/flips.py PROJECT --flips 300

PROJECT, whose last day is sealed, is copied first. Every kind of stored file gets its share; each
flip is looked for with `verify --read-data` and taken back: of git's files each alone, of the other
kinds one of each together. A table tells, by kind, how many were found and in how many the damaged
file itself was named. Not stored, so not flipped: what a person edits (params.yaml, dvc.yaml), the
record of DVC's earlier runs (.dvc/cache/runs, from which it takes nothing without looking the
object up), and git's own settings and indexes.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

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
    found = {
        kind: sorted(
            path
            for pattern in patterns
            for path in root.glob(pattern)
            if path.is_file() and path.stat().st_size
        )
        for kind, patterns in KINDS.items()
    }
    return {kind: paths for kind, paths in found.items() if paths}


def flips(files: Mapping[str, Sequence[Path]], count: int, seed: int) -> Iterator[tuple[str, Path]]:
    """`count` files to flip a bit in, the kinds in turn, the files of a kind at random."""
    chance = np.random.default_rng(seed)
    for number in range(count):
        kind = list(files)[number % len(files)]
        yield kind, files[kind][chance.integers(len(files[kind]))]


def batches(made: Iterator[tuple[str, Path]]) -> Iterator[dict[str, Path]]:
    """Flips that are looked for at once: of git each alone, of the others one of each kind.

    Without an object of git's the rest can hardly be read. No file is flipped twice at once.
    """
    together: dict[str, Path] = {}
    for kind, path in made:
        if kind.startswith("git"):
            yield {kind: path}
            continue
        if kind in together or any(path.samefile(other) for other in together.values()):
            yield together
            together = {}
        together[kind] = path
    if together:
        yield together


def flipped(data: bytes, chance: np.random.Generator) -> bytes:
    """The bytes with one bit flipped."""
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


def run(root: Path, *, count: int, seed: int) -> dict[str, list[int]]:
    """Return, by kind, how many bits were flipped, found, and named."""
    project, chance = Project(root), np.random.default_rng(seed)
    whole = verify(project, read_data=True)
    if whole.damage:
        raise SystemExit(f"{root} is damaged already: {whole.damage[0].what}")
    counts: dict[str, list[int]] = {}
    for batch in batches(flips(stored(root), count, seed)):
        found, named = trial(project, list(batch.values()), chance)
        for (kind, path), one in zip(batch.items(), named, strict=True):
            # Of several that were flipped together, only what is named was surely found.
            seen = one or (found and len(batch) == 1)
            if not seen:
                print(f"not found: {path.relative_to(root)}", flush=True)
            row = counts.get(kind, (0, 0, 0))
            counts[kind] = [row[0] + 1, row[1] + seen, row[2] + one]
    if verify(project, read_data=True).damage:
        raise SystemExit("the flips were not taken back")
    return counts


def main(given_words: Sequence[str]) -> int:
    """Run on a copy of a project and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(given_words)
    with TemporaryDirectory(dir=given.project.resolve().parent) as folder:
        root = Path(folder) / "copy"
        shutil.copytree(given.project, root, symlinks=True)
        counts = run(root, count=given.flips, seed=given.seed)
    print(f"{'kind':16}{'flipped':>9}{'found':>9}{'named':>9}")
    total = np.sum(list(counts.values()), axis=0)
    for kind, row in {**counts, "all": total}.items():
        print(f"{kind:16}" + "".join(f"{value:9}" for value in row))
    return int(any(found < made for made, found, _ in counts.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
