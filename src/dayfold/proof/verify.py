"""Whether what is kept is what was recorded.

What is missing or damaged is told with the command that brings it: from DVC's cache, from the
default remote, or from the clone that has it.
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

from dayfold.errors import ToolError
from dayfold.history.line import Line
from dayfold.history.record import Sealed, span
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
class Kept:
    """Bytes that are kept: as which file they are known, of which day, and where they lie.

    `key` is the MD5 by which DVC's cache has them, `image` the sha256 of an image's; `is_pulled`:
    `dvc pull` brings them today. `places` are files of the working tree and objects of the cache;
    what those of `bad` have is not the bytes.
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
class Source:
    """The default remote, by name ("": none), as what brings things that are missing or damaged.

    It was asked for objects and is `lacking` some, or there was a `problem` with asking. Where it
    `is_late` DVC passes over the days that were sealed before it was set up. In a worktree that
    does not use the cache of its `main` one that comes first.
    """

    root: Path
    remote: str
    lacking: frozenset[str]
    problem: str
    is_late: bool
    main: Path | None

    def has(self, key: str) -> bool:
        """Whether the main worktree or the remote has an object, as far as it could be asked."""
        return self._main_has(key) or (bool(self.remote) and key not in self.lacking)

    def _main_has(self, key: str) -> bool:
        return self.main is not None and storage.within(self.main, key).exists()

    def bringing(self, key: str, command: str) -> str:
        """Return the command that brings an object by the remote, or how to get it there."""
        if self.main and self._main_has(key):
            return storage.sharing(self.root, self.main)
        late = "dayfold check --fix; " if not self.remote or self.is_late else ""
        if self.has(key):
            return late * ("--all-tags" in command) + command
        add = "" if self.remote else "add a remote (docs/operations.md, Sharing), then "
        return f"in the clone that sealed it: {add}{late}dvc push --all-tags"

    def state(self, key: str) -> str:
        """Return, of an object that is not here, what is known of it."""
        if self._main_has(key):
            return "not here; the cache of the main worktree has it"
        if not self.remote:
            return "not here, and no remote is set up to ask"
        if not self.has(key):
            return f"not here, and never pushed to the remote {self.remote}"
        if self.problem:
            return f"not here; the remote {self.remote} could not be asked ({self.problem})"
        return f"not here yet; the remote {self.remote} has it"


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


def verify(project: Project, *, read_data: bool) -> Verified:
    """Check the chain from today to the origin; with `read_data` read every file that is kept.

    Nothing is changed. The open day is not looked at but for its parent: it is not settled. The
    default remote is asked for everything.
    """
    now = Line.read(project)
    if now.is_unopened:
        return Verified([])
    is_settled = now.day in (*now.sealed, *now.committed)
    last = now.day if is_settled else now.params.parent
    days, line, broken = chain.walk(project, now.sealed, last)
    found = Verified(days, broken)
    found.damage += chain.check(project, line, current=now.day)
    line = [one for one in line if one.is_readable]  # of the others the chain has told
    for day in now.sealed:
        if day not in found.days:
            what = f"{vcs.TAG}{day} is not part of the history of {last}"
            found.damage.append(Finding(day, what, "docs/operations.md, two clones that sealed"))
    pinned = [one for sealed in line for one in _pins(sealed, now.day)]
    bad: list[Kept] = []
    if read_data:
        found.damage += _git(project)
        bad = _damaged(project, _stored(project, line, pinned, now.day), found)
    cached = {one for one in pinned if storage.object_path(project.root, one.key).exists()}
    wanted = [one.key for one in pinned] + [one.key for one in bad if one.key]
    is_late = storage.is_late(project.root, found.days)
    answer = storage.ask(project.root, wanted)
    remote, main = storage.default_remote(project.root), storage.cache_of_main(project.root)
    source = Source(project.root, remote, *answer, is_late, main)
    found.problem = source.problem
    found.unpushed = sorted({one.day for one in cached if one.key in source.lacking})
    for finding, is_lost in _missing(project, line, pinned, cached, source):
        (found.damage if is_lost else found.absent).append(finding)
    found.damage += [_finding(project, one, source) for one in bad]
    found.damage.sort()
    return found


def summary(found: Verified) -> str:
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


def _pins(sealed: Sealed, current: str) -> Iterator[Kept]:
    project, is_current = sealed.project, sealed.day == current
    images, parent = project.name(project.images(sealed.day)), project.name(project.parent)
    for path, key in sealed.pins.items():
        # What git keeps is no object, and a parent of before is what another day made.
        if path not in sealed.files and (is_current or path != parent):
            yield Kept(sealed.day, path, key, is_pulled=is_current or path == images)


def _is_here(project: Project, one: Kept) -> bool:
    path = project.root / one.path
    if one.is_folder:
        files = [file for file in path.rglob("*") if file.is_file()]
        names = (file.relative_to(path).as_posix() for file in files)
        with ThreadPoolExecutor(cpus()) as pool:
            found = dict(zip(names, pool.map(md5_file, files), strict=True))
        return storage.folder_md5(found) == one.key
    return path.is_file() and md5_file(path) == one.key


def _missing(
    project: Project,
    line: Sequence[Sealed],
    pinned: Sequence[Kept],
    cached: Collection[Kept],
    source: Source,
) -> Iterator[tuple[Finding, bool]]:
    """What the cache, or of folders the working tree, lacks, and whether the source has it not."""
    # A folder that lies here is read there: its object in the cache is missed by `dvc push` only.
    lying = {one for one in pinned if one.is_folder and (project.root / one.path).is_dir()}
    alone = [one for one in lying.difference(cached) if not source.has(one.key)]
    yield from _uncached([one for one in alone if _is_here(project, one)], line)
    away = [one for one in pinned if one not in lying]
    alike: dict[tuple[str, str, bool], list[Kept]] = {}
    made = [one for one in away if one.is_pulled and not one.is_folder and one not in cached]
    are_here, stages = all(_is_here(project, one) for one in made), " ".join(STAGES[1:5])
    for one in sorted(away, key=lambda one: not one.is_pulled):
        if one in cached and one.is_folder:
            alike.setdefault(("in DVC's cache only", "dvc checkout", False), []).append(one)
        elif one in made and are_here:
            like = ("in data/ only, not in DVC's cache", "dvc commit --force " + stages, False)
            alike.setdefault(like, []).append(one)
        elif one not in cached:
            command = "dvc pull" if one.is_pulled else "dvc fetch --all-tags"
            way = source.bringing(one.key, command)
            like = (source.state(one.key), way, not source.has(one.key))
            alike.setdefault(like, []).append(one)
    has_images = all(not one.images_md5 or project.images(one.day).is_dir() for one in line)
    for (state, way, is_lost), some in alike.items():
        days = sorted({one.day for one in some})
        if is_lost and has_images:
            way += f"; or make it again here: dayfold reproduce --from-scratch --restore {days[-1]}"
        what = f"{state}: {', '.join(first_few(list(dict.fromkeys(one.path for one in some))))}"
        yield Finding(span(days, [sealed.day for sealed in line]), what, way), is_lost


def _uncached(folders: Sequence[Kept], line: Sequence[Sealed]) -> Iterator[tuple[Finding, bool]]:
    """What only the working tree has, as after a restore without .dvc/cache or another's dvc gc."""
    if names := sorted(one.path for one in folders):
        shown = ", ".join(first_few(names))
        what = f"in data/ only, not in DVC's cache, so no push takes it: {shown}"
        days = span(sorted({one.day for one in folders}), [sealed.day for sealed in line])
        yield Finding(days, what, f"dvc commit --force {' '.join(names)}"), True


def _stored(
    project: Project, line: Sequence[Sealed], pinned: Sequence[Kept], current: str
) -> list[Kept]:
    """All that is kept: images that a manifest added, withdrawn ones too, outputs and objects."""
    found: dict[str, Kept] = {}
    for one in pinned:
        found.setdefault(one.key, one)
        path, object_ = project.root / one.path, storage.object_path(project.root, one.key)
        if one.is_folder:
            with suppress(OSError, ValueError, TypeError):  # told as missing, or as damaged
                for name, key in storage.listed(object_.read_bytes()).items():
                    found.setdefault(key, Kept(one.day, f"{one.path}/{name}", key))
        elif one.day == current and (path.exists() or object_.exists()):  # else it is missing
            found[one.key].places.append(path)
    known = {one.path: one for one in found.values()}
    for sealed in line:
        rows = sealed.rows().filter(action="add").select("path", "image")
        for name, image in rows.iter_rows():
            mine = known.get(name) or found.setdefault(name, Kept(sealed.day, name))
            mine.image = image
            if project.images(sealed.day).is_dir():
                mine.places.append(project.root / name)
    for parent in [one for one in line if one.day != current][-1:]:
        for name, key in parent.handed_on.items():
            file = project.parent / name
            if project.parent.is_dir():
                mine = found.setdefault(key, Kept(parent.day, project.name(file), key))
                mine.places.append(file)
    # Every object against its name, of experiments and the open day too.
    for key, path in storage.objects(project.root):
        found.setdefault(key, Kept("no sealed day", "file", key)).places.append(path)
    return list(found.values())


def _damaged(project: Project, stored: Sequence[Kept], found: Verified) -> list[Kept]:
    """Read files; return what is damaged, and note in `found` what of erased images is here."""
    erased = corrections.gone(project, corrections.ERASE)
    reads = [(one, path) for one in stored for path in one.places]
    sizes = [path.stat().st_size if path.exists() else 0 for _, path in reads]
    done, total = 0, sum(sizes)
    found.read = f"{len(reads)} files read, {total / 2**20:.0f} MiB"

    def is_whole(read: tuple[Kept, Path]) -> bool:
        one, path = read
        with suppress(OSError):
            # DVC knows an object by its key, whatever it is.
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
                fix = "dayfold withdraw --erase"
                found.damage.append(Finding(one.day, f"{what}: {path}", fix))
            elif whole:
                continue
            elif not (one.image and path.is_file() and is_placeholder(path, one.image)):
                one.bad.append(path)
            elif one.image in erased:
                found.erased += 1
            else:
                what = f"{one.path}: text in its place says that it was erased, and no event does"
                fix = f'dayfold withdraw --erase {shlex.quote(one.path)} --reason "…"'
                fix = f"git pull, if that was in another clone; or: {fix}"
                found.damage.append(Finding(one.day, f"{what} ({path})", fix))
    return [one for one in stored if one.bad]


def _finding(project: Project, one: Kept, source: Source) -> Finding:
    """Damaged bytes and what brings them: whole ones that are here, or else the source."""
    here = [os.path.relpath(path, project.root) for path in one.bad]
    kept = storage.object_path(project.root, one.key)
    files = [path for path in one.bad if path != kept]
    whole = [path for path in one.places if path not in one.bad]
    said = [
        f"{project.name(path)} is {'damaged' if path.exists() else 'missing'}" for path in files
    ]
    if len(files) < len(one.bad):
        said.append(f"the cached {one.path} ({kept.name[:8]}…) is damaged")
    targets = " ".join(pins.tracked(map(project.name, files)))
    steps = [f"rm -f {' '.join(here)}"]
    if not whole:
        steps.append(f"dvc pull {targets}" if targets else "dvc fetch --all-tags")
        return Finding(one.day, "; ".join(said), source.bringing(one.key, " && ".join(steps)))
    if kept not in whole:
        back = (os.path.relpath(path, project.root) for path in (whole[0], kept))
        steps.append(f"install -D -m 444 {' '.join(back)}")
    if targets:
        steps.append(f"dvc checkout {targets}")
    return Finding(one.day, "; ".join(said), " && ".join(steps))
