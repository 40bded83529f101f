"""Days made again: `git worktree add` at the day's tag, `dvc repro --force` in it, a comparison.

The images come by link from the project's own folders, the parent from DVC's cache, a remote, or
the day that was just made. Nothing is put into the cache, so that what is made is not taken from
there either.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dayfold import __version__
from dayfold.errors import CycleError, DayfoldError
from dayfold.ledger import manifest
from dayfold.project import cache, remotes, upgrade, vcs
from dayfold.project import params as params_file
from dayfold.project.console import Ticker, first_few
from dayfold.project.files import only_one
from dayfold.project.layout import Project, check_day
from dayfold.proof import chain, record
from dayfold.proof.compare import IDENTICAL, LEVELS, NOT_MADE, Rebuilt, compare, expected
from dayfold.proof.erased import needed
from dayfold.proof.record import Sealed

Say = Callable[[str], None]
TAIL = 3  # lines of what `dvc repro` says that are shown where a stage fails


@dataclass(frozen=True)
class Options:
    """How days are made again.

    `from_scratch`: the first from the origin, each other one from the model just made. `threads`
    trains with another number of them: a control, which must come out different. `restore` gives
    DVC's cache what it has lost of a day that came out identical. `here`: days of another version
    are made by this one, and their figures are compared.
    """

    from_scratch: bool = False
    threads: int | None = None
    restore: bool = False
    here: bool = False


def reproduce(
    project: Project, days: Sequence[str], options: Options, *, say: Say
) -> list[Rebuilt]:
    """Make sealed days again in temporary worktrees and compare every output; all days for none.

    Apart from `restore` nothing in the project is changed, and nothing is left behind. A day that
    needs an image that was erased is told, and not made. Raises CycleError where a day is not
    sealed.
    """
    line, wanted = line_of(project, days)
    wanted = line if options.from_scratch else wanted
    for text in (f"{LEVELS}\n", *expected(wanted, options.threads), ""):
        say(text)
    objects = cache.folder(project.root)
    erased = needed(project, manifest.history(project, line[-1].day), wanted, objects)
    results: list[Rebuilt] = []
    with worktrees(project), Ticker("reproducing", len(wanted), "days") as ticker:
        for sealed in wanted:
            problem = _why_not(sealed, erased.get(sealed.day, []), options)
            if options.from_scratch and results and results[-1].outcome == NOT_MADE:
                problem = "the day before it could not be made"
            if problem:
                results.append(Rebuilt(sealed.day, NOT_MADE, problem))
            else:
                results.append(_rebuild(sealed, options, objects, results))
            ticker.line(str(results[-1]))
            ticker.advance(1)
    return results


def line_of(project: Project, days: Sequence[str]) -> tuple[list[Sealed], list[Sealed]]:
    """Return the line from the origin to the last of these sealed days, and these days of it.

    All sealed ones if none is named. Raises CycleError where they are not sealed, or not of one
    history.
    """
    sealed = vcs.sealed_days(project.root)
    last = max(map(check_day, days), default=sealed[-1] if sealed else "")
    known = record.read(project, [day for day in sealed if day <= last])
    line, broken = chain.walk(project, known, last) if last in known else ([], [])
    for day, what, fix in broken:
        raise CycleError(f"{day} cannot be made again: {what}.", hint=fix)
    missing = sorted(set(days) - set(line))
    if missing or not line:
        some = f"; sealed are {sealed[0]} to {sealed[-1]}" if sealed else ""
        raise CycleError(
            f"Not sealed in one history here: {', '.join(first_few(missing)) or 'any day'}{some}.",
            hint="git fetch --tags, if days were sealed elsewhere; dayfold log shows all",
        )
    return [known[day] for day in line], [known[day] for day in line if day in (days or line)]


def _why_not(sealed: Sealed, erased: Sequence[str], options: Options) -> str:
    """Why a day cannot be made again; nothing if it can."""
    if erased:
        return f"it needs images that were erased: {', '.join(first_few(erased))}"
    pinned = sealed.params.get("dayfold")
    if options.here or pinned == __version__:
        return ""
    return (
        f"it was made by dayfold {pinned}, installed is {__version__}: "
        f"pip install dayfold=={pinned}, or compare figures by --here"
    )


def _handed_on(project: Project) -> Path:
    """Where a day's model and predictions wait for the next one."""
    return project.rebuilt / "parent"


def _rebuild(sealed: Sealed, options: Options, objects: Path, before: Sequence[Rebuilt]) -> Rebuilt:
    """Make a day and compare it; `before` are the days that were made before it."""
    project = sealed.project
    since = next((one.day for one in before if one.outcome != IDENTICAL), "")
    try:
        with _worktree(sealed, options, objects) as folder:
            vcs.dvc(folder.root, "repro", "--force", "--no-commit")
            inherited = since if options.from_scratch else ""
            result = compare(sealed, folder, objects, inherited=inherited)
            if options.restore and result.outcome == IDENTICAL:
                parent = folder.name(folder.parent.with_suffix(".dvc"))
                vcs.dvc(folder.root, "commit", "--quiet", "--force", *sealed.lock, parent)
            if options.from_scratch:
                _handed_on(project).mkdir()
                for made, kept in folder.handed_on().items():
                    made.rename(_handed_on(project) / kept.name)
            return result
    except DayfoldError as error:
        said = [error.what, *error.problems[-TAIL:], error.hint]
        return Rebuilt(sealed.day, NOT_MADE, " ".join(said).strip())


@contextmanager
def _worktree(sealed: Sealed, options: Options, objects: Path) -> Iterator[Project]:
    """Lay a day out as its tag has it, with its images and its parent, ready for `dvc repro`.

    Raises CycleError or ToolError where images or parent cannot be had.
    """
    project = sealed.project
    folder = Project(project.rebuilt / sealed.day)
    words = ("worktree", "add", "--quiet", "--detach", str(folder.root), vcs.TAG + sealed.day)
    # No hooks: DVC's own would check out every image and model.
    vcs.git(project.root, "-c", "core.hooksPath=/dev/null", *words)
    try:
        # All that DVC notes of a folder of its own is to go with it.
        home = folder.root / ".dvc" / "tmp" / "site"
        local = f'[cache]\n    dir = "{objects}"\n[core]\n    site_cache_dir = "{home}"\n'
        (folder.root / ".dvc" / "config.local").write_text(local, encoding="utf-8")
        if sealed.params.get("dayfold") != __version__:
            upgrade.apply(folder)
            params_file.edit(folder.params, {"dayfold": __version__})
        if options.threads is not None:
            params_file.edit(folder.params, {"train.threads": options.threads})
        for file in sorted((folder.data / "images").glob("*.dvc")):
            for day in chain.entries(folder, file):
                if not project.images(day).is_dir():
                    raise CycleError(
                        f"images of {day} are not here:", hint="dvc checkout || dvc pull"
                    )
                # A whole folder by one link: its images are read only.
                folder.images(day).symlink_to(project.images(day))
        _lay_out_parent(sealed, folder, options)
        yield folder
    finally:
        _remove(project, folder.root)


def _lay_out_parent(sealed: Sealed, folder: Project, options: Options) -> None:
    """Give a day its parent: the one just made, an origin of its seed, or the recorded one."""
    if _handed_on(sealed.project).exists():
        _handed_on(sealed.project).rename(folder.parent)
    elif options.from_scratch and sealed.params["origin"]["weights"] == "random":
        from dayfold.learning import origin

        params = params_file.read(folder.params)
        origin.write(folder, "random", seed=params.seed, classes=params.origin.classes)
    else:
        remotes.bring_folder(sealed.project.root, sealed.parent_md5, folder.parent)


def clear(project: Project) -> None:
    """Remove what a killed `dayfold reproduce` left behind."""
    with worktrees(project):
        pass


@contextmanager
def worktrees(project: Project) -> Iterator[None]:
    """Let one process at a time make worktrees; none is left, however the block ends.

    What a kill left behind is removed first.
    """
    with only_one(project.scratch / "reproduce.lock", "reproducing"):
        _remove(project, project.rebuilt)
        try:
            project.rebuilt.mkdir(parents=True)
            yield
        finally:
            _remove(project, project.rebuilt)


def leftovers(project: Project) -> list[str]:
    """Return the worktrees that a killed `dayfold reproduce` left behind."""
    said = vcs.git(project.root, "worktree", "list", "--porcelain")
    folders = [line.removeprefix("worktree ") for line in said.splitlines()]
    return sorted(one for one in folders if one.startswith(f"{project.rebuilt}/"))


def _remove(project: Project, folder: Path) -> None:
    """Remove a folder with all worktrees in it; links to images are removed, never followed."""
    shutil.rmtree(folder, ignore_errors=True)
    for worktree in leftovers(project):
        if Path(worktree).is_relative_to(folder):
            vcs.git(project.root, "worktree", "remove", "--force", worktree)
