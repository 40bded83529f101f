"""Commands that correct labels and withdraw images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dayfold.cli.top import LABELS, changing, command, day_of, option
from dayfold.errors import CycleError
from dayfold.project.console import ask, first_few, plural
from dayfold.project.layout import Project

if TYPE_CHECKING:
    from dayfold.cycle.correcting import Draft

Paths = Annotated[
    list[str] | None, typer.Argument(metavar="PATH…", help="Images, or folders of them.")
]
Undo = Annotated[bool, option("Undo it, until the day is sealed.", "--undo")]
OpenDay = Annotated[
    str | None, option("The day; the open one or today by default.", "--day", metavar="YYYY-MM-DD")
]


def _day(project: Project, given: str | None) -> str:
    from dayfold.history.state import ProjectState

    now = ProjectState.read(project)
    return now.day if given is None and now.is_open else day_of(given)


@command(LABELS, "dayfold relabel data/images/2025-06-02/cyst/041.png --to tumour")
def relabel(
    paths: Paths = None,
    to: Annotated[str, option("The right class.", "--to", metavar="CLASS")] = "",
    class_: Annotated[
        str, option("All images of a class: rename or merge.", "--class", metavar="OLD")
    ] = "",
    file: Annotated[
        Path | None, option("A table with the columns path and decision.", "--from", metavar="FILE")
    ] = None,
    reason: Annotated[str, option("Why, for the record.")] = "",
    undo: Undo = False,
    day: OpenDay = None,
) -> None:
    """Correct labels; applies from the open day onwards.

    A file of the open day moves to the other class's folder.
    """
    from dayfold.cycle import correcting

    if sum((bool(paths), bool(class_), file is not None)) != 1:
        what = "Name images, or use --class or --from FILE."
        raise CycleError(what, hint="dayfold relabel --help")
    if bool(to) == (file is not None or undo) or (file and undo):
        what = "Images and --class need either --to CLASS or --undo; --from FILE takes neither."
        raise CycleError(what, hint="dayfold relabel --help")
    with changing("relabel") as project:
        draft = correcting.Draft(project, _day(project, day))
        if file:
            correcting.decide(draft, file)
        elif undo:
            correcting.undo(draft, paths or [], "relabel", old=class_)
        else:
            correcting.relabel(draft, paths or [], to=to, reason=reason, old=class_)
        draft.save()
    _print(draft, "label", "corrected")


@command(LABELS, 'dayfold withdraw data/images/2025-06-02/cyst/041.png --reason "consent"')
def withdraw(
    paths: Paths = None,
    reason: Annotated[str, option("Why, for the record.", metavar="TEXT")] = "",
    erase: Annotated[
        bool, option("Remove their bytes here and in DVC's remotes, for good.", "--erase")
    ] = False,
    yes: Annotated[bool, option("With --erase: do not ask.", "--yes")] = False,
    undo: Undo = False,
    day: OpenDay = None,
) -> None:
    """Leave images out of training, replay and evaluation from the open day onwards.

    The files stay, except with `--erase`. Without PATH, `--erase` erases here
    what is recorded as erased, for example by another clone.
    """
    from dayfold.cycle import correcting

    if not paths and not erase:
        raise CycleError("Name the images to withdraw.", hint="dayfold withdraw --help")
    if undo and erase:
        raise CycleError("What was erased cannot be brought back.", hint="dayfold withdraw --help")
    with changing("withdraw") as project:
        today = _day(project, day)
        if erase:
            _erase(project, paths or [], reason=reason, day=today, yes=yes)
            return
        draft = correcting.Draft(project, today)
        if undo:
            correcting.undo(draft, paths or [], "withdraw")
        else:
            correcting.withdraw(draft, paths or [], reason=reason)
        draft.save()
    _print(draft, "image", "withdrawn")


def _erase(project: Project, paths: list[str], *, reason: str, day: str, yes: bool) -> None:
    from dayfold.cycle import erasing, opening

    erasure = erasing.Erasure(project, paths, reason=reason, day=day)
    print("\n".join(erasure.described()))
    ask("This cannot be taken back. Erase?", yes=yes, hint="dayfold withdraw … --erase --yes")
    erasure.carry_out()
    for line in opening.opening_lines(project, day, erasure.draft.opened):
        print(line)
    if erasure.draft.corrected or len(erasure.sealed) < len(erasure.images):
        print("next: dvc repro, then dayfold seal")
        print("in every other clone, after git pull there: dayfold withdraw --erase")
    else:
        print("nothing new was recorded")


def _print(draft: "Draft", thing: str, verb: str) -> None:
    from dayfold.cycle import opening

    for line in opening.opening_lines(draft.project, draft.day, draft.opened):
        print(line)
    record = draft.project.name(draft.project.corrections(draft.day))
    to = ", ".join(f"{count} to {label}" for label, count in draft.undone_to.most_common() if label)
    for paths, one, effect in (
        (draft.corrected, thing, f"{verb}, effective {draft.day}, in {record}"),
        (draft.moved, "image", "of the open day moved to the other class's folder"),
        (draft.undone, "correction", "undone" + f" ({to})" * bool(to)),
        (draft.unchanged, "image", "already as asked"),
    ):
        if paths:
            print(f"{plural(len(paths), one)} {effect}:", *first_few(paths), sep="\n  ")
    if draft.corrected + draft.moved and draft.new_classes:
        print(f"class without images until now: {', '.join(draft.new_classes)}")
    if draft.staying:
        folders = ", ".join(sorted({str(Path(path).parent) for path in draft.staying}))
        print(f"not moved back: {plural(len(draft.staying), 'image')} of the open day in {folders}")
    changed = draft.corrected or draft.moved or draft.undone
    print("next: dvc repro" if changed else "nothing changed")
