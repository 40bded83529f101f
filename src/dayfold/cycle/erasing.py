"""Erasing images whose consent was withdrawn: the event, every copy of their bytes, the proof.

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
from dayfold.ledger.intake.finding import WITHDRAW
from dayfold.ledger.placeholder import placeholder
from dayfold.project import cache, vcs
from dayfold.project.cache import READ_ONLY
from dayfold.project.console import first_few, plural
from dayfold.project.files import md5_file, sha256_file, write_bytes
from dayfold.project.layout import Project
from dayfold.project.remotes import Remote, remotes
from dayfold.proof import record
from dayfold.proof.record import Usage, span, usage

ONCE = 500  # files that DVC is asked for at a time: a command line has an end


@dataclass(frozen=True)
class _Image:
    """An image to be erased, and the MD5s by which DVC keeps it and the list of its folder.

    The MD5s are empty where they are not known. `usage` says which days used it; a file of the open
    day has none, as no sealed day has it and no record names it: it goes, and no text comes.
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

    `objects` is DVC's cache. Of the `holders` of an image's bytes, the files that have them, a text
    takes the place of some; `copies` are removed, with what was computed from an image; so are
    `pages` that show one.
    """

    project: Project
    desk: Desk
    objects: Path
    images: list[_Image]
    remotes: list[Remote]
    holders: list[Path]
    copies: list[Path]
    pages: list[Path]

    @property
    def sealed(self) -> list[_Image]:
        """The images of sealed days: a text takes their place."""
        return [one for one in self.images if one.usage]


def plan(project: Project, paths: Sequence[str | Path], *, reason: str, day: str) -> Erasure:
    """Find all that is to be erased of images, whether or not they were withdrawn before.

    Without `paths` those that are recorded as erased already, here or in another clone. Raises
    CycleError that lists all that cannot be done.
    """
    desk = Desk(project, day)
    targets = _recorded(desk, paths, reason)
    objects, stores = cache.folder(project.root), remotes(project.root)
    images = [*_of_sealed_days(desk, targets, objects, stores), *_of_the_open_day(project, targets)]
    holders = list(_holders(desk, images, objects))
    stay = {path for one in images if one.usage for path in _places(project, one, objects)}
    copies = [path for path in holders if path not in stay]
    for one in images:
        copies += [*project.activations.glob(f"*/{one.image}")]
        copies += [*project.squares.glob(f"*/{one.image}")]
    pages = list(_pages(project, day, images))
    return Erasure(project, desk, objects, images, stores, holders, copies, pages)


# The event.


def _recorded(desk: Desk, paths: Sequence[str | Path], reason: str) -> list[Target]:
    """What is meant, with the events noted at the desk that no day has yet."""
    known = corrections.gone(desk.project, corrections.ERASE)
    mine = {*desk.history.images["image"], *desk.history.corrections["image"]}
    targets = desk.targets(paths or sorted(mine & known.keys()))
    if not targets and not desk.problems:
        raise CycleError("No image is recorded as erased.", hint="dayfold withdraw --erase PATH…")
    for target in targets:
        if target.image and target.image not in known:
            # Without a reason that of today's withdrawal stands.
            is_withdrawn = desk.has(target, WITHDRAW) and not reason
            why = desk.lines[target.image].reason if is_withdrawn else reason
            desk.check_reason(why)
            desk.correct(corrections.ERASE, target, reason=why)
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
    for path in (project.root / target.path for target in targets if not target.image):
        key = md5_file(path)
        # No list names it: a remote is touched where it has the object itself.
        yield _Image(project.name(path), sha256_file(path), key, folder=key)


def _places(project: Project, one: _Image, objects: Path) -> list[Path]:
    """Where the bytes of an image are meant to lie: the cache's objects, and the file itself."""
    kept = cache.object_paths(objects, one.md5) if one.md5 else ()
    return [path for path in (*kept, project.root / one.path) if path.is_file()]


def _holders(desk: Desk, images: Sequence[_Image], objects: Path) -> Iterator[Path]:
    """Every file of the project and of DVC's cache with an image's bytes, once.

    Of those that neither a manifest nor the cache names by a hash, by their size and sha256.
    """
    project, held = desk.project, dict[Path, None]()
    for one in images:
        places = _places(project, one, objects)
        held |= dict.fromkeys(path for path in places if path.read_bytes() != one.text)
    yield from held
    sizes = {path.stat().st_size for path in held}
    wanted = {one.image for one in images}
    known = set(desk.history.images["path"]) | set(desk.history.corrections["path"])
    for folder, folders, names in os.walk(project.root) if held else ():
        here = Path(folder)
        folders[:] = [name for name in folders if name != ".git" and here / name != objects]
        for path in (here / name for name in sorted(names)):
            if path in held or path.is_symlink() or not path.is_file():
                continue
            is_like = path.stat().st_size in sizes and project.name(path) not in known
            if is_like and sha256_file(path) in wanted:
                yield path


def _pages(project: Project, day: str, images: Sequence[_Image]) -> Iterator[Path]:
    """Reports and pages of audits that show one of the images."""
    names = [str(escape(one.path)) for one in images]
    for folder in (project.report(day).parent, project.audit_page(day).parent):
        for path in sorted(folder.glob("*.html")):
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(name in text for name in names):
                yield path


def described(found: Erasure) -> Iterator[str]:
    """Say what is to be erased, which days' models used it, and what follows, a line each."""
    project, days = found.project, found.desk.history.days
    yield f"to be erased: {plural(len(found.images), 'image')}"
    for one in found.images:
        if not one.usage:
            yield f"  {one.path} (of the open day, in no sealed one)"
            continue
        yield f"  {one.path}"
        for used, what in (
            (one.usage.trained, "the models of {} were trained on it"),
            (one.usage.tested, "the models of {} were calibrated or tested with it"),
            (one.usage.unknown, "whether {} replayed it is not known here: dvc fetch"),
        ):
            if used:
                yield f"    {what.format(span(used, days))}"
    for name, paths in (("copies", found.copies), ("pages that show them", found.pages)):
        if paths:
            shown = [os.path.relpath(path, project.root) for path in paths]
            yield f"and {name}: {', '.join(first_few(shown))}"
    where = ["the project", "DVC's cache", *(f"the remote {one.name}" for one in found.remotes)]
    yield f"from {', '.join(where)}"
    yield from _outside(found.holders)
    for remote in found.remotes:
        if remote.verifies:
            yield (
                f"the remote {remote.name} is set to verify, so that DVC would not take the text "
                f"from it: dvc remote modify {remote.name} verify false"
            )
    sealed = [one.usage for one in found.images if one.usage]
    if used := sorted({day for one in sealed for day in one.days if day in days}):
        yield f"afterwards {span(used, days)} can no longer be made again as recorded"
    if any(one.trained for one in sealed):
        yield "models that learnt from an image, and those made from them since, stay as they are"


def _outside(holders: Sequence[Path]) -> Iterator[str]:
    """Say of each file with more names (hard links) than were found how to find the others."""
    status = [path.stat() for path in holders]
    known = Counter((one.st_dev, one.st_ino) for one in status)
    left = {one.st_ino: one.st_nlink - known[one.st_dev, one.st_ino] for one in status}
    for number, count in left.items():
        if count > 0:
            yield (
                f"{count} more hard links of the same file lie outside the project: "
                f"find / -xdev -inum {number}"
            )


# The walk: the event, remotes, pages and copies, the cache, and the files last; then the proof.


def carry_out(found: Erasure, *, say: Callable[[str], None]) -> None:
    """Record the event, then erase every copy, and look for the bytes once more.

    Raises CycleError that lists the remotes that could not be reached; the rest is done then.
    """
    project = found.project
    done = found.desk.write()
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
    for one in found.sealed:
        _text_into_cache(one, found.objects)
    _texts_into_days(found)
    count = len({*found.holders} - {*found.copies})
    say(f"here: {count} files and objects erased, {plural(len(found.copies), 'copy')} removed")
    for page in found.pages:
        say(f"removed {project.name(page)}: it showed what is erased")
    wanted = {one.image for one in found.images}
    left = [path for path in found.holders if path.is_file() and sha256_file(path) in wanted]
    problems += [f"{path} still has the bytes" for path in left]
    if problems:
        raise CycleError(
            "Recorded, and erased here, but not everywhere:",
            problems=problems,
            hint="when they can be reached: dayfold withdraw --erase",
        )


def _from_remote(remote: Remote, images: Sequence[_Image]) -> int:
    """Put the texts into a remote; how many of its objects had the bytes."""
    what = f"remote {remote.name} ({remote.url})"
    if remote.problem:
        raise ToolError(f"{what} {remote.problem}: erase it there by hand")
    if unknown := [one.path for one in images if not one.md5]:
        paths = ", ".join(first_few(unknown))
        raise ToolError(f"{what}: DVC's list of the day of {paths} cannot be read")
    return sum(remote.replace(one.md5, one.text, folder=one.folder) for one in images)


def _text_into_cache(one: _Image, objects: Path) -> None:
    """Put the text in the place of an object, or of one that a list of DVC's names and that lacks.

    DVC checks out nothing of a folder with a gap.
    """
    if not one.md5:
        return
    # By its own MD5 too: DVC replaces a file that the cache has, and asks about any other.
    cache.put_back(objects, one.text)
    first, before = cache.object_paths(objects, one.md5)
    is_listed = any(path.exists() for path in cache.object_paths(objects, one.folder))
    for path in (first, before):
        is_gap = path == first and is_listed and not path.exists()
        if is_gap or (path.exists() and path.read_bytes() != one.text):
            write_bytes(path, one.text, mode=READ_ONLY)


def _texts_into_days(found: Erasure) -> None:
    """Put the texts into the days' folders that are here.

    DVC checks them out, so that it knows the folders as unchanged.
    """
    project = found.project
    sealed = {project.images(day) for day in vcs.sealed_days(project.root)}
    texts = {project.root / one.path: one for one in found.sealed}
    texts = {path: one for path, one in texts.items() if path.parents[1].is_dir()}
    for path in texts.keys() & {*found.holders}:
        path.unlink()
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
