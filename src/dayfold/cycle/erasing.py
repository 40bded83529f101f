"""Erasing images whose consent was withdrawn: the event first, then every copy of their bytes.

Each step can be done again, and the last to go is what the others are found by: after a kill the
same command finishes.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from markupsafe import escape

from dayfold.cycle.correcting import Desk, Target
from dayfold.errors import CycleError, ToolError
from dayfold.ledger import corrections
from dayfold.ledger.placeholder import erased_image, placeholder
from dayfold.project import cache, vcs
from dayfold.project.cache import READ_ONLY
from dayfold.project.console import first_few, plural
from dayfold.project.files import md5_file, sha256_file, write_bytes
from dayfold.project.layout import Project
from dayfold.project.remotes import Remote, remotes
from dayfold.proof import record
from dayfold.proof.erased import Usage, usage
from dayfold.proof.record import span

Say = Callable[[str], None]
ONCE = 500  # files that DVC is asked for at a time: a command line has an end


@dataclass(frozen=True)
class _Image:
    """An image to be erased, and the MD5s by which DVC keeps it and the list of its folder.

    The MD5s are empty where they are not known. `usage` says which days used it; a file of the open
    day has none, as no sealed day has it and no record names it.
    """

    path: str
    image: str
    md5: str
    folder: str
    usage: Usage | None = None

    @property
    def text(self) -> bytes:
        """What lies in its place afterwards."""
        return placeholder(self.image)


@dataclass
class Erasure:
    """What is to be erased, and from where: found and checked, and nothing done yet.

    `copies` are other files of the project with an image's bytes, and what the frozen part of a
    network made of them; `pages` those that show an image. `outside` says which bytes have more
    names on the disk than were found.
    """

    project: Project
    desk: Desk
    objects: Path
    images: list[_Image]
    remotes: list[Remote]
    copies: list[Path]
    pages: list[Path]
    outside: list[str]

    @property
    def sealed(self) -> list[_Image]:
        """The images of sealed days: a text takes their place."""
        return [one for one in self.images if one.usage]

    @property
    def used(self) -> list[Usage]:
        """Those images with the days that used each."""
        return [one.usage for one in self.images if one.usage]

    @property
    def opened(self) -> list[_Image]:
        """The files of the open day: they go, and nothing takes their place."""
        return [one for one in self.images if not one.usage]


# The event.


def plan(project: Project, paths: Sequence[str | Path], *, reason: str, day: str) -> Erasure:
    """Find all that is to be erased of images, whether or not they were withdrawn before.

    Without `paths` those that are recorded as erased already, here or in another clone. Raises
    CycleError that lists all that cannot be done.
    """
    desk = Desk(project, day, writes=False)
    targets = _recorded(desk, paths, reason)
    objects, stores = cache.folder(project.root), remotes(project.root)
    images = [*_of_sealed_days(desk, targets, objects, stores), *_of_the_open_day(project, targets)]
    copies = list(dict.fromkeys(_copies(desk, images, objects)))
    pages = list(_pages(project, day, images))
    outside = list(_outside(project, images, objects, copies))
    return Erasure(project, desk, objects, images, stores, copies, pages, outside)


def _recorded(desk: Desk, paths: Sequence[str | Path], reason: str) -> list[Target]:
    """What is meant, with the events noted at the desk that no day has yet."""
    known = corrections.gone(desk.project, corrections.ERASE)
    mine = {*desk.history.images["image"], *desk.history.corrections["image"]}
    targets = desk.targets(paths or sorted(mine & known.keys()))
    if not targets and not desk.problems:
        raise CycleError("No image is recorded as erased.", mend="dayfold withdraw --erase PATH…")
    news = [target for target in targets if target.image and target.image not in known]
    for target in news:
        desk.erase(target, reason)
    if news:
        desk.check_day()
    desk.check()
    return targets


# Every copy: where the bytes lie.


def _of_sealed_days(
    desk: Desk, targets: Sequence[Target], objects: Path, stores: Sequence[Remote]
) -> Iterator[_Image]:
    sealed = record.read(desk.project, vcs.sealed_days(desk.project.root))
    line = [sealed[day] for day in desk.history.days if day in sealed]
    lists = {one.day: one.images_md5 for one in line}
    for used in usage(desk.history, {one.image for one in targets if one.image}, line, objects):
        folder = lists.get(used.day, "")
        key = _md5(desk.project, used, folder, objects, stores)
        yield _Image(used.path, used.image, key, folder, used)


def _md5(project: Project, one: Usage, folder: str, objects: Path, stores: Sequence[Remote]) -> str:
    """By DVC's list of the day's folder, of the cache or of a remote; or else by the file."""
    path = project.root / one.path
    name = path.relative_to(project.images(one.day)).as_posix()
    listings: list[Callable[[str], dict[str, str]]] = [partial(cache.listing, objects)]
    for listing in (*listings, *(remote.listing for remote in stores)):
        with suppress(KeyError):
            return listing(folder)[name]
    return md5_file(path) if path.is_file() and sha256_file(path) == one.image else ""


def _of_the_open_day(project: Project, targets: Sequence[Target]) -> Iterator[_Image]:
    for target in targets:
        if not target.image:
            path = project.root / target.path
            key = md5_file(path)
            # No list names it: a remote or cache is touched where it has the object itself.
            yield _Image(target.path, sha256_file(path), key, folder=key)


def _places(project: Project, one: _Image, objects: Path) -> list[Path]:
    """Where the bytes of an image are meant to lie: the cache's objects, and the file itself."""
    kept = cache.object_paths(objects, one.md5) if one.md5 else ()
    return [path for path in (*kept, project.root / one.path) if path.is_file()]


def _has_bytes(path: Path, one: _Image) -> bool:
    return path.read_bytes() != one.text


def _copies(desk: Desk, images: Sequence[_Image], objects: Path) -> Iterator[Path]:
    """Files that are removed: with an image's bytes, or computed from it."""
    project = desk.project
    yield from _equal_files(desk, images, objects)
    for one in images:
        for kept in (project.activations, project.squares):
            yield from sorted(kept.glob(f"*/{one.image}"))
        if not one.usage:
            yield from filter(Path.is_file, cache.object_paths(objects, one.md5))
            # A link of DVC's into its cache (cache.type symlink) would lead nowhere afterwards.
            yield from filter(Path.is_symlink, [project.root / one.path])


def _equal_files(desk: Desk, images: Sequence[_Image], objects: Path) -> Iterator[Path]:
    """Files of the project that no ledger or cache names, by size and sha256."""
    project = desk.project
    sizes = {
        path.stat().st_size
        for one in images
        for path in _places(project, one, objects)
        if _has_bytes(path, one)
    }
    if not sizes:
        return
    wanted = {one.image for one in images}
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


def _pages(project: Project, day: str, images: Sequence[_Image]) -> Iterator[Path]:
    """Reports and pages of audits that show one of the images."""
    names = [str(escape(one.path)) for one in images]
    for folder in (project.report(day).parent, project.audit_page(day).parent):
        for path in sorted(folder.glob("*.html")):
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(name in text for name in names):
                yield path


def _outside(
    project: Project, images: Sequence[_Image], objects: Path, copies: Sequence[Path]
) -> Iterator[str]:
    """Say of each file with more names (hard links) than were found how to find the others."""
    places = {path for one in images if one.usage for path in _places(project, one, objects)}
    status = {path: path.stat() for path in (*places, *copies)}
    known = Counter((one.st_dev, one.st_ino) for one in status.values())
    left = {
        one.st_ino: one.st_nlink - known[one.st_dev, one.st_ino]
        for path, one in status.items()
        if path not in places or not erased_image(path.read_bytes())
    }
    for number, count in left.items():
        if count > 0:
            yield (
                f"{count} more hard links of the same file lie outside the project: "
                f"find / -xdev -inum {number}"
            )


def described(found: Erasure) -> Iterator[str]:
    """Say what is to be erased, which days' models used it, and what follows, a line each."""
    project, days = found.project, found.desk.history.days
    yield f"to be erased: {plural(len(found.images), 'image')}"
    yield from (f"  {one.path} (of the open day, in no sealed one)" for one in found.opened)
    for one in found.used:
        yield f"  {one.path}"
        if one.trained:
            yield f"    the models of {span(one.trained, days)} were trained on it"
        if one.tested:
            yield f"    the models of {span(one.tested, days)} were calibrated or tested with it"
        if one.unknown:
            yield f"    whether {span(one.unknown, days)} replayed it is not known here: dvc fetch"
    for name, paths in (("copies", found.copies), ("pages that show them", found.pages)):
        if paths:
            yield f"and {name}: {', '.join(first_few([_named(project, path) for path in paths]))}"
    where = ["the project", "DVC's cache", *(f"the remote {one.name}" for one in found.remotes)]
    yield f"from {', '.join(where)}"
    yield from found.outside
    for remote in found.remotes:
        if remote.verifies:
            yield (
                f"the remote {remote.name} is set to verify, so that DVC would not take the text "
                f"from it: dvc remote modify {remote.name} verify false"
            )
    used = sorted({day for one in found.used for day in one.days if day in days})
    if used:
        yield f"afterwards {span(used, days)} can no longer be made again as recorded"
    if any(one.trained for one in found.used):
        yield "models that learnt from an image, and those made from them since, stay as they are"


def _named(project: Project, path: Path) -> str:
    """A path from the project's top; that of a cache elsewhere whole."""
    return project.name(path) if path.is_relative_to(project.root) else str(path)


# The walk: the event, remotes, pages and copies, the cache, and the files last.


def carry_out(found: Erasure, *, say: Say) -> None:
    """Record the event, then erase every copy.

    Raises CycleError that lists the remotes that could not be reached; the rest is done then.
    """
    project = found.project
    done = found.desk.close()
    if done.corrected:
        say(f"recorded in {project.name(project.corrections(done.day))}; dayfold seal settles it")
    problems = []
    for remote in found.remotes:
        try:
            say(f"remote {remote.name}: {_from_remote(remote, found.images)} erased")
        except ToolError as error:
            problems.append(error.what)
    for path in (*found.pages, *found.copies):
        path.unlink(missing_ok=True)
    count = sum(_from_cache(one, found.objects) for one in found.sealed)
    count += _from_files(found)
    say(f"here: {count} files and objects erased, {plural(len(found.copies), 'copy')} removed")
    for page in found.pages:
        say(f"removed {project.name(page)}: it showed what is erased")
    if problems:
        raise CycleError(
            "Recorded, and erased here, but not everywhere:",
            problems=problems,
            mend="when they can be reached: dayfold withdraw --erase",
        )


def _from_remote(remote: Remote, images: Sequence[_Image]) -> int:
    """Put the texts into a remote; how many of its objects had the bytes."""
    if remote.problem:
        raise ToolError(
            f"remote {remote.name} ({remote.url}) {remote.problem}: erase it there by hand"
        )
    unknown = [one.path for one in images if not one.md5]
    if unknown:
        raise ToolError(
            f"remote {remote.name} ({remote.url}): DVC's list of the day of "
            f"{', '.join(first_few(unknown))} cannot be read"
        )
    return sum(remote.replace(one.md5, one.text, folder=one.folder) for one in images)


def _from_cache(one: _Image, objects: Path) -> int:
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


def _from_files(found: Erasure) -> int:
    """Put the texts into the days' folders that are here; how many files had the bytes.

    DVC checks them out, so that it knows the folders as unchanged.
    """
    project, count = found.project, 0
    texts = {
        project.root / one.path: one
        for one in found.sealed
        if one.usage and project.images(one.usage.day).is_dir()
    }
    for path, one in texts.items():
        if path.exists() and _has_bytes(path, one):
            path.unlink()
            count += 1
    sealed = {project.images(day) for day in vcs.sealed_days(project.root)}
    # A copy in a sealed day's folder has no text, and DVC misses it there.
    files = [*texts, *(path for path in found.copies if sealed & set(path.parents))]
    missing = [project.name(path) for path in files if not path.exists()]
    for first in range(0, len(missing), ONCE):
        # A folder that DVC cannot check out is told by the next dvc status.
        with suppress(ToolError):
            vcs.dvc(project.root, "checkout", "--quiet", *missing[first : first + ONCE])
    for path, one in texts.items():
        if not path.exists():
            write_bytes(path, one.text, mode=READ_ONLY)
    return count
