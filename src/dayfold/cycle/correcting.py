"""Correcting labels and withdrawing images."""

import csv
import io
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dayfold.cycle.opening import check_may_change, make_open
from dayfold.errors import CycleError
from dayfold.history.state import ProjectState
from dayfold.ledger import corrections, grouping
from dayfold.ledger.corrections import ERASE, Correction
from dayfold.ledger.names import KEEP, WITHDRAW, clashes, composed, substitute
from dayfold.project.console import plural
from dayfold.project.files import from_spreadsheet, separator, sha256_file, sync_folder
from dayfold.project.layout import Project

RELABEL = "relabel"


class Target(NamedTuple):
    """An image to correct: one of an earlier day or, without an id, a file of the open day.

    `label` is its class as of the last sealed day; empty if it was withdrawn.
    """

    path: str
    image: str
    label: str


class Draft:
    """A draft of a day's corrections; nothing is written before `save`.

    `save` opens `day` if it is not open; `opened` is then its parent. The lists hold paths: images
    that are `corrected` or were already as asked (`unchanged`), files of the open day that are
    `moved`, images whose correction is `undone` (`undone_to` counts these by the class that they
    had been given), files of the open day that an undo leaves in that class's folder (`staying`).
    """

    def __init__(self, project: Project, day: str) -> None:
        now = ProjectState.read(project)
        self.project, self.day, self._now = project, day, now
        if now.is_open and now.day != day:
            check_may_change(now, day)  # raises, as another day is open
        self.history = now.sealed_history
        self.corrections = corrections.of_day(project, day) if now.is_open else {}
        live = self.history.images.select("path", "image", "label").iter_rows()
        gone = self.history.corrections.filter(action=WITHDRAW).select("path", "image")
        self.earlier = {path: Target(path, image, label) for path, image, label in live}
        self.earlier |= {path: Target(path, image, "") for path, image in gone.iter_rows()}
        self._by_image = {target.image: target for target in self.earlier.values()}
        files = sorted(project.images(day).glob("*/[!.]*")) if now.is_open else []
        opened = [Target(project.name(one), "", one.parent.name) for one in files if one.is_file()]
        self._open = {target.path: target for target in opened}
        self._every = [*self.earlier.values(), *opened]
        self._moves: dict[Path, Path] = {}
        self.problems = list[str]()
        self.corrected, self.moved = list[str](), list[str]()
        self.undone, self.unchanged = list[str](), list[str]()
        self.undone_to, self.staying = Counter[str](), list[str]()
        self.opened = ""

    def targets(self, paths: Iterable[str | Path]) -> list[Target]:
        """Return the images that files, folders or ids stand for, each once, or note a problem."""
        found: dict[str, Target] = {}
        for given in paths:
            targets = self._named(given)
            if not targets:
                self.problems.append(f"{given} is not an image of this project")
            found |= {target.path: target for target in targets}
        return list(found.values())

    def _named(self, given: str | Path) -> list[Target]:
        # A path is relative to the current folder, or to the project. Links are not resolved: a
        # link does not stand for its target.
        here = Path(os.path.abspath(given))  # noqa: PTH100
        inside = [self.project.name(here)] if here.is_relative_to(self.project.root) else []
        for name in (*inside, str(given).rstrip("/")):
            for known in (self.earlier, self._open):
                if name in known:
                    return [known[name]]
                if within := [known[path] for path in known if path.startswith(f"{name}/")]:
                    return within
        # Perhaps a copy of an image: the same bytes under another name.
        image = sha256_file(Path(given)) if Path(given).is_file() else str(given)
        return [self._by_image[image]] if image in self._by_image else []

    def label_of(self, target: Target) -> str:
        """Return an image's class after the day's corrections; empty if it is withdrawn."""
        correction = self.corrections.get(target.image)
        return target.label if correction is None else correction.label

    def labels(self) -> set[str]:
        return {self.label_of(target) for target in self.earlier.values()} - {""}

    @property
    def new_classes(self) -> list[str]:
        """The classes that no image had before the day's corrections."""
        before = {target.label for target in self._every}
        after = {one.label for one in self.corrections.values()}
        after |= {goal.parent.name for goal in self._moves.values()}
        return sorted(after - before - {""})

    def of_class(self, label: str) -> list[Target]:
        return [target for target in self._every if self.label_of(target) == label]

    def of_open_day(self, labels: Container[str]) -> list[str]:
        return [target.path for target in self._open.values() if target.label in labels]

    def correct(self, action: str, target: Target, label: str = "", reason: str = "") -> None:
        """Relabel, withdraw or erase an image; a file of the open day moves to another folder."""
        if self.label_of(target) == label and action != ERASE:
            self.unchanged.append(target.path)
        elif not target.image and action == RELABEL:
            self._move(target, label)
        elif not target.image:
            self.problems.append(
                f"{target.path} belongs to the open day only: delete the file, or use "
                "withdraw --erase, which removes its bytes from DVC's cache too"
            )
        elif not self.label_of(target) and action == RELABEL:
            undo = "; --undo that first" if target.label else " on an earlier day"
            said = "was erased" if self.has(target, ERASE) else f"was withdrawn{undo}"
            self.problems.append(f"{target.path} {said}")
        elif target.label == label and action == RELABEL:
            # It has its old class again, so no correction is left.
            del self.corrections[target.image]
            self.undone.append(target.path)
        else:
            if self.has(target, RELABEL) and action != RELABEL:
                self.undone.append(target.path)  # an image has one correction a day
            self.corrections[target.image] = Correction(action, target.image, label, reason)
            self.corrected.append(target.path)

    def _move(self, target: Target, label: str) -> None:
        source, group = self.project.root / target.path, self._now.params.data.group
        goal = self.project.images(self.day) / label / source.name
        if goal in self._moves.values() or goal.exists():
            goal = goal.with_name(substitute(goal.name, sha256_file(source)))
        name = self.project.name(goal)
        if goal in self._moves.values() or goal.exists():
            self.problems.append(f"{target.path}: {name} is there already")
        elif grouping.in_path(target.path, group) != grouping.in_path(name, group):
            self.problems.append(f"{target.path}: as {name} it would belong to another group")
        else:
            self._moves[source] = goal
            self.moved.append(target.path)

    def has(self, target: Target, action: str) -> bool:
        correction = self.corrections.get(target.image)
        return correction is not None and correction.action == action

    def undo(self, target: Target, action: str) -> None:
        if not target.image:
            said = "belongs to the open day: move it back with relabel"
            self.problems.append(f"{target.path} {said}")
        elif self.has(target, ERASE):
            self.problems.append(f"{target.path} was erased: that cannot be undone")
        elif not self.has(target, action):
            sealed = f"; {self._now.day} is sealed: dayfold undo, or correct it again"
            said = f"has no {action} on {self.day} to undo" + sealed * self._now.is_sealed
            self.problems.append(f"{target.path} {said}")
        else:
            self.undone_to[self.corrections.pop(target.image).label] += 1
            self.undone.append(target.path)

    def check_class(self, label: str) -> None:
        if wrong := corrections.label_problem(label):
            self.problems.append(f"the class {label!r} {wrong}")

    def check_reason(self, reason: str) -> None:
        if not reason.strip() or not reason.isprintable():
            self.problems.append('a withdrawal needs a reason, in one line: --reason "…"')

    def check(self) -> None:
        """Raise CycleError with every problem, or if the day cannot be changed."""
        if self._moves or any(one.label for one in self.corrections.values()):
            there = set(self.project.images(self.day).glob("*/*")) - self._moves.keys()
            labels = {path.parent.name for path in (*there, *self._moves.values())}
            self.problems += clashes(labels | self.labels())
        if self.problems:
            raise CycleError(
                f"{plural(len(self.problems), 'problem')}; nothing was corrected:",
                problems=list(dict.fromkeys(self.problems)),
            )
        if self.corrected or self.undone or self._moves:
            check_may_change(self._now, self.day)

    def save(self) -> None:
        """Write all corrections; if there is any problem, raise CycleError and write nothing."""
        self.check()
        if (self.corrected or self.undone) and not self._now.is_open:
            make_open(self._now, self.day)
            self.opened = self._now.next_parent
        for source, goal in self._moves.items():
            goal.parent.mkdir(parents=True, exist_ok=True)
            source.rename(goal)
            sync_folder(goal.parent)
            if not any(source.parent.iterdir()):
                source.parent.rmdir()
        if self.corrected or self.undone:
            corrections.write(self.project, self.day, self.corrections.values())


def relabel(
    draft: Draft, paths: Sequence[str | Path], *, to: str, reason: str = "", old: str = ""
) -> None:
    """Give images another class; files of the open day move to its folder.

    `old` selects all images of a class instead, to rename it or to merge it into another one.
    """
    to = composed(to)
    draft.check_class(to)
    targets = draft.targets(paths)
    if old:
        targets = draft.of_class(old) or draft.of_class(composed(old))
        there = f"no image is of the class {old!r} (there are {', '.join(sorted(draft.labels()))})"
        draft.problems += [there] * (not targets)
    for target in targets:
        draft.correct(RELABEL, target, to, reason)


def decide(draft: Draft, file: Path) -> None:
    """Apply a table of decisions that `dayfold audit` wrote and a person filled in.

    A row's `decision` is a class, `withdraw`, `keep` or empty; `path` or `image` names the image.
    """
    first, reason = dict[str, int](), f"decided in {file.name}"
    for number, which, decision in _decisions(file, draft.labels()):
        before = len(draft.problems)
        for target in draft.targets([which]):
            if first.setdefault(target.path, number) != number:
                draft.problems.append(f"{target.path} is decided on line {first[target.path]}")
            elif decision == WITHDRAW:
                draft.correct(WITHDRAW, target, reason=reason)
            else:
                draft.check_class(decision)
                draft.correct(RELABEL, target, decision, reason)
        draft.problems[before:] = [f"line {number}: {one}" for one in draft.problems[before:]]


def _decisions(file: Path, classes: Container[str]) -> Iterator[tuple[int, str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise CycleError(f"{file} does not exist.", hint="dayfold audit writes one") from None
    except UnicodeDecodeError:
        raise CycleError(f"{file} is not UTF-8.", hint="save it as CSV UTF-8") from None
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator(text), strict=True)
    try:
        names = rows.fieldnames or ()
        if "decision" not in names or not {"path", "image"} & {*names}:
            columns = ",".join(names)
            what = f"{file} has the columns {columns!r}, without `decision` and `path`."
            raise CycleError(what, hint="fill in the column `decision` of what dayfold audit wrote")
        is_blank = True
        for row in rows:
            decision = composed(from_spreadsheet(row["decision"] or "").strip())
            if decision.casefold() in (KEEP, WITHDRAW) and decision not in classes:
                decision = decision.casefold()  # a spreadsheet begins cells with a capital
            is_blank = is_blank and not decision
            if decision and decision != KEEP:
                which = from_spreadsheet(row.get("path") or "") or row.get("image") or ""
                yield rows.line_num, which, decision
        if is_blank:
            what = f"{file} holds no decision."
            raise CycleError(what, hint="fill in its column `decision`: a class, keep or withdraw")
    except csv.Error as error:
        what = f"{file} cannot be read as CSV: {error} (line {rows.line_num})."
        raise CycleError(what, hint="put a cell that has a quote in it in quotes") from None


def withdraw(draft: Draft, paths: Sequence[str | Path], *, reason: str) -> None:
    """Withdraw images from today's data version and all later ones; their files stay."""
    draft.check_reason(reason)
    for target in draft.targets(paths):
        draft.correct(WITHDRAW, target, reason=reason)


def undo(draft: Draft, paths: Sequence[str | Path], action: str, *, old: str = "") -> None:
    """Undo the day's corrections of these images or of a class; in a folder, of those with one."""
    if old:
        every = draft.earlier.values()
        corrected = [one for one in every if one.label == old and draft.has(one, action)]
        if not corrected:
            draft.problems.append(f"no image of {old!r} was given another class on {draft.day}")
        paths = [one.path for one in corrected]
        draft.staying = draft.of_open_day({draft.corrections[one.image].label for one in corrected})
    targets = dict[str, Target]()
    for found in (draft.targets([given]) for given in paths):
        corrected = [target for target in found if draft.has(target, action)]
        targets |= {target.path: target for target in corrected or found}
    for target in targets.values():
        draft.undo(target, action)
