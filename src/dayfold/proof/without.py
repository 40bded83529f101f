"""The history made again without the images that were erased: another one than was recorded."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dayfold.errors import CycleError, DayfoldError
from dayfold.ledger import corrections, manifest
from dayfold.project.console import Ticker
from dayfold.project.files import md5_file, write_bytes
from dayfold.project.layout import STAGES, Project
from dayfold.proof import compare, seen, worktree
from dayfold.proof.compare import Rebuilt
from dayfold.proof.record import Sealed
from dayfold.proof.reproduce import (
    How,
    Say,
    again,
    introduce,
    keep_parent,
    line_of,
    shown,
    wrong_version,
)
from dayfold.proof.worktree import Bench

# Of snapshot only the manifest is made again, by leaving rows out: every split stays as it was.
STAGES_AGAIN = STAGES[1:]
INTRODUCTION = """\
Days up to the first erased image are made again and must be identical. From then on each is made
from the model just made, with the recorded params, splits and images but for those erased: another
history than the recorded one, whose figures can be compared and whose bits cannot."""


@dataclass(frozen=True)
class Other:
    """A day of the history without what was erased: what differs from the recorded day.

    `images` were left out; `differing` and `equal` are paths below data/, of what was compared by
    hash; `told` says by how much model and figures differ; `problem` why it could not be made.
    """

    day: str
    images: int
    differing: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    problem: str = ""


def without(
    project: Project, days: Sequence[str], *, from_scratch: bool, say: Say
) -> list[Rebuilt | Other]:
    """Make the history up to the last of these days again without the images that were erased.

    A day that comes before all of them is made and compared as `reproduce` does it: from its
    recorded parent, or with `from_scratch` from the origin on. Raises CycleError where nothing was
    erased, or a day is not sealed.
    """
    line, wanted = line_of(project, days)
    gone = corrections.gone(project, corrections.ERASE)
    left_out = seen.of_line(line, gone) if gone else []
    if not left_out:
        raise CycleError(
            f"No image up to {line[-1].day} was erased.", mend="dayfold reproduce, as it is"
        )
    first = min(one.day for one in left_out)
    todo = [one for one in line if from_scratch or one in wanted or one.day >= first]
    introduce(INTRODUCTION, todo, None, say)
    with (
        worktree.bench(project, empty_cache=from_scratch) as bench,
        Ticker("reproducing", len(todo), "days") as ticker,
    ):
        results = []
        for result in _in_a_row(bench, line, todo, {one.image: one.day for one in left_out}):
            ticker.line(shown(result) if isinstance(result, Rebuilt) else told(result))
            ticker.advance(1)
            results.append(result)
    return results


def _in_a_row(
    bench: Bench, line: Sequence[Sealed], todo: Sequence[Sealed], arrivals: dict[str, str]
) -> Iterator[Rebuilt | Other]:
    """Each day of `todo`, the later ones from the day that was just made.

    `arrivals` says of each image that is left out on which day it arrived.
    """
    project = bench.project
    names = [one.day for one in line]
    first = min(arrivals.values())
    chain = [(one.day, one.file(project.name(project.manifest(one.day)))) for one in line]
    manifests = manifest.without(chain, arrivals)
    parent: Path | None = None
    broken = ""
    for sealed in todo:
        before = names[: names.index(sealed.day) + 1]
        images = sum(day <= sealed.day for day in arrivals.values())
        result: Rebuilt | Other
        if broken:
            result = Other(sealed.day, images, problem=f"{broken} could not be made")
        elif sealed.day < first:
            keep = bench.root / "made" / sealed.day if bench.empty_cache else None
            result = again(bench, sealed, before, How(), parent=parent, keep=keep)
            parent = keep
        else:
            keep = bench.root / "made" / sealed.day
            result = _rebuilt(bench, sealed, before, manifests, images, parent, keep)
            parent = keep
        if result.problem and (bench.empty_cache or sealed.day >= first):
            broken = broken or sealed.day
        yield result


def _rebuilt(
    bench: Bench,
    sealed: Sealed,
    before: list[str],
    manifests: dict[str, bytes],
    images: int,
    parent: Path | None,
    keep: Path,
) -> Other:
    """Make a day with these manifests from `parent`, and keep what it hands on in `keep`."""
    if wrong := wrong_version(sealed):
        return Other(sealed.day, images, problem=wrong)
    try:
        with bench.day(sealed, before, parent) as folder:
            for day in before:
                write_bytes(folder.manifest(day), manifests[day])
                made = bench.root / "evaluations" / f"{day}.csv"
                if made.exists():
                    write_bytes(folder.evaluation(day), made.read_bytes())
            failed = bench.run(folder, STAGES_AGAIN)
            if failed:
                return Other(sealed.day, images, problem=failed)
            result = _compared(bench, sealed, folder, images)
            made = bench.root / "evaluations" / f"{sealed.day}.csv"
            write_bytes(made, folder.evaluation(sealed.day).read_bytes())
            keep_parent(folder, keep)
            return result
    except DayfoldError as error:
        return Other(sealed.day, images, problem=str(error).replace("\n", " "))


def _compared(bench: Bench, sealed: Sealed, folder: Project, images: int) -> Other:
    """Compare by hash all that the stages made, but provenance.json, which has times in it."""
    pins = [
        pin
        for pin in (*sealed.outs("snapshot"), *sealed.outs(*STAGES_AGAIN))
        if (folder.root / pin.path).exists() and pin.path != folder.name(folder.provenance)
    ]
    same = {pin.path for pin in pins if md5_file(folder.root / pin.path) == pin.md5}
    model = folder.name(folder.model)
    told = compare.drift(sealed, folder)
    if model not in same:
        told.insert(0, compare.tensors(sealed, folder.model, bench.cache, model))
    short = {pin.path: pin.path.removeprefix("data/") for pin in pins}
    return Other(
        sealed.day,
        images,
        tuple(name for path, name in short.items() if path not in same),
        tuple(name for path, name in short.items() if path in same),
        tuple(told),
    )


def told(result: Other) -> str:
    """Return a day of another history as three lines, or one where it could not be made."""
    several = "s" * (result.images > 1)
    if result.problem:
        return f"{result.day}  not made without {result.images} image{several}: {result.problem}"
    return (
        f"{result.day}  made without {result.images} erased image{several}, so not as recorded: "
        f"{'; '.join(result.told)}"
        f"\n            differs: {', '.join(result.differing) or 'nothing'}"
        f"\n            equal:   {', '.join(result.equal) or 'nothing'}"
    )


def is_as_expected(results: Collection[Rebuilt | Other]) -> bool:
    """Whether all days were made, and those before the first erased image are identical."""
    return all(one.identical if isinstance(one, Rebuilt) else not one.problem for one in results)


def summary(results: Collection[Rebuilt | Other]) -> str:
    """Return the last line: how many days are identical, and how many are of another history."""
    before = [one for one in results if isinstance(one, Rebuilt)]
    others = [one for one in results if isinstance(one, Other)]
    identical, made = sum(one.identical for one in before), sum(not one.problem for one in others)
    return (
        f"{identical} of {len(before)} days before the first erased image identical, to the bit; "
        f"{made} of {len(others)} made without what was erased: another history"
    )
