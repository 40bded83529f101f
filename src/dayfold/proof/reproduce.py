"""Days made again in a worktree, and compared.

Images are links to the project's own folders. The parent comes from DVC's cache, a remote, or the
day made before. Outputs are not put into the cache, so none can be taken from it either.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError
from dayfold.history import record
from dayfold.history.record import PLANS, Sealed
from dayfold.ledger import manifest
from dayfold.project import params as params_file
from dayfold.project import pins, storage, template, vcs
from dayfold.project.console import Ticker, first_few, say
from dayfold.project.files import md5, only_one
from dayfold.project.layout import Project, check_day
from dayfold.proof import chain

TAIL = 3  # lines of `dvc repro` that are shown if a stage fails
LEVELS = """\
A  plans    manifest, weights, replay set, shares, draws: equal on every machine
B  bits     the model and all that follows from it: equal under the same fingerprint
C  GPU      as B, from run to run on the same GPU and stack
D  figures  under another fingerprint: within the recorded 95% intervals"""
# Keys of provenance.json that are compared; the rest are the fingerprint, times, and file hashes.
DRAWS = ("parent", "classes", "new_classes", "images", "draws")
IDENTICAL, NOT_MADE = "identical", "not made"
WITHIN, OUTSIDE = "D within the recorded intervals", "D DIFFERS"


@dataclass(frozen=True)
class Rebuilt:
    """The outcome for a day, and what differs and why, or why it was not made.

    `outcome` is IDENTICAL, NOT_MADE, or says which of the levels A and B are equal. For a day of
    another version (level D) it is WITHIN or OUTSIDE.
    """

    day: str
    outcome: str
    why: str = ""

    @property
    def is_as_expected(self) -> bool:
        return self.outcome in (IDENTICAL, WITHIN)

    def __str__(self) -> str:
        between = ": " if self.outcome == NOT_MADE else "  "
        return f"{self.day}  {self.outcome}{between}{self.why}".rstrip()


def summary(results: Sequence[Rebuilt]) -> str:
    counts = Counter(result.outcome for result in results)
    identical = f"{counts.pop(IDENTICAL, 0)} of {len(results)} days identical, to the bit"
    return "; ".join([identical, *(f"{count} {outcome}" for outcome, count in counts.items())])


def reproduce(
    project: Project,
    days: Sequence[str],
    *,
    from_scratch: bool = False,
    restore: bool = False,
    here: bool = False,
) -> list[Rebuilt]:
    """Make sealed days again in temporary worktrees and compare every output; by default all days.

    `from_scratch` makes the first day from the origin and each other one from the model just made.
    `restore` puts outputs of identical days back into DVC's cache; nothing else in the project
    changes. `here` makes days of another version with this one, and compares figures. Raises
    CycleError if a day is not sealed.
    """
    records = records_until(project, days)
    wanted = [one for one in records if from_scratch or not days or one.day in days]
    say(f"{LEVELS}\n\n{_expected(wanted[-1])}\n")
    erased = record.erased_inputs(project, manifest.history(project, records[-1].day), wanted)
    results: list[Rebuilt] = []
    with worktrees(project), Ticker("reproducing", len(wanted), "days") as ticker:
        for sealed in wanted:
            problem = _why_not(sealed, erased.get(sealed.day, []), here)
            if from_scratch and results and results[-1].outcome == NOT_MADE:
                problem = "the day before it could not be made"
            if problem:
                results.append(Rebuilt(sealed.day, NOT_MADE, problem))
            else:
                since = next((one.day for one in results if one.outcome != IDENTICAL), "")
                results.append(_rebuild(sealed, since, from_scratch=from_scratch, restore=restore))
            ticker.line(str(results[-1]))
            ticker.advance(1)
    return results


def records_until(project: Project, days: Sequence[str]) -> list[Sealed]:
    """Return the sealed days from the first to the last of these, or to the last of all.

    Raises CycleError if they are not sealed, or not in one history.
    """
    sealed = vcs.sealed_days(project.root)
    last = max(map(check_day, days), default=sealed[-1] if sealed else "")
    found, records, broken = chain.walk(project, sealed, last) if last in sealed else ([], [], [])
    for day, what, fix in broken:
        raise CycleError(f"{day} cannot be made again: {what}.", hint=fix)
    missing = sorted(set(days) - set(found))
    if missing or not records:
        some = f"; sealed are {sealed[0]} to {sealed[-1]}" if sealed else ""
        raise CycleError(
            f"Not sealed in one history here: {', '.join(first_few(missing)) or 'any day'}{some}.",
            hint="git fetch --tags, if days were sealed elsewhere; dayfold log shows all",
        )
    return records


def _expected(sealed: Sealed) -> str:
    from dayfold.learning import device

    recipe, pinned = sealed.params["train"], sealed.params["dayfold"]
    keys = ("device", "precision", "threads", "processes")  # older days have no `processes`
    machine = device.resolve(**{key: recipe[key] for key in keys if key in recipe})
    here = device.fingerprint(machine, params_file.named_network(sealed.params["origin"]))
    changed = differences(sealed.provenance["fingerprint"], here)
    level = "A and D" if changed else "A and B (on a GPU: A and C)"
    if pinned != __version__:
        changed, level = [f"dayfold {pinned} → {__version__}", *changed], "D"
    state = f"differs: {', '.join(changed)};" if changed else "as recorded:"
    return f"fingerprint of {sealed.day}, {state} expect {level}"


def _why_not(sealed: Sealed, erased: Sequence[str], here: bool) -> str:
    if erased:
        more = f" and {len(erased) - 1} more" * (len(erased) > 1)
        return f"it needs images that were erased: {erased[0]}{more}"
    pinned = sealed.params.get("dayfold")
    if here or pinned == __version__:
        return ""
    way = f"pip install dayfold=={pinned}, or compare figures with --here"
    return f"it was made by dayfold {pinned}, installed is {__version__}: {way}"


@contextmanager
def worktrees(project: Project) -> Iterator[None]:
    """Let one process at a time make worktrees; leave none, and first remove what a kill left."""
    with only_one(project.scratch / "reproduce.lock", "reproducing"):
        _remove(project, project.rebuilt_parent)
        try:
            yield
        finally:
            _remove(project, project.rebuilt_parent)


def _remove(project: Project, *more: Path) -> None:
    for folder in (project.rebuilt, *more):
        # rmtree removes links to images and never follows them.
        shutil.rmtree(folder, ignore_errors=True)
    # It may be gone, or unknown to git.
    vcs.git_succeeds(project.root, "worktree", "remove", "--force", str(project.rebuilt))


def _rebuild(sealed: Sealed, since: str, *, from_scratch: bool, restore: bool) -> Rebuilt:
    """Make a day and compare it; `since` is the first day before it that came out different."""
    project, folder = sealed.project, Project(sealed.project.rebuilt)
    try:
        _prepare(sealed, folder, from_scratch)
        vcs.dvc(folder.root, "repro", "--force", "--no-commit")
        result = compare(sealed, folder, inherited=since if from_scratch else "")
        if restore and result.outcome == IDENTICAL:
            parent = folder.name(folder.parent.with_suffix(".dvc"))
            vcs.dvc(folder.root, "commit", "--force", *sealed.lock, parent)
        if from_scratch:
            project.rebuilt_parent.mkdir()
            for made, kept in folder.handed_on().items():
                made.rename(project.rebuilt_parent / kept.name)
        return result
    except DayfoldError as error:
        said = [error.what, *error.problems[-TAIL:], error.hint]
        return Rebuilt(sealed.day, NOT_MADE, " ".join(said).strip())
    finally:
        _remove(project)


def _prepare(sealed: Sealed, folder: Project, from_scratch: bool) -> None:
    project = sealed.project
    # No hooks: DVC's own would check out every image and model.
    at, tag, no_hooks = str(folder.root), vcs.TAG + sealed.day, ("-c", "core.hooksPath=/dev/null")
    words = ["worktree", "add", "--detach", at, tag]
    if vcs.git_succeeds(project.root, "config", "core.worktree"):
        # In a submodule DVC would use core.worktree for its worktrees too.
        words = ["clone", "--shared", str(project.root), at]
    vcs.git(project.root, *no_hooks, *words, "--quiet", "--no-checkout")
    vcs.git(folder.root, *no_hooks, "checkout", "--quiet", "--detach", tag)
    # Keep DVC's notes on this folder in it, so that they go with it.
    objects, home = storage.cache_folder(project.root), folder.root / ".dvc" / "tmp" / "site"
    local = f'[cache]\n    dir = "{objects}"\n[core]\n    site_cache_dir = "{home}"\n'
    (folder.root / ".dvc" / "config.local").write_text(local, encoding="utf-8")
    if sealed.params.get("dayfold") != __version__:
        template.upgrade(folder)
    for file in sorted((folder.data / "images").glob("*.dvc")):
        for day in pins.read(folder, file):
            if not project.images(day).is_dir():
                raise CycleError(f"images of {day} are not here:", hint=vcs.TO_FETCH)
            # One link for a whole folder, as its images are only read.
            folder.images(day).symlink_to(project.images(day))
    # The parent is the one just made, an origin from its seed, or the recorded one.
    if project.rebuilt_parent.exists():
        project.rebuilt_parent.rename(folder.parent)
    elif from_scratch and sealed.params["origin"]["weights"] == "random":
        from dayfold.learning import origin

        params = params_file.read(folder.params)
        origin.write(folder, origin.make(seed=params.seed, **params.origin.model_dump()))
    else:
        storage.fetch_folder(project.root, sealed.parent_md5, folder.parent)


def compare(sealed: Sealed, made: Project, *, inherited: str = "") -> Rebuilt:
    """Compare a day made again in `made` with its record.

    `inherited` is the first day whose remade model differs, and with it the parent. For a day of
    another version, figures are compared.
    """
    if sealed.params["dayfold"] != __version__:
        return _figures(sealed, made)
    now, then = json.loads(made.provenance.read_bytes()), sealed.provenance
    lock, own = pins.outputs(made.dvc_lock.read_bytes()), made.name(made.provenance)
    planned = sealed.outs(*PLANS)
    recorded = sealed.outs() | {path: md5(data) for path, data in sealed.files.items()}
    differing = [path for path in sealed.outs() if lock.get(path) != recorded[path]]
    plans = [path for path in differing if path in planned]
    plans += [f"{key} in {own}" for key in DRAWS if now.get(key) != then.get(key)]
    # provenance.json has times in it, so its other keys are compared one by one.
    bits = [path for path in differing if path not in planned and path != own]
    if not plans and not bits:
        return Rebuilt(sealed.day, IDENTICAL)
    levels = (f"{name} {'DIFFERS' if of else 'equal'}" for name, of in (("A", plans), ("B", bits)))
    said = [*(first_few(plans) or bits[:1]), *_accuracy(sealed, made)]
    changed = differences(then["fingerprint"], now["fingerprint"])
    why = "not known: dayfold's version and the fingerprint are the recorded ones"
    if plans:
        why = "plans are equal on every machine, so an image or a file of this day was changed: "
        why += "dayfold check --read-data"
    elif inherited:
        why = f"the parent differs since {inherited}"
    elif changed:
        why = f"fingerprint: {', '.join(changed)}"
    return Rebuilt(sealed.day, "  ".join(levels), f"{'; '.join(said)}\n{'':12}why: {why}")


def _figures(sealed: Sealed, made: Project) -> Rebuilt:
    # Versions before 0.2.0 had all figures in metrics.json.
    name = made.name(made.figures if made.name(made.figures) in sealed.files else made.metrics)
    then, now = json.loads(sealed.file(name)), json.loads(made.figures.read_bytes())
    outside = []
    for key, ends in then.get("interval", {}).items():
        if not isinstance(ends, dict) or not isinstance(ends.get("low"), float):
            continue  # the intervals of classes, for one
        low, high, value = ends["low"], ends["high"], now.get(key)
        if value is None or not low <= value <= high:
            here = "none" if value is None else f"{value:.3f}"
            outside.append(f"{key} {here}, recorded {then[key]:.3f} ({low:.3f} to {high:.3f})")
    said = [*_accuracy(sealed, made), *first_few(outside)]
    return Rebuilt(sealed.day, OUTSIDE if outside else WITHIN, f"\n{'':12}".join(said))


def _accuracy(sealed: Sealed, made: Project) -> list[str]:
    name = "average_accuracy"
    then = json.loads(sealed.file(made.name(made.metrics))).get(name)
    now = json.loads(made.metrics.read_bytes()).get(name)
    if then is None or now is None:
        return []
    return [f"{name} {then:.3f} → {now:.3f}" if then != now else f"{name} equal"]


def differences(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say in which facts two fingerprints differ: `threads 2 → 1`.

    Facts that only one of them has are left out: an older version did not record them. For CPU
    features, only those that one side lacks are named: `cpu_features -fma3 +avx512_bf16`.
    """
    return [
        f"{name} {_change(name, str(value), str(here[name]))}"
        for name, value in recorded.items()
        if name in here and here[name] != value
    ]


def _change(name: str, before: str, after: str) -> str:
    if name.endswith("_features"):
        one, two = before.split(), after.split()
        lost = [f"-{feature}" for feature in one if feature not in two]
        return " ".join(lost + [f"+{feature}" for feature in two if feature not in one])
    short = (f"{text[:12]}…" if len(text) == 64 else text for text in (before, after))
    return " → ".join(short)
