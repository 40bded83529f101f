"""Whether all that is kept is what was recorded: the chain of days and, if asked, every byte."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from dayfold.errors import ToolError
from dayfold.ledger import corrections
from dayfold.ledger.decode import placeholder
from dayfold.project import cache, vcs
from dayfold.project import params as params_file
from dayfold.project.console import MOST_LINES, Ticker, first_few, plural
from dayfold.project.cpus import cpus
from dayfold.project.files import md5_file, sha256_file
from dayfold.project.layout import UNOPENED, Project
from dayfold.proof import chain, missing, record
from dayfold.proof.chain import Finding
from dayfold.proof.missing import Kept, Source
from dayfold.proof.record import Sealed

OBJECTS = ("files/md5/[0-9a-f][0-9a-f]/*", "[0-9a-f][0-9a-f]/*")  # the second: before DVC 3


@dataclass
class Verified:
    """What was found: `damage`, what is not here but may come, and in words what was read.

    `unpushed` are the days of which the default remote lacks something, as far as it was asked, and
    `problem` says why it could not be. `erased` files and objects are the text in an erased image's
    place.
    """

    days: list[str]
    damage: list[Finding] = field(default_factory=list)
    absent: list[Finding] = field(default_factory=list)
    unpushed: list[str] = field(default_factory=list)
    problem: str = ""
    erased: int = 0
    read: str = "images and models were not read (--read-data does)"


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
    if params.day == UNOPENED:
        return Verified([])
    sealed = vcs.sealed_days(project.root)
    committed = f"HEAD:{project.name(project.manifest(params.day))}"
    is_settled = params.day in sealed or vcs.blobs(project.root, [committed])
    last = params.day if is_settled else params.parent
    known = record.read(project, sealed)
    found = Verified(*chain.walk(project, known, last))
    line = [known[day] for day in found.days if day in known]
    found.damage += chain.check(project, line, current=params.day)
    line = [one for one in line if one.is_readable]  # of the others the chain has told
    for day in sealed:
        if found.days and day < found.days[-1] and day not in found.days:
            what = f"{vcs.TAG}{day} is not part of the history of {last}"
            found.damage.append(Finding(day, what, "docs/operations.md, two clones that sealed"))
    objects = cache.folder(project.root)
    kept = [one for sealed in line for one in missing.kept(project, sealed, params.day)]
    bad: list[_Read] = []
    if read_data:
        found.damage += _git(project)
        reads = list(_reads(project, line, kept, objects, params.day))
        bad = _damaged(project, reads, found)
    cached = {one for one in kept if cache.object_path(objects, one.key).exists()}
    asked = [one.key for one in kept if ask_all or one not in cached]
    asked += [one.key for one in bad if one.key]
    source = Source.asked(project.root, asked, found.days)
    found.problem = source.problem
    found.unpushed = sorted({one.day for one in cached if one.key in source.lacking})
    for finding, is_lost in missing.look(project, line, kept, cached, source):
        (found.damage if is_lost else found.absent).append(finding)
    damaged = {one.path for one in bad}
    found.damage += [_finding(project, one, objects, damaged, source) for one in bad]
    found.damage.sort()
    return found


def summary(found: Verified) -> str:
    """Return in a line that nothing is damaged, and how much was read."""
    if not found.days:
        return "no sealed day yet"
    texts = f", {found.erased} of them placeholders of erased images" if found.erased else ""
    span = f"{plural(len(found.days), 'day')} from {found.days[0]} to {found.days[-1]}"
    return f"{span}: nothing damaged; {found.read}{texts}"


def folded(found: Sequence[Finding]) -> Iterator[Finding]:
    """Return the first findings of each day, and how many more there are of it."""
    for day, some in groupby(found, key=lambda one: one.day):
        whole = list(some)
        yield from whole[:MOST_LINES]
        if len(whole) > MOST_LINES:
            more = f"and {len(whole) - MOST_LINES} more"
            yield Finding(day, more, "check again when these are whole")


def _git(project: Project) -> Iterator[Finding]:
    """What git finds damaged in its own objects, tags and branches."""
    words = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    refs = Path(vcs.git(project.root, *words).strip()) / "refs"
    for path in sorted(path for path in refs.rglob("*") if path.is_file()):
        # git reads over a letter's case; it writes one form only.
        if not re.fullmatch(rb"([0-9a-f]{40,64}|ref: refs/\S+)\n", path.read_bytes()):
            what = f"the ref {path.relative_to(refs).as_posix()} is damaged"
            back = "git fetch --tags --force, or git update-ref with the commit of another clone"
            yield Finding("git", what, back)
    try:
        vcs.git(project.root, "fsck", "--full", "--no-dangling", "--no-progress")
    except ToolError as error:
        what = "; ".join([error.what, *first_few(error.problems, "what it says")])
        fix = "move the named files away, then git fetch from another clone"
        yield Finding("git", what, fix)


def _owners(kept: Sequence[Kept], objects: Path) -> dict[str, tuple[str, str]]:
    """Which day's and which path's bytes the cache keeps under an MD5: the first that made them."""
    owners: dict[str, tuple[str, str]] = {}
    for one in kept:
        owners.setdefault(one.key, (one.day, one.path))
        if one.is_folder:
            try:
                for name, key in cache.listing(objects, one.key).items():
                    owners.setdefault(key, (one.day, f"{one.path}/{name}"))
            except KeyError:
                continue
    return owners


def _reads(
    project: Project, line: Sequence[Sealed], kept: Sequence[Kept], objects: Path, current: str
) -> Iterator[_Read]:
    """All that is kept: images that a manifest added, withdrawn ones too, outputs and objects."""
    owners = _owners(kept, objects)
    keys = {name: key for key, (_, name) in owners.items()}
    images: dict[str, str] = {}
    for sealed in line:
        rows = sealed.rows().filter(action="add").select("path", "image")
        images |= dict(rows.iter_rows())
        if project.images(sealed.day).is_dir():
            for path, image in rows.iter_rows():
                yield _Read(project.root / path, path, sealed.day, keys.get(path, ""), image)
    for one in kept:
        path = project.root / one.path
        is_here = path.exists() or cache.object_path(objects, one.key).exists()
        if one.day == current and not one.is_folder and is_here:  # else it is told as missing
            yield _Read(path, one.path, one.day, one.key)
    for parent in [one for one in line if one.day != current][-1:]:
        for name, key in chain.handed_on(project, parent.outs()).items():
            file = project.parent / name
            if project.parent.is_dir():
                yield _Read(file, project.name(file), parent.day, key)
    # Every object against its name, of experiments and the open day too.
    for path in sorted(path for pattern in OBJECTS for path in objects.glob(pattern)):
        key = path.parent.name + path.name
        if path.is_file() and len(key.removesuffix(cache.FOLDER)) == 32:
            day, name = owners.get(key, ("no sealed day", ""))
            yield _Read(path, name, day, key, images.get(name, ""), is_object=True)


def _damaged(project: Project, reads: Sequence[_Read], found: Verified) -> list[_Read]:
    """Read files; return those that are damaged, and note in `found` what of erased images is."""
    erased = corrections.gone(project, corrections.ERASE)
    sizes = [one.path.stat().st_size if one.path.exists() else 0 for one in reads]
    done, total = 0, sum(sizes)
    found.read = f"{len(reads)} files read, {total / 2**20:.0f} MiB"
    bad: list[_Read] = []
    with Ticker("reading", total >> 20, "MiB") as ticker, ThreadPoolExecutor(cpus()) as pool:
        for one, is_whole, size in zip(reads, pool.map(_is_whole, reads), sizes, strict=True):
            done += size
            ticker.so_far(done >> 20, total >> 20)
            if is_whole and one.image in erased:
                day, _ = erased[one.image]
                what = f"{one.name} was erased on {day}, and its bytes are here: {one.path}"
                found.damage.append(Finding(one.day, what, "dayfold withdraw --erase"))
            elif is_whole:
                continue
            elif not one.image or not _is_text(one):
                bad.append(one)
            elif one.image in erased:
                found.erased += 1
            else:
                what = f"{one.name}: text in its place says that it was erased, and no event does"
                fix = "git pull, if that was in another clone; or: dayfold withdraw --erase "
                found.damage.append(Finding(one.day, f"{what} ({one.path})", fix + one.name))
    return bad


def _is_whole(one: _Read) -> bool:
    """Whether a file has the bytes that are recorded."""
    try:
        if one.image and not one.is_object:
            return sha256_file(one.path) == one.image
        return md5_file(one.path) == one.key.removesuffix(cache.FOLDER)
    except OSError:
        return False


def _is_text(one: _Read) -> bool:
    """Whether the text of an erased image is in the place of this one."""
    return one.path.is_file() and one.path.read_bytes() == placeholder(one.image)


def _finding(
    project: Project, one: _Read, objects: Path, damaged: Collection[Path], source: Source
) -> Finding:
    """A damaged file and what brings it: whole bytes that are here, or else the source."""
    own = f"rm -f {os.path.relpath(one.path, project.root)}"
    if one.is_object:
        what = f"the cached {one.name or 'file'} ({one.path.name[:8]}…) is damaged"
        copy = project.root / one.name
        is_whole = copy.is_file() and copy not in damaged and not copy.samefile(one.path)
        if is_whole and md5_file(copy) == one.key:
            return Finding(one.day, what, f"{own} && install -m 444 {one.name} {own[6:]}")
        fix = source.bringing(one.key, one.day, f"{own} && dvc fetch --all-tags")
        return Finding(one.day, what, fix)
    what = f"{one.name} {'is damaged' if one.path.exists() else 'is missing'}"
    target = missing.target(project, one.path)
    kept = cache.object_path(objects, one.key)
    if one.key and kept.exists():
        if kept not in damaged:
            return Finding(one.day, what, f"{own} && dvc checkout {target}")
        own += f" {os.path.relpath(kept, project.root)}"
    return Finding(one.day, what, source.bringing(one.key, one.day, f"{own} && dvc pull {target}"))
