"""Erasing images: event, bytes and proof.

Each step can be repeated. Files by which others are found are removed last, so after a kill the
same command finishes.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from markupsafe import escape

from dayfold.cycle.correcting import Draft, Target
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
from dayfold.project.storage import READ_ONLY, Remote, fetch, remotes

ONCE = 500  # paths in one DVC command, as the length of a command line is limited


class _Image(NamedTuple):
    """An image to be erased, and the MD5s of its object and its folder in DVC, if known, or "".

    A file of the open day has no usage: no record names it, so it is deleted and not replaced.
    """

    path: str
    image: str
    md5: str
    folder: str
    usage: Usage | None = None

    @property
    def placeholder(self) -> bytes:
        return placeholder(self.image)


class Erasure:
    """The images to erase, and every file with their bytes; `carry_out` erases them.

    Of the `holders` of an image's bytes, placeholders replace those of sealed days. `copies`, with
    everything computed from an image, and `pages` that show one are deleted.
    """

    def __init__(
        self, project: Project, paths: Sequence[str | Path], *, reason: str, day: str
    ) -> None:
        """Find all files that have to be erased.

        Without `paths` these are the images recorded as erased, here or in another clone. Raises
        CycleError that lists all problems.
        """
        self.project, self.draft = project, Draft(project, day)
        targets = _recorded(self.draft, paths, reason)
        self.remotes = remotes(project.root)
        self.images = [*self._of_sealed_days(targets), *self._of_the_open_day(targets)]
        self.sealed = [one for one in self.images if one.usage]  # placeholders replace these
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

    # Where the bytes are.

    def _of_sealed_days(self, targets: Sequence[Target]) -> Iterator[_Image]:
        sealed = vcs.sealed_days(self.project.root)
        days = [day for day in self.draft.history.days if day in sealed]
        records = list(record.read(self.project, days).values())
        keys = {one.day: one.images_md5 for one in records}
        images = {one.image for one in targets if one.image}
        found = usage(self.draft.history, images, records)
        lists: dict[str, dict[str, str]] = {}  # DVC's list of each day's folder
        for day in sorted({used.day for used in found} & keys.keys()):
            with suppress(ToolError, OSError, ValueError, TypeError):
                lists[day] = storage.listed(fetch(self.project.root, keys[day]).read_bytes())
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
            # No folder's list names it, so a remote is changed only if it has the object itself.
            yield _Image(self.project.name(path), sha256_file(path), key, folder=key)

    def _places(self, one: _Image) -> list[Path]:
        kept = [storage.object_path(self.project.root, one.md5)] if one.md5 else []
        return [path for path in (*kept, self.project.root / one.path) if path.is_file()]

    def _holders(self) -> Iterator[Path]:
        # Files that neither a manifest nor the cache names are compared by size and sha256.
        held = dict[Path, None]()
        for one in self.images:
            places = self._places(one)
            held |= dict.fromkeys(path for path in places if path.read_bytes() != one.placeholder)
        yield from held
        sizes = {path.stat().st_size for path in held}
        wanted = {one.image for one in self.images}
        history, objects = self.draft.history, storage.cache_folder(self.project.root)
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
        days = self.draft.history.days
        yield f"to be erased: {plural(len(self.images), 'image')}"
        paths_of: dict[tuple[str, ...], list[str]] = {}
        for one in self.images:
            paths_of.setdefault(tuple(_uses(one.usage, days)), []).append(one.path)
        for uses, used_paths in paths_of.items():
            yield from (f"  {path}" for path in used_paths)
            yield from (f"    {use}" for use in uses)
        caches = {self.project.activations, self.project.squares}
        copies = [path for path in self.copies if caches.isdisjoint(path.parents)]
        cached = len(self.copies) - len(copies)
        for what, paths in (("copies", copies), ("pages that show them", self.pages)):
            if paths:
                shown = [os.path.relpath(path, self.project.root) for path in paths]
                yield f"and {what}: {', '.join(first_few(shown))}"
        if cached:
            yield f"and {plural(cached, 'file')} computed from them, in .dvc/tmp"
        where = ["the project", "DVC's cache", *(f"the remote {one.name}" for one in self.remotes)]
        yield f"from {', '.join(where)}"
        status = [path.stat() for path in self.holders]
        known = Counter((one.st_dev, one.st_ino) for one in status)
        left = {one.st_ino: one.st_nlink - known[one.st_dev, one.st_ino] for one in status}
        for number in (number for number, count in left.items() if count > 0):
            said = f"{left[number]} more hard links of the same file are outside the project"
            yield f"{said}: find / -xdev -inum {number}"
        for name in (remote.name for remote in self.remotes if remote.verifies):
            said = f"the remote {name} has verify set, so DVC would reject the placeholders"
            yield f"{said}: dvc remote modify {name} verify false"
        used_by = [one.usage for one in self.sealed if one.usage]
        if used := sorted({day for one in used_by for day in one.days if day in days}):
            yield f"afterwards {span(used, days)} cannot be made again as recorded"
        if any(one.trained for one in used_by):
            said = "models that learnt from an image, and those made from them since"
            yield f"{said}, stay as they are"

    # The order: the event, remotes, pages and copies, the cache, and the files last. Then the
    # proof.

    def carry_out(self) -> None:
        """Record the event, erase every copy, then look for the bytes once more.

        Raises CycleError that lists the remotes that could not be reached; everything else is
        erased by then.
        """
        project, noted = self.project, self.project.corrections(self.draft.day)
        self.draft.save()
        if self.draft.corrected:
            say(f"recorded in {project.name(noted)}; dayfold seal makes it final")
        problems = []
        for remote in self.remotes:
            try:
                say(f"remote {remote.name}: {_from_remote(remote, self.images)} erased")
            except ToolError as error:
                problems.append(error.what)
        for path in (*self.pages, *self.copies):
            path.unlink(missing_ok=True)
        if len(self.sealed) < len(self.images):
            # A forced checkout would delete the whole open day while DVC's list names them.
            with suppress(ToolError):
                vcs.dvc(project.root, "add", project.name(project.images(self.draft.day)))
        for one in self.sealed:
            self._placeholder_into_cache(one)
        self._placeholders_into_days()
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

    def _placeholder_into_cache(self, one: _Image) -> None:
        # Also if the object is missing, as DVC checks out nothing of a folder that lacks one.
        if not one.md5:
            return
        # Under the placeholder's own MD5 too: DVC replaces a file without asking only if the cache
        # has it.
        keys = (md5(one.placeholder), one.md5, one.folder)
        own, place, listed = (storage.object_path(self.project.root, key) for key in keys)
        for path in (own, place):
            is_gap = not path.exists() and (path == own or listed.exists())
            if is_gap or (path.exists() and path.read_bytes() != one.placeholder):
                write_bytes(path, one.placeholder, mode=READ_ONLY)

    def _placeholders_into_days(self) -> None:
        # DVC checks them out, so that it takes the folders as unchanged.
        project = self.project
        sealed = {project.images(day) for day in vcs.sealed_days(project.root)}
        placeholders = {project.root / one.path: one for one in self.sealed}
        placeholders = {path: one for path, one in placeholders.items() if path.parents[1].is_dir()}
        for path in placeholders.keys() & {*self.holders}:
            path.unlink()
        # DVC also expects the copies in a sealed day's folder.
        files = [*placeholders, *(path for path in self.copies if sealed & set(path.parents))]
        missing = [project.name(path) for path in files if not path.exists()]
        for first in range(0, len(missing), ONCE):
            # The next `dvc status` reports a folder that cannot be checked out.
            with suppress(ToolError):
                vcs.dvc(project.root, "checkout", *missing[first : first + ONCE])
        for path, one in placeholders.items():
            if not path.exists():
                write_bytes(path, one.placeholder, mode=READ_ONLY)


def _uses(usage: Usage | None, days: Sequence[str]) -> Iterator[str]:
    if usage is None:
        yield "of the open day only"
        return
    for used, what in (
        (usage.trained, "the models of {} were trained on it"),
        (usage.tested, "the models of {} were calibrated or tested with it"),
        (usage.unknown, "whether {} replayed it is not known here: dvc fetch --all-tags"),
    ):
        if used:
            yield what.format(span(used, days))


def _recorded(draft: Draft, paths: Sequence[str | Path], reason: str) -> list[Target]:
    known = corrections.withdrawals(draft.project, corrections.ERASE)
    in_history = {*draft.history.images["image"], *draft.history.corrections["image"]}
    targets = draft.targets(paths or sorted(in_history & known.keys()))
    if not targets and not draft.problems:
        raise CycleError("No image is recorded as erased.", hint="dayfold withdraw --erase PATH…")
    for target in targets:
        if target.image and target.image not in known:
            # Without a new reason, that of today's withdrawal stays.
            is_withdrawn = draft.has(target, WITHDRAW) and not reason
            why = draft.corrections[target.image].reason if is_withdrawn else reason
            draft.check_reason(why)
            draft.correct(corrections.ERASE, target, reason=why)
    draft.check()
    return targets


def _from_remote(remote: Remote, images: Sequence[_Image]) -> int:
    what = f"remote {remote.name} ({remote.url})"
    if remote.problem:
        raise ToolError(f"{what} {remote.problem}: erase it there by hand")
    if unknown := [one.path for one in images if not one.md5]:
        paths = ", ".join(first_few(unknown))
        raise ToolError(f"{what}: DVC's list of the day of {paths} cannot be read")
    return sum(remote.replace(one.md5, one.placeholder, folder=one.folder) for one in images)
