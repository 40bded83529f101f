"""Erasing images: event, bytes and proof.

Each step can be done again, and the last to go is what the others are found by: after a kill the
same command finishes.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from markupsafe import escape

from dayfold.cycle.correcting import Desk, Target
from dayfold.errors import CycleError, ToolError
from dayfold.history import record
from dayfold.history.record import Usage, span, usage
from dayfold.ledger import corrections
from dayfold.ledger.decode import placeholder
from dayfold.ledger.names import WITHDRAW
from dayfold.project import storage, vcs
from dayfold.project.console import first_few, plural, say
from dayfold.project.files import md5, md5_file, sha256_file, write_bytes
from dayfold.project.layout import Project
from dayfold.project.storage import READ_ONLY, Remote, bring, remotes

ONCE = 500  # files that DVC is asked for at a time: a command line has an end


class _Image(NamedTuple):
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


class Erasure:
    """What is to be erased, and from where: found and checked, and done by `carry_out`.

    Of the `holders` of an image's bytes, the files that have them, a text takes the place of some;
    `copies` are removed, with what was computed from an image; so are `pages`, reports and pages of
    audits, that show one.
    """

    def __init__(
        self, project: Project, paths: Sequence[str | Path], *, reason: str, day: str
    ) -> None:
        """Find all of it, whether or not the images were withdrawn before.

        Without `paths` those that are recorded as erased already, here or in another clone. Raises
        CycleError that lists all that cannot be done.
        """
        self.project, self.desk = project, Desk(project, day)
        targets = _recorded(self.desk, paths, reason)
        self.remotes = remotes(project.root)
        self.images = [*self._of_sealed_days(targets), *self._of_the_open_day(targets)]
        self.sealed = [one for one in self.images if one.usage]  # a text takes their place
        self.holders = list(self._holders())
        stay = {path for one in self.sealed for path in self._places(one)}
        self.copies = [path for path in self.holders if path not in stay]
        for one in self.images:
            for kept in (project.activations, project.squares):
                self.copies += kept.glob(f"*/{one.image}")
        names = [str(escape(one.path)) for one in self.images]
        self.pages = [
            path
            for folder in (project.report(day).parent, project.audit_page(day).parent)
            for path in sorted(folder.glob("*.html"))
            if any(name in path.read_text(encoding="utf-8", errors="replace") for name in names)
        ]

    # Every copy: where the bytes lie.

    def _of_sealed_days(self, targets: Sequence[Target]) -> Iterator[_Image]:
        sealed = vcs.sealed_days(self.project.root)
        days = [day for day in self.desk.history.days if day in sealed]
        line = list(record.read(self.project, days).values())
        keys = {one.day: one.images_md5 for one in line}
        images = {one.image for one in targets if one.image}
        found = usage(self.desk.history, images, line)
        lists: dict[str, dict[str, str]] = {}  # of DVC's, of the days' folders
        for day in sorted({used.day for used in found} & keys.keys()):
            with suppress(ToolError, OSError, ValueError, TypeError):
                lists[day] = storage.listed(bring(self.project.root, keys[day]).read_bytes())
        for used in found:
            path = self.project.root / used.path
            name = path.relative_to(self.project.images(used.day)).as_posix()
            own = lists.get(used.day, {}).get(name, "")
            if not own and path.is_file() and sha256_file(path) == used.image:
                own = md5_file(path)
            yield _Image(used.path, used.image, own, keys.get(used.day, ""), used)

    def _of_the_open_day(self, targets: Sequence[Target]) -> Iterator[_Image]:
        for path in (self.project.root / target.path for target in targets if not target.image):
            key = md5_file(path)
            # No list names it: a remote is touched where it has the object itself.
            yield _Image(self.project.name(path), sha256_file(path), key, folder=key)

    def _places(self, one: _Image) -> list[Path]:
        kept = [storage.object_path(self.project.root, one.md5)] if one.md5 else []
        return [path for path in (*kept, self.project.root / one.path) if path.is_file()]

    def _holders(self) -> Iterator[Path]:
        """Every file of the project and of DVC's cache with an image's bytes, once.

        Of those that neither a manifest nor the cache names by a hash, by their size and sha256.
        """
        held = dict[Path, None]()
        for one in self.images:
            places = self._places(one)
            held |= dict.fromkeys(path for path in places if path.read_bytes() != one.text)
        yield from held
        sizes = {path.stat().st_size for path in held}
        wanted = {one.image for one in self.images}
        history, objects = self.desk.history, storage.cache_folder(self.project.root)
        known = {*history.images["path"], *history.corrections["path"]}
        for folder, folders, names in os.walk(self.project.root) if held else ():
            here = Path(folder)
            folders[:] = [one for one in folders if one != ".git" and here / one != objects]
            for path in (here / name for name in sorted(names)):
                if path in held or path.is_symlink() or not path.is_file():
                    continue
                is_like = path.stat().st_size in sizes and self.project.name(path) not in known
                if is_like and sha256_file(path) in wanted:
                    yield path

    def described(self) -> Iterator[str]:
        """Say what is to be erased, which days' models used it, and what follows, a line each."""
        days = self.desk.history.days
        yield f"to be erased: {plural(len(self.images), 'image')}"
        for one in self.images:
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
        for name, paths in (("copies", self.copies), ("pages that show them", self.pages)):
            if paths:
                shown = [os.path.relpath(path, self.project.root) for path in paths]
                yield f"and {name}: {', '.join(first_few(shown))}"
        where = ["the project", "DVC's cache", *(f"the remote {one.name}" for one in self.remotes)]
        yield f"from {', '.join(where)}"
        yield from _outside(self.holders)
        for remote in self.remotes:
            if remote.verifies:
                yield (
                    f"the remote {remote.name} is set to verify, so that DVC would not take the "
                    f"text from it: dvc remote modify {remote.name} verify false"
                )
        used_by = [one.usage for one in self.sealed if one.usage]
        if used := sorted({day for one in used_by for day in one.days if day in days}):
            yield f"afterwards {span(used, days)} can no longer be made again as recorded"
        if any(one.trained for one in used_by):
            yield (
                "models that learnt from an image, and those made from them since, stay as they are"
            )

    # The walk: the event, remotes, pages and copies, the cache, and the files last; then the proof.

    def carry_out(self) -> None:
        """Record the event, then erase every copy, and look for the bytes once more.

        Raises CycleError that lists the remotes that could not be reached; the rest is done then.
        """
        project, noted = self.project, self.project.corrections(self.desk.day)
        self.desk.close()
        if self.desk.corrected:
            say(f"recorded in {project.name(noted)}; dayfold seal settles it")
        problems = []
        for remote in self.remotes:
            try:
                say(f"remote {remote.name}: {_from_remote(remote, self.images)} erased")
            except ToolError as error:
                problems.append(error.what)
        for path in (*self.pages, *self.copies):
            path.unlink(missing_ok=True)
        if len(self.sealed) < len(self.images):
            # Until DVC's list of the open day is without them, a forced checkout takes all of it.
            with suppress(ToolError):
                vcs.dvc(project.root, "add", project.name(project.images(self.desk.day)))
        for one in self.sealed:
            self._text_into_cache(one)
        self._texts_into_days()
        count = len({*self.holders} - {*self.copies})
        say(f"here: {count} files and objects erased, {plural(len(self.copies), 'copy')} removed")
        for page in self.pages:
            say(f"removed {project.name(page)}: it showed what is erased")
        wanted = {one.image for one in self.images}
        left = [path for path in self.holders if path.is_file() and sha256_file(path) in wanted]
        problems += [f"{path} still has the bytes" for path in left]
        if problems:
            raise CycleError(
                "Recorded, and erased here, but not everywhere:",
                problems=problems,
                hint="when they can be reached: dayfold withdraw --erase",
            )

    def _text_into_cache(self, one: _Image) -> None:
        """Put the text in the place of an object, or of one that a list names and that lacks.

        DVC checks out nothing of a folder with a gap.
        """
        root = self.project.root
        if not one.md5:
            return
        # By its own MD5 too: DVC replaces a file that the cache has, and asks about any other.
        own, place, listed = (
            storage.object_path(root, key) for key in (md5(one.text), one.md5, one.folder)
        )
        for path in (own, place):
            is_gap = not path.exists() and (path == own or listed.exists())
            if is_gap or (path.exists() and path.read_bytes() != one.text):
                write_bytes(path, one.text, mode=READ_ONLY)

    def _texts_into_days(self) -> None:
        """Put the texts into the days' folders that are here.

        DVC checks them out, so that it knows the folders as unchanged.
        """
        project = self.project
        sealed = {project.images(day) for day in vcs.sealed_days(project.root)}
        texts = {project.root / one.path: one for one in self.sealed}
        texts = {path: one for path, one in texts.items() if path.parents[1].is_dir()}
        for path in texts.keys() & {*self.holders}:
            path.unlink()
        # A copy in a sealed day's folder has no text, and DVC misses it there.
        files = [*texts, *(path for path in self.copies if sealed & set(path.parents))]
        missing = [project.name(path) for path in files if not path.exists()]
        for first in range(0, len(missing), ONCE):
            # A folder that DVC cannot check out is told by the next dvc status.
            with suppress(ToolError):
                vcs.dvc(project.root, "checkout", *missing[first : first + ONCE])
        for path, one in texts.items():
            if not path.exists():
                write_bytes(path, one.text, mode=READ_ONLY)


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


def _from_remote(remote: Remote, images: Sequence[_Image]) -> int:
    """Put the texts into a remote; how many of its objects had the bytes."""
    what = f"remote {remote.name} ({remote.url})"
    if remote.problem:
        raise ToolError(f"{what} {remote.problem}: erase it there by hand")
    if unknown := [one.path for one in images if not one.md5]:
        paths = ", ".join(first_few(unknown))
        raise ToolError(f"{what}: DVC's list of the day of {paths} cannot be read")
    return sum(remote.replace(one.md5, one.text, folder=one.folder) for one in images)
