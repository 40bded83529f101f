"""Checks of all that is kept against its hashes.

Anything missing or damaged is reported with the command that restores it: from DVC's cache, from
the default remote, or from the clone that has it.
"""

import os
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import polars as pl

from dayfold.errors import ToolError
from dayfold.history.record import Sealed, span
from dayfold.history.state import ProjectState
from dayfold.ledger import corrections
from dayfold.ledger.decode import is_placeholder
from dayfold.project import pins, storage, vcs
from dayfold.project.console import MOST_LINES, Ticker, first_few, plural
from dayfold.project.cpus import cpus
from dayfold.project.files import md5_file, sha256_file
from dayfold.project.layout import STAGES, Project
from dayfold.proof import chain
from dayfold.proof.chain import Finding


@dataclass(eq=False)
class StoredFile:
    """One stored thing: its MD5 in DVC's cache (`key`), the sha256 of an image, and its `places`.

    Its places in the working tree and the cache should hold its bytes; `bad` ones hold others. `dvc
    pull` fetches it today if it `is_pulled`.
    """

    day: str
    path: str
    key: str = ""
    image: str = ""
    is_pulled: bool = False
    places: list[Path] = field(default_factory=list)
    bad: list[Path] = field(default_factory=list)

    @property
    def is_folder(self) -> bool:
        return self.key.endswith(storage.FOLDER)


@dataclass(frozen=True)
class DefaultRemote:
    """The default remote ("": none): what it is `lacking`, or a `problem` that kept it from saying.

    If `remote_is_newer`, DVC skips the days that were sealed before it was set up. In a worktree
    with its own cache, the cache of the `main` worktree is used first.
    """

    root: Path
    name: str
    lacking: frozenset[str]
    problem: str
    remote_is_newer: bool
    main: Path | None

    def has(self, key: str) -> bool:
        """Return whether the main worktree or the remote has an object, as far as is known."""
        return self._main_has(key) or (bool(self.name) and key not in self.lacking)

    def _main_has(self, key: str) -> bool:
        return self.main is not None and storage.within(self.main, key).exists()

    def fetch_command(self, key: str, command: str) -> str:
        """Return the command that fetches an object from the remote, or how to get it there."""
        if self.main and self._main_has(key):
            return storage.sharing(self.root, self.main)
        late = "dayfold check --fix; " if not self.name or self.remote_is_newer else ""
        if self.has(key):
            return late * ("--all-tags" in command) + command
        add = "" if self.name else "add a remote (docs/operations.md, Sharing), then "
        return f"in the clone that sealed it: {add}{late}dvc push --all-tags"

    def state(self, key: str) -> str:
        """Return what is known of an object that is not here."""
        if self._main_has(key):
            return "not here; the cache of the main worktree has it"
        if not self.name:
            return "not here, and no remote is set up to ask"
        if not self.has(key):
            return f"not here, and never pushed to the remote {self.name}"
        if self.problem:
            return f"not here; the remote {self.name} could not be asked ({self.problem})"
        return f"not here yet; the remote {self.name} has it"


@dataclass
class Verified:
    """The outcome: `damage`, what is `absent` but can be fetched, and in words what was `read`.

    The default remote lacks something of `unpushed` days, or did not answer because of a `problem`.
    """

    days: list[str]
    damage: list[Finding] = field(default_factory=list)
    absent: list[Finding] = field(default_factory=list)
    unpushed: list[str] = field(default_factory=list)
    problem: str = ""
    erased: int = 0
    read: str = "images and models were not read (--read-data does)"


def verify(project: Project, *, read_data: bool) -> Verified:
    """Check the chain from today to the origin; with `read_data` read every stored file.

    The open day itself is not checked, only its parent. The default remote is asked for everything.
    """
    now = ProjectState.read(project)
    if now.is_unopened:
        return Verified([])
    last = now.day if now.day in (*now.sealed, *now.committed) else now.params.parent
    days, records, broken = chain.walk(project, now.sealed, last)
    found = Verified(days, [*broken, *chain.check(project, records, current=now.day)])
    records = [one for one in records if one.is_readable]  # `chain.check` has reported the others
    for day in sorted({*now.sealed} - {*days}):
        what = f"{vcs.TAG}{day} is not part of the history of {last}"
        found.damage.append(Finding(day, what, "docs/operations.md, two clones that sealed"))
    pinned = [one for sealed in records for one in _pins(sealed, now.day)]
    bad: list[StoredFile] = []
    if read_data:
        found.damage += _git(project)
        bad = _damaged(project, _stored(project, records, pinned, now.day), found)
    else:
        found.damage += _not_erased(project, records)
    cached = {one for one in pinned if storage.object_path(project.root, one.key).exists()}
    wanted = [one.key for one in pinned] + [one.key for one in bad if one.key]
    remote_is_newer = storage.remote_is_newer(project.root, found.days)
    answer = storage.missing_in_remote(project.root, wanted)
    name, main = storage.default_remote(project.root), storage.cache_of_main(project.root)
    remote = DefaultRemote(project.root, name, *answer, remote_is_newer, main)
    found.problem = remote.problem
    found.unpushed = sorted({one.day for one in cached if one.key in remote.lacking})
    for finding, is_lost in _missing(project, records, pinned, cached, remote):
        (found.damage if is_lost else found.absent).append(finding)
    found.damage += [_finding(project, one, remote) for one in bad]
    found.damage.sort()
    return found


def summary(found: Verified) -> str:
    if not found.days:
        return "no sealed day yet"
    texts = f", {found.erased} of them placeholders of erased images" if found.erased else ""
    span = f"{plural(len(found.days), 'day')} from {found.days[0]} to {found.days[-1]}"
    return f"{span}: nothing damaged; {found.read}{texts}"


def shortened(found: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the first findings of each day, and how many more there are."""
    for day, group in groupby(found, key=lambda one: one.day):
        whole = list(group)
        yield from whole[:MOST_LINES]
        if len(whole) > MOST_LINES:
            more = f"and {len(whole) - MOST_LINES} more"
            yield Finding(day, more, "check again when these are fixed")


def _git(project: Project) -> Iterator[Finding]:
    words = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    refs = Path(vcs.git(project.root, *words).strip()) / "refs"
    for path in sorted(filter(Path.is_file, refs.rglob("*"))):
        # git accepts either case, but writes one form only.
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


def _pins(sealed: Sealed, current: str) -> Iterator[StoredFile]:
    project, is_current = sealed.project, sealed.day == current
    images, parent = project.name(project.images(sealed.day)), project.name(project.parent)
    for path, key in sealed.pins.items():
        # git's own files are no objects, and an earlier parent is another day's output.
        if path not in sealed.files and (is_current or path != parent):
            yield StoredFile(sealed.day, path, key, is_pulled=is_current or path == images)


def _missing(
    project: Project,
    records: Sequence[Sealed],
    pinned: Sequence[StoredFile],
    cached: Collection[StoredFile],
    remote: DefaultRemote,
) -> Iterator[tuple[Finding, bool]]:
    """Yield what the cache lacks (of folders: the working tree), and whether it is lost."""

    def is_here(one: StoredFile) -> bool:
        return storage.has_md5(project.root / one.path, one.key)

    # A folder in the working tree is read there; only `dvc push` needs its object in the cache.
    present = {one for one in pinned if one.is_folder and (project.root / one.path).is_dir()}
    alone = [one for one in present.difference(cached) if not remote.has(one.key)]
    alone = list(filter(is_here, alone))  # no cache was restored, or `dvc gc`
    among = [sealed.day for sealed in records]
    if names := sorted(one.path for one in alone):
        shown = ", ".join(first_few(names))
        what = f"in data/ only, not in DVC's cache, so no push includes it: {shown}"
        all_days = span(sorted({one.day for one in alone}), among)
        yield Finding(all_days, what, f"dvc commit --force {' '.join(names)}"), True
    away = [one for one in pinned if one not in present]
    alike: dict[tuple[str, str, bool], list[StoredFile]] = {}
    made = [one for one in away if one.is_pulled and not one.is_folder and one not in cached]
    are_here, stages = all(map(is_here, made)), " ".join(STAGES[1:5])
    for stored in sorted(away, key=lambda one: not one.is_pulled):
        if stored in cached:
            like = ("in DVC's cache only", "dvc checkout", False)
        elif stored in made and are_here:
            like = ("in data/ only, not in DVC's cache", "dvc commit --force " + stages, False)
        else:
            command = "dvc pull" if stored.is_pulled else "dvc fetch --all-tags"
            way = remote.fetch_command(stored.key, command)
            like = (remote.state(stored.key), way, not remote.has(stored.key))
        if stored.is_folder or stored not in cached:
            alike.setdefault(like, []).append(stored)
    has_images = all(not one.images_md5 or project.images(one.day).is_dir() for one in records)
    for (state, way, is_lost), members in alike.items():
        days = sorted({one.day for one in members})
        if is_lost and has_images:
            way += f"; or make it again here: dayfold reproduce --from-scratch --restore {days[-1]}"
        paths = list(dict.fromkeys(one.path for one in members))
        what = f"{state}: {', '.join(first_few(paths))}"
        yield Finding(span(days, among), what, way), is_lost


def _stored(
    project: Project, records: Sequence[Sealed], pinned: Sequence[StoredFile], current: str
) -> list[StoredFile]:
    found: dict[str, StoredFile] = {}
    for one in pinned:
        found.setdefault(one.key, one)
        path, object_ = project.root / one.path, storage.object_path(project.root, one.key)
        if one.is_folder:
            with suppress(OSError, ValueError, TypeError):  # reported as missing or damaged
                for name, key in storage.listed(object_.read_bytes()).items():
                    found.setdefault(key, StoredFile(one.day, f"{one.path}/{name}", key))
        elif one.day == current and (path.exists() or object_.exists()):  # or it is missing
            found[one.key].places.append(path)
    known = {one.path: one for one in found.values()}
    for sealed in records:
        rows = sealed.rows().filter(action="add").select("path", "image")
        for name, image in rows.iter_rows():
            stored = known.get(name) or found.setdefault(name, StoredFile(sealed.day, name))
            stored.image = image
            if project.images(sealed.day).is_dir():
                stored.places.append(project.root / name)
    for name, key in _expected_parent(project, records, current).items():
        file = project.parent / name
        stored = found.setdefault(key, StoredFile(records[-1].day, project.name(file), key))
        stored.places.append(file)
    # Every object is checked, also those of experiments and of the open day.
    for key, path in storage.objects(project.root):
        found.setdefault(key, StoredFile("no sealed day", "file", key)).places.append(path)
    return list(found.values())


def _expected_parent(project: Project, records: Sequence[Sealed], current: str) -> dict[str, str]:
    """Return the name and MD5 of each file that data/parent must have; none without the folder."""
    before = [one.handed_on for one in records if one.day != current]
    if not project.parent.is_dir() or not records:
        return {}
    if before:
        return before[-1]
    with suppress(OSError, ValueError, TypeError):  # the origin's, which DVC lists
        listing = storage.object_path(project.root, records[-1].parent_md5)
        return storage.listed(listing.read_bytes())
    return {}


def _not_erased(project: Project, records: Sequence[Sealed]) -> Iterator[Finding]:
    erased = corrections.withdrawals(project, corrections.ERASE)
    for sealed in records if erased else ():
        rows = sealed.rows().filter(action="add").select("path", "image")
        for name, image in rows.filter(pl.col("image").is_in(list(erased))).iter_rows():
            path = project.root / name
            if path.is_file() and sha256_file(path) == image:
                what = f"{name} was erased on {erased[image][0]}, and its bytes are here"
                yield Finding(sealed.day, what, "dayfold withdraw --erase")


def _damaged(project: Project, stored: Sequence[StoredFile], found: Verified) -> list[StoredFile]:
    """Read files; return the damaged ones, and note in `found` placeholders and erased bytes."""
    erased = corrections.withdrawals(project, corrections.ERASE)
    reads = [(one, path) for one in stored for path in one.places]
    sizes = [path.stat().st_size if path.exists() else 0 for _, path in reads]
    done, total = 0, sum(sizes)
    found.read = f"{len(reads)} files read, {total / 2**20:.0f} MiB"

    def is_whole(read: tuple[StoredFile, Path]) -> bool:
        one, path = read
        with suppress(OSError):
            # DVC hashes an object by MD5, also an image.
            if one.image and path != storage.object_path(project.root, one.key):
                return sha256_file(path) == one.image
            return md5_file(path) == one.key.removesuffix(storage.FOLDER)
        return False

    with Ticker("reading", total >> 20, "MiB") as ticker, ThreadPoolExecutor(cpus()) as pool:
        for (one, path), whole, size in zip(reads, pool.map(is_whole, reads), sizes, strict=True):
            done += size
            ticker.so_far(done >> 20, total >> 20)
            if whole and one.image in erased:
                what = f"{one.path} was erased on {erased[one.image][0]}, and its bytes are here"
                found.damage.append(Finding(one.day, f"{what}: {path}", "dayfold withdraw --erase"))
            elif whole:
                continue
            elif not (one.image and path.is_file() and is_placeholder(path, one.image)):
                one.bad.append(path)
            elif one.image in erased:
                found.erased += 1
            else:
                what = f"{one.path}: its placeholder says that it was erased, but no event does"
                fix = f'dayfold withdraw --erase {shlex.quote(one.path)} --reason "…"'
                fix = f"git pull, if that was in another clone; or: {fix}"
                found.damage.append(Finding(one.day, f"{what} ({path})", fix))
    return [one for one in stored if one.bad]


def _finding(project: Project, one: StoredFile, remote: DefaultRemote) -> Finding:
    here = [os.path.relpath(path, project.root) for path in one.bad]
    kept = storage.object_path(project.root, one.key)
    files = [path for path in one.bad if path != kept]
    whole = [path for path in one.places if path not in one.bad]
    states = {path: "damaged" if path.exists() else "missing" for path in files}
    said = [f"{project.name(path)} is {state}" for path, state in states.items()]
    if kept in one.bad:
        said.append(f"the cached {one.path} ({kept.name[:8]}…) is damaged")
    targets = " ".join(pins.tracked(map(project.name, files)))
    steps = [f"rm -f {' '.join(here)}"]
    if not whole:
        steps.append(f"dvc pull {targets}" if targets else "dvc fetch --all-tags")
        return Finding(one.day, "; ".join(said), remote.fetch_command(one.key, " && ".join(steps)))
    if kept not in whole:
        back = (os.path.relpath(path, project.root) for path in (whole[0], kept))
        steps.append(f"install -D -m 444 {' '.join(back)}")
    if targets:
        steps.append(f"dvc checkout {targets}")
    return Finding(one.day, "; ".join(said), " && ".join(steps))
