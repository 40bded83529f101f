"""Whether all that is kept is what was recorded: the chain of days and, if asked, every byte."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from dayfold.ledger import corrections
from dayfold.project import cache, vcs
from dayfold.project import params as params_file
from dayfold.project.cache import Pin
from dayfold.project.console import MOST_LINES, Ticker, first_few, plural
from dayfold.project.cpus import cpus
from dayfold.project.files import md5_file
from dayfold.project.layout import UNOPENED, Project
from dayfold.proof import absent, chain, record
from dayfold.proof.absent import Fix
from dayfold.proof.chain import Finding
from dayfold.proof.erased import judged
from dayfold.proof.record import Sealed

CHUNK_BYTES = 1 << 20
# The cache's layout before DVC 3, in which it still keeps the lists of some folders.
LEGACY = "[0-9a-f]" * 2


@dataclass
class Verified:
    """What was found: `damage`, what is not here but may come, and how much was read.

    `unpushed` are the days of which the default remote lacks something, as far as it was asked, and
    `problem` says why it could not be. `erased` are the files and objects that are the text in an
    erased image's place.
    """

    days: list[str]
    damage: list[Finding] = field(default_factory=list)
    absent: list[Finding] = field(default_factory=list)
    unpushed: list[str] = field(default_factory=list)
    problem: str = ""
    erased: int = 0
    files: int = 0
    bytes: int = 0


class _Read(NamedTuple):
    """A file to be read: where it is, and as which file of the project its bytes are known.

    `key` is the MD5 by which DVC's cache has the bytes, `image` the sha256 of an image's: that is
    compared, but for an object of the cache, which DVC knows by its key.
    """

    path: Path
    name: str
    day: str
    key: str
    image: str = ""
    is_object: bool = False


def verify(project: Project, *, read_data: bool, ask_all: bool = False) -> Verified:
    """Check the chain from today to the origin; with `read_data` read every file that is kept.

    Nothing is changed. The open day is not looked at but for its parent: it is not settled. The
    default remote is asked for what is not here, with `ask_all` for everything.
    """
    params = params_file.read(project.params)
    sealed = vcs.sealed_days(project.root)
    committed = f"HEAD:{project.name(project.manifest(params.day))}"
    settled = params.day in sealed or vcs.blobs(project.root, [committed])
    last = params.day if settled else params.parent
    if params.day == UNOPENED:
        return Verified([])
    known = record.read(project, sealed)
    days, broken = chain.walk(project, known, last)
    found = Verified(days, broken)
    line = [known[day] for day in days if day in known]
    found.damage += chain.check(project, line, current=params.day)
    line = [one for one in line if one.is_readable]  # of the others the chain has told
    strays = [day for day in sealed if days and day < days[-1] and day not in days]
    found.damage += [
        Finding(
            day,
            f"{vcs.TAG}{day} is not part of the history of {last}",
            "docs/operations.md, two clones that sealed",
        )
        for day in strays
    ]
    objects = cache.folder(project.root)
    missing = absent.look(project, line, objects, current=params.day, ask_all=ask_all)
    found.damage += missing.lost
    found.absent, found.unpushed, found.problem = missing.later, missing.unpushed, missing.problem
    if read_data:
        found.damage += _git(project)
        _read_all(project, line, objects, params.day, found)
    found.damage.sort()
    return found


def summary(found: Verified, *, read_data: bool) -> str:
    """Return in a line what was found, and how much was read."""
    if not found.days:
        return "no sealed day yet"
    read = (
        f"{found.files} files read, {found.bytes / 2**20:.0f} MiB"
        if read_data
        else "images and models were not read (--read-data does)"
    )
    if found.erased:
        read += f", {found.erased} of them placeholders of erased images"
    state = f"{len(found.damage)} damaged" if found.damage else "nothing damaged"
    count = plural(len(found.days), "day")
    return f"{count} from {found.days[0]} to {found.days[-1]}: {state}; {read}"


def folded(found: Sequence[Finding]) -> Iterator[Finding]:
    """Return the first findings of each day, and how many more there are of it."""
    for day, some in groupby(found, key=lambda one: one.day):
        whole = list(some)
        yield from whole[:MOST_LINES]
        for more in first_few([one.what for one in whole])[MOST_LINES:]:
            yield Finding(day, more, "check again when these are whole")


def _owners(project: Project, line: Sequence[Sealed], objects: Path) -> dict[str, tuple[str, str]]:
    """Which day's and which path's bytes the cache keeps under an MD5: the first that made them."""
    owners: dict[str, tuple[str, str]] = {}
    for sealed in line:
        pins = list(sealed.outs())
        if sealed.images:
            pins.append(Pin(project.name(project.images(sealed.day)), sealed.images.md5))
        pins.append(Pin(project.name(project.parent), sealed.parent_pin.md5))
        for path, key in pins:
            owners.setdefault(key, (sealed.day, path))
            if Pin(path, key).is_folder:
                try:
                    for name, found in cache.listing(objects, key).items():
                        owners.setdefault(found, (sealed.day, f"{path}/{name}"))
                except KeyError:
                    continue
    return owners


def _git(project: Project) -> Iterator[Finding]:
    """What git finds damaged in its own objects, tags and branches."""
    done = subprocess.run(
        ["git", "fsck", "--full", "--no-dangling", "--no-progress"],
        cwd=project.root,
        env=vcs.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    yield from _refs(project)
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        for line in first_few(said, "what git fsck --full says"):
            yield Finding(
                "git",
                f"git fsck: {line}",
                "move the named file away, then git fetch from another clone",
            )


def _refs(project: Project) -> Iterator[Finding]:
    """Tags and branches in another form than git writes: it reads over a letter's case."""
    words = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    home = Path(vcs.git(project.root, *words).strip())
    for path in sorted(path for path in (home / "refs").rglob("*") if path.is_file()):
        if not re.fullmatch(rb"([0-9a-f]{40,64}|ref: refs/\S+)\n", path.read_bytes()):
            name = path.relative_to(home / "refs").as_posix()
            back = "git fetch --tags --force, or git update-ref with the commit of another clone"
            yield Finding("git", f"the ref {name} is damaged", back)


def _outputs(
    project: Project, line: Sequence[Sealed], current: str, objects: Path
) -> Iterator[_Read]:
    """What DVC keeps of the sealed day in the working tree, and the parent of the open one."""
    if not line:
        return
    last = line[-1]
    if last.day == current:
        for path, key in last.outs():
            is_here = (project.root / path).exists() or cache.object_path(objects, key).exists()
            if path not in last.files and is_here:  # else it is told as absent
                yield _Read(project.root / path, path, last.day, key)
        parent = line[-2] if len(line) > 1 else None
    else:
        parent = last
    if parent is not None and project.parent.is_dir():
        for name, key in chain.handed_on(project, dict(parent.outs())).items():
            file = project.parent / name
            yield _Read(file, project.name(file), parent.day, key)


def _objects(objects: Path, owners: Mapping[str, tuple[str, str]]) -> Iterator[_Read]:
    """Every object of the cache against its name, of experiments and the open day too."""
    for pattern in (f"files/md5/{LEGACY}/*", f"{LEGACY}/*"):
        for path in sorted(objects.glob(pattern)):
            key = path.parent.name + path.name
            if path.is_file() and len(key.removesuffix(cache.FOLDER)) == 32:
                day, name = owners.get(key, ("no sealed day", ""))
                yield _Read(path, name, day, key, is_object=True)


def _reads(
    project: Project, line: Sequence[Sealed], objects: Path, current: str
) -> Iterator[_Read]:
    """All that is kept: images that a manifest added, withdrawn ones too, outputs and objects."""
    owners = _owners(project, line, objects)
    keys = {name: key for key, (_, name) in owners.items()}
    images: dict[str, str] = {}
    for sealed in line:
        rows = sealed.rows().filter(action="add").select("path", "image")
        images |= dict(rows.iter_rows())
        if project.images(sealed.day).is_dir():
            for path, image in rows.iter_rows():
                yield _Read(project.root / path, path, sealed.day, keys.get(path, ""), image)
    yield from _outputs(project, line, current, objects)
    for one in _objects(objects, owners):
        yield one._replace(image=images.get(one.name, ""))


def _read_all(
    project: Project, line: Sequence[Sealed], objects: Path, current: str, found: Verified
) -> None:
    """Read every file that is kept, and note what is damaged or was erased."""
    reads = list(_reads(project, line, objects, current))
    events = corrections.gone(project, corrections.ERASE)
    size = sum(one.path.stat().st_size for one in reads if one.path.exists())
    found.files, found.bytes = len(reads), size
    bad: list[_Read] = []
    with Ticker("reading", size >> 20, "MiB") as ticker, ThreadPoolExecutor(cpus()) as pool:
        done = 0
        for one, (is_whole, count) in zip(reads, pool.map(_is_whole, reads), strict=True):
            done += count
            ticker.so_far(done >> 20, size >> 20)
            said = judged(one.path, one.name, one.day, one.image, events, is_whole=is_whole)
            if said is not None:
                found.damage += said
                found.erased += not said
            elif not is_whole:
                bad.append(one)
    damaged = {one.path for one in bad}
    by_remote = absent.by_remote(project, [one.key for one in bad if one.key], found.days)
    for one in bad:
        if one.is_object:
            found.damage.append(_of_object(project, one, damaged, by_remote))
        else:
            found.damage.append(_of_file(project, one, objects, damaged, by_remote))


def _is_whole(one: _Read) -> tuple[bool, int]:
    """Whether a file has the bytes that are recorded, and how many it has."""
    is_image = bool(one.image) and not one.is_object
    wanted = one.image if is_image else one.key.removesuffix(cache.FOLDER)
    hashed = hashlib.sha256() if is_image else hashlib.md5(usedforsecurity=False)
    count = 0
    try:
        with one.path.open("rb", buffering=0) as file:
            while piece := file.read(CHUNK_BYTES):
                count += len(piece)
                hashed.update(piece)
    except OSError:
        return False, count
    return hashed.hexdigest() == wanted, count


def _of_object(project: Project, one: _Read, damaged: set[Path], by_remote: Fix) -> Finding:
    """A damaged object of the cache: from its file in the working tree, or else from a remote."""
    copy = project.root / one.name
    what = f"the cached {one.name or 'file'} ({one.path.name[:8]}…) is damaged"
    path = os.path.relpath(one.path, project.root)
    is_whole = copy.is_file() and copy not in damaged and not copy.samefile(one.path)
    if is_whole and md5_file(copy) == one.key:
        return Finding(one.day, what, f"rm -f {path} && install -m 444 {one.name} {path}")
    fix = by_remote(one.key, f"rm -f {path} && dvc fetch --all-tags")
    return Finding(one.day, what, fix)


def _of_file(
    project: Project, one: _Read, objects: Path, damaged: set[Path], by_remote: Fix
) -> Finding:
    """A damaged or missing file of the working tree: from the cache, or else from a remote."""
    what = f"{one.name} {'is damaged' if one.path.exists() else 'is missing'}"
    target = _target(project, one.path)
    kept = cache.object_path(objects, one.key) if one.key else None
    is_kept = kept is not None and kept.exists()
    if is_kept and kept not in damaged:
        return Finding(one.day, what, f"rm -f {one.name} && dvc checkout {target}")
    drop = f" {os.path.relpath(str(kept), project.root)}" * is_kept
    fix = by_remote(one.key, f"rm -f {one.name}{drop} && dvc pull {target}")
    return Finding(one.day, what, fix)


def _target(project: Project, path: Path) -> str:
    """What `dvc checkout` calls a file: the .dvc file of its day, or itself."""
    images = project.data / "images"
    if images in path.parents:
        return project.name(chain.tracking(project, path.relative_to(images).parts[0]))
    if project.parent in path.parents:
        return project.name(project.parent.with_suffix(".dvc"))
    return project.name(path)
