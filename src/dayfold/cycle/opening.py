"""Opening a day: yesterday's outputs become its parent."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dayfold.create import make_origin
from dayfold.cycle import hand_edits
from dayfold.cycle.standing import (
    Standing,
    check_history,
    check_is_as_sealed,
    check_tags,
    standing,
)
from dayfold.errors import CycleError
from dayfold.ledger import corrections, splits
from dayfold.ledger.intake.finding import count
from dayfold.project import journal, vcs
from dayfold.project import params as params_file
from dayfold.project.console import plural
from dayfold.project.files import write_bytes
from dayfold.project.layout import Project, check_day

STEP = "open"  # its name in the journal


def open_day(project: Project, day: str) -> str:
    """Make `day` the open day: yesterday's outputs become its parent, its folder is made."""
    now = standing(project)
    check_may_open(project, now, day)
    make_open(project, now, day)
    return now.next_parent


def make_open(project: Project, now: Standing, day: str) -> None:
    """Open a day that `check_may_open` has let pass."""
    new = (project.tracked(day), project.corrections(day), project.groups(day))
    before = [*new, project.parent.with_suffix(".dvc"), project.images(day).with_name(".gitignore")]
    if not now.is_unopened:
        before += [project.tracked(now.day), project.tracked_month(now.day)]
    texts = {project.name(path): _text(path) for path in before}
    with journal.step(project, STEP, day=day, texts=texts):
        project.images(day).mkdir(parents=True, exist_ok=True)
        corrections.write_empty(project, day)
        splits.write_no_groups(project, day)
        if now.is_unopened:
            if not project.parent_model.exists():
                make_origin(project, now.params)
        else:
            fold_into_month(project, now.day)
            inherit(project)
        tracked = (project.parent, project.images(day))
        vcs.dvc(project.root, "add", "--quiet", *map(project.name, tracked))
        put_in_index(project, day)
        # Last: until params.yaml says so, the day is not open.
        params_file.edit(project.params, {"day": day, "parent": now.next_parent})


def put_in_index(project: Project, day: str) -> None:
    """Have git know the open day's files: `dvc exp run --temp` and `--queue` take no others."""
    own = (project.tracked(day), project.corrections(day), project.groups(day))
    vcs.git_says(project.root, "add", "--", *map(project.name, own))


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def take_back(project: Project, facts: Mapping[str, Any]) -> str:
    """Take back the opening of a day that was killed, by its note; say what was done."""
    day, texts = facts["day"], facts["texts"]
    if params_file.read(project.params).day == day:
        return f"{day} is open"
    for name, text in texts.items():
        if text is None:
            (project.root / name).unlink(missing_ok=True)
        else:
            write_bytes(project.root / name, text.encode())
    vcs.git_says(project.root, "reset", "--quiet", "--", *texts)
    if project.images(day).is_dir() and not any(project.images(day).iterdir()):
        project.images(day).rmdir()
    parent = project.name(project.parent.with_suffix(".dvc"))
    if texts[parent] is not None:
        vcs.dvc(project.root, "checkout", "--quiet", "--force", parent)
    return f"the opening of {day} is taken back; run the command again"


def check_may_change(project: Project, now: Standing, day: str, *, what: str) -> None:
    """Raise CycleError where `what` of a day is settled: sealed, not open, and not to be opened."""
    if now.day != check_day(day):
        check_may_open(project, now, day)
        return
    if now.is_sealed:
        raise CycleError(
            f"{day} is sealed; its {what} are settled.",
            hint="give a later --day, or take the seal back: dayfold undo",
        )
    hand_edits.check(project, now.params, now.sealed)


def check_may_open(project: Project, now: Standing, day: str) -> None:
    """Raise CycleError, with the way on, where `day` cannot be the next open day."""
    check_day(day)
    if day in now.sealed:
        raise CycleError(f"{day} is already sealed.", hint="dayfold status")
    check_tags(project, now)
    if day in now.tagged:
        branches = vcs.branches_of(project.root, vcs.TAG + day)
        there = f"git checkout {branches[0]} && dvc checkout" if branches else "git fetch --tags"
        raise CycleError(
            f"{day} is sealed on another line of history, so its tag {vcs.TAG}{day} is taken.",
            hint=f"give another --day; or go on with that line: {there}",
        )
    if now.day == day:
        raise CycleError(f"{day} is already open.", hint="dayfold status")
    if now.is_unopened:
        check_history(project)
        return
    if not now.is_sealed:
        raise CycleError(
            f"{now.day} is open and not sealed, so {day} cannot be opened.",
            hint=f"dvc repro && dayfold seal, or go on with it: --day {now.day}",
        )
    if day < now.day:
        raise CycleError(
            f"{day} comes before {now.day}, which is sealed; days are added in order.",
            hint=f"give a day after {now.day}",
        )
    if now.sealed[-1] != now.day:
        raise CycleError(
            f"params.yaml says that the day is {now.day}; {now.sealed[-1]} is sealed after it.",
            hint=f"git checkout {vcs.TAG}{now.sealed[-1]} -- params.yaml",
        )
    check_history(project)
    hand_edits.check(project, now.params, now.sealed)
    check_is_as_sealed(project, now.day)


def inherit(project: Project) -> None:
    """Make the day's model and predictions the parent's."""
    for made, target in project.handed_on().items():
        write_bytes(target, made.read_bytes())


def fold_into_month(project: Project, day: str) -> None:
    """Move a sealed day's entry from its own .dvc file into that of its month.

    DVC parses every .dvc file for every command, which with 200 of them made a `dvc repro` without
    anything to do 1.4 times as long as with two; with one a month, 1.16 to 1.26 times.
    """
    own, month = project.tracked(day), project.tracked_month(day)
    if not own.exists():
        return
    entries = yaml.safe_load(month.read_text(encoding="utf-8"))["outs"] if month.exists() else []
    entries = [entry for entry in entries if entry["path"] != day]
    entries += yaml.safe_load(own.read_text(encoding="utf-8"))["outs"]
    write_bytes(month, yaml.safe_dump({"outs": entries}, sort_keys=False).encode())
    own.unlink()


def opened(
    project: Project, day: str, parent: str, *, lying: int | None = None, would: bool = False
) -> Iterator[str]:
    """Yield what is to be said of a day that a command opened; nothing without its parent."""
    if not parent:
        return
    yield f"{'would open' if would else 'opened'} {day} (parent {parent})"
    lying = sum(count(project, day).values()) if lying is None else lying
    if lying:
        folder = project.name(project.images(day))
        yield f"{plural(lying, 'image')} lay in {folder} already: part of {day} now"
