"""Days made again from what git and DVC keep, and compared with what was recorded of them."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError
from dayfold.ledger import corrections
from dayfold.project import cache
from dayfold.project import params as params_file
from dayfold.project.console import Ticker
from dayfold.project.files import md5_file
from dayfold.project.layout import Project
from dayfold.proof import record, seen, worktree
from dayfold.proof.compare import LEVELS, Rebuilt, compare, differences
from dayfold.proof.record import Sealed
from dayfold.proof.worktree import Bench

Say = Callable[[str], None]


class How(NamedTuple):
    """What is done otherwise than the days were made, and what cannot be: `reproduce` tells."""

    threads: int | None = None
    restore: bool = False
    needs: Mapping[str, Sequence[str]] = MappingProxyType({})  # erased images, by day


def reproduce(
    project: Project,
    days: Sequence[str],
    *,
    from_scratch: bool = False,
    jobs: int = 1,
    threads: int | None = None,
    restore: bool = False,
    say: Say,
) -> list[Rebuilt]:
    """Make sealed days again in temporary worktrees and compare every output; all days for none.

    Each starts from its recorded parent; with `from_scratch` the first starts from the origin and
    each other one from the model just made, up to the last of `days`, and DVC's cache is not used
    (but for an origin that is not made from the seed). `threads` trains with another number of
    them: a control, which must come out different. `restore` gives DVC's cache what it has lost of
    a day that came out identical; apart from that nothing in the project is changed, and nothing
    is left behind. A day that needs an image that was erased is told, and not made. Raises
    CycleError where a day is not sealed.
    """
    if from_scratch and jobs > 1:
        raise CycleError(
            "From scratch, each day starts from the one before it: one at a time.",
            mend="leave out --jobs, or --from-scratch",
        )
    line, wanted = line_of(project, days)
    wanted = line if from_scratch else wanted
    introduce(LEVELS, wanted, threads, say)
    with (
        worktree.bench(project, empty_cache=from_scratch) as bench,
        Ticker("reproducing", len(wanted), "days") as ticker,
    ):
        how = How(threads, restore, needed(project, line, wanted, bench.cache))
        names = [one.day for one in line]
        todo = [(one, names[: names.index(one.day) + 1]) for one in wanted]
        made = _in_a_row(bench, todo, how) if from_scratch else _apart(bench, todo, jobs, how)
        results = []
        for result in made:
            ticker.line(shown(result))
            ticker.advance(1)
            results.append(result)
    return sorted(results, key=lambda result: result.day)


def line_of(project: Project, days: Sequence[str]) -> tuple[list[Sealed], list[Sealed]]:
    """Return the line from the origin to the last of these sealed days, and these days of it.

    All sealed ones if none is named. Raises CycleError where they are not sealed, or not of one
    history.
    """
    wanted = record.chosen(project, days)
    line = record.line(project, wanted[-1])
    strays = sorted(set(wanted) - {one.day for one in line})
    if strays:
        raise CycleError(
            f"Not of one history with {wanted[-1]}: {', '.join(strays)}.",
            mend="reproduce them by themselves; docs/operations.md, two clones that sealed",
        )
    return line, [one for one in line if one.day in wanted]


def needed(
    project: Project, line: Sequence[Sealed], wanted: Sequence[Sealed], objects: Path
) -> dict[str, list[str]]:
    """Return the paths of the erased images of a line that its `wanted` days read, by day."""
    gone = corrections.gone(project, corrections.ERASE)
    found: dict[str, list[str]] = {}
    for one in seen.seen(seen.of_line(line, gone) if gone else [], wanted, objects):
        for day in one.days:
            found.setdefault(day, []).append(one.path)
    return found


def _apart(
    bench: Bench, todo: Sequence[tuple[Sealed, list[str]]], jobs: int, how: How
) -> Iterator[Rebuilt]:
    """Each day from its recorded parent, `jobs` of them at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(again, bench, one, line, how) for one, line in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            bench.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _in_a_row(
    bench: Bench, todo: Sequence[tuple[Sealed, list[str]]], how: How
) -> Iterator[Rebuilt]:
    """Each day from the day that was just made, the first from the origin."""
    parent, since = None, ""
    for number, (sealed, line) in enumerate(todo):
        keep = bench.root / "made" / sealed.day
        result = again(bench, sealed, line, how, parent=parent, keep=keep, inherited=since)
        yield result
        if not result.identical:
            since = since or sealed.day
        if not keep.exists():
            for later, _ in todo[number + 1 :]:
                hint = f": {_without(later.day)}" * (sealed.day in how.needs)
                yield _unmade(later, f"{sealed.day} could not be made{hint}")
            return
        if parent:
            shutil.rmtree(parent)
        parent = keep


def _without(day: str) -> str:
    return f"dayfold reproduce {day} --without"


def again(
    bench: Bench,
    sealed: Sealed,
    line: list[str],
    how: How,
    *,
    parent: Path | None = None,
    keep: Path | None = None,
    inherited: str = "",
) -> Rebuilt:
    """Make a day and compare it; its model and predictions go to `keep` where that is given."""
    if wrong := wrong_version(sealed):
        return _unmade(sealed, wrong)
    if paths := how.needs.get(sealed.day):
        several = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        return _unmade(sealed, f"it needs {paths[0]}{several}, erased: {_without(sealed.day)}")
    try:
        with bench.day(sealed, line, parent) as folder:
            if how.threads is not None:
                params_file.edit(folder.params, {"train.threads": how.threads})
            failed = bench.run(folder)
            if failed:
                return _unmade(sealed, failed)
            result = compare(sealed, folder, bench.cache, inherited=inherited)
            model = folder.name(folder.model)
            kept = cache.object_path(bench.cache, dict(sealed.outs())[model])
            if not result.bits and not kept.exists() and bench.fetch(folder, model):
                # Now there is a model to say by how much it differs.
                result = compare(sealed, folder, bench.cache, inherited=inherited)
            if how.restore and result.identical:
                _restore(bench, sealed, folder)
            if keep:
                keep_parent(folder, keep)
            return result
    except DayfoldError as error:
        return _unmade(sealed, str(error).replace("\n", " "))


def wrong_version(sealed: Sealed) -> str:
    """Say why the installed dayfold cannot make a day again; nothing if it can."""
    pinned = sealed.params.get("dayfold")
    if pinned == __version__:
        return ""
    why = f"it was made by dayfold {pinned}, installed is {__version__}"
    return f"{why}: pip install dayfold=={pinned}"


def keep_parent(folder: Project, keep: Path) -> None:
    """Move what a day hands on to the next one into the new folder `keep`."""
    keep.mkdir(parents=True)
    for made, name in (
        (folder.model, folder.parent_model.name),
        (folder.predictions, folder.parent_predictions.name),
    ):
        made.rename(keep / name)


def _restore(bench: Bench, sealed: Sealed, folder: Project) -> None:
    """Put what the cache lacks of an identical day back into it: outputs, and the parent."""
    for pin in sealed.outs():
        if pin.path not in sealed.files:
            cache.put_back(bench.cache, (folder.root / pin.path).read_bytes())
    files = {path.name: md5_file(path) for path in folder.parent.iterdir()}
    if cache.folder_md5(files) == sealed.parent_pin.md5:
        for path in folder.parent.iterdir():
            cache.put_back(bench.cache, path.read_bytes())
        cache.put_folder_back(bench.cache, files)


def _unmade(sealed: Sealed, problem: str) -> Rebuilt:
    return Rebuilt(sealed.day, False, False, problem=problem)


def introduce(text: str, days: Sequence[Sealed], threads: int | None, say: Say) -> None:
    """Say what is to come, and which level to expect."""
    say(f"{text}\n")
    for line in _fingerprints(days, threads):
        say(line)
    say("")


def _fingerprints(days: Sequence[Sealed], threads: int | None) -> Iterator[str]:
    """Say which level to expect: the recorded fingerprints against this machine's."""
    from dayfold.learning import device, fingerprint

    here: dict[tuple[str, str, int, int], dict[str, str | int]] = {}
    found: dict[str, list[str]] = {}
    for sealed in days:
        recipe = sealed.params["train"]
        asked = (
            recipe["device"],
            recipe["precision"],
            threads or recipe["threads"],
            recipe.get("processes", 1),  # earlier days had no such param
        )
        if asked not in here:
            machine = device.resolve(
                device=asked[0], precision=asked[1], threads=asked[2], processes=asked[3]
            )
            here[asked] = fingerprint.fingerprint(machine)
        changed = differences(sealed.provenance["fingerprint"], here[asked])
        found.setdefault(", ".join(changed), []).append(sealed.day)
    for change, same in found.items():
        which = f"{same[0]} to {same[-1]}, {len(same)} days" if len(same) > 1 else same[0]
        if change:
            yield f"fingerprint of {which}, differs: {change}; expect A and D"
        else:
            yield f"fingerprint of {which}, as recorded: expect A and B (on a GPU: A and C)"


def shown(result: Rebuilt) -> str:
    """Return a day's result as a line, or two where it differs."""
    if result.problem:
        return f"{result.day}  not made: {result.problem}"
    levels = "  ".join(
        f"{level} {'equal' if equal else 'DIFFERS'}"
        for level, equal in (("A", result.plans), ("B", result.bits))
    )
    if result.identical:
        return f"{result.day}  identical"
    return f"{result.day}  {levels}  {result.first}\n            why: {result.why}"


def summary(results: Sequence[Rebuilt]) -> str:
    """Return the last line: how many days are equal at which level."""
    identical = sum(result.identical for result in results)
    if identical == len(results):
        return f"{identical} of {len(results)} days identical, to the bit"
    made = [result for result in results if not result.problem]
    plans, bits = sum(one.plans for one in made), sum(one.bits for one in made)
    return (
        f"{identical} of {len(results)} days identical; of {len(made)} that were made, "
        f"{plans} are equal at level A and {bits} at level B"
    )
