"""Erasing images whose consent was withdrawn: the event first, then every copy of their bytes.

Each step can be done again, and the last to go is what the others are found by: after a kill the
same command finishes.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import escape

from dayfold.cycle.correcting import Desk
from dayfold.errors import CycleError, ToolError
from dayfold.ledger import corrections
from dayfold.ledger.placeholder import erased_image, placeholder
from dayfold.project import cache, vcs
from dayfold.project.cache import READ_ONLY
from dayfold.project.files import md5_file, sha256_file, write_bytes
from dayfold.project.layout import Project
from dayfold.project.remotes import Remote, remotes
from dayfold.proof import record
from dayfold.proof.seen import Seen, of_history, seen, span

Say = Callable[[str], None]
ONCE = 500  # files that DVC is asked for at a time: a command line has an end


@dataclass(frozen=True)
class _Stored:
    """An image and the MD5s by which DVC keeps it and the list of its folder; empty if unknown."""

    seen: Seen
    md5: str
    folder: str

    @property
    def text(self) -> bytes:
        """What lies in its place afterwards."""
        return placeholder(self.seen.image)


@dataclass(frozen=True)
class _Opened:
    """A file of the open day, its sha256, and the MD5 by which DVC's cache may have it."""

    path: str
    image: str
    md5: str


@dataclass
class Erasure:
    """What is to be erased, and from where: found and checked, and nothing done yet.

    `opened` are files of the open day, which no sealed day has and no record names. `copies` are
    files of the project with the bytes of any, and what the frozen part of a network made of them;
    `pages` those that show an image, `outside` says which bytes have more names on the disk than
    were found.
    """

    project: Project
    desk: Desk
    objects: Path
    stored: list[_Stored]
    opened: list[_Opened]
    remotes: list[Remote]
    copies: list[Path]
    pages: list[Path]
    outside: list[str]

    @property
    def seen(self) -> list[Seen]:
        """The images, and the days that used each."""
        return [one.seen for one in self.stored]


def plan(project: Project, paths: Sequence[str | Path], *, reason: str, day: str) -> Erasure:
    """Find all that is to be erased of images, whether or not they were withdrawn before.

    Without `paths` those that are recorded as erased already, here or in another clone. Raises
    CycleError that lists all that cannot be done.
    """
    known = corrections.gone(project, corrections.ERASE)
    desk = Desk(project, day, writes=False)
    mine = {*desk.history.images["image"], *desk.history.corrections["image"]}
    meant = desk.targets(paths or sorted(mine & known.keys()))
    targets = [target for target in meant if target.image]
    if not meant and not desk.problems:
        raise CycleError("No image is recorded as erased.", mend="dayfold withdraw --erase PATH…")
    news = [target for target in targets if target.image not in known]
    for target in news:
        desk.erase(target, reason)
    if news:
        desk.check_day()
    desk.check()
    objects, stores = cache.folder(project.root), remotes(project.root)
    images = {target.image for target in targets}
    sealed = record.read(project, vcs.sealed_days(project.root))
    line = [sealed[day] for day in desk.history.days if day in sealed]
    lists = {one.day: one.images.md5 for one in line if one.images}
    line = [one for one in line if one.has_lock]
    found = [
        _stored(project, one, lists.get(one.day, ""), objects, stores)
        for one in seen(of_history(desk.history, images), line, objects)
    ]
    files = [(target.path, project.root / target.path) for target in meant if not target.image]
    opened = [_Opened(name, sha256_file(path), md5_file(path)) for name, path in files]
    copies = list(_copies(desk, found, opened, objects))
    copies += [path for one in opened for path in cache.object_paths(objects, one.md5)]
    for image in (*(one.seen.image for one in found), *(one.image for one in opened)):
        copies += sorted(project.activations.glob(f"*/{image}"))
    # A link of DVC's into its cache (cache.type symlink) would lead nowhere afterwards.
    copies += [path for _, path in files if path.is_symlink()]
    copies = [path for path in copies if path.is_file()]
    pages = [
        path
        for folder in (project.report(day).parent, project.audit_page(day).parent)
        for path in sorted(folder.glob("*.html"))
        if _shows(path, [*(one.seen.path for one in found), *(one.path for one in opened)])
    ]
    outside = _outside(project, found, objects, copies)
    return Erasure(project, desk, objects, found, opened, stores, copies, pages, outside)


def _stored(
    project: Project, one: Seen, folder: str, objects: Path, stores: Sequence[Remote]
) -> _Stored:
    """By DVC's list of the day's folder, of the cache or of a remote; or else by the file."""
    name = Path(one.path).relative_to(project.name(project.images(one.day))).as_posix()
    listings: list[Callable[[str], dict[str, str]]] = [partial(cache.listing, objects)]
    listings += [remote.listing for remote in stores]
    for listing in listings:
        try:
            return _Stored(one, listing(folder)[name], folder)
        except KeyError:
            continue
    path = project.root / one.path
    is_whole = path.is_file() and sha256_file(path) == one.image
    return _Stored(one, md5_file(path) if is_whole else "", folder)


def _places(project: Project, one: _Stored, objects: Path) -> list[Path]:
    """Where the bytes of an image are meant to lie: the cache's objects, and the file itself."""
    kept = cache.object_paths(objects, one.md5) if one.md5 else ()
    return [path for path in (*kept, project.root / one.seen.path) if path.is_file()]


def _has_bytes(path: Path, one: _Stored) -> bool:
    return path.read_bytes() != one.text


def _copies(
    desk: Desk, found: Sequence[_Stored], opened: Sequence[_Opened], objects: Path
) -> Iterator[Path]:
    """Files of the project with the bytes of an image, beside its own: same size and sha256."""
    project = desk.project
    sizes = {
        path.stat().st_size
        for one in found
        for path in _places(project, one, objects)
        if _has_bytes(path, one)
    }
    sizes |= {(project.root / one.path).stat().st_size for one in opened}
    if not sizes:
        return
    wanted = {one.seen.image for one in found} | {one.image for one in opened}
    # What the ledger or the cache names by a hash needs no reading.
    known = set(desk.history.images["path"]) | set(desk.history.corrections["path"])
    for folder, folders, names in os.walk(project.root):
        here = Path(folder)
        folders[:] = [name for name in folders if name != ".git" and here / name != objects]
        for name in sorted(names):
            path = here / name
            if path.is_symlink() or project.name(path) in known or not path.is_file():
                continue
            if path.stat().st_size in sizes and sha256_file(path) in wanted:
                yield path


def _outside(
    project: Project, found: Sequence[_Stored], objects: Path, copies: Sequence[Path]
) -> list[str]:
    """Say of each file with more names (hard links) than were found how to find the others."""
    status = {
        path: path.stat()
        for path in (*(path for one in found for path in _places(project, one, objects)), *copies)
    }
    known = Counter((one.st_dev, one.st_ino) for one in status.values())
    texts = {path for one in found for path in _places(project, one, objects)}
    left = {
        one.st_ino: one.st_nlink - known[one.st_dev, one.st_ino]
        for path, one in status.items()
        if path not in texts or not erased_image(path.read_bytes())
    }
    return [
        f"{count} more hard links of the same file lie outside the project: "
        f"find / -xdev -inum {number}"
        for number, count in left.items()
        if count > 0
    ]


def _shows(page: Path, names: Iterable[str]) -> bool:
    text = page.read_text(encoding="utf-8", errors="replace")
    return any(str(escape(name)) in text for name in names)


def described(found: Erasure) -> Iterator[str]:
    """Say what is to be erased, which days' models saw it, and what follows, a line each."""
    project, days = found.project, found.desk.history.days
    count = len(found.stored) + len(found.opened)
    yield f"to be erased: {count} image{'s' * (count > 1)}"
    yield from (f"  {one.path} (of the open day, in no sealed one)" for one in found.opened)
    for one in found.seen:
        yield f"  {one.path}"
        if one.trained:
            yield f"    the models of {span(one.trained, days)} were trained on it"
        if one.judged:
            yield f"    the models of {span(one.judged, days)} were calibrated or tested with it"
        if one.unknown:
            yield f"    whether {span(one.unknown, days)} replayed it is not known here: dvc fetch"
    for name, paths in (("copies", found.copies), ("pages that show them", found.pages)):
        if paths:
            yield f"and {name}: {', '.join(_named(project, path) for path in paths)}"
    where = ["the project", "DVC's cache", *(f"the remote {one.name}" for one in found.remotes)]
    yield f"from {', '.join(where)}"
    yield from found.outside
    for remote in found.remotes:
        if remote.verifies:
            yield (
                f"the remote {remote.name} is set to verify, so that DVC would not take the text "
                f"from it: dvc remote modify {remote.name} verify false"
            )
    used = sorted({day for one in found.seen for day in one.days if day in days})
    if used:
        yield (
            f"afterwards {span(used, days)} can no longer be made again as recorded; "
            "dayfold reproduce --without replays the history without what was erased"
        )
    if any(one.trained for one in found.seen):
        yield "models that learnt from an image, and those made from them since, stay as they are"


def _named(project: Project, path: Path) -> str:
    """A path from the project's top; that of a cache elsewhere whole."""
    return project.name(path) if path.is_relative_to(project.root) else str(path)


def carry_out(found: Erasure, *, say: Say) -> None:
    """Record the event, then erase: in remotes, pages and copies, the cache, and the files last.

    Raises CycleError that lists the remotes that could not be reached; the rest is done then.
    """
    project, root = found.project, found.project.root
    done = found.desk.close()
    if done.corrected:
        say(f"recorded in {project.name(project.corrections(done.day))}; dayfold seal settles it")
    problems = []
    for remote in found.remotes:
        try:
            count = _from_remote(remote, found.stored)
            count += sum(
                remote.replace(one.md5, placeholder(one.image), folder=one.md5)
                for one in found.opened
            )
            say(f"remote {remote.name}: {count} erased")
        except ToolError as error:
            problems.append(error.what)
    for path in (*found.pages, *found.copies):
        path.unlink(missing_ok=True)
    count = sum(_from_cache(one, found.objects) for one in found.stored)
    files = []
    for one in found.stored:
        path = root / one.seen.path
        if project.images(one.seen.day).is_dir():
            files.append(path)
            if path.exists() and _has_bytes(path, one):
                path.unlink()
                count += 1
    sealed = {project.images(day) for day in vcs.sealed_days(root)}
    # Of a copy in a sealed day's folder: DVC misses it there.
    files += [path for path in found.copies if sealed & set(path.parents)]
    _put_texts(found, files)
    say(f"here: {count} files and objects erased, {len(found.copies)} copies removed")
    for page in found.pages:
        say(f"removed {project.name(page)}: it showed what is erased")
    if problems:
        raise CycleError(
            "Recorded, and erased here, but not everywhere:",
            problems=problems,
            mend="when they can be reached: dayfold withdraw --erase",
        )


def _from_remote(remote: Remote, stored: Sequence[_Stored]) -> int:
    if remote.problem:
        raise ToolError(
            f"remote {remote.name} ({remote.url}) {remote.problem}: erase it there by hand"
        )
    unknown = [one.seen.path for one in stored if not one.md5]
    if unknown:
        raise ToolError(
            f"remote {remote.name} ({remote.url}): DVC's list of the day of {', '.join(unknown)} "
            "cannot be read"
        )
    return sum(remote.replace(one.md5, one.text, folder=one.folder) for one in stored)


def _from_cache(one: _Stored, objects: Path) -> int:
    """Put the text into the cache; how many objects had the bytes."""
    if not one.md5:
        return 0
    count = 0
    # By its own MD5 too: DVC replaces a file that the cache has, and asks about any other.
    cache.put_back(objects, one.text)
    first, before = cache.object_paths(objects, one.md5)
    lists = cache.object_paths(objects, one.folder)
    for path in (first, before):
        there = path.exists()
        if (there and _has_bytes(path, one)) or (
            not there and path == first and any(one.exists() for one in lists)
        ):
            write_bytes(path, one.text, mode=READ_ONLY)
            count += there
    return count


def _put_texts(found: Erasure, files: Sequence[Path]) -> None:
    """Have DVC check the texts out, so that it knows the folders as unchanged."""
    project = found.project
    missing = [project.name(path) for path in files if not path.exists()]
    for first in range(0, len(missing), ONCE):
        try:
            vcs.dvc(project.root, "checkout", "--quiet", *missing[first : first + ONCE])
        except ToolError:
            continue  # a folder that DVC cannot check out is told by the next dvc status
    for one in found.stored:
        path = project.root / one.seen.path
        if path in files and not path.exists():
            write_bytes(path, one.text, mode=READ_ONLY)
