"""Days made again from what git and DVC keep, and compared with what was recorded of them."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError
from dayfold.project import cache
from dayfold.project import params as params_file
from dayfold.project.console import Ticker
from dayfold.project.files import md5_file
from dayfold.project.layout import Project
from dayfold.proof import record, worktree
from dayfold.proof.compare import LEVELS, Rebuilt, compare, differences
from dayfold.proof.record import Sealed
from dayfold.proof.worktree import Bench

Say = Callable[[str], None]


class _How(NamedTuple):
    """What is done otherwise than the days were made: `reproduce` tells of each."""

    threads: int | None
    restore: bool


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
    is left behind. Raises CycleError where a day is not sealed.
    """
    wanted = record.chosen(project, days)
    if from_scratch and jobs > 1:
        raise CycleError(
            "From scratch, each day starts from the one before it: one at a time.",
            mend="leave out --jobs, or --from-scratch",
        )
    line = [sealed.day for sealed in record.line(project, wanted[-1])]
    strays = [day for day in wanted if day not in line]
    if strays:
        raise CycleError(
            f"Not of one history with {wanted[-1]}: {', '.join(strays)}.",
            mend="reproduce them by themselves; docs/operations.md, two clones that sealed",
        )
    if from_scratch:
        wanted = line
    sealed = record.read(project, wanted)
    say(f"{LEVELS}\n")
    for text in _fingerprints(list(sealed.values()), threads):
        say(text)
    say("")
    with (
        worktree.bench(project, empty_cache=from_scratch) as bench,
        Ticker("reproducing", len(wanted), "days") as ticker,
    ):
        how = _How(threads, restore)
        todo = [(sealed[day], line[: line.index(day) + 1]) for day in wanted]
        made = _in_a_row(bench, todo, how) if from_scratch else _apart(bench, todo, jobs, how)
        results = []
        for result in made:
            ticker.line(shown(result))
            ticker.advance(1)
            results.append(result)
    return sorted(results, key=lambda result: result.day)


def _apart(
    bench: Bench, todo: Sequence[tuple[Sealed, list[str]]], jobs: int, how: _How
) -> Iterator[Rebuilt]:
    """Each day from its recorded parent, `jobs` of them at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_day, bench, one, line, how) for one, line in todo]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            bench.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _in_a_row(
    bench: Bench, todo: Sequence[tuple[Sealed, list[str]]], how: _How
) -> Iterator[Rebuilt]:
    """Each day from the day that was just made, the first from the origin."""
    parent, since = None, ""
    for number, (sealed, line) in enumerate(todo):
        keep = bench.root / "made" / sealed.day
        result = _day(bench, sealed, line, how, parent=parent, keep=keep, inherited=since)
        yield result
        if not result.identical:
            since = since or sealed.day
        if not keep.exists():
            for later, _ in todo[number + 1 :]:
                yield Rebuilt(later.day, False, False, problem=f"{sealed.day} could not be made")
            return
        if parent:
            shutil.rmtree(parent)
        parent = keep


def _day(
    bench: Bench,
    sealed: Sealed,
    line: list[str],
    how: _How,
    *,
    parent: Path | None = None,
    keep: Path | None = None,
    inherited: str = "",
) -> Rebuilt:
    """Make a day and compare it; its model and predictions stay in `keep` where that is given."""
    pinned = sealed.params.get("dayfold")
    if pinned != __version__:
        why = f"it was made by dayfold {pinned}, installed is {__version__}"
        return _unmade(sealed, f"{why}: pip install dayfold=={pinned}")
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
                keep.mkdir(parents=True)
                for made, name in (
                    (folder.model, folder.parent_model.name),
                    (folder.predictions, folder.parent_predictions.name),
                ):
                    made.rename(keep / name)
            return result
    except DayfoldError as error:
        return _unmade(sealed, str(error).replace("\n", " "))


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
